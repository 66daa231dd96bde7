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
		Usage: "make guest disk images, and look into them",
		Subcommands: []*cli.Command{{
			Name:  "build",
			Usage: "write a guest disk image from container images",
			Description: `Writes a GPT disk with one ext4 partition, lab-root, that holds each image as
/containers/NAME/rootfs beside its runtime config. No root, no mount and no
container engine; the same images give the same bytes. The file is sparse: --size
100G takes what the content takes. With --base there is a whole system around the
containers, for a kernel that is told root=PARTLABEL=lab-root.

With --bootable the image boots without lab on any x86-64 machine or hypervisor
with UEFI firmware, from whatever disk its kernel has a driver for. A second
partition, lab-esp, holds systemd-boot, the kernel, an initramfs and the command
line. The machine runs COMMAND in the container, or what the image would run,
shows its output and its exit status on the screen and on the first serial line,
and powers off. Unlike under lab run, what the container writes stays on the
disk, and the clock is the machine's.

EXAMPLES
   lab image build --load app=docker://127.0.0.1:5000/app:1 --load db=rootfs:db.tar -o disk.img
   lab image build --bootable --kernel linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb \
     --load app=rootfs:app.tar -o disk.img -- sh -c 'uname -r; /test'
   qemu-system-x86_64 -M q35 -m 1G -nographic -bios /usr/share/ovmf/OVMF.fd -snapshot \
     -drive if=none,id=d,format=raw,file=disk.img -device nvme,drive=d,serial=1`,
			ArgsUsage: "[-- COMMAND [ARG...]]",
			Flags: slices.Concat(imageFlags(), []cli.Flag{
				&cli.StringFlag{Name: "size", Usage: "make the disk `SIZE` large in all, instead of --free (M, G, T)", Category: catImage},
			}, bootFlags(), []cli.Flag{
				&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the image to `FILE`", Category: catOutput},
				noDigestFlag(),
				jsonFlag(),
			}),
			Action: func(c *cli.Context) error {
				if stray := beforeDashes(c); len(stray) > 0 {
					return usagef("unexpected argument %q", stray[0])
				}
				if c.String("output") == "" {
					return usagef("no output: name a file with --output FILE")
				}
				s, err := imageSpec(c)
				if err != nil {
					return err
				}
				if c.IsSet("size") {
					if c.IsSet("free") {
						return usagef("--size says how large the disk is, --free how much of it is free: only one of them can hold")
					}
					if s.Size, err = diskSize(c.String("size")); err != nil {
						return err
					}
					s.Free = 0
				}
				if len(s.Images) == 0 && s.Base == "" {
					return usagef("no image: name one with --load NAME=REF, or --base REF")
				}
				boot, err := bootSpec(c, &s)
				if err != nil {
					return err
				}
				return runImageBuild(c, s, boot)
			},
		}, imageLsCommand(), imageCatCommand(), imageDiffCommand(), imageInspectCommand()},
	}
}

func noDigestFlag() cli.Flag {
	return &cli.BoolFlag{Name: "no-digest", Usage: "leave out the digest of the whole file, for which a TiB takes minutes", Category: catOutput}
}

// diskSize reads --size: whole MiB, for the partitions' sake.
func diskSize(text string) (int64, error) {
	n, err := size(text)
	if err == nil && (n == 0 || n%(1<<20) != 0 || n > 1<<40) {
		err = fmt.Errorf("%q is not whole MiB up to 1T", text)
	}
	if err != nil {
		return 0, usagef("--size: %v", err)
	}
	return n, nil
}

// imageResult is the JSON of lab image build.
type imageResult struct {
	lab.Disk
	Digest string    `json:"digest,omitempty"` // sha256:… of the file, unless --no-digest
	Boot   *lab.Boot `json:"boot,omitempty"`   // of an image that boots by itself
}

func runImageBuild(c *cli.Context, s lab.Spec, boot *lab.BootSpec) error {
	var r imageResult
	var err error
	if boot == nil {
		r.Disk, err = theLab(c).BuildDisk(c.Context, s, c.String("output"))
	} else {
		r, err = buildBootable(c, s, *boot)
	}
	if err != nil {
		return err
	}
	if !c.Bool("no-digest") {
		if r.Digest, err = imageDigest(c, r.Image); err != nil {
			return err
		}
	}
	switch {
	case c.Bool("json"):
		return printJSON(c.App.Writer, r)
	case r.Digest == "":
		_, err = fmt.Fprintln(c.App.Writer, r.Path)
	default:
		_, err = fmt.Fprintf(c.App.Writer, "%s  %s\n", r.Digest, r.Path)
	}
	return err
}

// imageDigest reads the whole file, holes and all, and says so meanwhile.
func imageDigest(c *cli.Context, i disk.Image) (string, error) {
	p := theLab(c).Progress
	p.Show("reading the image's %d MiB for its digest (--no-digest leaves that out)", i.Size>>20)
	defer p.Show("")
	return i.Digest(c.Context)
}
