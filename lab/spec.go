package lab

import (
	"fmt"
	"regexp"
	"time"

	"lab/oci"
	"lab/probe"
)

// A Spec is all that makes a trial, but for the kernel's commit.
type Spec struct {
	Kernel  KernelSpec
	Command *Command `json:",omitempty"` // in the place of a kernel, a guest and Test
	Images  []Load
	Test    probe.Spec
	Symptom Symptom
	Machine MachineSpec
	// Free is the room on the guest's root file system, in bytes, beyond
	// what the images take; 0 means defaultFree.
	Free int64
	// Size, in place of Free, is what the disk measures in all, in bytes.
	Size int64
	// Base is the reference of an image whose root file system the disk gets
	// around the containers; empty for none.
	Base string
	// Platform picks from multi-platform images, as in linux/amd64; empty
	// is the host's.
	Platform string
	// Registries is this machine's own business: no bundle, no journal and no
	// bisect's key has it.
	Registries Registries `json:"-"`
	// Limits are how large an image may be, unpacked; they too change no result.
	Limits oci.Limits `json:"-"`
}

const (
	defaultFree = 256 << 20
	longest     = 24 * time.Hour // of any timeout
)

// KernelSpec says where the kernel comes from: File, or Commit of Repo.
type KernelSpec struct {
	// File is a bzImage, a vmlinux, a distribution's .deb or .rpm, a folder with
	// the content of one, or the reference of an image that has a kernel.
	File   string
	Repo   string   // a git tree of Linux
	Commit string   // a revision of Repo
	Config []string // fragments, as Lab.fragments reads them; of Repo's kernels only
	// Toolchain is what to build with: a compiler's name, path or folder, or the
	// reference of an image that has one; empty is the installed gcc that suits
	// the commit's age.
	Toolchain string `json:",omitempty"`
	Jobs      int    // make's -j; 0 is one for each core
	// Modules come along from a ready-made kernel's package, with those that they
	// depend on, and are loaded before the test.
	Modules []string `json:",omitempty"`
	// Picks are commits, as kernel.Tree.Pick takes them, and Patches are files:
	// both are put on top of Repo's commits.
	Picks   []string `json:",omitempty"`
	Patches []string `json:",omitempty"`
}

// Load puts an image into the guest under a name.
type Load struct {
	Name, Reference string
	Layers          int `json:",omitempty"` // only the first so many; 0 is all
}

// MachineSpec is what the user may choose of the virtual machine.
type MachineSpec struct {
	QEMU    string // the QEMU binary; empty finds it
	Accel   string // kvm or tcg; empty is kvm where it is proven to work
	Memory  int    // MiB; 0 is 1024
	CPUs    int    // 0 is 1
	Cmdline string // appended to lab's own kernel command line
	// Exact has two runs of the same say the same, byte by byte (qemu.Machine.Exact).
	// Timeouts are of the guest's time then, which passes slower for us.
	Exact       bool          `json:",omitempty"`
	BootTimeout time.Duration // from QEMU's start to the agent's hello; 0 is 2 minutes
}

// isModule has the characters that the names of the kernel's modules are made of.
var isModule = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Validate fills in the defaults and names the first thing that cannot be.
func (s *Spec) Validate() error {
	if s.Machine.Memory == 0 {
		s.Machine.Memory = defaultMemory
	}
	if s.Machine.CPUs == 0 {
		s.Machine.CPUs = 1
	}
	if s.Machine.BootTimeout == 0 {
		s.Machine.BootTimeout = 2 * time.Minute
	}
	if s.Free == 0 && s.Size == 0 {
		s.Free = defaultFree
	}
	if s.Symptom.Kind == "" {
		s.Symptom.Kind = SymptomTest
	}
	s.Test = s.Test.WithDefaults()
	switch {
	case s.Machine.Memory < 64 || s.Machine.Memory > 64<<10:
		return fmt.Errorf("memory of %d MiB is not between 64 MiB and 64 GiB", s.Machine.Memory)
	case s.Machine.CPUs < 1 || s.Machine.CPUs > 64:
		return fmt.Errorf("%d CPUs is not between 1 and 64", s.Machine.CPUs)
	case s.Machine.BootTimeout < 0 || s.Machine.BootTimeout > longest || s.Test.Timeout < 0 || s.Test.Timeout > longest:
		return fmt.Errorf("a timeout is not between 0 and %s", longest)
	case s.Free < 0:
		return fmt.Errorf("free space cannot be negative")
	}
	if a := s.Machine.Accel; a != "" && a != "kvm" && a != "tcg" {
		return fmt.Errorf("accelerator %q is not kvm or tcg", a)
	}
	if err := s.validateExact(); err != nil {
		return err
	}
	for _, m := range s.Kernel.Modules {
		if !isModule.MatchString(m) {
			return fmt.Errorf("%q is not the name of a module, as nf_tables is", m)
		}
	}
	if err := s.Symptom.Validate(); err != nil {
		return err
	}
	if s.Command != nil {
		if s.Symptom.Kind != SymptomTest {
			return fmt.Errorf("symptom %q is one of kernels, and a command judges by itself", s.Symptom.Kind)
		}
		return s.Command.Validate()
	}
	if s.needsGuest() {
		if len(s.Images) == 0 {
			return fmt.Errorf("no image: name the container to test with --image REF")
		}
		if s.Test.Container == "" {
			s.Test.Container = s.Images[0].Name
		}
		if err := s.Test.Validate(); err != nil {
			return err
		}
		if s.Test.Init != "" && s.Base == "" {
			return fmt.Errorf("init %s is a program of the guest's base: name an image that has it with --base REF", s.Test.Init)
		}
		if s.Test.Runtime != "" && s.Base == "" {
			return fmt.Errorf("runtime %s is a program of the guest's base: name an image that has it with --base REF", s.Test.Runtime)
		}
	}
	return nil
}

// needsGuest reports whether the hunt goes beyond the build.
func (s *Spec) needsGuest() bool {
	return s.Symptom.Kind != SymptomBuild && s.Symptom.Kind != SymptomAsk && s.Command == nil
}
