package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/disk"
)

func imageDiffCommand() *cli.Command {
	return &cli.Command{
		Name:  "diff",
		Usage: "say what differs between two disk images, path by path",
		Description: `Compares two disk images: their partitions, and in each every path by type, mode,
owner, size, time, symlink target, device, attributes, hard links and content, byte
by byte. A and B are disk images; with FILE:NAME on both sides only these two
containers are compared, their root file systems and their config.json, of which the
keys that differ are named.

A line begins with - for what only A has, with + for what only B has and with ~ for
what differs. In JSON, changes is a list of objects; a path that is not UTF-8 is there
once more, in base64, as pathBytes.

Exits with 0 where nothing differs and with 1 where something does.

EXAMPLES
   lab image diff good.img bad.img
   lab image diff --ignore-times disk.img:app disk.img:app-2
   lab image diff --json old.img new.img | jq -r '.changes[] | select(.change == "added") | .path'`,
		ArgsUsage: "A B",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "ignore-times", Usage: "times of modification do not count"},
			jsonFlag(),
		},
		Action: runImageDiff,
	}
}

// changeJSON is a change in the JSON of lab image diff.
type changeJSON struct {
	Change      string            `json:"change"` // added, removed or changed
	Partition   string            `json:"partition,omitempty"`
	Path        string            `json:"path,omitempty"`
	PathBytes   []byte            `json:"pathBytes,omitempty"`
	Was         *fileJSON         `json:"was,omitempty"` // of a path that is removed
	Is          *fileJSON         `json:"is,omitempty"`  // of one that is added
	Differences []disk.Difference `json:"differences,omitempty"`
}

func runImageDiff(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef("two images are wanted, there are %d arguments", c.NArg())
	}
	var sides [2]disk.Side
	for i, arg := range c.Args().Slice() {
		s, err := openSide(arg)
		if err != nil {
			return err
		}
		defer s.Image.Close()
		sides[i] = s
	}
	if (sides[0].Container == "") != (sides[1].Container == "") {
		return usagef("%s and %s: name a container on both sides, or on none", c.Args().Get(0), c.Args().Get(1))
	}
	out := bufio.NewWriter(c.App.Writer)
	defer out.Flush()
	list := jsonList{w: out, open: `{"changes": `}
	n, err := disk.Diff(c.Context, sides[0], sides[1], disk.DiffOptions{IgnoreTimes: c.Bool("ignore-times")}, func(change *disk.Change) error {
		if c.Bool("json") {
			return list.add(newChangeJSON(change))
		}
		_, err := out.WriteString(changeText(change))
		return err
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = list.end(fmt.Sprintf(`, "paths": %d, "added": %d, "removed": %d, "changed": %d}`, n.Paths, n.Added, n.Removed, n.Changed))
	} else {
		_, err = fmt.Fprintf(out, "%d added, %d removed, %d changed, of %d paths\n", n.Added, n.Removed, n.Changed, n.Paths)
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil && !n.Equal() {
		err = result(ExitBad)
	}
	return err
}

// openSide opens FILE, or FILE:NAME where there is no file of that whole name.
func openSide(arg string) (disk.Side, error) {
	file, container := arg, ""
	if _, err := os.Stat(arg); err != nil {
		if i := strings.LastIndexByte(arg, ':'); i > 0 && i < len(arg)-1 {
			file, container = arg[:i], arg[i+1:]
		}
	}
	r, err := disk.Open(file)
	return disk.Side{Image: r, Container: container}, err
}

func newChangeJSON(c *disk.Change) changeJSON {
	out := changeJSON{Change: c.Kind, Partition: c.Partition, Path: c.Path, PathBytes: notUTF8(c.Path), Differences: c.Differences}
	if c.Kind == disk.Removed && c.Was != nil {
		f := newFileJSON(c.Path, c.Was, nil)
		out.Was = &f
	}
	if c.Kind == disk.Added && c.Is != nil {
		f := newFileJSON(c.Path, c.Is, nil)
		out.Is = &f
	}
	return out
}

// changeText is a change as a line for people, names always escaped.
func changeText(c *disk.Change) string {
	where := escaped(c.Path)
	switch {
	case c.Path == "" && c.Partition == "":
		where = "partition table"
	case c.Path == "":
		where = escaped(c.Partition)
	case c.Partition != "":
		where = escaped(c.Partition) + ": " + where
	}
	kind := func(s *disk.Stat) string {
		switch {
		case s == nil:
			return ""
		case s.Type() == disk.TypeRegular:
			return fmt.Sprintf(" (file, %d bytes)", s.Size)
		case s.Type() == disk.TypeSymlink:
			return " -> " + escaped(s.Target)
		}
		return fmt.Sprintf(" (%s)", s.Kind())
	}
	switch c.Kind {
	case disk.Added:
		return "+ " + where + kind(c.Is) + "\n"
	case disk.Removed:
		return "- " + where + kind(c.Was) + "\n"
	}
	var list []string
	for _, d := range c.Differences {
		switch {
		case d.What == "content":
			list = append(list, "content "+d.Is)
		case d.Was == "":
			list = append(list, fmt.Sprintf("%s none, is %s", d.What, d.Is))
		case d.Is == "":
			list = append(list, fmt.Sprintf("%s %s, is none", d.What, d.Was))
		default:
			list = append(list, fmt.Sprintf("%s %s, is %s", d.What, d.Was, d.Is))
		}
	}
	return "~ " + where + ": " + strings.Join(list, "; ") + "\n"
}
