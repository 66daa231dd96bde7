package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"lab/lab"
	"lab/lab/bundle"
)

func bundleCommand() *cli.Command {
	return &cli.Command{
		Name:  "bundle",
		Usage: "look into bundles, compare, sign and share them",
		Description: `A bundle is the one file that lab bisect --bundle writes and lab reproduce reruns.

` + bundlePlaces + `

EXAMPLES
   lab bundle sign --key ~/.ssh/id_ed25519 bundle.tar
   lab bundle push bundle.tar docker://127.0.0.1:5000/bundles:audit
   lab bundle verify --verify allowed_signers docker://127.0.0.1:5000/bundles:audit
   lab bundle diff bundle.tar docker://127.0.0.1:5000/bundles:audit`,
		Subcommands: []*cli.Command{
			bundleLsCommand(), bundleVerifyCommand(), bundleSignCommand(), bundleDiffCommand(), bundlePushCommand(), bundlePullCommand(),
		},
	}
}

// bundleArg is what stands for a bundle that is read.
const bundleArg = "FILE|-|URL|REF"

// bundlePlaces is the paragraph of help that says so.
const bundlePlaces = `A bundle is a FILE, - for standard input, an http:// or https:// URL, or the REF of
one in a registry or layout: docker://HOST/NAME:TAG, oci:DIR:TAG, oci-archive:FILE:TAG.
What comes from elsewhere goes into the cache's quarantine, bounded in size; a download
that was broken off goes on where it stopped.`

// sourceFlags say how to get a bundle, and whose it has to be.
func sourceFlags() []cli.Flag {
	return []cli.Flag{
		verifyFlag(), mirrorFlag(catBundle), plainHTTPFlag(catBundle),
	}
}

func verifyFlag() cli.Flag {
	return &cli.StringFlag{Name: "verify", Usage: "refuse a bundle that none of the allowed signers in `FILE` has signed (ssh-keygen(1), ALLOWED SIGNERS)", Category: catBundle}
}

// allowKVMFlag is on commands that boot a bundle's kernels.
func allowKVMFlag(category string) cli.Flag {
	return &cli.BoolFlag{Name: "allow-kvm", Usage: "let the bundle's kernels have KVM, where it works: faster, and another part of the host's kernel that a stranger's kernel can reach", Category: category}
}

// bundleSource is an argument and what sourceFlags say of it.
func bundleSource(c *cli.Context, place string) (lab.BundleSource, error) {
	s := lab.BundleSource{Place: place, Stdin: os.Stdin}
	var err error
	if s.Registries, err = registries(c); err == nil && c.String("verify") != "" {
		s.Signers, err = bundle.ReadSigners(c.String("verify"))
	}
	return s, err
}

// oneBundle is the source that the only argument names.
func oneBundle(c *cli.Context) (lab.BundleSource, error) {
	if c.NArg() != 1 {
		return lab.BundleSource{}, usagef("one bundle is wanted: lab bundle %s bundle.tar", c.Command.Name)
	}
	return bundleSource(c, c.Args().First())
}

func bundleLsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list what is in a bundle",
		ArgsUsage: bundleArg,
		Description: `Verifies the bundle and lists its members: size in bytes, SHA-256, name.

` + bundlePlaces,
		Flags: append(sourceFlags(), jsonFlag()),
		Action: func(c *cli.Context) error {
			from, err := oneBundle(c)
			if err != nil {
				return err
			}
			b, err := theLab(c).VerifyBundle(c.Context, from)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, b.Manifest.Members)
			}
			for _, m := range b.Manifest.Members {
				if _, err := fmt.Fprintf(c.App.Writer, "%12d  %s  %s\n", m.Size, m.SHA256, m.Name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// verifiedJSON is the JSON of lab bundle verify.
type verifiedJSON struct {
	Members   int            `json:"members"`
	Bytes     int64          `json:"bytes"`
	Lab       string         `json:"lab"`
	Culprit   string         `json:"culprit,omitempty"`
	Signature *signatureJSON `json:"signature"`
}

type signatureJSON struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
	Trusted     bool   `json:"trusted"` // one of the allowed signers' of --verify
}

func bundleVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "verify every byte of a bundle, and its signature",
		ArgsUsage: bundleArg,
		Description: `Says whether the bundle is whole and what a bundle may be. Where it is signed, the
signature is of these bytes; whose it is, --verify tells: a file of allowed signers as
ssh-keygen -Y verify and git take it.

` + bundlePlaces + `

EXAMPLE
   lab bundle verify --verify allowed_signers bundle.tar`,
		Flags: append(sourceFlags(), jsonFlag()),
		Action: func(c *cli.Context) error {
			from, err := oneBundle(c)
			if err != nil {
				return err
			}
			b, err := theLab(c).VerifyBundle(c.Context, from)
			if err != nil {
				return err
			}
			out := verifiedJSON{Members: len(b.Manifest.Members), Lab: b.Manifest.Lab}
			for _, m := range b.Manifest.Members {
				out.Bytes += m.Size
			}
			if k := b.Manifest.Culprit; k != nil {
				out.Culprit = k.Title
			}
			signature := "not signed"
			if s := b.Signature; s != nil {
				out.Signature = &signatureJSON{s.Type, s.Fingerprint, from.Signers != nil}
				if signature = "signed by " + s.Fingerprint; from.Signers == nil {
					signature += " (not checked)"
				}
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, out)
			}
			_, err = fmt.Fprintf(c.App.Writer, "whole: %d members, %.1f MiB, made by lab %s; %s\n", out.Members, float64(out.Bytes)/(1<<20), out.Lab, signature)
			return err
		},
	}
}

func bundleSignCommand() *cli.Command {
	return &cli.Command{
		Name:      "sign",
		Usage:     "sign a bundle with a key of ssh's",
		ArgsUsage: "FILE",
		Description: `Puts a signature into the bundle, in the place of one that is there: SHA256SUMS.sig,
made of SHA256SUMS as ssh-keygen -Y sign makes it, which tells every other byte. With
KEY.pub the key is ssh-agent's.

Who has no lab verifies it with what there is everywhere:
   tar xf bundle.tar
   ssh-keygen -Y verify -f allowed_signers -I WHO -n lab-bundle -s SHA256SUMS.sig < SHA256SUMS
   sha256sum -c SHA256SUMS

EXAMPLES
   lab bundle sign --key ~/.ssh/id_ed25519 bundle.tar
   tar xf bundle.tar SHA256SUMS    # a key in hardware: ssh-keygen asks it
   ssh-keygen -Y sign -n lab-bundle -f ~/.ssh/id_ed25519_sk SHA256SUMS
   lab bundle sign --signature SHA256SUMS.sig bundle.tar`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Aliases: []string{"k"}, Usage: "sign with the private key in `FILE`, or ssh-agent's of the public one there"},
			&cli.StringFlag{Name: "signature", Usage: "put in the signature in `FILE`, which ssh-keygen made"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the signed bundle to `FILE`", DefaultText: "the bundle itself"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one bundle is wanted: lab bundle sign --key KEY bundle.tar")
			}
			var key bundle.Key
			var err error
			switch private, made := c.String("key"), c.String("signature"); {
			case (private == "") == (made == ""):
				return usagef("a key is wanted, --key FILE, or a signature, --signature FILE")
			case private != "":
				key, err = readKey(c, private)
			default:
				key, err = bundle.ReadSignature(made)
			}
			if err != nil {
				return err
			}
			file := c.Args().First()
			out := c.String("output")
			if out == "" {
				out = file
			}
			s, err := bundle.Sign(c.Context, file, out, key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "signed by %s: %s\n", s.Fingerprint, out)
			return err
		},
	}
}

// readKey reads a key, and asks the terminal for a passphrase.
func readKey(c *cli.Context, file string) (bundle.Key, error) {
	return bundle.ReadKey(file, func() ([]byte, error) {
		fd := int(os.Stdin.Fd())
		if !term.IsTerminal(fd) {
			return nil, errors.New("it has a passphrase, and there is no terminal to ask on: give it to ssh-agent and name the public key")
		}
		fmt.Fprintf(c.App.ErrWriter, "Passphrase of %s: ", file)
		words, err := term.ReadPassword(fd)
		fmt.Fprintln(c.App.ErrWriter)
		return words, err
	})
}
