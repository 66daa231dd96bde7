package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"

	"lab/lab"
	"lab/lab/report"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "tell what a bundle has found: text, Markdown, HTML, JSON, JUnit, KTAP, a mail",
		ArgsUsage: bundleArg,
		Description: `Verifies every byte of the bundle, as lab reproduce does, and prints a report of it.
Nothing is booted, and nothing but the bundle is read.

   text    what a bundle has as REPORT.txt: plain text below 100 kB
   md      Markdown for a bug tracker
   html    one page that needs no network and runs no script; a bundle has it as report.html
   json    everything that the others are made of
   junit   JUnit's XML, a test case for each test of the search
   ktap    KTAP version 1, the same for kernel CI
   email   a mail to the kernel's lists, as Documentation/admin-guide/reporting-regressions.rst
           asks for it, ready for git send-email

The mail proposes who gets it: the author and the signers of the commit, the list of
regressions and, with --repo, whom scripts/get_maintainer.pl of that kernel tree names.
These names come from the commit: read them before you send. Add what only you know: what
you did, and what you expected.

EXAMPLES
   lab report bundle.tar
   lab report bundle.tar --format html -o report.html
   lab report bundle.tar --format email --repo ~/linux --from 'A U Thor <author@example.org>' \
       --link https://example.org/bundle.tar -o mail && git send-email mail`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "`FORM` of the report: " + strings.Join(report.Forms, ", "), Value: report.FormText, Category: catOutput},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to `FILE`, not to stdout", Category: catOutput},
			&cli.StringFlag{Name: "repo", Usage: "of a mail: ask the kernel tree in `DIR` for the maintainers", Category: catOutput},
			&cli.StringFlag{Name: "from", Usage: "of a mail: `NAME <ADDRESS>` of who reports it", Category: catOutput},
			&cli.StringFlag{Name: "link", Usage: "of a mail: `URL` where the bundle can be had", Category: catOutput},
			&cli.BoolFlag{Name: "json", Usage: "the same as --format json", Category: catOutput},
		}, sourceFlags()...),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one bundle is wanted: lab report bundle.tar")
			}
			form := c.String("format")
			if c.Bool("json") {
				form = report.FormJSON
			}
			if !slices.Contains(report.Forms, form) {
				return usagef("--format %q is none of %s", form, strings.Join(report.Forms, ", "))
			}
			mail := report.Mail{From: c.String("from"), Link: c.String("link")}
			for _, name := range []string{"repo", "from", "link"} {
				if c.IsSet(name) && form != report.FormEmail {
					return usagef("--%s goes with --format email", name)
				}
			}
			if mail.From != "" {
				if _, err := report.ParseAddress(mail.From); err != nil {
					return usagef("--from: %v", err)
				}
			}
			return runReport(c, form, mail)
		},
	}
}

func runReport(c *cli.Context, form string, mail report.Mail) error {
	from, err := bundleSource(c, c.Args().First())
	if err != nil {
		return err
	}
	d, err := theLab(c).Report(c.Context, from)
	if err != nil {
		return err
	}
	d = d.Plain()
	if d.Mail = mail; c.IsSet("repo") && d.Patch != "" {
		if d.Mail.Maintainers, err = lab.Maintainers(c.Context, c.String("repo"), d.Patch+"\n"); err != nil {
			return err
		}
	}
	data, err := report.Render(d, form)
	if err != nil {
		return err
	}
	if name := c.String("output"); name != "" {
		if err := renameio.WriteFile(name, data, 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		return nil
	}
	_, err = c.App.Writer.Write(data)
	return err
}
