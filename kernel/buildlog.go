package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

const (
	maxLogLine = 8 << 10   // bytes of a line that are looked at
	maxLog     = 128 << 20 // bytes of a build log that are kept
)

// buildLog writes a build's output to a file and looks at each line as it
// comes: for progress, for the first line that says what is wrong, and for
// signs that it is the host that failed and not the kernel.
type buildLog struct {
	w        io.Writer
	path     string    // where w writes
	src      string    // the work tree's path, left out of what is quoted
	tools    Toolchain // what the programs that are missing are missing of
	progress func(line string, objects, total int)
	total    int // objects expected

	written int
	partial []byte
	objects int
	first   [4]string // the first telling line of each kind, the best kind first
	last    string
	host    error // the host's fault
}

// telling are kinds of lines that say what is wrong, the best kind first: the
// compiler's and Kconfig's own words, the linker's, other programs', make's.
var telling = [...]*regexp.Regexp{
	regexp.MustCompile(`^\S+:\d+(:\d+)?: (fatal error|error|Error): |^\S*Kconfig\S*:\d+:( |error)`),
	regexp.MustCompile(`undefined reference to|multiple definition of|relocation truncated|^ERROR: |^FATAL: `),
	regexp.MustCompile(`(?i)\berror: |^\S*ld(\.bfd|\.gold)?: |: not found$|No rule to make target`),
	regexp.MustCompile(`^make(\[\d+\])?: \*\*\*|\*\*\* `),
}

var (
	// "/bin/sh: 1: lz4c: not found", "x.sh: line 3: bc: command not found",
	// and make's own words when it needs no shell.
	notFound  = regexp.MustCompile(`(?:^|: )([A-Za-z0-9_.+-]+): (?:command )?not found$`)
	notFound2 = regexp.MustCompile(`^make(?:\[\d+\])?: ([A-Za-z0-9_.+-]+): No such file or directory$`)
	noHeader  = regexp.MustCompile(`fatal error: ((?:openssl/|elfutils/)\S+|gelf\.h|libelf\.h|gmp\.h|mpc\.h): No such file`)
	noOther   = regexp.MustCompile(`please install (libelf)-dev|\((pahole)\) is not available`)
	// A line of source that gcc quotes, "   12 | return -ENOSPC;", and lines
	// that only lead up to the one that tells.
	quoted = regexp.MustCompile(`^\s*\d*\s+\||: in function |: In function |warning: `)
	killed = regexp.MustCompile(`Killed signal terminated program|virtual memory exhausted|out of memory allocating|Cannot allocate memory|^make(\[\d+\])?: \*\*\* .* (Killed|Terminated)$|^Killed$`)
	object = regexp.MustCompile(`^  (CC|AS|HOSTCC)( \[M\])? +\S`)
)

// hostTools are the programs that kernel builds ask for. That any other name
// is not found is the tree's own mistake.
var hostTools = []string{
	"as", "awk", "bc", "bison", "bzip2", "cpio", "flex", "gawk", "gcc", "gzip", "hostname", "ld", "lz4", "lz4c", "lzma",
	"lzop", "m4", "make", "nm", "objcopy", "objdump", "openssl", "pahole", "perl", "pkg-config", "python", "python3",
	"readelf", "rsync", "strip", "tar", "xxd", "xz", "zstd", "find", "sed", "bash",
}

func (l *buildLog) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if room := maxLogLine - len(l.partial); room > 0 {
			l.partial = append(l.partial, line[:min(room, len(line))]...)
		}
		if whole {
			l.line(printable(bytes.ReplaceAll(bytes.TrimRight(l.partial, "\r"), []byte("\t"), []byte(" "))))
			l.partial = l.partial[:0]
		}
		rest = after
	}
	keep := p[:min(len(p), max(0, maxLog-l.written))]
	l.written += len(keep)
	if _, err := l.w.Write(keep); err != nil && l.host == nil {
		l.host = fmt.Errorf("write build log: %w", err)
	}
	return len(p), nil
}

func (l *buildLog) line(line string) {
	line = strings.ReplaceAll(line, l.src+"/", "")
	if strings.TrimSpace(line) == "" {
		return
	}
	if object.MatchString(line) {
		l.objects++
		if l.total > 0 {
			l.total = max(l.total, l.objects)
		}
	}
	if l.progress != nil {
		l.progress(line, l.objects, l.total)
	}
	l.last = line
	if quoted.MatchString(line) {
		return
	}
	for i, kind := range telling {
		if l.first[i] == "" && kind.MatchString(line) {
			l.first[i] = line
			break
		}
	}
	if l.host == nil {
		l.host = l.hostFault(line)
	}
}

// hostFault returns the error that a line of a failed build's log stands for
// when it is about the host.
func (l *buildLog) hostFault(line string) error {
	switch {
	case strings.Contains(line, "No space left on device"):
		return syscall.ENOSPC
	case strings.Contains(line, "Disk quota exceeded"):
		return syscall.EDQUOT
	case killed.MatchString(line):
		return fmt.Errorf("%w: %s", ErrInterrupted, line)
	}
	for _, re := range []*regexp.Regexp{notFound, notFound2} {
		if m := re.FindStringSubmatch(line); m != nil && slices.Contains(hostTools, m[1]) {
			if !l.tools.has(m[1]) {
				return &MissingError{Tool: m[1], For: "build this kernel", Image: l.tools.Image}
			}
		}
	}
	for _, re := range []*regexp.Regexp{noHeader, noOther} {
		if m := re.FindStringSubmatch(line); m != nil {
			return &MissingError{Tool: strings.Join(m[1:], ""), For: "build this kernel", Image: l.tools.Image}
		}
	}
	return nil
}

// failure is what an error of make says of the kernel: nil where it says nothing
// of it. Source is as in reason.
func (l *buildLog) failure(step string, err error) (f *Failure, source bool) {
	var exit *exec.ExitError
	var none noResult
	switch {
	case errors.As(err, &exit):
		line, source := l.reason()
		return &Failure{Step: step, Line: line, Log: l.path}, source
	case errors.As(err, &none):
		return &Failure{Step: step, Line: none.Error(), Log: l.path}, false
	}
	return nil, false
}

// reason is the first line that says what is wrong, without the work tree's
// path, and whether it is a complaint about a line of source, which no stale
// object can cause.
func (l *buildLog) reason() (line string, source bool) {
	for i, line := range l.first {
		if line != "" {
			return line, i == 0 && !strings.Contains(line, "No such file or directory")
		}
	}
	if l.last == "" {
		return "make failed and said nothing", false
	}
	return l.last, false
}
