//go:build linux

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
)

// Where podman keeps what it knows of the container, and the image. Where the disk has no
// store for it that is in memory, for the container's files are the disk's.
const (
	podmanStore = engineDir + "/podman"
	podmanRoot  = "/var/lib/containers/storage" // its own choice
)

// podmanOptions have podman do without a journal, which the guest need not have.
var podmanOptions = []string{"--runroot", "/run/containers", "--tmpdir", "/run/libpod", "--events-backend", "none"}

// beginPodman has podman make the container with its own defaults for what the test does
// not choose, of the image in its store. Where there is none that the kernel can use it is
// made of the disk's files. Of create, init and start only the
// last one has output that is the test's; that init makes the container shows what
// it is given before it runs.
func (e *engine) beginPodman() (p pipes, err error) {
	stored, err := e.mountStore(podmanRoot)
	if err != nil {
		return p, err
	}
	args, err := e.createArgs(stored, "unmask=ALL")
	if err != nil {
		return p, err
	}
	if e.spec.UserNS {
		mapping := fmt.Sprintf("0:%d:%d", probe.UserNSBase, probe.UserNSCount)
		args = append(args, "--uidmap", mapping, "--gidmap", mapping)
	}
	if stored {
		e.options = append(e.options, "--storage-driver", "overlay")
		args = append(args, probe.StoreImage)
	} else {
		e.options = append(e.options, "--storage-driver", "vfs", "--root", podmanStore)
		if err := e.shapeRoot(); err != nil {
			return p, err
		}
		args = append(args, "--rootfs", e.plan.Rootfs)
	}
	args = append(args, e.plan.Config.Process.Args...)
	if _, err := e.ask(args...); err != nil {
		return p, err
	}
	if _, err := e.ask("init", engineID); err != nil {
		return p, err
	}
	facts, err := e.facts("{{.State.Pid}}|{{.OCIConfigPath}}|{{.OCIRuntime}}|{{.HostConfig.CgroupManager}}|{{.Driver}}", "inspect", engineID)
	if err != nil {
		return p, err
	}
	pid, err := strconv.Atoi(facts[0])
	if err != nil {
		return p, fmt.Errorf("find the container that podman made: %w", err)
	}
	if err := e.rests(facts[2], facts[3], facts[4]); err != nil {
		return p, err
	}
	if err := e.take(specs.State{Pid: pid, Bundle: filepath.Dir(facts[1])}); err != nil {
		return p, err
	}
	return e.attach()
}

// shapeRoot does to the disk's root file system what podman does to that of an image, but
// not to one without: it makes the working directory, and, in a user namespace, /etc.
func (e *engine) shapeRoot() error {
	for _, dir := range []string{e.plan.Config.Process.Cwd, "etc"} {
		if err := os.MkdirAll(filepath.Join(e.plan.Rootfs, dir), 0o755); err != nil {
			return fmt.Errorf("make the container's /%s: %w", strings.TrimPrefix(dir, "/"), err)
		}
	}
	if e.spec.UserNS {
		return shiftOwners(e.plan.Rootfs, probe.UserNSBase)
	}
	return nil
}

// attach starts the container that is there, with the pipes as its output. The
// engine's command ends as the container does.
func (e *engine) attach() (pipes, error) {
	p, stdout, stderr, err := e.outputs()
	if err != nil {
		return p, err
	}
	e.pid, err = e.fork(stdout, stderr, "start", "--attach", engineID)
	_ = unix.Close(stdout)
	_ = unix.Close(stderr)
	return p, err
}

// groupParent is the container's group as podman and docker take it: the path of a
// group, or the name of a slice.
func (e *engine) groupParent() string {
	if cgroupDriver(e.spec) == systemd {
		return e.group.name
	}
	return "/" + e.group.name
}

// inspect says why the container was not started; nil when it was. The exit status
// of start may be the engine's own or the command's.
func (e *engine) inspect() error {
	said, err := e.ask("inspect", "--format", "{{.State.StartedAt}}|{{.State.Error}}", engineID)
	if err != nil {
		return err
	}
	// Go's zero time (time.Time), in either engine's notation.
	if at, reason, _ := strings.Cut(strings.TrimSpace(said), "|"); strings.HasPrefix(at, "0001-01-01") {
		return fmt.Errorf("%s did not start the container: %s", e.spec.Runtime, cut(reason, 4<<10))
	}
	return nil
}

// createArgs are those of create, which podman and docker have in common, but for
// how the container's /proc and /sys are shown whole, and for the root file system
// and the command, which come last. What the test does not choose is left to them, and to
// the image where it is in their store; but of the image's entrypoint and health check the
// test's command takes the place.
func (e *engine) createArgs(stored bool, unmasked string) ([]string, error) {
	process, spec := e.plan.Config.Process, e.spec
	if spec.Writable && !spec.Unmasked && !spec.Privileged {
		return nil, fmt.Errorf("%s makes /proc and /sys writable only together with showing all of them: choose --unmasked too, or --privileged", spec.Runtime)
	}
	args := []string{
		"create", "--name", engineID, "--network", "none", "--log-driver", "none", "--cgroup-parent", e.groupParent(),
		"--hostname", e.plan.Config.Hostname, "--volume", engineSock + ":/dev/log",
	}
	if stored {
		args = append(args, "--entrypoint", "", "--no-healthcheck")
	}
	if !stored || spec.Cwd != "" {
		args = append(args, "--workdir", process.Cwd)
	}
	if u := process.User.Username; u != "" {
		args = append(args, "--user", u)
	}
	for _, v := range process.Env {
		args = append(args, "--env", v)
	}
	for _, c := range spec.CapAdd {
		args = append(args, "--cap-add", c)
	}
	for _, c := range spec.CapDrop {
		args = append(args, "--cap-drop", c)
	}
	switch {
	case spec.Seccomp == probe.SeccompUnconfined:
		args = append(args, "--security-opt", "seccomp=unconfined")
	case spec.SeccompProfile != "":
		file := engineDir + "/seccomp.json"
		if err := os.WriteFile(file, []byte(spec.SeccompProfile), 0o644); err != nil {
			return nil, fmt.Errorf("write seccomp profile: %w", err)
		}
		args = append(args, "--security-opt", "seccomp="+file)
	}
	if spec.Unmasked {
		args = append(args, "--security-opt", unmasked)
	}
	if spec.Privileged {
		args = append(args, "--privileged")
	}
	if spec.Devices && !spec.Privileged {
		devices, err := guestDevices("/dev")
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			args = append(args, "--device", d.Path)
		}
	}
	return args, nil
}
