package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"lab/lab"
	"lab/lab/demo"
	"lab/probe"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "find a real kernel regression and rerun the bundle",
		Description: `Tells the story that lab was made for, on this machine, with real parts: a
container's audit messages are answered "connection refused" by one kernel, which
su shrugs off, and "operation not permitted" by another, at which su gives up.
lab demo makes a git history of the distribution's kernel source in which one of
about two dozen commits changes that answer, and a container image whose test
asks the kernel; then it bisects, writes the bundle, and reproduces it.

EXAMPLES
   lab demo --install
   lab demo su --install             the same kernels, and the su of those days
   lab demo useradd --install        another story, in a minute and without a build`,
		Flags:  demoFlags(),
		Action: func(c *cli.Context) error { return runDemo(c, auditStory) },
		Subcommands: []*cli.Command{{
			Name:  "su",
			Usage: "the story itself: su says 'System error' in a container",
			Description: `In 2014 su broke in containers with an upgrade to Linux 3.15, because of two things
that did not go together: a kernel that answers a container's audit message with
"operation not permitted", and a libpam that takes that for an error when it is root.
The kernel's half is the history of lab demo. The other is built here: libpam from
the distribution's source package with one line as it was before 2015, in a root file
system of the distribution's packages. What is bisected is nothing but 'su -c'.

EXAMPLE
   lab demo su --install`,
			Flags:  demoFlags(),
			Action: func(c *cli.Context) error { return runDemo(c, suStory) },
		}, demoUseraddCommand()},
	}
}

func demoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "install", Usage: "install what is missing first, as lab doctor --install does"},
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "write the bundle to `FILE`", Value: "bundle.tar", Category: catOutput},
		makeJobsFlag(),
		jsonFlag(),
	}
}

// A story is a container that the history of lab demo breaks.
type story struct {
	name    string   // in the name of the folder of its state
	needs   []string // purposes of tools beside those of lab demo
	image   string   // the chapter that gets it
	get     func(*teller, context.Context) (ref string, stop func(), err error)
	command []string // nil: the image's
}

var (
	auditStory = story{name: "bisect", image: "A container image that shows it, pulled from a registry on this host", get: (*teller).serve}
	suStory    = story{"bisect-su", []string{lab.ForStories}, "A container whose su has the libpam of 2014", (*teller).suRoot, demo.SuCommand}
)

// demoResult is the JSON of lab demo.
type demoResult struct {
	Bisection    lab.Bisection    `json:"bisection"`
	Reproduction lab.Reproduction `json:"reproduction"`
	Bundle       string           `json:"bundle"`
	Planted      string           `json:"planted"` // the commit that the demo's history broke the container with
	Elapsed      time.Duration    `json:"elapsed_ns"`
}

// A teller numbers the chapters of the demo.
type teller struct {
	l     *lab.Lab
	start time.Time
	n, of int // chapters
}

func (t *teller) chapter(format string, args ...any) {
	t.n++
	t.say("")
	t.say(fmt.Sprintf("[%d/%d, %s] ", t.n, t.of, time.Since(t.start).Round(time.Second)) + fmt.Sprintf(format, args...))
}

func (t *teller) say(s string) { t.l.Progress.Say("%s", s) }

func runDemo(c *cli.Context, s story) error {
	if c.Args().Present() {
		return usagef("unexpected argument %q", c.Args().First())
	}
	t := &teller{l: theLab(c), start: time.Now(), of: 6}
	if err := t.machine(c, append([]string{lab.ForBoot, lab.ForBuild, lab.ForDemo}, s.needs...)); err != nil {
		return err
	}
	t.chapter("A kernel tree with a regression in it")
	repo, err := t.history(c.Context)
	if err != nil {
		return err
	}
	t.chapter("%s", s.image)
	ref, stop, err := s.get(t, c.Context)
	if err != nil {
		return err
	}
	defer stop()

	t.chapter("The bisection")
	o := t.options(repo, ref, c.Int("make-jobs"))
	o.Dir, o.Spec.Test.Command = filepath.Join(t.l.Cache, "demo", s.name), s.command
	if err := os.RemoveAll(o.Dir); err != nil { // a demo begins at the beginning
		return fmt.Errorf("remove the last demo's state: %w", err)
	}
	line := fmt.Sprintf("lab bisect --repo %s --good %.12s --bad %.12s --config tiny --image %s --cap-drop AUDIT_WRITE --bundle %s",
		repo.Dir, repo.Good, repo.Bad, ref, c.String("bundle"))
	if s.command != nil {
		line += " -- " + shellWords(s.command)
	}
	t.say(line)
	found, err := t.l.Bisect(c.Context, o)
	if err != nil {
		return err
	}
	if found.Culprit == nil {
		return fmt.Errorf("the demo found no commit: %s", found.Unclear)
	}
	t.say(strings.TrimRight(answer(found), "\n"))

	t.chapter("The bundle")
	if err := t.l.WriteBundle(c.Context, found, o, lab.BundleOptions{}, c.String("bundle")); err != nil {
		return err
	}
	size, err := os.Stat(c.String("bundle"))
	if err != nil {
		return fmt.Errorf("look at the bundle: %w", err)
	}
	t.say(fmt.Sprintf("%s, %.1f MiB: everything that went in and came out", c.String("bundle"), float64(size.Size())/(1<<20)))

	t.chapter("The rerun, as whoever gets the bundle would do it: lab reproduce %s", c.String("bundle"))
	again, err := t.l.Reproduce(c.Context, lab.BundleSource{Place: c.String("bundle")}, lab.ReproduceOptions{})
	if err != nil {
		return err
	}
	r := demoResult{found, again, c.String("bundle"), repo.Culprit, time.Since(t.start)}
	t.say("")
	return r.tell(c)
}

