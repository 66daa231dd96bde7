package cli

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"lab/lab"
	"lab/oci"
	"lab/probe"
)

// Flag categories, as help shows them.
const (
	catKernel  = "Kernel"
	catImage   = "Images"
	catTest    = "Test"
	catVerdict = "Verdict"
	catMachine = "Machine"
	catOutput  = "Output"
	catBundle  = "Bundle"
)

// jsonFlag is on every command that has a result.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the result as JSON on stdout", Category: catOutput}
}

func kernelFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "repo", Usage: "build kernels of the Linux git tree `DIR-OR-URL`: a directory is never written to, and of what is at an https, git, ssh or file URL lab keeps a clone, without the files it does not need", Category: catKernel},
		&cli.StringSliceFlag{Name: "config", Usage: "config `FRAGMENT`, built in (container, tiny, selinux, exact, debug, host; see lab kernel config) or a file; may be repeated, later ones win", DefaultText: "container", Category: catKernel},
		pickFlag(),
		patchFlag(),
		toolchainFlag(),
		makeJobsFlag(),
	}
}

func pickFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "pick", Usage: "put the commit `[BROKEN..]REPAIRED` of --repo, a repair as a rule, on top of each commit that misses and needs it (lab kernel build --help has the rule); may be repeated", Category: catKernel}
}

func patchFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "patch", Usage: "put the patch in `FILE` (a diff, or git format-patch's mail) on top of every commit, for the printk's with which one looks for a bug; may be repeated", Category: catKernel}
}

// onTop are the flags that say what goes on top of commits.
var onTop = []string{"pick", "patch"}

// toolchainFlag says what builds kernels.
func toolchainFlag() cli.Flag {
	return &cli.StringFlag{Name: "toolchain", Usage: "build with `GCC`: a name (gcc-9), a path, a folder that has bin/gcc, or an image with a compiler (docker://…/gcc:4.9, rootfs:FILE.tar, as for --image), which lab unpacks and enters without docker", DefaultText: "gcc, or the installed gcc-N that suits the kernel's age", Category: catKernel}
}

// moduleFlag goes with kernels that are ready made.
func moduleFlag(category string) cli.Flag {
	return &cli.StringSliceFlag{Name: "module", Usage: "take the module `NAME` from the kernel's package, with all it depends on, and load it before the test, which is skipped where it does not load; may be repeated", Category: category}
}

func mirrorFlag(category string) cli.Flag {
	return &cli.StringSliceFlag{Name: "registry-mirror", Usage: "ask `MIRROR` before the registry it mirrors: [REGISTRY=]HOST[:PORT][/PREFIX], as in docker.io=mirror.example:5000/hub (docker.io goes without saying); may be repeated, tried in order", Category: category}
}

func plainHTTPFlag(category string) cli.Flag {
	return &cli.StringSliceFlag{Name: "plain-http", Usage: "speak plain HTTP to the registry or mirror `HOST[:PORT]` (on this host lab does so anyway); may be repeated", Category: category}
}

func imageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "load", Usage: "put another image into the guest, as `NAME=REF`; may be repeated", Category: catImage},
		&cli.StringFlag{Name: "base", Usage: "make the root file system of the image `REF` the guest's own, around the containers: a userland for --runtime", Category: catImage},
		&cli.StringFlag{Name: "platform", Usage: "take `OS/ARCH` from images for several platforms", DefaultText: "the host's", Category: catImage},
		mirrorFlag(catImage), plainHTTPFlag(catImage),
		&cli.StringFlag{Name: "max-unpacked", Usage: "refuse an image of more than `SIZE` unpacked (M, G, T)", Value: "256G", Category: catImage},
		&cli.StringFlag{Name: "free", Usage: "leave `SIZE` free on the guest's disk (K, M, G)", Value: "256M", Category: catImage},
	}
}

