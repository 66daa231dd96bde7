package cli

import (
	"github.com/urfave/cli/v2"
)

func imageCatCommand() *cli.Command {
	return &cli.Command{
		Name:  "cat",
		Usage: "print files of a disk image",
		Description: `Writes the bytes of files to stdout, one after the other, holes as zeros. What is not
a regular file is an error; symlinks are followed.

` + pathsHelp + `

EXAMPLES
   lab image cat disk.img app:/etc/os-release
   lab image cat disk.img /containers/app/config.json | jq .process.args
   lab image cat --partition lab-esp disk.img /lab/vmlinuz > vmlinuz`,
		ArgsUsage: "IMAGE PATH...",
		Flags:     []cli.Flag{partitionFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() == 1 {
				return usagef("no path: name a file in the image")
			}
			r, t, err := openImage(c)
			if err != nil {
				return err
			}
			defer r.Close()
			for _, arg := range c.Args().Tail() {
				p, _ := imagePath(arg)
				s, err := t.Lookup(p, true)
				if err != nil {
					return err
				}
				if err := t.WriteContent(c.Context, c.App.Writer, &s); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
