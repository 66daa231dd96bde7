// Package listing says what a file system holds, path by path, in lines that
// two sides can compare: what a test expects, what a kernel shows in a guest,
// what another tool left in a folder. Only tests import it.
package listing

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// File is what lstat(2), readlink(2), read(2) and listxattr(2) say of a path.
type File struct {
	Name         string // from the root of the listing, which is "."
	Mode         uint32 // st_mode, type bits and all
	UID, GID     uint32
	Size         int64 // of regular files and symlinks, else 0
	Mtime        Time
	Atime, Ctime Time
	Links        uint32
	Major, Minor uint32 // of a device
	Inode        string // the first name, in the order of Walk, of the same inode
	Content      string // a regular file's digest, a symlink's target, else "-"
	Xattrs       map[string]string
}

// Time is a time in seconds since 1970 and nanoseconds from 0 to 999,999,999.
type Time struct{ Sec, Nsec int64 }

func (t Time) String() string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }

// The kinds of files, as in inode(7).
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeRegular = 0o100000
	TypeBlock   = 0o060000
	TypeDir     = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)

// Type is the kind of file: one of the constants above.
func (f File) Type() uint32 { return f.Mode & TypeMask }

// format is of a line, for both directions.
const format = "file %q mode=%o owner=%d:%d size=%d mtime=%d.%d atime=%d.%d ctime=%d.%d links=%d rdev=%d:%d inode=%q content=%q xattrs=%s"

// String is the file as a line, without its end.
func (f File) String() string {
	xattrs := []string{"-"}
	for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
		xattrs = append(xattrs, fmt.Sprintf("%q:%x", name, f.Xattrs[name]))
	}
	return fmt.Sprintf(strings.ReplaceAll(format, ".%d", ".%09d"), f.Name, f.Mode, f.UID, f.GID, f.Size,
		f.Mtime.Sec, f.Mtime.Nsec, f.Atime.Sec, f.Atime.Nsec, f.Ctime.Sec, f.Ctime.Nsec,
		f.Links, f.Major, f.Minor, f.Inode, f.Content, strings.Join(xattrs, "|"))
}

// Parse reads what String wrote.
func Parse(line string) (File, error) {
	var f File
	const separator = " xattrs=-" // a name may hold it too, but before
	at := strings.LastIndex(line, separator)
	if at < 0 {
		return f, fmt.Errorf("parse %.200q: no attributes", line)
	}
	head, xattrs := line[:at], line[at+len(separator):]
	if _, err := fmt.Sscanf(head, strings.TrimSuffix(format, " xattrs=%s"), &f.Name, &f.Mode, &f.UID, &f.GID, &f.Size,
		&f.Mtime.Sec, &f.Mtime.Nsec, &f.Atime.Sec, &f.Atime.Nsec, &f.Ctime.Sec, &f.Ctime.Nsec,
		&f.Links, &f.Major, &f.Minor, &f.Inode, &f.Content); err != nil {
		return f, fmt.Errorf("parse %.200q: %w", line, err)
	}
	for xattrs != "" {
		quoted, err := strconv.QuotedPrefix(strings.TrimPrefix(xattrs, "|"))
		if err != nil {
			return f, fmt.Errorf("parse attributes of %q: %w", f.Name, err)
		}
		name, err := strconv.Unquote(quoted)
		if err != nil {
			return f, fmt.Errorf("parse attributes of %q: %w", f.Name, err)
		}
		var value string
		value, xattrs, _ = strings.Cut(xattrs[1+len(quoted)+1:], "|")
		if xattrs != "" {
			xattrs = "|" + xattrs
		}
		raw, err := hex.DecodeString(value)
		if err != nil {
			return f, fmt.Errorf("parse attributes of %q: %w", f.Name, err)
		}
		if f.Xattrs == nil {
			f.Xattrs = make(map[string]string)
		}
		f.Xattrs[name] = string(raw)
	}
	return f, nil
}
