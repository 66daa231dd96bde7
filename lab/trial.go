package lab

import (
	"time"

	"lab/kernel"
	"lab/kernel/console"
	"lab/kernel/kconfig"
	"lab/probe"
)

// End says where a trial ended.
type End string

// The ends, in the order in which a trial passes them.
const (
	EndBuild   End = "build"   // the kernel did not build
	EndBuilt   End = "built"   // it built, and nothing more was asked for
	EndBoot    End = "boot"    // it did not reach userspace
	EndSetup   End = "setup"   // the agent could not start the test
	EndCrash   End = "crash"   // the kernel died, or went silent, during the test
	EndTimeout End = "timeout" // the test ran out of its time
	EndTest    End = "test"    // the test ran to its end
)

// A Trial is one kernel x one disk x one test, once: where it ended and all
// that was seen on the way. What our own machinery failed to do is not in a
// Trial but an error.
type Trial struct {
	Kernel  kernel.Kernel    `json:"kernel"`
	End     End              `json:"end"`
	Detail  string           `json:"detail,omitempty"` // one line on the end, when End alone does not say it
	Failure *kernel.Failure  `json:"failure,omitempty"`
	Result  probe.Result     `json:"result"`
	Reports []console.Report `json:"reports,omitempty"`
	Console []byte           `json:"-"` // kept as console.log
	// Drift is, in a bisect, what differs between the kernel's configuration and
	// that of the first kernel that was built.
	Drift []kconfig.Change `json:"drift,omitempty"`

	QEMU    string   `json:"qemu,omitempty"`    // QEMU's version
	Accel   string   `json:"accel,omitempty"`   // the accelerator really used
	Args    []string `json:"args,omitempty"`    // QEMU's argv
	Cmdline string   `json:"cmdline,omitempty"` // the kernel's

	// Exact is, of a run on an exact machine, "sha256:…" of all that the guest said:
	// console, stdout, stderr, syslog and exit status. The same files and the same QEMU
	// give the same.
	Exact string `json:"exact,omitempty"`

	// Restored: the kernel did not boot for this trial, but went on from a snapshot
	// of an earlier boot, whose console is the beginning of Console.
	Restored bool `json:"restored,omitempty"`

	// Recording is the digest of QEMU's log of the run, sha256:…, where that is on file.
	Recording string `json:"recording,omitempty"`

	Cached bool          `json:"cached"` // the kernel came from the cache
	Build  time.Duration `json:"build_ns"`
	Boot   time.Duration `json:"boot_ns"` // from QEMU's start to the agent's hello
	Test   time.Duration `json:"test_ns"` // from the hello to the guest's end
}
