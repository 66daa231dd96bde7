package kernel

import (
	"cmp"
	"strings"
)

// CompareDebian orders two versions as dpkg does (deb-version(7)):
// [EPOCH:]UPSTREAM[-REVISION], where ~ comes before everything, even the end,
// and letters before all else.
func CompareDebian(a, b string) int {
	epochA, a := cutEpoch(a)
	epochB, b := cutEpoch(b)
	if c := compareNumbers(epochA, epochB); c != 0 {
		return c
	}
	upstreamA, revisionA := cutRevision(a)
	upstreamB, revisionB := cutRevision(b)
	return cmp.Or(compareDebianPart(upstreamA, upstreamB), compareDebianPart(revisionA, revisionB))
}

// CompareRPM orders two versions as rpm does, [EPOCH:]VERSION[-RELEASE]: runs of
// digits and of letters, digits the newer of the two, and whatever stands
// between them ignored but for ~, which comes before everything, even the end,
// and ^, which comes before everything but the end (rpmio/rpmvercmp.cc in rpm's
// sources).
func CompareRPM(a, b string) int {
	epochA, a := cutEpoch(a)
	epochB, b := cutEpoch(b)
	if c := compareNumbers(epochA, epochB); c != 0 {
		return c
	}
	versionA, releaseA := cutRevision(a)
	versionB, releaseB := cutRevision(b)
	return cmp.Or(compareRPMPart(versionA, versionB), compareRPMPart(releaseA, releaseB))
}

// CompareReleases orders two kernels' releases, as uname -r says: by what
// stands before the first dash, 6.1.0 of 6.1.0-9-amd64, and then by the rest,
// each by dpkg's rules or by rpm's. A release candidate, 6.2.0-rc1, comes
// before its release.
func CompareReleases(a, b string, debian bool) int {
	part := compareRPMPart
	if debian {
		part = compareDebianPart
	}
	split := func(s string) (string, string) {
		version, rest, _ := strings.Cut(s, "-")
		if strings.HasPrefix(rest, "rc") {
			version, rest, _ = strings.Cut(version+"~"+rest, "-")
		}
		return version, rest
	}
	versionA, restA := split(a)
	versionB, restB := split(b)
	return cmp.Or(part(versionA, versionB), part(restA, restB))
}

func cutEpoch(s string) (epoch, rest string) {
	if before, after, ok := strings.Cut(s, ":"); ok && before != "" && strings.Trim(before, "0123456789") == "" {
		return before, after
	}
	return "", s
}

// cutRevision cuts at the last dash, if there is one.
func cutRevision(s string) (version, revision string) {
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}

// compareDebianPart is verrevcmp of dpkg's lib/dpkg/version.c.
func compareDebianPart(a, b string) int {
	order := func(s string, i int) int {
		switch {
		case i >= len(s) || isDigit(s[i]):
			return 0
		case s[i] == '~':
			return -1
		case isLetter(s[i]):
			return int(s[i])
		}
		return int(s[i]) + 256
	}
	for a != "" || b != "" {
		i := 0
		for i < len(a) && !isDigit(a[i]) || i < len(b) && !isDigit(b[i]) {
			if c := cmp.Compare(order(a, i), order(b, i)); c != 0 {
				return c
			}
			i++
		}
		a, b = a[min(i, len(a)):], b[min(i, len(b)):]
		var x, y string
		x, a = cutRun(a, isDigit)
		y, b = cutRun(b, isDigit)
		if c := compareNumbers(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// compareRPMPart is rpmvercmp.
func compareRPMPart(a, b string) int {
	other := func(c byte) bool { return !isDigit(c) && !isLetter(c) && c != '~' && c != '^' }
	for {
		_, a = cutRun(a, other)
		_, b = cutRun(b, other)
		if x, y := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~"); x || y {
			if x != y {
				return before(x)
			}
			a, b = a[1:], b[1:]
			continue
		}
		if x, y := strings.HasPrefix(a, "^"), strings.HasPrefix(b, "^"); x || y {
			switch {
			case a == "" || b == "":
				return before(a == "")
			case x != y:
				return before(x)
			}
			a, b = a[1:], b[1:]
			continue
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b)) // what has more to it is newer
		}
		digits := isDigit(a[0])
		run := isLetter
		if digits {
			run = isDigit
		}
		var x, y string
		x, a = cutRun(a, run)
		y, b = cutRun(b, run)
		if y == "" { // of another kind
			return before(!digits)
		}
		c := strings.Compare(x, y)
		if digits {
			c = compareNumbers(x, y)
		}
		if c != 0 {
			return c
		}
	}
}

// before is the order of two of which the first comes first, or last.
func before(first bool) int {
	if first {
		return -1
	}
	return 1
}

// compareNumbers compares decimal numbers of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// cutRun cuts behind the characters at the beginning that are in the class.
func cutRun(s string, in func(byte) bool) (run, rest string) {
	i := 0
	for i < len(s) && in(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
