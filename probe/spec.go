// Package probe is the test that runs in the guest, seen from the host: what
// to run (Spec), what came of it (Result), and the talk with the agent that
// runs it (Accept, Session.Run). The guest's side is probe/agent, the bytes
// between the two are probe/wire.
package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/moby/sys/capability"

	"lab/probe/seccomp"
	"lab/probe/trace"
	"lab/probe/wire"
)

// Where the agent finds its instructions in the initramfs.
const (
	SpecPath    = "/lab/spec.json" // the JSON of a Spec
	ModulesPath = "/lab/modules"   // paths of kernel modules in the initramfs, one a line, in load order
	HoldPath    = "/lab/hold"      // where this is, the agent says hello and waits for [Wake] before it touches the disk
)

// Port is the name of the virtio-serial port the agent speaks on.
const Port = "lab.0"

// DefaultTimeout is how long a test may run when its Spec has no Timeout.
const DefaultTimeout = 5 * time.Minute

// Grace is how long a guest whose agent has said hello may take besides the
// test itself: to set up the container, to kill it, to report.
const Grace = 2 * time.Minute

// DefaultMaxOutput is how many bytes of stdout, of stderr and of syslog are
// kept when a Spec has no MaxOutput; LimitMaxOutput is the most it may ask for.
const (
	DefaultMaxOutput = 1 << 20
	LimitMaxOutput   = 64 << 20
)

// The profiles of Spec.Seccomp that need no SeccompProfile.
const (
	SeccompDefault    = "default" // Docker's
	SeccompUnconfined = "unconfined"
)

// Runtimes are the engines that Spec.Runtime may name.
var Runtimes = []string{"crun", "runc", "podman", "docker"}

// StoreImage is what the container's image is called in the store that the disk has of it for
// an engine: /containers/NAME/ENGINE.
const StoreImage = "localhost/lab:latest"

// Inits are those of the guest's base that Spec.Init may name.
var Inits = []string{"systemd"}

// In a user namespace the container's root is UserNSBase outside, and so on for
// UserNSCount users and groups, as with Docker's userns-remap and /etc/subuid.
const (
	UserNSBase  = 100000
	UserNSCount = 65536
)

// A Spec says what to run in the guest. Its JSON goes into the initramfs, into
// bundles and into digests: the names are stable, and Timeout is written as
// Go's duration notation ("5m0s").
type Spec struct {
	// Container is the name of the container on the guest's disk. Empty is
	// the only one there is.
	Container string `json:"container,omitempty"`
	// Command is the whole argument vector. When it is not empty it replaces
	// the image's entrypoint and command alike; there is no separate override
	// of the entrypoint. Empty runs what the image would.
	Command []string `json:"command,omitempty"`
	// Env entries are NAME=value; they replace or add to the image's.
	Env []string `json:"env,omitempty"`
	// User is USER[:GROUP], names of the container's /etc/passwd and
	// /etc/group or numbers. Empty is the image's.
	User string `json:"user,omitempty"`
	// Cwd is an absolute path in the container, made when it is not there.
	// Empty is the image's.
	Cwd string `json:"cwd,omitempty"`
	// Runtime is the program of the guest's base that runs the container, one of
	// Runtimes. Empty is the agent itself, which needs no base.
	Runtime string `json:"runtime,omitempty"`
	// Guest runs Command in the guest itself, as root, with the agent's namespaces and all
	// capabilities: in the base, or where there is none in the container's root file
	// system. Nothing of the container is made: of it only Env, Cgroup and SELinuxPolicy
	// hold.
	Guest bool `json:"guest,omitempty"`
	// Init is what of the guest's base is its PID 1, one of Inits, with the agent as
	// one of its services. Empty is the agent itself, which needs no base.
	Init string `json:"init,omitempty"`
	// CapAdd and CapDrop change the container's capabilities: names with or
	// without CAP_, in any case, or ALL. Drops of single capabilities win over
	// CapAdd ALL, adds of single capabilities win over CapDrop ALL.
	CapAdd  []string `json:"cap_add,omitempty"`
	CapDrop []string `json:"cap_drop,omitempty"`
	// Seccomp is the container's filter of system calls: SeccompDefault,
	// SeccompUnconfined, or the name of what SeccompProfile holds. Empty is the
	// default one, and none on a kernel that has no filters, where one that is
	// asked for by name is an error.
	Seccomp string `json:"seccomp,omitempty"`
	// SeccompProfile is a profile as Docker has them, in JSON.
	SeccompProfile string `json:"seccomp_profile,omitempty"`
	// UserNS gives the container a user namespace, in which its users are
	// others outside: UserNSBase and those that follow.
	UserNS bool `json:"userns,omitempty"`
	// Cgroup is the version of control groups that the guest has and the
	// container sees: "1", "2", or "none". Empty is 2 where the kernel has it
	// whole, else 1, else none.
	Cgroup string `json:"cgroup,omitempty"`
	// Devices gives the container every device of the guest.
	Devices bool `json:"devices,omitempty"`
	// Unmasked hides nothing of the container's /proc and /sys.
	Unmasked bool `json:"unmasked,omitempty"`
	// Writable makes nothing of them read-only.
	Writable bool `json:"writable,omitempty"`
	// Privileged gives every capability, Devices, Unmasked and Writable, and no
	// filter of system calls unless Seccomp names one.
	Privileged bool `json:"privileged,omitempty"`
	// SELinuxFS shows the kernel's selinuxfs in the container, where SELinux is on:
	// "rw", or "ro", which is how libselinux is told that SELinux is none of its
	// business. Empty or "none" shows none, as Docker does. Whether it is on, and
	// enforcing, the kernel's command line says.
	SELinuxFS string `json:"selinux_fs,omitempty"`
	// SELinuxPolicy is loaded before the disk is mounted, where SELinux is on: a binary
	// policy, as [PackPolicy] packs it.
	SELinuxPolicy []byte `json:"selinux_policy,omitempty"`
	// Terminal has the host talk to the command: what it says is not kept, and not
	// bounded by MaxOutput. Nil gives the command no input, and so does a Runtime.
	Terminal *Terminal `json:"terminal,omitempty"`
	// Timeout is when the container is killed, counted from the command's
	// exec. 0 is DefaultTimeout. A host that waits for the result should give
	// the guest Grace longer.
	Timeout time.Duration `json:"-"`
	// Epoch is what the guest's clock is set to before the test. The zero
	// time leaves the clock as the machine has it.
	Epoch time.Time `json:"epoch,omitzero"`
	// Trace keeps every system call of the container, as lab/probe/trace has
	// them, up to its MaxBytes.
	Trace bool `json:"trace,omitempty"`
	// Mark is a system call of the trace that whoever debugs the guest is to be told of.
	Mark *trace.Mark `json:"mark,omitempty"`
	// MaxOutput is how many bytes of stdout, of stderr and of syslog are kept,
	// the first ones of each. 0 is DefaultMaxOutput.
	MaxOutput int64 `json:"max_output,omitempty"`
}

