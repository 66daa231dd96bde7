// Package kconfig reads Linux kernel configurations and says what became of a
// request.
//
// A configuration is asked for in fragments: short files of CONFIG_ lines that
// name what matters and leave the rest to Kconfig. Kconfig drops, without a
// word, every symbol whose dependencies are not met or which the tree at hand
// does not know. Compare names those, and Guest names the ones without which
// a kernel cannot run lab's guest, before anything is booted.
package kconfig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Limits on what Parse accepts. The .config of a distribution kernel has about
// 12,000 lines in 300 kB.
const (
	maxSize = 8 << 20
	maxLine = 64 << 10
)

// Config is a configuration: values by symbol, without the CONFIG_ prefix.
//
// A value is written as in a .config: y, m, a number, a hexadecimal number or
// a quoted string, and n for a line "# CONFIG_X is not set". A symbol that is
// not mentioned is absent, which Kconfig means otherwise than n: it may still
// give it a default.
type Config map[string]string

// Fragment is a piece of a configuration and where it came from.
type Fragment struct {
	Name string `json:"name"` // builtin name or path, as it was asked for
	Data []byte `json:"data"`
	// Base is for one that is only to start from: what of it does not survive
	// was not asked for.
	Base bool `json:"base,omitempty"`
}

// Parse reads a .config or a fragment of one. As in the kernel's own reader
// (scripts/kconfig/confdata.c, conf_read_simple) a later line wins over an
// earlier one; other than there, a line that makes no sense is an error that
// names it, because a typing error in a request must not pass unseen.
func Parse(r io.Reader) (Config, error) {
	c := Config{}
	limited := &io.LimitedReader{R: r, N: maxSize + 1}
	scan := bufio.NewScanner(limited)
	scan.Buffer(nil, maxLine)
	n := 0
	for scan.Scan() {
		n++
		symbol, value, err := parseLine(strings.TrimRight(scan.Text(), " \t\r"))
		if err != nil {
			return nil, fmt.Errorf("parse line %d: %w", n, err)
		}
		if symbol != "" {
			c[symbol] = value
		}
	}
	if err := scan.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("parse line %d: longer than %d bytes", n+1, maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("read configuration: larger than %d bytes", maxSize)
	}
	return c, nil
}

// parseLine returns no symbol for an empty line and for a comment.
func parseLine(line string) (symbol, value string, err error) {
	if rest, ok := strings.CutPrefix(line, "# CONFIG_"); ok {
		if name, ok := strings.CutSuffix(rest, " is not set"); ok && isSymbol(name) {
			return name, "n", nil
		}
	}
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	rest, ok := strings.CutPrefix(line, "CONFIG_")
	name, value, eq := strings.Cut(rest, "=")
	if !ok || !eq || !isSymbol(name) {
		return "", "", fmt.Errorf("%.80q is neither CONFIG_NAME=value nor a comment", line)
	}
	if !isValue(value) {
		return "", "", fmt.Errorf("CONFIG_%s: %.80q is not y, m, n, a number or a quoted string", name, value)
	}
	return name, value, nil
}

func isSymbol(s string) bool {
	for _, r := range s {
		if r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return s != ""
}

func isValue(s string) bool {
	switch {
	case s == "y" || s == "m" || s == "n":
		return true
	case s == "": // a number that has no default
		return true
	case s[0] == '"':
		return isQuoted(s)
	}
	digits := strings.TrimPrefix(s, "-")
	if hex, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits = hex
	}
	return digits != "" && strings.Trim(digits, "0123456789abcdefABCDEF") == ""
}

// isQuoted reports whether s is one string in double quotes in which every
// quote and backslash is escaped by a backslash.
func isQuoted(s string) bool {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return false
	}
	s = s[1 : len(s)-1]
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return false
			}
		case '"', 0:
			return false
		}
	}
	return true
}

// Bytes writes the configuration as a .config, sorted by symbol, so that equal
// configurations have equal bytes. Parse reads it back unchanged.
func (c Config) Bytes() []byte {
	var b bytes.Buffer
	for _, symbol := range slices.Sorted(maps.Keys(c)) {
		if c[symbol] == "n" {
			fmt.Fprintf(&b, "# CONFIG_%s is not set\n", symbol)
		} else {
			fmt.Fprintf(&b, "CONFIG_%s=%s\n", symbol, c[symbol])
		}
	}
	return b.Bytes()
}

// Merge joins fragments in order: what a later one says wins.
func Merge(fragments ...Fragment) (Config, error) {
	merged := Config{}
	for _, f := range fragments {
		c, err := Parse(bytes.NewReader(f.Data))
		if err != nil {
			return nil, fmt.Errorf("read config %s: %w", f.Name, err)
		}
		maps.Copy(merged, c)
	}
	return merged, nil
}

// Full reports whether the fragment is a whole .config as Kconfig writes it,
// rather than a request for some symbols. Kconfig says so in the first lines:
// "Automatically generated file; DO NOT EDIT.", before 2.6.38 "Automatically
// generated make config: don't edit".
func (f Fragment) Full() bool {
	head := f.Data[:min(len(f.Data), 512)]
	return bytes.Contains(head, []byte("# Automatically generated "))
}