// testFlags are what a trial takes: all of a test, its verdict and its machine.
func testFlags() []cli.Flag {
	return slices.Concat(imageFlags(), []cli.Flag{
		&cli.StringFlag{Name: "spec", Usage: "read flags from the YAML `FILE`: each key a flag's name, and command for what stands behind --; flags win"},
		&cli.StringFlag{Name: "image", Usage: "test the container image `REF`: docker://HOST/NAME:TAG, oci:DIR:TAG, oci-archive:FILE, docker-archive:FILE, rootfs:FILE.tar or rootfs:DIR", Category: catImage},

		&cli.StringFlag{Name: "runtime", Usage: "run the container by `NAME`: lab (lab's own agent), or crun, runc, podman or docker, as the image of --base has it", Value: "lab", Category: catTest},
		&cli.StringFlag{Name: "init", Usage: "boot the guest by `NAME`: lab (lab's own agent), or systemd, as the image of --base has it", Value: "lab", Category: catTest},
	}, containerFlags(), []cli.Flag{
		&cli.StringFlag{Name: "clock", Usage: "start the guest's clock at `TIME` (RFC 3339)", DefaultText: "2020-01-01T00:00:00Z", Category: catTest},

		&cli.StringFlag{Name: "symptom", Usage: "hunt `KIND`: test, build, boot or crash", Value: lab.SymptomTest, Category: catVerdict},
		&cli.StringFlag{Name: "good-match", Usage: "good only when `REGEX` is found in stdout, stderr, syslog or the console", Category: catVerdict},
		&cli.StringFlag{Name: "bad-match", Usage: "bad only when `REGEX` is found there; other failures are skipped", Category: catVerdict},

		&cli.StringFlag{Name: "cmdline", Usage: "append `ARGS` to the kernel's command line", Category: catMachine},
		&cli.IntFlag{Name: "memory", Aliases: []string{"m"}, Usage: "give the guest `MIB` of memory", Value: 1024, Category: catMachine},
		&cli.IntFlag{Name: "cpus", Usage: "give the guest `N` processors", Value: 1, Category: catMachine},
		&cli.StringFlag{Name: "accel", Usage: "kvm or tcg", DefaultText: "kvm where a boot proves that it works, else tcg", Category: catMachine},
		&cli.StringFlag{Name: "qemu", Usage: "run this QEMU `BINARY`", DefaultText: "qemu-system-ARCH", Category: catMachine},
		&cli.BoolFlag{Name: "exact", Usage: "count time in instructions: two runs of the same say the same, byte by byte (with tcg and one processor; twice as slow)", Category: catMachine},
		&cli.DurationFlag{Name: "boot-timeout", Usage: "the kernel does not boot when userspace is not there after `TIME`", Value: 2 * time.Minute, Category: catMachine},
	})
}

// applySpecFile sets every flag that the --spec file names and the command
// line does not, and gives the file's command.
func applySpecFile(c *cli.Context) ([]string, error) {
	name := c.String("spec")
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	var values map[string]yaml.Node
	if err := yaml.Unmarshal(data, &values); err != nil {
		return nil, fmt.Errorf("read spec %s: %w", name, err)
	}
	var command []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		node := values[key]
		list, err := scalars(&node)
		if err != nil {
			return nil, fmt.Errorf("read spec %s: line %d: %s: %w", name, node.Line, key, err)
		}
		switch {
		case key == "command":
			command = list
			continue
		case !hasFlag(c, key) || key == "spec":
			return nil, fmt.Errorf("read spec %s: line %d: %s is not a flag of lab %s", name, node.Line, key, c.Command.Name)
		case c.IsSet(key):
			continue
		}
		for _, v := range list {
			if err := c.Set(key, v); err != nil {
				return nil, fmt.Errorf("read spec %s: line %d: %s: %w", name, node.Line, key, err)
			}
		}
	}
	return command, nil
}

// scalars gives a YAML scalar, or a list of them, as strings.
func scalars(n *yaml.Node) ([]string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return []string{n.Value}, nil
	case yaml.SequenceNode:
		var list []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("a list of plain values is wanted")
			}
			list = append(list, item.Value)
		}
		return list, nil
	}
	return nil, fmt.Errorf("a value or a list of values is wanted")
}