// A Terminal is how an interactive command is connected.
type Terminal struct {
	// TTY gives it a pseudo terminal of that size to begin with, for its three
	// standard files. Otherwise they are pipes.
	TTY bool `json:"tty"`
	wire.Window
}

// plainSpec is a Spec without its methods.
type plainSpec Spec

// specJSON is the JSON form of a Spec.
type specJSON struct {
	plainSpec
	Timeout duration `json:"timeout,omitempty"`
}

// MarshalJSON writes the stable form.
func (s Spec) MarshalJSON() ([]byte, error) {
	return json.Marshal(specJSON{plainSpec(s), duration(s.Timeout)})
}

// UnmarshalJSON reads what MarshalJSON writes. A field it does not know is an
// error: a part of a test that is silently left out would make another test.
func (s *Spec) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var j specJSON
	if err := d.Decode(&j); err != nil {
		return err
	}
	*s = Spec(j.plainSpec)
	s.Timeout = time.Duration(j.Timeout)
	return nil
}

// ParseSpec reads the JSON of one Spec and validates it.
func ParseSpec(r io.Reader) (Spec, error) {
	const limit = 4 << 20 // far above what execve accepts
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return Spec{}, fmt.Errorf("read spec: %w", err)
	}
	if len(data) > limit {
		return Spec{}, fmt.Errorf("read spec: more than %d bytes", limit)
	}
	var s Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return Spec{}, fmt.Errorf("read spec: %w", err)
	}
	return s, s.Validate()
}

// WithDefaults returns the Spec with its zero limits filled in.
func (s Spec) WithDefaults() Spec {
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.MaxOutput == 0 {
		s.MaxOutput = DefaultMaxOutput
	}
	return s
}

// The kernel's limit for one argument or environment entry, MAX_ARG_STRLEN
// (32 pages), and a bound on all of them together, a quarter of the default
// stack (execve(2), "Limits on size of arguments and environment").
const (
	maxArg  = 128<<10 - 1
	maxArgs = 2 << 20
)

const maxSeccompName = 255 // a file's

