package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/disk"
	"lab/kernel"
	"lab/kernel/console"
	"lab/kernel/kconfig"
	"lab/kernel/origin"
	"lab/kernel/qemu"
	"lab/lab"
	"lab/lab/bundle"
	"lab/lab/calls"
	"lab/oci"
	"lab/probe"
)

// TestJSON pins what --json prints: scripts rest on it.
func TestJSON(t *testing.T) {
	day := time.Date(2014, 3, 7, 11, 41, 32, 0, time.UTC)
	commit := kernel.Commit{Hash: "33faba7fa7f2288d2f8aaea95958b2c97bf9ebfb", Parents: []string{"51cc83f024ee51de9da70c17e01ec6de524f5906"}, Title: "audit: a change", Author: "A U Thor <author@example.org>", Date: day}
	verdict := lab.Verdict{Mark: lab.Bad, Reason: "exit status 1"}
	trial := lab.Trial{
		Kernel: kernel.Kernel{Image: "/c/bzImage", Config: "/c/config", SystemMap: "/c/System.map", Release: "6.1.0", Commit: commit.Hash, Digest: "sha256:aa", Source: "commit " + commit.Hash, Log: "/c/build.log", Compiler: "gcc 12"},
		End:    lab.EndTest, Detail: "detail",
		Failure: &kernel.Failure{Step: "compile", Line: "a.c:1: error", Log: "/c/log", Hint: &kernel.Breakage{Kind: "pie", What: "what", Repaired: "4.9", Commit: "8ae94224c9d72fc4d9aaac93b2d7833cf46d7141", Title: "kbuild: add -fno-PIE", Advice: "advice"}},
		Result: probe.Result{Exit: 1, Stdout: []byte("out\n"), Stderr: []byte("err\n"), Started: true, Complete: true, Release: "6.1.0", Duration: 20 * time.Millisecond,
			Container: &probe.Container{Capabilities: []string{"CHOWN", "KILL"}, Seccomp: "default", Filter: "sha256:f", UserNS: true, Cgroup: "2", Init: "systemd 252",
				Engine: "podman version 4.3.1", Runtime: "crun version 1.8.1", SeccompMode: "filter", Profile: "sha256:p", CgroupDriver: "systemd", StorageDriver: "vfs"}},
		Reports: []console.Report{{Kind: "warning", Title: "WARNING: at x", Text: "WARNING: at x\n"}},
		QEMU:    "7.2.0", Accel: "tcg", Args: []string{"qemu-system-x86_64", "-nodefaults"}, Cmdline: "console=ttyS0",
		Build: time.Second, Boot: 2 * time.Second, Test: 3 * time.Second,
	}
	tested := lab.Tested{Commit: commit, Role: lab.RoleStep, Verdict: verdict, End: lab.EndTest, Exit: 1, Kernel: "sha256:aa", OnTop: []kernel.Addition{{Pick: commit.Hash, Name: "repair", State: kernel.NotNeeded, Why: "why"}, {Name: "a.patch", Digest: "sha256:ee", State: kernel.Applied}}, Known: "pie", Dir: "trials/001-33faba7fa7f2", Build: 1, Boot: 2, Test: 3, Left: 4}
	image := lab.Image{Name: "test", Pin: oci.Pin{Reference: "docker://127.0.0.1:5000/app:1", Digest: "sha256:bb", Platform: "linux/amd64"}}
	for name, value := range map[string]any{
		"run": runResult{verdict, trial},
		"bisect": lab.Bisection{
			Good: []kernel.Commit{commit}, Bad: commit, Culprit: &commit, Parents: commit.Parents, Axis: "commit", Range: 24, Confidence: .98, Rate: &lab.Rate{Mean: .97, Low: .8, High: 1}, Runs: []lab.Runs{{Commit: commit, Bad: 2}}, PValue: .1,
			Tested: []lab.Tested{tested}, Images: []lab.Image{image}, Log: "git bisect start\n", Dir: "/s", Elapsed: time.Minute,
		},
		"bisect-status": lab.Status{
			Dir: "/s", Begun: lab.Begun{
				Axis: "commit", Good: []kernel.Commit{commit}, Bad: commit, Range: 24, Repo: "/linux", Test: []string{"su"},
				Symptom: lab.Symptom{Kind: "test"}, Command: []string{"lab", "bisect"}, Folder: "/home",
			},
			Running: &lab.Holder{PID: 7, Host: "h", Since: day, Testing: commit.Hash, Began: day}, Touched: day,
			Tested: []lab.Tested{tested}, Aside: 1, Before: 8, Left: 4, Steps: 2, Window: lab.Window{Good: []kernel.Commit{commit}, Bad: []kernel.Commit{commit}},
			Ended: true, Culprit: &commit, Suspects: []kernel.Commit{commit}, Unclear: "why",
		},
		"bisect-change":    lab.Change{Given: []lab.Tested{{Commit: commit, Role: lab.RoleHand, Verdict: verdict, ByHand: true}}, Back: []lab.Tested{tested}, Aside: []lab.Tested{tested}, Again: []lab.Tested{tested}, Was: 8, Left: 4, Running: true},
		"bisect-visualize": []lab.Row{{Graph: "| *", Commit: &commit, State: lab.StateFirst, End: true, Tested: &tested}, {Graph: "| :", Hidden: 5, Suspects: 3}, {Graph: "|/"}},
		"reproduce": lab.Reproduction{
			Outcome: lab.Different, Notes: []string{"QEMU was 7.2.0 and is 8.0.0 here"},
			Runs: []lab.Rerun{{
				Role: bundle.RoleGood, Kernel: "6.1.0", Recorded: bundle.Run{Role: "good", End: "test", Verdict: "good", Reason: "exit status 0", Dir: "runs/good-1"},
				Verdict: verdict, Runs: 1, Outcome: lab.Different, Differences: []string{"the exit status was 0 and is 1", "stdout differs"},
				Diffs: []string{"--- recorded/stdout\n+++ here/stdout\n"}, Trial: trial,
			}},
			Tried: &lab.Rerun{Role: lab.RoleTried, Kernel: "6.2.0", Verdict: verdict, Runs: 1, Outcome: lab.Fixed, Trial: trial},
		},
		"diff": lab.RunDiff{
			A: "kernel 6.1.0", B: "kernel 6.2.0", RunsA: []string{"/s/trials/001-aa"}, RunsB: []string{"/s/trials/002-bb"},
			First: "the exit status is 0 in A and 1 in B", Outcome: lab.Different, Ends: []lab.RunChange{{What: "the exit status", A: "0", B: "1"}},
			Syslog: "--- A/syslog\n+++ B/syslog\n", OnlyA: []string{"WARNING: at x"}, OnlyB: []string{"Oops"}, Output: []string{"--- A/stdout\n+++ B/stdout\n"}, Traced: "why",
			Call: &calls.Difference{
				Answer: true, Program: "/bin/su", Name: "access", Of: "/x",
				A: calls.Side{Call: "access(\"/x\", F_OK) = 0", Answer: "0", PID: 1, Line: 7, Around: []string{"access(\"/x\", F_OK) = 0"}},
				B: calls.Side{Call: "access(\"/x\", F_OK) = -1 ENOENT (none)", Answer: "ENOENT", PID: 1, Line: 7, Around: []string{"access(\"/x\", F_OK) = -1 ENOENT (none)"}},
			},
			NoiseCalls: 2, NoiseLines: 1, Notes: []string{"note"},
		},
		"why": lab.Why{
			RunDiff: lab.RunDiff{
				A: "kernel 6.1.0", B: "kernel 6.2.0", First: "the exit status is 0 in A and 1 in B", Outcome: lab.Different,
				Call: &calls.Difference{
					Answer: true, Program: "su", Name: "sendto", Of: "AUDIT_USER_AUTH",
					A: calls.Side{Call: "sendto(3) = -1 ECONNREFUSED (none)", Answer: "ECONNREFUSED", Errno: "ECONNREFUSED", PID: 1, Nth: 1, Line: 7, Around: []string{"sendto(3) = -1 ECONNREFUSED (none)"}},
					B: calls.Side{Call: "sendto(3) = 132", Answer: "132 (acknowledged: -EPERM)", Errno: "EPERM", Acknowledged: true, PID: 1, Nth: 1, Line: 7, Around: []string{"sendto(3) = 132"}},
				},
			},
			At:       []origin.Place{{Function: "audit_netlink_ok", File: "kernel/audit.c", Line: 1049}, {Function: "audit_receive_msg", File: "kernel/audit.c", Line: 1209}},
			Chain:    []origin.Place{{Function: "netlink_unicast", Offset: 0xff}, {Function: "netlink_sendmsg", Jumped: true}},
			Returned: []string{"audit_receive_msg"}, Steps: 3774,
		},
		"bundle-diff": lab.BundleDiff{Outcome: lab.OnlyMeasured, Differences: []lab.BundleChange{
			{Member: "runs/good-1/trial.json", Field: "boot_ns", Was: "1", Is: "2", Measured: true},
		}},
		"bundle-push":   lab.Shared{Reference: "docker://127.0.0.1:5000/bundles:1", Digest: "sha256:aa", Bundle: "sha256:bb", Bytes: 2, Sent: 1, Parts: 3},
		"bundle-verify": verifiedJSON{Members: 30, Bytes: 41250086, Lab: "v0.1.0", Culprit: "audit: a change", Signature: &signatureJSON{"ssh-ed25519", "SHA256:aa", true}},
		"doctor": lab.Health{
			Arch: "amd64", QEMU: "7.2.0", Accel: &qemu.Accel{Name: "tcg", Reason: "there is no /dev/kvm"},
			Tools:     []lab.ToolHealth{{Name: "flex", Purpose: lab.ForBuild, Package: "flex"}},
			Compilers: []kernel.Tool{{Name: "gcc-9", Path: "/usr/bin/gcc-9", Version: "gcc-9 (Debian 9.3.0-22) 9.3.0"}}, Images: &lab.ImageEntry{By: "bubblewrap"},
			Disk:    lab.DiskHealth{Path: "/c", Free: 1 << 30},
			Install: []string{"apt-get", "install", "flex"}, Unknown: []string{"y"},
		},
		"image": imageResult{lab.Disk{Image: disk.Image{Path: "disk.img", Size: 1 << 20}, Containers: []lab.Image{image}}, "sha256:cc", nil},
		"image-boot": imageResult{lab.Disk{Image: disk.Image{Path: "disk.img", Size: 1 << 20}, Containers: []lab.Image{image}}, "sha256:cc", &lab.Boot{
			Kernel: lab.BootKernel{Release: "6.1.0", Digest: "sha256:dd", Source: "package linux-image 6.1.1"},
			Loader: disk.BootFile{Path: "/usr/lib/systemd/boot/efi/systemd-bootx64.efi", Digest: "sha256:ee"}, Initramfs: "sha256:ff",
			Cmdline: "console=tty0", Container: "test", Disks: []string{"virtio", "NVMe"}, NoDisks: []string{"SATA (AHCI)"},
		}},
		"kernel-check": kernel.Check{File: "config", Kind: "configuration", Release: "6.1.0", Findings: []kconfig.Finding{
			{Group: "containers", Symbol: "USER_NS", State: kconfig.Missing, Level: kconfig.Optional, Why: "rootless containers", Source: "user_namespaces(7)"},
		}},
		"kernel-config": configResult{
			Resolution: kernel.Resolution{Commit: commit.Hash, Lost: []kconfig.Difference{{Symbol: "AUDIT", Requested: "y", Why: "it depends on NET, and NET is not set"}}},
			Path:       "lab.config", Lacks: []string{"CONFIG_PCI is not set: the guest's devices sit on PCI"},
		},
		"kernel-build": lab.Build{Commit: commit, Kernel: trial.Kernel, Cached: true, Build: time.Second, Verify: &kernel.Verification{Image: "sha256:aa", Vmlinux: "sha256:bb", Differs: "vmlinux: byte 4096, in section .text"}},
		"kernel-gc": kernel.Freed{Size: 2048, Kept: 4096, InUse: []string{"/c/kernels/bb"}, Trees: []string{"/c/trees/aa"}, Clones: []string{"/c/trees/clone-bb.git"}, Kernels: []kernel.Cached{
			{Dir: "/c/kernels/aa", Size: 2048, Release: "6.1.0", Commit: commit.Hash, Source: "commit " + commit.Hash, Config: "container", Made: day, Used: day},
		}},
		"image-ls": newFileJSON("app:/odd\xff", &disk.Stat{
			Mode: disk.TypeChar | 0o4755, UID: 1, GID: 2, Mtime: day, Links: 1, Inode: 12, Major: 1, Minor: 3,
		}, map[string]string{"user.a": "1", "user.\xff": ""}),
		"image-diff": newChangeJSON(&disk.Change{
			Partition: "partition 2 (lab-esp)", Path: "/lab/vmlinuz", Kind: disk.Added, Is: &disk.Stat{Mode: disk.TypeSymlink | 0o777, Size: 1, Mtime: day, Links: 1, Target: "\xff"},
			Differences: []disk.Difference{{What: "mode", Was: "0755", Is: "0644"}},
		}),
		"image-inspect": disk.Inspection{
			Path: "disk.img", Size: 1 << 30, Digest: "sha256:cc", Table: "gpt", GUID: "6C616264-6973-4B00-8000-000000000001",
			Partitions: []disk.InspectedPartition{{
				Partition: disk.Partition{Number: 1, Name: "lab-root", Type: "0FC63DAF-8483-4772-8E79-3D69D8477DE4", GUID: "6C616264-6973-4B00-8000-000000000002", Start: 1 << 20, Size: 1 << 29, FileSystem: disk.FileSystemExt4},
				Usage:     &disk.Usage{Label: "lab-root", UUID: "6c616264-6973-4b00-8000-000000000003", BlockSize: 4096, Size: 1 << 29, Free: 1 << 28, Inodes: 100, FreeInodes: 50},
			}, {
				Partition: disk.Partition{Number: 2, Start: 1 << 29, Size: 1 << 28}, Error: "why",
			}},
			Containers: []disk.InspectedContainer{{Name: "app", Command: []string{"sh"}, Dir: "/", User: "0:0", Env: 1}},
			Boot:       &disk.InspectedBoot{Loaders: []string{"/EFI/BOOT/BOOTX64.EFI"}, Config: "timeout 3\n", Entries: []disk.LoaderEntry{{Path: "/loader/entries/lab.conf", Title: "lab", Kernel: "/lab/vmlinuz", Initrd: []string{"/lab/initramfs"}, Cmdline: "quiet"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := printJSON(&got, value); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata/json", name+".json")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("--json changed (-want +got):\n%s", d)
			}
		})
	}
}
