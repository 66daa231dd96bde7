package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"lab/kernel"
)

func kernelLsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list the kernels in the cache",
		Description: `Lists the kernels that lab built and unpacked, and the images with a toolchain that
it unpacked, the last used first: when they were
last used and made, how large they are, their release, what they came from and
with which config: a built-in fragment's name, or the beginning of the request's
digest. A commit that does not build is in the cache too.`,
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unexpected argument %q", c.Args().First())
			}
			list, err := kernel.List(c.Context, theLab(c).Cache)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, append([]kernel.Cached{}, list...))
			}
			var total int64
			for _, k := range list {
				total += k.Size
				if _, err := fmt.Fprintln(c.App.Writer, cachedLine(k, time.Now())); err != nil {
					return err
				}
			}
			theLab(c).Progress.Say("%d in the cache, %s", len(list), sizeText(total))
			objects, err := kernel.ObjectsSize(theLab(c).Cache)
			if err == nil && objects > 0 {
				theLab(c).Progress.Say("ccache keeps %s of objects, 2 GiB at most", sizeText(objects))
			}
			return err
		},
	}
}

// cachedLine is an entry of the cache for people.
func cachedLine(k kernel.Cached, now time.Time) string {
	what := k.Release
	switch {
	case k.Damaged:
		what = "damaged"
	case k.Failure != "":
		what = "does not build"
	}
	source := k.Source
	if k.Commit != "" {
		source = fmt.Sprintf("%.12s", k.Commit)
	}
	if k.OnTop > 0 {
		source += fmt.Sprintf(" + %d on top", k.OnTop)
	}
	if k.Failure != "" {
		source = k.Failure
	}
	if k.Toolchain != "" && !k.Damaged {
		what, source = "toolchain", k.Toolchain
	}
	config := k.Config
	if config == "" {
		config = "-"
	}
	return strings.TrimRight(fmt.Sprintf("used %-4s made %-4s %9s  %-24s  %-16s  %s", ageText(now.Sub(k.Used)), ageText(now.Sub(k.Made)), sizeText(k.Size), what, config, source), " ")
}

func kernelGCCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "free kernels in the cache",
		Description: `Frees the kernels and unpacked toolchains that were not used for AGE, and the longest
unused ones until no more than SIZE is left. One that any lab uses at the time stays. What is freed
is built or unpacked again when it is needed.

EXAMPLES
   lab kernel gc --older 30d --dry-run
   lab kernel gc --keep-size 4G
   lab kernel gc --keep-size 0 --trees`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "older", Usage: "free what was not used for `AGE` (m, h, d)"},
			&cli.StringFlag{Name: "keep-size", Usage: "free the longest unused until `SIZE` is left (K, M, G, T)"},
			&cli.BoolFlag{Name: "trees", Usage: "free work trees too, from which builds are incremental, and what ccache keeps of them"},
			&cli.BoolFlag{Name: "clones", Usage: "free the clones of repositories that --repo gave by URL, too"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "free nothing, say what would be"},
			jsonFlag(),
		},
		Action: runKernelGC,
	}
}

func runKernelGC(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("unexpected argument %q", c.Args().First())
	}
	o := kernel.FreeOptions{Trees: c.Bool("trees"), Clones: c.Bool("clones"), DryRun: c.Bool("dry-run"), Limit: c.IsSet("keep-size")}
	if !c.IsSet("older") && !o.Limit && !o.Trees && !o.Clones {
		return usagef("free what? Say --older AGE, --keep-size SIZE, --trees or --clones")
	}
	var err error
	if c.IsSet("older") {
		if o.Older, err = age(c.String("older")); err != nil {
			return usagef("--older: %v", err)
		}
	}
	if o.Limit {
		if o.Keep, err = size(c.String("keep-size")); err != nil {
			return usagef("--keep-size: %v", err)
		}
	}
	freed, err := kernel.Free(c.Context, theLab(c).Cache, o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, freed)
	}
	for _, k := range freed.Kernels {
		if _, err := fmt.Fprintln(c.App.Writer, cachedLine(k, time.Now())); err != nil {
			return err
		}
	}
	for _, dir := range freed.Trees {
		if _, err := fmt.Fprintln(c.App.Writer, "work tree", dir); err != nil {
			return err
		}
	}
	if freed.Objects != "" {
		if _, err := fmt.Fprintln(c.App.Writer, "ccache's objects", freed.Objects); err != nil {
			return err
		}
	}
	for _, dir := range freed.Clones {
		if _, err := fmt.Fprintln(c.App.Writer, "clone", dir); err != nil {
			return err
		}
	}
	for _, dir := range freed.InUse {
		theLab(c).Progress.Say("in use, and kept: %s", dir)
	}
	verb := "freed"
	if o.DryRun {
		verb = "would free"
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s %s; %s of kernels and toolchains left\n", verb, sizeText(freed.Size), sizeText(freed.Kept))
	return err
}

// age reads a time like 30d, 12h or 90m.
func age(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/int64(24*time.Hour) {
			return 0, fmt.Errorf("%q is not an age like 30d, 12h or 90m", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not an age like 30d, 12h or 90m", s)
	}
	return d, nil
}

// ageText says an age in its largest unit.
func ageText(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", max(0, d/time.Minute))
}

// sizeText says a number of bytes.
func sizeText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}
