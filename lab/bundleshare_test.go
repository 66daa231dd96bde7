package lab

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"

	"lab/oci"
)

// A frame and its parts make one file or none.
func TestAssembleBundle(t *testing.T) {
	part := func(kind, content, offset string) oci.Part {
		p := oci.Part{Type: kind, Size: int64(len(content)), Annotations: map[string]string{annotationOffset: offset}}
		p.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
		return p
	}
	frame := part(frameType, "framework", "")
	huge := part(memberType, "x", "1")
	huge.Size = 1 << 50
	const whole = "f-ONE-rame-TWO-work"
	for name, c := range map[string]struct {
		parts []oci.Part
		want  string
	}{
		"whole":              {[]oci.Part{frame, part(memberType, "-ONE-", "1"), part(memberType, "-TWO-", "10")}, ""},
		"none":               {nil, "does not begin with the bundle's frame"},
		"no frame":           {[]oci.Part{part(memberType, "x", "0")}, "does not begin with the bundle's frame"},
		"two frames":         {[]oci.Part{frame, part(frameType, "x", "1")}, "has no place"},
		"no offset":          {[]oci.Part{frame, part(memberType, "x", "")}, "has no place"},
		"negative":           {[]oci.Part{frame, part(memberType, "x", "-1")}, "has no place"},
		"behind the frame":   {[]oci.Part{frame, part(memberType, "x", "10")}, "has no place"},
		"far behind it":      {[]oci.Part{frame, part(memberType, "x", "9223372036854775807")}, "has no place"},
		"over one another":   {[]oci.Part{frame, part(memberType, "-ONE-", "1"), part(memberType, "-TWO-", "3")}, "has no place"},
		"larger than it may": {[]oci.Part{frame, huge}, "it has more than"},
		"one too few":        {[]oci.Part{frame, part(memberType, "-ONE-", "1")}, "its parts make a file with the digest"},
		"another":            {[]oci.Part{frame, part(memberType, "-ONE-", "1"), part(memberType, "-TOO-", "10")}, "its parts make a file with the digest"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			a := oci.Artifact{Parts: c.parts, Annotations: map[string]string{annotationDigest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(whole)))}}
			err := assembleBundle(t.Context(), &b, a)
			if c.want == "" && (err != nil || b.String() != whole) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%q, %v; want %s", b.String(), err, c.want)
			}
		})
	}
}
