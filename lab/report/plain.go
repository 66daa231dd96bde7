package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"lab/kernel/console"
)

// plainText makes lines of plain text of what may be anything: escape sequences,
// control characters but tabs, and what turns the direction of writing are gone. Of
// what has more than most bytes the first and the last half are left, and a line
// that says so.
func plainText(s string, most int) string {
	dropped := max(0, len(s)-4*most)
	if dropped > 0 { // whatever becomes of it
		s = s[:2*most] + s[len(s)-2*most:]
	}
	s = lineEnds.Replace(strings.ReplaceAll(s, "\r\r\n", "\n"))
	var b strings.Builder
	for line := range strings.Lines(s) {
		line, ended := strings.CutSuffix(line, "\n")
		b.WriteString(strings.Map(visible, console.Clean([]byte(line))))
		if ended {
			b.WriteByte('\n')
		}
	}
	s = strings.TrimRight(b.String(), "\n")
	if dropped == 0 && len(s) <= most {
		return s
	}
	const room = 80 // for the remark
	half := min(max(0, most-room), len(s)) / 2
	s = fmt.Sprintf("%s\n[%d bytes left out here: they are in the bundle]\n%s", s[:half], dropped+len(s)-2*half, s[len(s)-half:])
	return strings.ToValidUTF8(s, "")
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// visible leaves out what nobody sees: it hides what is there, or changes how the
// rest is read. Joiners are part of how some scripts are written.
func visible(r rune) rune {
	switch {
	case r < utf8.RuneSelf && r >= ' ' && r < 0x7f: // nearly all of it
		return r
	case r == '\t' || r == '\u200c' || r == '\u200d':
		return r
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unicode.Bidi_Control):
		return -1
	}
	return r
}

// oneLine makes one line of plain text, of maxLine runes at most.
func oneLine(s string) string {
	if len(s) > 8*maxLine {
		s = s[:8*maxLine]
	}
	return clip(strings.Join(strings.Fields(plainText(s, 16*maxLine)), " "), maxLine)
}

// clip shortens a line.
func clip(line string, runes int) string {
	if len(line) <= runes || utf8.RuneCountInString(line) <= runes {
		return line
	}
	return string([]rune(line)[:runes-1]) + "…"
}

// each does something to as many of a list's elements as it may have.
func each[E any](list []E, most int, do func(E) E) []E {
	var out []E
	for _, e := range list[:min(len(list), most)] {
		out = append(out, do(e))
	}
	return out
}

// lines are those of a plain text.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
