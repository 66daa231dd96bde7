package kconfig

import (
	"regexp"
	"strconv"
	"strings"
)

// Version is a kernel's version, as far as it is known: 6, 1, 192, or 2, 6, 32.
// Its zero value is a version that is not known.
type Version [3]int

var numbers = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

// ParseVersion reads the version at the beginning of a release, as uname -r says
// it: "6.1.0-56-cloud-amd64". What does not begin with a version gives zero.
func ParseVersion(release string) Version {
	var v Version
	for i, digits := range numbers.FindStringSubmatch(release) {
		if i > 0 && digits != "" {
			v[i-1], _ = strconv.Atoi(digits) // at most four digits
		}
	}
	return v
}

// named finds the line in which Kconfig says what it configured: "# Linux/x86
// 6.1.192 Kernel Configuration", before 2.6.38 "# Linux kernel version: 2.6.32".
var named = regexp.MustCompile(`(?m)^# Linux(?:/\S+| kernel version:) v?(\d[\w.+-]*)`)

// Release gives the release that the head of a whole .config names, "" where it
// names none.
func (f Fragment) Release() string {
	if m := named.FindSubmatch(f.Data[:min(len(f.Data), 512)]); m != nil {
		return string(m[1])
	}
	return ""
}

// in reports whether v lies between two versions, both included and either of
// them "" for no bound: 6.0.9 is in "3.6" to "6.0". One not known is in all.
func (v Version) in(since, until string) bool {
	if v == (Version{}) {
		return true
	}
	return (since == "" || v.compare(since) >= 0) && (until == "" || v.compare(until) <= 0)
}

// compare goes only as far as the other is written.
func (v Version) compare(other string) int {
	o := ParseVersion(other)
	for i := range strings.Count(other, ".") + 1 {
		if v[i] != o[i] {
			return v[i] - o[i]
		}
	}
	return 0
}
