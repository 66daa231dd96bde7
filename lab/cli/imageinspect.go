package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/disk"
)

func imageInspectCommand() *cli.Command {
	return &cli.Command{
		Name:  "inspect",
		Usage: "say what a disk image is and what is on it",
		Description: `Shows a disk image's partitions, the file systems in them with what is free, the
containers with what they would run, whether the image boots by itself and how, and
the digest of its bytes. It works on anyone's images too.

EXAMPLES
   lab image inspect disk.img
   lab image inspect --json disk.img | jq -r .digest`,
		ArgsUsage: "IMAGE",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-digest", Usage: "do not read all of the file for its digest"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one image is wanted, there are %d arguments", c.NArg())
			}
			r, err := disk.Open(c.Args().First())
			if err != nil {
				return err
			}
			defer r.Close()
			in, err := r.Inspect(c.Context, !c.Bool("no-digest"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, in)
			}
			_, err = fmt.Fprint(c.App.Writer, inspectionText(in))
			return err
		},
	}
}

// inspectionText is an inspection for people. Whatever the image says of itself
// is escaped.
func inspectionText(in disk.Inspection) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", in.Path, mebibytes(in.Size))
	if in.Table != "" {
		fmt.Fprintf(&b, ", %s", strings.ToUpper(in.Table))
	}
	fmt.Fprintln(&b)
	if in.Digest != "" {
		fmt.Fprintf(&b, "  %s\n", in.Digest)
	}
	for _, p := range in.Partitions {
		fmt.Fprintf(&b, "%s: %s at %s", escaped(p.String()), mebibytes(p.Size), mebibytes(p.Start))
		switch {
		case p.Error != "":
			fmt.Fprintf(&b, ", %s that cannot be read: %s", p.FileSystem, escaped(p.Error))
		case p.Usage != nil:
			u := p.Usage
			fmt.Fprintf(&b, ", %s", p.FileSystem)
			if u.Label != "" {
				fmt.Fprintf(&b, " %s", escaped(u.Label))
			}
			fmt.Fprintf(&b, ", %s free", mebibytes(u.Free))
			if u.Inodes > 0 {
				fmt.Fprintf(&b, ", %d of %d inodes used", u.Inodes-u.FreeInodes, u.Inodes)
			}
			if u.UUID != "" {
				fmt.Fprintf(&b, ", UUID %s", u.UUID)
			}
		default:
			fmt.Fprintf(&b, ", type %s", p.Type)
		}
		fmt.Fprintln(&b)
	}
	for _, c := range in.Containers {
		if c.Error != "" {
			fmt.Fprintf(&b, "container %s: %s\n", escaped(c.Name), escaped(c.Error))
			continue
		}
		fmt.Fprintf(&b, "container %s: runs %q in %s as %s, %d variables\n", escaped(c.Name), c.Command, escaped(c.Dir), escaped(c.User), c.Env)
	}
	if in.Boot == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "boots with %s\n", escaped(strings.Join(in.Boot.Loaders, ", ")))
	for _, e := range in.Boot.Entries {
		fmt.Fprintf(&b, "  %s: %s\n    kernel %s, initramfs %s\n    command line %s\n", escaped(e.Path), escaped(e.Title), escaped(e.Kernel), escaped(strings.Join(e.Initrd, ", ")), escaped(e.Cmdline))
	}
	return b.String()
}

// mebibytes is a size for people: sizes on disks are mostly whole MiB.
func mebibytes(n int64) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
