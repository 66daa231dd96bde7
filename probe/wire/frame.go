// Package wire is the format of what the guest tells the host: one stream of
// frames over a virtio-serial port, or over a serial line when the kernel has
// no virtio-serial. It is the only place that knows the bytes.
//
// A frame is a header of 16 bytes, all numbers little-endian, and a payload:
//
//	offset size
//	0      4    magic, F5 'L' 'A' 'B' (F5 occurs in no ASCII or UTF-8 text)
//	4      1    version of the format, 1
//	5      1    type
//	6      2    sequence number modulo 65536, counted from 0 by the writer
//	8      4    length of the payload, at most 64 KiB
//	12     4    CRC-32C (Castagnoli) of bytes 4 to 11 and the payload
//
// The guest speaks: hello, then notes at any time, then started, any number of
// stdout, stderr, syslog, audit and trace, and done, which is the last. The host answers done
// with one ack, so that the guest knows that everything arrived before it
// powers off. A stream without done is the account of a guest that died.
//
// A guest with an interactive container is sent stdin and resize at any time between
// started and done, and the ack in the same stream. A host sends them to no other: an
// agent that does not know them is never asked to.
//
// A guest that is to be saved says hello with Held set, and nothing more until
// the host wakes it. Then, maybe as one of several copies, it begins anew, with a
// stream of its own.
package wire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Version is the version of the format that this package writes and reads.
const Version = 1

// MaxPayload is the largest payload of a frame, in bytes.
const MaxPayload = 64 << 10

const headerSize = 16

const magic = "\xf5LAB"

// A Type says what a frame's payload is.
type Type uint8

// The types of frames. All but Ack, Wake, Stdin and Resize go from the guest to the host.
const (
	TypeHello   Type = 1  // JSON of a Hello: the agent runs, the boot is over
	TypeStarted Type = 2  // JSON of a Container: its command has been exec'd
	TypeStdout  Type = 3  // bytes the command wrote to its standard output
	TypeStderr  Type = 4  // bytes the command wrote to its standard error
	TypeSyslog  Type = 5  // one message sent to the container's /dev/log, as sent
	TypeNote    Type = 6  // text: something about the guest that a reader of the result should know
	TypeDone    Type = 7  // JSON of a Done: the test is over, nothing follows
	TypeAck     Type = 8  // empty, host to guest: Done has arrived
	TypeWake    Type = 9  // JSON of a Wake, host to guest: a held guest goes on
	TypeTrace   Type = 10 // lines of the trace of system calls
	TypeStdin   Type = 11 // host to guest: bytes for the command's standard input; empty is its end
	TypeResize  Type = 12 // JSON of a Window, host to guest: the terminal has another size
	TypeAudit   Type = 13 // one of the kernel's audit records, as a line of the audit daemon's log
)

