//go:build linux

package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lab/probe"
	"lab/probe/wire"
)

// TestEngineConfig makes the config.json that an engine gets.
func TestEngineConfig(t *testing.T) {
	rootfs := t.TempDir()
	if err := os.Mkdir(filepath.Join(rootfs, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": "alice:x:7:8::/home/alice:/bin/sh\n", "group": "users:x:9:alice\n"} {
		if err := os.WriteFile(filepath.Join(rootfs, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := specs.Spec{Version: "1.0.2", Process: &specs.Process{Args: []string{"/test"}}}
	config := func(spec probe.Spec) specs.Spec {
		t.Helper()
		p, _, err := makePlan("app", image, spec, 40)
		if err != nil {
			t.Fatal(err)
		}
		p.Rootfs, p.Syslog = rootfs, true
		c := container{agent: &agent{out: wire.NewWriter(discard{})}, spec: spec, plan: p, group: cgroup{v2: true, name: "lab-app"}}
		got, err := c.engineConfig()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	plain := config(probe.Spec{User: "alice", CapDrop: []string{"ALL"}, CapAdd: []string{"KILL"}, Seccomp: probe.SeccompDefault})
	if d := cmp.Diff(specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}}, plain.Process.User); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}, plain.Process.Capabilities); d != "" {
		t.Error(d)
	}
	if getenv(plain.Process.Env, "HOME") != "/home/alice" || plain.Root.Path != rootfs || plain.Linux.CgroupsPath != "/lab-app" {
		t.Errorf("%+v in %+v, group %s", plain.Process, plain.Root, plain.Linux.CgroupsPath)
	}
	if plain.Linux.Seccomp == nil || plain.Linux.Seccomp.DefaultAction != specs.ActErrno || plain.Linux.Devices != nil {
		t.Errorf("filter %+v, devices %v", plain.Linux.Seccomp, plain.Linux.Devices)
	}
	if last := plain.Mounts[len(plain.Mounts)-1]; last.Destination != "/dev/log" || last.Source != engineSock {
		t.Errorf("the last mount is %+v", last)
	}
	isUser := func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }
	if slices.ContainsFunc(plain.Linux.Namespaces, isUser) || len(plain.Linux.Namespaces) == 0 {
		t.Errorf("namespaces %v", plain.Linux.Namespaces)
	}

	all := config(probe.Spec{Privileged: true, UserNS: true})
	if n := len(all.Process.Capabilities.Effective); n != 41 {
		t.Errorf("privileged, with %d capabilities", n)
	}
	if d := cmp.Diff([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, all.Linux.Resources.Devices); d != "" || all.Linux.Seccomp != nil {
		t.Errorf("filter %+v, %s", all.Linux.Seccomp, d)
	}
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	if d := cmp.Diff(want, all.Linux.UIDMappings); d != "" || !slices.ContainsFunc(all.Linux.Namespaces, isUser) {
		t.Errorf("namespaces %v, %s", all.Linux.Namespaces, d)
	}
	if image.Process.User.UID != 0 || image.Process.Capabilities != nil {
		t.Error("the image's config was changed")
	}
}

// TestCreateArgs: podman and docker are told what the test chooses, and nothing else.
func TestCreateArgs(t *testing.T) {
	stored := false
	args := func(spec probe.Spec) ([]string, error) {
		t.Helper()
		p, _, err := makePlan("app", specs.Spec{Process: &specs.Process{Args: []string{"/test"}, Env: []string{"A=1"}}}, spec, 40)
		if err != nil {
			t.Fatal(err)
		}
		e := engine{container: &container{spec: spec, plan: p, group: cgroup{v2: true, name: "lab-app"}}}
		return e.createArgs(stored, "unmask=ALL")
	}
	got, err := args(probe.Spec{Runtime: "podman"})
	want := []string{
		"create", "--name", "lab", "--network", "none", "--log-driver", "none", "--cgroup-parent", "/lab-app", "--hostname", "app",
		"--volume", "/run/lab/syslog:/dev/log", "--workdir", "/", "--env", "PATH=" + defaultPath, "--env", "HOSTNAME=app", "--env", "A=1",
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	got, err = args(probe.Spec{Runtime: "podman", User: "7:8", CapAdd: []string{"KILL"}, CapDrop: []string{"ALL"}, Seccomp: "unconfined", Unmasked: true, Writable: true})
	want = append(want, "--user", "7:8", "--cap-add", "KILL", "--cap-drop", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL")
	less := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got)))
	if err != nil || less != "" {
		t.Errorf("%v %s", err, less)
	}
	if got, err := args(probe.Spec{Runtime: "docker", Privileged: true, Writable: true}); err != nil || !slices.Contains(got, "--privileged") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := args(probe.Spec{Runtime: "docker", Writable: true}); err == nil || !strings.Contains(err.Error(), "docker makes /proc and /sys writable only together") {
		t.Errorf("error %v", err)
	}
	stored = true // the image has a say
	got, err = args(probe.Spec{Runtime: "podman"})
	if i := slices.Index(got, "--entrypoint"); err != nil || i < 0 || got[i+1] != "" || slices.Contains(got, "--workdir") {
		t.Errorf("of the store: %v, %v", got, err)
	}
	got, err = args(probe.Spec{Runtime: "podman", Cwd: "/tmp"})
	if i := slices.Index(got, "--workdir"); err != nil || i < 0 || got[i+1] != "/tmp" {
		t.Errorf("of the store, elsewhere: %v, %v", got, err)
	}
}

func TestFindEngine(t *testing.T) {
	if _, err := findEngine("no-such-engine"); err == nil || !strings.Contains(err.Error(), "--base") {
		t.Errorf("error %v, want the way out", err)
	}
}
