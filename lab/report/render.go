package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// The forms of a report.
const (
	FormText     = "text"
	FormMarkdown = "md"
	FormHTML     = "html"
	FormJSON     = "json"
	FormJUnit    = "junit"
	FormKTAP     = "ktap"
	FormEmail    = "email"
)

// Forms are all of them.
var Forms = []string{FormText, FormMarkdown, FormHTML, FormJSON, FormJUnit, FormKTAP, FormEmail}

// Render writes a document in one of the forms. The same document gives the same
// bytes.
func Render(d Document, form string) ([]byte, error) {
	d = d.Plain()
	switch form {
	case FormText:
		return text(d), nil
	case FormMarkdown:
		return markdown(d), nil
	case FormHTML:
		return page(d)
	case FormJSON:
		data, err := json.MarshalIndent(d, "", "  ")
		return append(escape(data), '\n'), err
	case FormJUnit:
		return junit(d)
	case FormKTAP:
		return ktap(d), nil
	case FormEmail:
		return email(d)
	}
	return nil, fmt.Errorf("report form %q is none of %s", form, strings.Join(slices.Sorted(slices.Values(Forms)), ", "))
}

// escape writes in JSON as \uXXXX what nobody sees. The manifest has some fields in
// which it may be.
func escape(data []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(data) {
		switch {
		case r == '\n' || visible(r) == r:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