// String is the type's name in errors.
func (t Type) String() string {
	switch t {
	case TypeHello:
		return "hello"
	case TypeStarted:
		return "started"
	case TypeStdout:
		return "stdout"
	case TypeStderr:
		return "stderr"
	case TypeSyslog:
		return "syslog"
	case TypeNote:
		return "note"
	case TypeDone:
		return "done"
	case TypeAck:
		return "ack"
	case TypeWake:
		return "wake"
	case TypeTrace:
		return "trace"
	case TypeStdin:
		return "stdin"
	case TypeResize:
		return "resize"
	case TypeAudit:
		return "audit"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

func (t Type) valid() bool { return t >= TypeHello && t <= TypeAudit }

// A Frame is one message.
type Frame struct {
	Type    Type
	Payload []byte
}

// Hello is the payload of the first frame. Where the guest has an init of its own, it is
// said when that is up.
type Hello struct {
	Agent     string   `json:"agent"`             // version of the agent
	Release   string   `json:"release"`           // the running kernel's release, as uname -r
	Cmdline   string   `json:"cmdline"`           // /proc/cmdline
	Missing   []string `json:"missing,omitempty"` // what the kernel lacks of what a container has elsewhere
	MaxOutput int64    `json:"max_output"`        // bytes of stdout and of stderr that will be sent at most
	Held      bool     `json:"held,omitempty"`    // the guest waits to be woken
}

// A Container is what the test's container was given.
type Container struct {
	// Guest is, for a command that runs in the guest itself, where it finds the
	// container's root file system: / where that is its own. Empty for one in the
	// container.
	Guest        string   `json:"guest,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"` // that it may have at all, as CHOWN
	// Seccomp is the profile that its system calls went through: default, a file's
	// name, or unconfined; none where the kernel has no filters.
	Seccomp string `json:"seccomp"`
	// Filter is the digest of the program that the kernel was given for it, which
	// depends on the capabilities and the kernel too.
	Filter string `json:"seccomp_filter,omitempty"`
	UserNS bool   `json:"userns"` // it had a user namespace of its own
	Cgroup string `json:"cgroup"` // version of its control groups: 1, 2 or none
	// Init is the guest's PID 1, by its own words: "systemd 252 (252.39-1~deb12u2)";
	// empty for the agent.
	Init string `json:"init,omitempty"`
	// Engine is what ran it, by its own words: "crun version 1.8.1"; empty for the
	// agent, and so is all that follows.
	Engine string `json:"engine,omitempty"`
	// Runtime is what the engine had make it, in the same way, where it has it done.
	Runtime string `json:"oci_runtime,omitempty"`
	// SeccompMode is that of its first process before it became the command (proc(5),
	// "Seccomp"): disabled or filter; empty where the kernel has no seccomp.
	SeccompMode string `json:"seccomp_mode,omitempty"`
	// Profile is the digest of the profile in the config.json that was made for it,
	// which the runtime made the filter of.
	Profile       string `json:"seccomp_profile,omitempty"`
	CgroupDriver  string `json:"cgroup_driver,omitempty"`  // cgroupfs or systemd
	StorageDriver string `json:"storage_driver,omitempty"` // of an engine that has a store
	// Audit: the kernel's audit records were read along. Where it is false there are none.
	Audit bool `json:"audit"`
	// SELinux is what it was under, nil where that is off.
	SELinux *SELinux `json:"selinux,omitempty"`
}

// Made says by what the container was made, and with what; empty where the agent did
// it all.
func (c Container) Made() string {
	if c.Engine == "" && c.Init == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(cmp.Or(c.Engine, "lab"))
	say := func(before, what string) {
		if what != "" {
			b.WriteString(before + what)
		}
	}
	say(" with ", c.Runtime)
	say(" under ", c.Init)
	say("; seccomp ", c.Seccomp)
	if _, digest, ok := strings.Cut(c.Profile, ":"); ok {
		say(" ", digest[:min(len(digest), 12)])
	}
	say("; control groups ", c.Cgroup)
	say(" by ", c.CgroupDriver)
	say("; storage ", c.StorageDriver)
	// There are about 40 of them, and 14 by default.
	if caps := strings.Join(c.Capabilities, ", "); len(c.Capabilities) > 20 {
		say("; capabilities: ", strconv.Itoa(len(c.Capabilities)))
	} else {
		say("; capabilities ", cmp.Or(caps, "none"))
	}
	return b.String()
}

// SELinux is its state when the container's command began.
type SELinux struct {
	Mode          string `json:"mode"`                     // enforcing or permissive
	PolicyVersion int    `json:"policy_version,omitempty"` // of the policy's format; 0 where there is no policy
	Policy        string `json:"policy,omitempty"`         // its digest
	Label         string `json:"label"`                    // the command's: kernel where there is no policy
}

// Done is the payload of the last frame.
type Done struct {
	Exit      int           `json:"exit"`             // exit status; 128+n when signal n ended it; -1 when it never ran
	Signal    string        `json:"signal,omitempty"` // name of the signal that ended the command, as SIGSEGV
	TimedOut  bool          `json:"timed_out"`        // it was killed because its time was over
	Truncated bool          `json:"truncated"`        // there was more output than was sent
	Error     string        `json:"error,omitempty"`  // why the agent could not run the test, or not to its end
	Duration  time.Duration `json:"duration_ns"`      // from exec to exit, in nanoseconds by the guest's monotonic clock
}

// Wake is the payload that has a held guest go on. What was random and what time
// it was when the guest was saved, all of its copies have in common.
type Wake struct {
	Entropy []byte    `json:"entropy"` // random bytes for the kernel
	Time    time.Time `json:"time"`    // what the guest's clock is set to
}

// A Window is the size of a terminal, in characters.
type Window struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// JSON makes a frame of type t whose payload is v as JSON.
func JSON(t Type, v any) (Frame, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return Frame{}, fmt.Errorf("encode %s frame: %w", t, err)
	}
	return Frame{Type: t, Payload: data}, nil
}

// Decode reads the frame's JSON payload into v, as a *Hello. Fields it
// does not know are ignored.
func (f Frame) Decode(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("decode %s frame: %w", f.Type, err)
	}
	return nil
}
