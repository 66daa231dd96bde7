// Package qemu starts guests. It is the only place that knows QEMU's command
// line, its process and its ports.
//
// A [Machine] is plain configuration: Args renders it (nothing is read or
// written), Start runs it. The result, a [VM], mirrors exec.Cmd: it has ports
// to talk to the guest, and Wait, Done and Kill. What the guest does with its
// time is not this package's business; a VM ends when the guest powers off,
// panics with a reboot, is killed, or when its context ends.
//
// Guests see no network, no host directory and no writable host file: disks
// are opened with snapshot=on, and QEMU itself runs in its seccomp sandbox.
package qemu
