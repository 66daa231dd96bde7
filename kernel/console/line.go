package console

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxLine is how much of a line is looked at. printk's own lines are shorter
// (LOG_LINE_MAX is 1024 less its prefix, kernel/printk/printk.c).
const maxLine = 4096

// droppedLine stands in a log for what was not kept.
func droppedLine(n int64) string {
	return fmt.Sprintf("\n[lab: %d bytes of the console dropped here]\n", n)
}

// stamp is printk's prefix: seconds since boot ("[    1.234567]") and, with
// CONFIG_PRINTK_CALLER, the task or CPU ("[    T1]", "[    C0]").
var stamp = lazy(`\[ *(\d{1,9}\.\d{6})\](?: ?\[ *[TC]\d{1,10}\])? `)

// line is a console line taken apart.
type line struct {
	text    string  // all of it, cleaned
	message string  // what follows the stamp, or all
	stamped bool    //
	time    float64 // seconds since boot, if stamped
}

// parseLine cleans a raw line and finds its stamp. The stamp need not be at
// the line's start: the kernel does not finish a line that userspace began.
func parseLine(raw []byte) line {
	text := Clean(raw)
	l := line{text: text, message: text}
	if m := stamp().FindStringSubmatchIndex(text); m != nil {
		l.stamped = true
		l.text = text[m[0]:]
		l.message = text[m[1]:]
		l.time, _ = strconv.ParseFloat(text[m[2]:m[3]], 64) // its form is the pattern's
	} else if len(text) > 2 && text[0] == '<' && text[2] == '>' {
		l.message = text[3:] // a raw log level, "<4>"
	}
	return l
}

// Clean takes a line of outside bytes and removes what is not text: escape
// sequences (ECMA-48: CSI, OSC and the two-byte ones) and control characters but
// tabs. Bytes that are no UTF-8 become U+FFFD.
func Clean(raw []byte) string {
	plain := true
	for _, c := range raw {
		if c < ' ' && c != '\t' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return string(raw)
	}
	var b strings.Builder
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == 0x1b:
			i += escape(raw[i:])
		case c == '\t' || c >= ' ' && c < 0x7f:
			b.WriteByte(c)
			i++
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			if r == utf8.RuneError || r < 0xa0 { // C1 controls
				r = utf8.RuneError
			}
			b.WriteRune(r)
			i += n
		}
	}
	return b.String()
}

// escape returns the length of the escape sequence that b begins with.
func escape(b []byte) int {
	if len(b) < 2 {
		return 1
	}
	switch b[1] {
	case '[': // CSI: parameters and intermediates, then a final byte
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e {
				return i + 1
			}
			if b[i] < 0x20 || b[i] > 0x7e {
				return i
			}
		}
		return len(b)
	case ']': // OSC: up to BEL or ST
		for i := 2; i < len(b); i++ {
			if b[i] == 0x07 {
				return i + 1
			}
			if b[i] == 0x1b {
				return i
			}
		}
		return 2 // unfinished: what looks like its text may be the kernel's
	}
	if b[1] >= 0x20 && b[1] < 0x7f {
		return 2
	}
	return 1
}
