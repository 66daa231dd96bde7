package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"lab/disk"
)

// What lab image ls, cat, diff and inspect have in common.

// pathsHelp says how these commands name what is in an image.
const pathsHelp = `IMAGE is a disk of lab's, or anyone's: with a GPT or MBR partition table, or none.
It is read as it lies there, without a mount and without root, and need not be
trusted. A PATH is one of its file system's; app:/etc is /etc of the container app,
which lies at /containers/app/rootfs/etc. Symlinks lead no further than their
container. The file system is that in the partition lab-root, or the only ext4 there
is; --partition names another, such as lab-esp with what a bootable image boots.`

func partitionFlag() cli.Flag {
	return &cli.StringFlag{Name: "partition", Usage: "look into the partition of this `NAME` or number", DefaultText: "lab-root, or the only one with ext4"}
}

// openImage opens the image that is a command's first argument, and the file
// system that its flags name.
func openImage(c *cli.Context) (*disk.Reader, *disk.Tree, error) {
	if !c.Args().Present() {
		return nil, nil, usagef("no image: name a disk image")
	}
	r, err := disk.Open(c.Args().First())
	if err != nil {
		return nil, nil, err
	}
	t, err := r.Tree(c.String("partition"))
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return r, t, nil
}

var containerPrefix = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_.-]{0,127}):(.*)$`)

// imagePath is a PATH as the image has it. back turns a path of the image into
// one in the user's way of speaking.
func imagePath(arg string) (p string, back func(string) string) {
	m := containerPrefix.FindStringSubmatch(arg)
	if m == nil {
		return "/" + strings.TrimPrefix(arg, "/"), func(p string) string { return p }
	}
	root := disk.ContainerRoot(m[1])
	p = root + "/" + strings.TrimLeft(m[2], "/")
	return p, func(p string) string {
		if rest, ok := strings.CutPrefix(p, root); ok && (rest == "" || rest[0] == '/') {
			return m[1] + ":/" + strings.TrimPrefix(rest, "/")
		}
		return p
	}
}

// shown is a name as it goes to w: as it is, but on a terminal with escapes for
// what would not print there.
func shown(w io.Writer, name string) string {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return name
	}
	return escaped(name)
}

// escaped is name with \n, \x1b, \xff and the like for what does not print.
func escaped(name string) string {
	if utf8.ValidString(name) && strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == '\\' }) < 0 {
		return name
	}
	quoted := strconv.Quote(name)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// notUTF8 is a text whose bytes JSON cannot hold, for a member ending in Bytes
// that holds them in base64; nil for any other.
func notUTF8(s string) []byte {
	if utf8.ValidString(s) {
		return nil
	}
	return []byte(s)
}

// A jsonList prints the members of a list of unknown length, one on a line,
// without keeping them.
type jsonList struct {
	w     io.Writer
	open  string // what stands before the list
	began bool
}

func (l *jsonList) begin() error {
	l.began = true
	_, err := io.WriteString(l.w, l.open+"[")
	return err
}

func (l *jsonList) add(v any) error {
	text := ",\n  "
	if !l.began {
		if err := l.begin(); err != nil {
			return err
		}
		text = "\n  "
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	_, err := io.WriteString(l.w, text+strings.TrimSuffix(b.String(), "\n"))
	return err
}

// end closes the list, and then writes what stands behind it.
func (l *jsonList) end(rest string) error {
	text := "\n]" + rest + "\n"
	if !l.began {
		text = l.open + "[]" + rest + "\n"
	}
	_, err := io.WriteString(l.w, text)
	return err
}
