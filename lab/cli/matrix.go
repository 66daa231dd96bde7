package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"lab/lab"
	"lab/lab/report"
)

func matrixCommand() *cli.Command {
	return &cli.Command{
		Name:      "matrix",
		Usage:     "run one test over kernels, images, boot options and containers, and say what stands out",
		ArgsUsage: "-- COMMAND [ARG...]",
		Description: `Runs the test in every combination of the kernels, images and settings that are
named, and prints a table of the verdicts and a sentence that says what the bad cells
have in common: the smallest set of values, if there is one, that all of them have and
no good cell has. All other flags are those of lab run, and the same for all cells.

   kernels      --kernels: what lab run --kernel takes; a folder, a quoted pattern or a
                list file stands for all kernels in it. --commits of --repo are built
   images       --images: what --image takes; a range app:1..app:20 of tags, or a pattern
   boot options --cmdlines, '' for none, behind those of --cmdline
   containers   --caps as lab bisect --caps-bad, --containers as its --container-bad:
                '' is what a container has when nobody says otherwise
   engines      --runtimes: lab, and those of the image that --base names

Several values of kernels, commits and images may stand between commas, and every flag
may be repeated: --cmdlines '' --cmdlines 'security=selinux enforcing=1'.

--runs N runs every cell N times: one that is bad at times is shown as bad 2/5. A cell
whose kernel does not build or boot, or for which lab could not do its work, says why,
and ends nothing. What is on record is not tested again: stopped or killed, the same
command goes on where it was, prints the table in another --format at once, and with
more values tests only the combinations that are new. Only what lab could not do is
tried again. Another --dir, or none of the old one, begins anew.

EXAMPLES
   lab matrix --kernels 'kernels/*.deb' --image docker://127.0.0.1:5000/app:1 -- /test
   lab matrix --kernels vmlinuz-6.1,vmlinuz-6.12 --images rootfs:old.tar,rootfs:new.tar \
       --cmdlines '' --cmdlines 'security=selinux' -- useradd -m test
   lab matrix --repo ~/linux --commits v6.1,v6.6 --image oci:./layout:app \
       --caps docker --caps docker,-AUDIT_WRITE --format html -o matrix.html -- su -c true`,
		Flags: slices.Concat(axisFlags(), []cli.Flag{
			moduleFlag(catKernel),
			&cli.IntFlag{Name: "runs", Usage: "run every cell `N` times", Value: 1, Category: catVerdict},
			&cli.IntFlag{Name: "jobs", Usage: "boot `N` cells at the same time", Value: 1, Category: catMachine},
			&cli.StringFlag{Name: "dir", Usage: "keep the state in `DIR`", DefaultText: "a folder of $XDG_STATE_HOME/lab/matrices named by the test", Category: catOutput},
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "`FORM` of the result: " + strings.Join(report.MatrixForms, ", "), Value: report.FormText, Category: catOutput},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to `FILE`, and the text to stdout", Category: catOutput},
			jsonFlag(),
		}, kernelFlags(), testFlags()),
		Action: func(c *cli.Context) error {
			s, err := spec(c)
			if err != nil {
				return err
			}
			o, err := matrixOptions(c, s)
			if err != nil {
				return err
			}
			form := c.String("format")
			if c.Bool("json") {
				form = report.FormJSON
			}
			if !slices.Contains(report.MatrixForms, form) {
				return usagef("--format %q is none of %s", form, strings.Join(report.MatrixForms, ", "))
			}
			return runMatrix(c, o, form)
		},
	}
}

// axisFlags name what a matrix has several values of.
func axisFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "kernels", Usage: "test with the ready-made kernels that `REF` names; commas part several, may be repeated", Category: catKernel},
		&cli.StringSliceFlag{Name: "commits", Usage: "test with kernels of the revisions `REV` of --repo; commas part several, may be repeated", Category: catKernel},
		&cli.StringSliceFlag{Name: "images", Usage: "test the images `REF`; commas part several, may be repeated", Category: catImage},
		&cli.StringSliceFlag{Name: "cmdlines", Usage: "test with the boot options `ARGS`; may be repeated", Category: catMachine},
		&cli.StringSliceFlag{Name: "caps", Usage: "test with the capabilities `LIST`: names between commas, in front of them ALL, none or docker to begin with, then -NAME drops one; may be repeated", Category: catTest},
		&cli.StringSliceFlag{Name: "containers", Usage: "test in a container with `WORDS`: between commas seccomp=PROFILE, userns, cgroup=VERSION, devices, unmasked, writable, or privileged; may be repeated", Category: catTest},
		&cli.StringSliceFlag{Name: "runtimes", Usage: "run the container by `NAME`, as --runtime does; commas part several, may be repeated", Category: catTest},
	}
}

