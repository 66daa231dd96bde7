package cli

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"lab/disk"
	"lab/lab"
)

func imageCommand() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "make guest disk images",
		Subcommands: []*cli.Command{{
			Name:  "build",
			Usage: "write a guest disk image from container images",
			Description: `Writes a GPT disk with one ext4 partition, lab-root, that holds each image as
/containers/NAME/rootfs beside its runtime config. No root, no mount and no
container engine; the same images give the same bytes.

EXAMPLE
   lab image build --load app=docker://127.0.0.1:5000/app:1 --load db=rootfs:db.tar -o disk.img`,
			Flags: slices.Concat(imageFlags(), []cli.Flag{
				&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the image to `FILE`", Category: catOutput},
				jsonFlag(),
			}),
			Action: func(c *cli.Context) error {
				if c.Args().Present() {
					return usagef("unexpected argument %q", c.Args().First())
				}
				if c.String("output") == "" {
					return usagef("no output: name a file with --output FILE")
				}
				s, err := imageSpec(c)
				if err != nil {
					return err
				}
				if len(s.Images) == 0 {
					return usagef("no image: name one with --load NAME=REF")
				}
				return runImageBuild(c, s)
			},
		}},
	}
}

// imageResult is the JSON of lab image build.
type imageResult struct {
	disk.Image
	Containers []lab.Image `json:"containers"`
}

func runImageBuild(c *cli.Context, s lab.Spec) error {
	d, images, err := theLab(c).BuildDisk(c.Context, s, c.String("output"))
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, imageResult{d, images})
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s  %s\n", d.Digest, d.Path)
	return err
}