func hasFlag(c *cli.Context, name string) bool {
	return slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// spec turns flags, spec file and arguments into a Spec. The command to test
// stands behind "--".
func spec(c *cli.Context) (lab.Spec, error) {
	command, err := applySpecFile(c)
	if err != nil {
		return lab.Spec{}, err
	}
	if stray := beforeDashes(c); len(stray) > 0 {
		return lab.Spec{}, usagef("unexpected argument %q: the command to test stands behind --", stray[0])
	}
	if c.Args().Present() {
		command = c.Args().Slice()
	}
	s, err := imageSpec(c)
	if err != nil {
		return lab.Spec{}, err
	}
	clock := defaultClock
	if s := c.String("clock"); s != "" {
		if clock, err = time.Parse(time.RFC3339, s); err != nil {
			return lab.Spec{}, usagef("--clock: %v", err)
		}
	}
	if s.Test, err = containerTest(c, command); err != nil {
		return lab.Spec{}, err
	}
	s.Test.Epoch = clock
	if r := c.String("runtime"); r != "lab" {
		if !slices.Contains(probe.Runtimes, r) {
			return lab.Spec{}, usagef("runtime %q is not known: lab, %s", r, strings.Join(probe.Runtimes, ", "))
		}
		s.Test.Runtime = r
	}
	if i := c.String("init"); i != "lab" {
		s.Test.Init = i
	}
	if c.String("selinux-policy") == basePolicy {
		if err := theLab(c).SetBasePolicy(c.Context, &s); err != nil {
			return lab.Spec{}, err
		}
	}
	s.Symptom = lab.Symptom{Kind: c.String("symptom"), GoodMatch: c.String("good-match"), BadMatch: c.String("bad-match")}
	if s.Symptom.Kind == lab.SymptomAsk && !c.Bool("prompt") {
		return lab.Spec{}, usagef("--symptom ask goes with lab bisect --prompt")
	}
	s.Machine = lab.MachineSpec{
		QEMU: c.String("qemu"), Accel: c.String("accel"), Memory: c.Int("memory"), CPUs: c.Int("cpus"),
		Cmdline: c.String("cmdline"), BootTimeout: c.Duration("boot-timeout"), Exact: c.Bool("exact"),
	}
	s.Kernel = lab.KernelSpec{
		Repo: c.String("repo"), Config: c.StringSlice("config"), Toolchain: c.String("toolchain"), Jobs: c.Int("make-jobs"),
		Picks: c.StringSlice("pick"), Patches: c.StringSlice("patch"),
	}
	return s, nil
}

// imageSpec turns the flags of imageFlags into the Spec's fields.
func imageSpec(c *cli.Context) (s lab.Spec, err error) {
	if s.Images, err = loads(c); err != nil {
		return s, err
	}
	if s.Free, err = size(c.String("free")); err != nil {
		return s, usagef("--free: %v", err)
	}
	if s.Limits.Bytes, err = size(c.String("max-unpacked")); err != nil {
		return s, usagef("--max-unpacked: %v", err)
	}
	s.Base, s.Platform = c.String("base"), c.String("platform")
	s.Registries, err = registries(c)
	return s, err
}

// registries is what mirrorFlag and plainHTTPFlag say.
func registries(c *cli.Context) (r lab.Registries, err error) {
	for _, text := range c.StringSlice("registry-mirror") {
		m, err := oci.ParseMirror(text)
		if err != nil {
			return r, usagef("--registry-mirror: %v", err)
		}
		r.Mirrors = append(r.Mirrors, m)
	}
	for _, text := range c.StringSlice("plain-http") {
		host, err := oci.ParseHost(strings.TrimPrefix(text, "http://"))
		if err != nil {
			return r, usagef("--plain-http: %v", err)
		}
		r.PlainHTTP = append(r.PlainHTTP, host)
	}
	return r, nil
}

// defaultClock is when a guest believes to start, unless told otherwise: a
// fixed time, so that two runs differ in nothing that we can help.
var defaultClock = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// check validates a Spec that flags made: what is wrong is the user's slip.
func check(s *lab.Spec) error {
	if err := s.Validate(); err != nil {
		return usagef("%v", err)
	}
	return nil
}

// mainImage is the name that --image goes by in the guest.
const mainImage = "test"

func loads(c *cli.Context) ([]lab.Load, error) {
	var images []lab.Load
	if ref := c.String("image"); ref != "" {
		images = append(images, lab.Load{Name: mainImage, Reference: ref})
	}
	for _, l := range c.StringSlice("load") {
		name, ref, ok := strings.Cut(l, "=")
		if !ok || name == "" || ref == "" {
			return nil, usagef("--load %s: NAME=REF is wanted", l)
		}
		if slices.ContainsFunc(images, func(o lab.Load) bool { return o.Name == name }) {
			return nil, usagef("--load %s: there is an image of that name already", l)
		}
		images = append(images, lab.Load{Name: name, Reference: ref})
	}
	return images, nil
}

// size reads a number of bytes with an optional K, M, G or T (powers of 1024).
func size(s string) (int64, error) {
	digits, shift := s, 0
	if s != "" {
		if i := strings.IndexByte("KMGT", strings.ToUpper(s)[len(s)-1]); i >= 0 {
			digits, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size like 512M or 4G", s)
	}
	return n << shift, nil
}

// setup configures logging once, and hangs what every command needs on the
// app: the Lab.
func setup(c *cli.Context) error {
	p := newPrinter(c.App.ErrWriter)
	logTo(p, c.Bool("debug"))
	l := &lab.Lab{Cache: c.String("cache"), Version: c.App.Version}
	if !c.Bool("quiet") {
		l.Progress = p.progress()
	}
	var err error
	if l.Cache, err = place(l.Cache, "XDG_CACHE_HOME", ".cache"); err != nil {
		return fmt.Errorf("find the cache: %w; name a folder with --cache", err)
	}
	if l.State, err = place("", "XDG_STATE_HOME", ".local/state"); err != nil {
		return fmt.Errorf("find the folder for state: %w", err)
	}
	l.Agent = func() (string, error) { return agentBinary(c.Context, l) }
	c.App.Metadata[labKey] = l
	return nil
}

// place gives lab's folder of one kind: the one that was asked for, or the one
// of the XDG Base Directory Specification.
func place(asked, variable, fallback string) (string, error) {
	if asked != "" {
		return filepath.Abs(asked)
	}
	if base := os.Getenv(variable); filepath.IsAbs(base) {
		return filepath.Join(base, "lab"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, fallback, "lab"), nil
}

const labKey = "lab"

func theLab(c *cli.Context) *lab.Lab { return c.App.Metadata[labKey].(*lab.Lab) }