// tell prints how it ended: good only when the commit is the planted one and
// the rerun gave the same.
func (r demoResult) tell(c *cli.Context) error {
	var err error
	if c.Bool("json") {
		err = printJSON(c.App.Writer, r)
	} else {
		_, err = fmt.Fprintf(c.App.Writer, "first bad commit: %s %s\nreproduced: %s\nbundle: %s\ntime: %s\n",
			r.Bisection.Culprit.Hash, r.Bisection.Culprit.Title, r.Reproduction.Outcome, r.Bundle, r.Elapsed.Round(time.Second))
	}
	switch {
	case err != nil:
		return err
	case r.Bisection.Culprit.Hash != r.Planted:
		return fmt.Errorf("the demo planted %s and found another commit: a bug of lab, please report it with the bundle", r.Planted)
	case r.Reproduction.Outcome != lab.Same:
		return result(ExitBad)
	}
	return nil
}

// machine is the first chapter of each story.
func (t *teller) machine(c *cli.Context, purposes []string) error {
	t.chapter("This machine: what lab needs, and whether KVM works")
	h, err := examine(c, purposes, c.Bool("install"), false)
	if err != nil {
		return err
	}
	if !h.Ready() {
		return fmt.Errorf("missing: %s\n  run '%s --install', or: %s", strings.Join(h.Missing(), ", "), c.Command.HelpName, strings.Join(h.Install, " "))
	}
	t.say(fmt.Sprintf("QEMU %s; %s: %s", h.QEMU, h.Accel.Name, h.Accel.Reason))
	return nil
}

func (t *teller) history(ctx context.Context) (demo.Repo, error) {
	source, err := demo.Source()
	if err != nil {
		return demo.Repo{}, err
	}
	t.say("source: " + source)
	repo, err := demo.History(ctx, filepath.Join(t.l.Cache, "demo"), source, func(done, total int64, what string) {
		t.l.Progress.Show("%s: %d %%", what, 100*done/max(total, 1))
	})
	t.l.Progress.Show("")
	if err == nil {
		t.say(fmt.Sprintf("history: %d commits in %s", repo.Commits, repo.Dir))
	}
	return repo, err
}

func (t *teller) serve(ctx context.Context) (ref string, stop func(), err error) {
	agent, err := t.l.Agent()
	if err != nil {
		return "", nil, err
	}
	img, err := demo.Image(agent)
	if err != nil {
		return "", nil, err
	}
	addr, stop, err := demo.Serve(ctx, map[string]v1.Image{"audit:1": img})
	if err != nil {
		return "", nil, err
	}
	return "docker://" + addr + "/audit:1", stop, nil
}

func (t *teller) suRoot(ctx context.Context) (ref string, stop func(), err error) {
	tar, err := demo.SuRoot(ctx, filepath.Join(t.l.Cache, "demo"), t.say)
	return "rootfs:" + tar, func() {}, err
}

func (t *teller) options(repo demo.Repo, ref string, jobs int) lab.BisectOptions {
	return lab.BisectOptions{
		Good: []string{repo.Good},
		Bad:  repo.Bad,
		Spec: lab.Spec{
			Kernel:  lab.KernelSpec{Repo: repo.Dir, Config: []string{"tiny"}, Jobs: jobs},
			Images:  []lab.Load{{Name: mainImage, Reference: ref}},
			Test:    probe.Spec{CapDrop: []string{"AUDIT_WRITE"}, Timeout: time.Minute, Epoch: defaultClock},
			Machine: lab.MachineSpec{Memory: 512},
		},
	}
}