// Validate says what is wrong with the Spec, all of it at once, or nil.
func (s Spec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("test spec: "+format, args...)) }
	if s.Container != "" && !validName(s.Container) {
		bad("container name %q: want letters, digits, '.', '_' and '-', beginning with a letter or digit", s.Container)
	}
	total := 0
	arg := func(what, v string) {
		total += len(v) + 1
		if strings.ContainsRune(v, 0) {
			bad("%s %.40q has a NUL byte", what, v)
		} else if len(v) > maxArg {
			bad("%s %.40q… has %d bytes, the kernel accepts %d", what, v, len(v), maxArg)
		}
	}
	for _, v := range s.Command {
		arg("argument", v)
	}
	if len(s.Command) > 0 && s.Command[0] == "" {
		bad("the command's name is empty")
	}
	for _, v := range s.Env {
		arg("environment entry", v)
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			bad("environment entry %.40q is not NAME=value", v)
		}
	}
	if total > maxArgs {
		bad("command and environment have %d bytes together, the kernel accepts %d", total, maxArgs)
	}
	if strings.ContainsAny(s.User, "\x00\n") || strings.Count(s.User, ":") > 1 {
		bad("user %q is not USER[:GROUP]", s.User)
	}
	if s.Cwd != "" && (!path.IsAbs(s.Cwd) || strings.ContainsRune(s.Cwd, 0) || len(s.Cwd) > 4095) {
		bad("working directory %.80q is not an absolute path", s.Cwd)
	}
	for _, name := range append(append([]string{}, s.CapAdd...), s.CapDrop...) {
		if _, err := ParseCap(name); err != nil && !strings.EqualFold(name, "ALL") {
			bad("%w", err)
		}
	}
	builtin := s.Seccomp == "" || s.Seccomp == SeccompDefault || s.Seccomp == SeccompUnconfined
	switch {
	case s.SeccompProfile != "" && builtin:
		bad("seccomp profile: it has no name, or that of another one: %q", s.Seccomp)
	case s.SeccompProfile != "":
		if err := seccomp.Check([]byte(s.SeccompProfile)); err != nil {
			bad("%w", err)
		}
	case !builtin:
		bad("seccomp profile %q: want %s, %s, or one in JSON", s.Seccomp, SeccompDefault, SeccompUnconfined)
	}
	if len(s.Seccomp) > maxSeccompName || strings.ContainsFunc(s.Seccomp, unicode.IsControl) || !utf8.ValidString(s.Seccomp) {
		bad("seccomp profile's name %.80q: want at most %d bytes of text", s.Seccomp, maxSeccompName)
	}
	if s.Guest && len(s.Command) == 0 {
		bad("in the guest itself no image's command runs, and there is no other")
	}
	if s.Runtime != "" && !slices.Contains(Runtimes, s.Runtime) {
		bad("runtime %q: want %s", s.Runtime, strings.Join(Runtimes, ", "))
	}
	if s.Mark != nil && !s.Trace {
		bad("a system call is marked (%s), and nothing traced", s.Mark.Call)
	}
	if s.Init != "" && !slices.Contains(Inits, s.Init) {
		bad("init %q: want %s", s.Init, strings.Join(Inits, ", "))
	}
	if s.Init != "" && s.Cgroup != "" && s.Cgroup != "2" {
		bad("%s as init has control groups of version 2: not %s", s.Init, s.Cgroup)
	}
	switch s.Cgroup {
	case "", "1", "2", "none":
	default:
		bad("control groups of version %q: want 1, 2 or none", s.Cgroup)
	}
	if s.SELinuxFS != "" && !slices.Contains(SELinuxFS, s.SELinuxFS) {
		bad("selinuxfs %q: want %s", s.SELinuxFS, strings.Join(SELinuxFS, ", "))
	}
	if _, err := UnpackPolicy(s.SELinuxPolicy); err != nil {
		bad("%w", err)
	}
	if s.Timeout < 0 {
		bad("timeout %s is negative", s.Timeout)
	}
	if s.MaxOutput < 0 || s.MaxOutput > LimitMaxOutput {
		bad("output limit of %d bytes: want 0 to %d", s.MaxOutput, LimitMaxOutput)
	}
	// The kernel refuses times before 1970, and counts nanoseconds in 64 bits.
	if !s.Epoch.IsZero() && (s.Epoch.Year() < 1970 || s.Epoch.Year() > 2200) {
		bad("epoch %s: want a year from 1970 to 2200", s.Epoch.Format(time.RFC3339))
	}
	return errors.Join(errs...)
}

func validName(s string) bool {
	if len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != ""
}

// ParseCap finds a capability by its name (capabilities(7)), with or without
// CAP_ and in any case.
func ParseCap(name string) (capability.Cap, error) {
	short := strings.TrimPrefix(strings.ToLower(name), "cap_")
	for _, c := range capability.ListKnown() {
		if c.String() == short {
			return c, nil
		}
	}
	return 0, fmt.Errorf("capability %q is unknown", name)
}

// duration is a time.Duration whose JSON is a string ("1m30s").
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}
