package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxHunks is how many a commit may have.
const maxHunks = 20_000

// A Hunk is a part of a commit's change that can be made without the others: a
// hunk of its diff, or a whole file that is new, gone, binary or of another mode.
type Hunk struct {
	File string
	Line int    // where it begins in the changed file; 0 for a whole file
	What string // the function that it is in, as git guesses it
	head string // of the file in the diff
	from int    // the line that it begins at in the file before,
	size int    // how many it has there,
	more int    // and how many more it has after it, less than 0 for fewer
	body string // behind the line that begins with @@
}

// String names it by its place: kernel/audit.c:123.
func (h Hunk) String() string {
	if h.Line == 0 {
		return h.File
	}
	return fmt.Sprintf("%s:%d", h.File, h.Line)
}

// Hunks are the parts of what differs from one commit to another, in the order of
// git's diff.
func (t *Tree) Hunks(ctx context.Context, from, to string) ([]Hunk, error) {
	out := &cappedBuffer{limit: maxPatch}
	err := t.git(ctx, out, nil, "-c", "core.quotepath=false", "diff-tree", "-p", "--binary", "--full-index", "--unified=3",
		"--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", from, to)
	if err == nil && out.over {
		err = fmt.Errorf("more than %d bytes", maxPatch)
	}
	var hunks []Hunk
	if err == nil {
		hunks, err = parseHunks(out.kept.Bytes())
	}
	if err != nil {
		return nil, fmt.Errorf("part the change from %.12s to %.12s: %w", from, to, err)
	}
	return hunks, nil
}

// hunkHead is the line that a hunk begins with.
var hunkHead = regexp.MustCompile(`^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@ ?(.*)\n?$`)

// parseHunks reads a diff as git diff writes it (git-diff(1), "Generating patch
// text with -p").
func parseHunks(diff []byte) ([]Hunk, error) {
	var hunks []Hunk
	var file Hunk
	whole := false
	flush := func() {
		if whole {
			hunks = append(hunks, file)
		}
	}
	for line := range bytes.Lines(diff) {
		text := string(line)
		switch m := hunkHead.FindStringSubmatch(text); {
		case strings.HasPrefix(text, "diff --git "):
			flush()
			file, whole = Hunk{head: text, File: fileOf(text)}, true
		case file.head == "":
			return nil, errors.New("a diff begins with something else")
		case m != nil && file.splits():
			if whole {
				whole = false
			}
			var n [4]int
			for i := range n {
				if n[i] = 1; m[i+1] != "" {
					n[i], _ = strconv.Atoi(m[i+1]) // digits, and few
				}
			}
			h := file
			h.from, h.size, h.Line, h.more, h.What = n[0], n[1], n[2], n[3]-n[1], m[5]
			hunks = append(hunks, h)
		case whole && file.splits() && m == nil:
			file.head += text
		case whole:
			file.body += text
		default:
			hunks[len(hunks)-1].body += text
		}
		if len(hunks) > maxHunks {
			return nil, fmt.Errorf("more than %d hunks", maxHunks)
		}
	}
	flush()
	return hunks, nil
}

// splits tells whether a file with that head is only changed, so that its hunks can
// be made one by one.
func (h Hunk) splits() bool {
	for line := range strings.Lines(h.head) {
		for _, whole := range []string{"new file mode", "deleted file mode", "old mode", "GIT binary patch"} {
			if strings.HasPrefix(line, whole) {
				return false
			}
		}
	}
	return true
}

// fileOf is the file that a line "diff --git a/X b/X" names.
func fileOf(line string) string {
	names := strings.TrimSuffix(strings.TrimPrefix(line, "diff --git "), "\n")
	half := names[len(names)/2:]
	half = strings.TrimPrefix(strings.TrimSpace(half), `"`)
	return strings.TrimSuffix(strings.TrimPrefix(half, "b/"), `"`)
}

// JoinHunks is the diff that makes some of the hunks.
func JoinHunks(hunks []Hunk, has func(i int) bool) []byte {
	var b bytes.Buffer
	head, shift := "", 0
	for i, h := range hunks {
		if !has(i) {
			continue
		}
		if h.head != head {
			b.WriteString(h.head)
			head, shift = h.head, 0
		}
		if h.Line > 0 {
			// Where the new side begins rests on the hunks before it. One that is empty
			// is said to begin at the line before (POSIX diff -u).
			to := h.from + shift
			if h.size == 0 {
				to++
			}
			if h.size+h.more == 0 {
				to--
			}
			fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@", h.from, h.size, to, h.size+h.more)
			if h.What != "" {
				b.WriteString(" " + h.What)
			}
			b.WriteString("\n")
			shift += h.more
		}
		b.WriteString(h.body)
	}
	return b.Bytes()
}
