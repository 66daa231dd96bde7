package corpus

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"lab/lab/corpus/listing"
)

// Describe writes files of the case as a case's tree has them: a line for each path but the
// root, and that too when a layer lists it. What goes without saying is left
// out: root's, 0644 or for a directory 0755, made when all of the corpus was.
//
//	etc/ 0700 7:8                  a directory
//	etc/app/ implied               a directory that no layer lists
//	etc/a "A" @-5.000000001        a file with content, from another time
//	etc/big {d2a84f4b}             a large one, by the first digits of its sha256
//	etc/empty                      an empty file
//	etc/b = etc/a                  the same file
//	lib -> usr/lib                 a symlink
//	null c1:3 0666                 devices begin with c or b
//	pipe p 0600
//	x user.a="\x00"                extended attributes
//
// A name that holds more than letters, digits and the like is quoted.
func (c Case) Describe(files []listing.File) []string {
	texts := make(map[string]string)
	for _, l := range c.Layers {
		for _, e := range l.Entries {
			if f := e.file(); f.Size > 0 && f.Size <= 40 {
				texts[f.Content] = string(e.content())
			}
		}
	}
	var lines []string
	for _, f := range files {
		if line := describe(f, texts); f.Name != "." || line != "./ implied" {
			lines = append(lines, line)
		}
	}
	return lines
}

func describe(f listing.File, texts map[string]string) string {
	name := f.Name
	usual := uint32(0o644)
	if f.Type() == listing.TypeDir {
		name, usual = name+"/", 0o755
	}
	line := quoteOdd(name)
	if f.Inode != f.Name {
		return line + " = " + quoteOdd(f.Inode)
	}
	switch f.Type() {
	case listing.TypeRegular:
		if text, ok := texts[f.Content]; ok {
			line += " " + strconv.Quote(text)
		} else if f.Size > 0 {
			line += " {" + f.Content[:8] + "}"
		}
	case listing.TypeSymlink:
		line, usual = line+" -> "+quoteOdd(f.Content), 0o777
	case listing.TypeChar:
		line += fmt.Sprintf(" c%d:%d", f.Major, f.Minor)
	case listing.TypeBlock:
		line += fmt.Sprintf(" b%d:%d", f.Major, f.Minor)
	case listing.TypeFIFO:
		line += " p"
	}
	if f.Mode&0o7777 != usual {
		line += fmt.Sprintf(" %04o", f.Mode&0o7777)
	}
	if f.UID != 0 || f.GID != 0 {
		line += fmt.Sprintf(" %d:%d", f.UID, f.GID)
	}
	for _, x := range slices.Sorted(maps.Keys(f.Xattrs)) {
		line += fmt.Sprintf(" %s=%s", x, brief(f.Xattrs[x]))
	}
	switch {
	case f.Type() == listing.TypeDir && f.Mtime == listing.Time{}:
		line += " implied"
	case f.Mtime != aTime:
		line += " @" + f.Mtime.String()
	}
	return line
}

// brief quotes a value, or tells how long it is.
func brief(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%d bytes", len(s))
	}
	return strconv.Quote(s)
}

// quoteOdd quotes what would be hard to read, and shortens what is long.
func quoteOdd(s string) string {
	plain := func(r rune) bool {
		return r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("._-/", r))
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) || s == "" {
		return strconv.Quote(s)
	}
	if len(s) > 80 {
		return fmt.Sprintf("%s…%s(%d)", s[:20], s[len(s)-20:], len(s))
	}
	return s
}
