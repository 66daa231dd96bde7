package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func bundlePushCommand() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "store a bundle in a registry or an OCI layout",
		ArgsUsage: bundleArg + " REF",
		Description: `Verifies the bundle and stores it as an artifact (OCI image-spec 1.1, of the type
application/vnd.lab.bundle.v1): docker://HOST/NAME:TAG in a registry, oci:DIR:TAG in a
folder. Its disk, kernels and other large members are parts of their own: bundles that
have one in common share it, and it is sent once. The credentials are docker's or podman's.
Prints the digest by which the bundle can be had for good: docker://HOST/NAME@DIGEST.

EXAMPLES
   lab bundle push bundle.tar docker://127.0.0.1:5000/bundles:audit
   lab reproduce docker://127.0.0.1:5000/bundles:audit`,
		Flags: append(sourceFlags(), jsonFlag()),
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("a bundle and a reference are wanted: lab bundle push bundle.tar docker://HOST/NAME:TAG")
			}
			from, err := bundleSource(c, c.Args().First())
			if err != nil {
				return err
			}
			s, err := theLab(c).PushBundle(c.Context, from, c.Args().Get(1))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, s)
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s  %s (%d parts; %.1f of %.1f MiB sent)\n", s.Digest, s.Reference, s.Parts, float64(s.Sent)/(1<<20), float64(s.Bytes)/(1<<20))
			return err
		},
	}
}

func bundlePullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "fetch a bundle from a registry, a layout or a URL",
		ArgsUsage: bundleArg,
		Description: `Fetches the bundle, verifies it, and writes the file that was pushed, byte for byte.
Parts that the cache has, as of another bundle, are not fetched again.

` + bundlePlaces + `

EXAMPLE
   lab bundle pull -o audit.tar docker://127.0.0.1:5000/bundles:audit`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the bundle to `FILE`", Value: "bundle.tar", Category: catOutput},
		}, sourceFlags()...),
		Action: func(c *cli.Context) error {
			from, err := oneBundle(c)
			if err != nil {
				return err
			}
			b, err := theLab(c).PullBundle(c.Context, from, c.String("output"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s: %d members\n", c.String("output"), len(b.Manifest.Members))
			return err
		},
	}
}