// around are the flags that name the values of lab.MatrixAxes.
var around = map[string]string{"cmdlines": "cmdline", "caps": "caps", "containers": "container"}

// mostRuns of a cell tell how often a test fails to a percent.
const mostRuns = 1000

// matrixOptions turns the flags into options.
func matrixOptions(c *cli.Context, s lab.Spec) (lab.MatrixOptions, error) {
	s.Kernel.Modules = c.StringSlice("module")
	o := lab.MatrixOptions{
		Kernels: between(c, "kernels"), Commits: between(c, "commits"), Images: between(c, "images"),
		Around: map[string][]string{}, Runs: c.Int("runs"), Jobs: c.Int("jobs"), Dir: c.String("dir"),
	}
	for flag, axis := range around {
		o.Around[axis] = c.StringSlice(flag)
	}
	o.Around["runtime"] = between(c, "runtimes")
	if k := c.String("kernel"); k != "" { // of a command that has these, too
		o.Kernels = append(o.Kernels, k)
	}
	if rev := c.String("commit"); rev != "" && s.Kernel.Repo != "" && len(o.Commits) == 0 {
		o.Commits = []string{rev}
	}
	switch {
	case o.Runs < 1 || o.Runs > mostRuns:
		return o, usagef("--runs %d is not between 1 and %d", o.Runs, mostRuns)
	case o.Jobs < 1 || o.Jobs > mostJobs:
		return o, usagef("--jobs %d is not between 1 and %d; how many compilers run at a time is --make-jobs", o.Jobs, mostJobs)
	case len(o.Kernels) == 0 && len(o.Commits) == 0:
		return o, usagef("no kernels: name some with --kernels REF, or --repo DIR --commits REV")
	case len(o.Commits) > 0 && s.Kernel.Repo == "":
		return o, usagef("--commits goes with --repo DIR")
	case len(o.Commits) == 0 && s.Kernel.Repo != "":
		return o, usagef("--repo goes with --commits REV: which of its commits?")
	case len(o.Commits) > 0 && len(s.Kernel.Modules) > 0:
		return o, usagef("--module goes with --kernels: name the option of %s in a file for --config", s.Kernel.Modules[0])
	case len(o.Images) > 0 && c.IsSet("image"):
		return o, usagef("--image and --images exclude each other")
	case s.Symptom.Kind == lab.SymptomBuild && len(o.Images)+len(s.Images)+len(o.Around["cmdline"])+len(o.Around["caps"])+len(o.Around["container"])+len(o.Around["runtime"]) > 0:
		return o, usagef("--symptom build goes with --commits alone: nothing is booted")
	}
	for _, name := range []string{"commit", "config", "toolchain", "pick", "patch"} {
		if c.IsSet(name) && len(o.Commits) == 0 {
			return o, usagef("--%s goes with --commits: ready-made kernels are built already", name)
		}
	}
	if c.IsSet("runtime") && len(o.Around["runtime"]) > 0 {
		return o, usagef("--runtime and --runtimes exclude each other")
	}
	for _, name := range []string{"cap-add", "cap-drop", "privileged"} {
		if c.IsSet(name) && len(o.Around["caps"]) > 0 {
			return o, usagef("--%s does not go with --caps: name all capabilities there, as in docker,NET_ADMIN", name)
		}
	}
	if len(o.Images) > 0 {
		s.Images = slices.Insert(s.Images, 0, lab.Load{Name: mainImage, Reference: o.Images[0]})
	}
	err := check(&s)
	o.Spec = s
	return o, err
}

// between parts the values of a flag at commas.
func between(c *cli.Context, name string) (list []string) {
	for _, text := range c.StringSlice(name) {
		for v := range strings.SplitSeq(text, ",") {
			if v = strings.TrimSpace(v); v != "" {
				list = append(list, v)
			}
		}
	}
	return list
}

func runMatrix(c *cli.Context, o lab.MatrixOptions, form string) error {
	m, err := theLab(c).Matrix(c.Context, o)
	if err != nil {
		return err
	}
	name := c.String("output")
	var data []byte
	if form == report.FormText && name == "" {
		data = []byte(m.Text(isTerminal(c.App.Writer)))
	} else if data, err = report.RenderMatrix(m, form); err != nil {
		return err
	}
	if name != "" {
		if err := renameio.WriteFile(name, data, 0o644); err != nil {
			return fmt.Errorf("write matrix: %w", err)
		}
		data = []byte(m.Text(isTerminal(c.App.Writer)))
	}
	if _, err := c.App.Writer.Write(data); err != nil {
		return fmt.Errorf("print matrix: %w", err)
	}
	return result(markCode(lab.Mark(m.Verdict)))
}

// isTerminal tells whether there is somebody to see colours: see no-color.org.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
