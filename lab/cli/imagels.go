package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"lab/disk"
)

func imageLsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list what is in a disk image",
		Description: `Lists directories, and names files, in the order of their names' bytes; without a
PATH it begins at the root. A symlink at the end of a PATH is listed itself, and with
a / behind it what it leads to.

` + pathsHelp + `

Names that do not print are escaped on a terminal, and go through a pipe as they are.
In JSON every file is an object with all that is known of it; a path, target or
attribute name that is not UTF-8 is there once more, in base64, as pathBytes,
targetBytes or nameBytes, and the values of attributes always are base64.

EXAMPLES
   lab image ls disk.img
   lab image ls -l disk.img app:/etc/passwd app:/bin/
   lab image ls --recursive --json disk.img app:/ | jq -r '.[] | select(.mode >= "4000") | .path'
   lab image ls -R --partition lab-esp disk.img`,
		ArgsUsage:              "IMAGE [PATH...]",
		UseShortOptionHandling: true, // -lR
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "long", Aliases: []string{"l"}, Usage: "show type, mode, links, owner, size or device, time (UTC) and target"},
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"R"}, Usage: "show everything below, by its path"},
			partitionFlag(),
			jsonFlag(),
		},
		Action: runImageLs,
	}
}

// fileJSON is a file in the JSON of lab image ls.
type fileJSON struct {
	Path        string      `json:"path"`
	PathBytes   []byte      `json:"pathBytes,omitempty"`
	Type        string      `json:"type"`
	Mode        string      `json:"mode"` // four octal digits
	UID         uint32      `json:"uid"`
	GID         uint32      `json:"gid"`
	Size        int64       `json:"size"`
	Mtime       time.Time   `json:"mtime"`
	Links       uint32      `json:"links"`
	Inode       uint32      `json:"inode"`
	Target      string      `json:"target,omitempty"`
	TargetBytes []byte      `json:"targetBytes,omitempty"`
	Device      string      `json:"device,omitempty"` // major:minor
	Xattrs      []xattrJSON `json:"xattrs,omitempty"`
}

type xattrJSON struct {
	Name      string `json:"name"`
	NameBytes []byte `json:"nameBytes,omitempty"`
	Value     []byte `json:"value"`
}

func newFileJSON(name string, s *disk.Stat, xattrs map[string]string) fileJSON {
	f := fileJSON{
		Path: name, PathBytes: notUTF8(name), Type: s.Kind(), Mode: fmt.Sprintf("%04o", s.Mode&0o7777),
		UID: s.UID, GID: s.GID, Size: s.Size, Mtime: s.Mtime, Links: s.Links, Inode: s.Inode,
		Target: s.Target, TargetBytes: notUTF8(s.Target),
	}
	if isDevice(s) {
		f.Device = fmt.Sprintf("%d:%d", s.Major, s.Minor)
	}
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		f.Xattrs = append(f.Xattrs, xattrJSON{name, notUTF8(name), []byte(xattrs[name])})
	}
	return f
}

func isDevice(s *disk.Stat) bool { return s.Type() == disk.TypeChar || s.Type() == disk.TypeBlock }

func runImageLs(c *cli.Context) error {
	r, t, err := openImage(c)
	if err != nil {
		return err
	}
	defer r.Close()
	args := c.Args().Tail()
	if len(args) == 0 {
		args = []string{"/"}
	}
	out := bufio.NewWriter(c.App.Writer)
	list := jsonList{w: out}
	show := func(name string, s *disk.Stat) error {
		if !c.Bool("json") {
			_, err := io.WriteString(out, lsLine(c.App.Writer, c.Bool("long"), name, s))
			return err
		}
		xattrs, err := t.Xattrs(s)
		if err != nil {
			return err
		}
		return list.add(newFileJSON(name, s, xattrs))
	}
	for _, arg := range args {
		if err := lsPath(c, t, arg, len(args) > 1 || c.Bool("json"), show); err != nil {
			out.Flush()
			return err
		}
	}
	if c.Bool("json") {
		if err := list.end(""); err != nil {
			return err
		}
	}
	return out.Flush()
}

// lsPath shows one PATH. The names in a directory stand alone where it is the only
// one, else with what leads to them.
func lsPath(c *cli.Context, t *disk.Tree, arg string, whole bool, show func(string, *disk.Stat) error) error {
	p, back := imagePath(arg)
	start, err := t.Lookup(p, false)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("recursive"):
		return t.Walk(c.Context, &start, func(s *disk.Stat) error { return show(back(s.Path), s) })
	case start.Type() != disk.TypeDir:
		return show(back(start.Path), &start)
	}
	files, err := t.ReadDir(&start)
	if err != nil {
		return err
	}
	for _, s := range files {
		name := path.Base(s.Path)
		if whole {
			name = back(s.Path)
		}
		if err := show(name, &s); err != nil {
			return err
		}
	}
	return nil
}

// lsLine is a line for people.
func lsLine(w io.Writer, long bool, name string, s *disk.Stat) string {
	name = shown(w, name)
	if !long {
		return name + "\n"
	}
	size := fmt.Sprint(s.Size)
	if isDevice(s) {
		size = fmt.Sprintf("%d,%d", s.Major, s.Minor)
	}
	if s.Type() == disk.TypeSymlink {
		name += " -> " + shown(w, s.Target)
	}
	return fmt.Sprintf("%s %3d %5d %5d %10s %s %s\n", modeText(s.Mode), s.Links, s.UID, s.GID, size, s.Mtime.Format("2006-01-02T15:04:05Z"), name)
}

// modeText is a mode as ls(1) shows it.
func modeText(mode uint32) string {
	kinds := map[uint32]byte{
		disk.TypeSocket: 's', disk.TypeSymlink: 'l', disk.TypeRegular: '-', disk.TypeBlock: 'b',
		disk.TypeDir: 'd', disk.TypeChar: 'c', disk.TypeFIFO: 'p',
	}
	b := []byte("?rwxrwxrwx")
	if kind, ok := kinds[mode&disk.TypeMask]; ok {
		b[0] = kind
	}
	for i := range 9 {
		if mode>>(8-i)&1 == 0 {
			b[1+i] = '-'
		}
	}
	for i, special := range []byte("sst") { // setuid, setgid, sticky: capital where x is not set
		if mode>>(11-i)&1 == 0 {
			continue
		}
		at := 3 + 3*i
		if b[at] == '-' {
			special -= 'a' - 'A'
		}
		b[at] = special
	}
	return string(b)
}
