//go:build linux

package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where docker's daemon has its store, its log, and an image of nothing.
const (
	dockerStore = engineDir + "/docker"
	dockerLog   = engineDir + "/dockerd"
	dockerNone  = engineDir + "/empty.tar"
	dockerSock  = "/run/docker.sock"
)

// dockerdArgs have the daemon do without what the guest does not have: a network,
// systemd, overlayfs.
var dockerdArgs = []string{
	"--data-root", dockerStore, "--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs",
	"--host", "unix://" + dockerSock, "--bridge", "none", "--iptables=false", "--ip6tables=false",
}

// beginDocker starts docker's daemon, which makes the container with its own
// defaults for what the test does not choose. Its store need not be filled: the
// container is made of an image that is empty, and what the store has as its root is
// then covered with that of the disk.
func (e *engine) beginDocker() (p pipes, err error) {
	if e.spec.UserNS {
		return p, errors.New("docker has user namespaces for all containers of a daemon, or none; lab's has none: run this test by crun, runc or podman")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, lastOf(dockerLog, 4<<10))
		}
	}()
	if err := startDockerd(); err != nil {
		return p, err
	}
	args, err := e.createArgs("systempaths=unconfined")
	if err != nil {
		return p, err
	}
	// An archive's end, and nothing before (POSIX, pax, "ustar Interchange Format").
	if err := os.WriteFile(dockerNone, make([]byte, 1024), 0o644); err != nil {
		return p, fmt.Errorf("make an empty image: %w", err)
	}
	if _, err := e.ask("import", dockerNone, engineID); err != nil {
		return p, err
	}
	if _, err := e.ask(append(append(args, engineID), e.plan.Config.Process.Args...)...); err != nil {
		return p, err
	}
	if err := e.coverRoot(); err != nil {
		return p, err
	}
	// What docker gives is seen in the running container only, which may be over at
	// once: it is told where it is known. How many all capabilities are is not.
	e.plan.Seccomp = nil
	if e.spec.Privileged || slices.ContainsFunc(e.spec.CapAdd, func(c string) bool { return strings.EqualFold(c, "ALL") }) {
		e.plan.Caps = 0
	}
	return e.attach()
}

// startDockerd starts the daemon, and returns when it takes commands.
func startDockerd() error {
	path, err := findEngine("dockerd")
	if err != nil {
		return err
	}
	log, err := os.Create(dockerLog)
	if err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	defer log.Close()
	pid, err := syscall.ForkExec(path, append([]string{path}, dockerdArgs...), &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath, "HOME=/root"}, Files: []uintptr{log.Fd(), log.Fd(), log.Fd()},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", path, explainExec(path, err))
	}
	var ended error
	_, err = waitFor(setupLimit, func() (struct{}, error) {
		var status unix.WaitStatus
		if n, _ := unix.Wait4(pid, &status, unix.WNOHANG, nil); n == pid {
			ended = fmt.Errorf("dockerd ended with status %d", status.ExitStatus())
			return struct{}{}, nil
		}
		c, err := net.Dial("unix", dockerSock) // that the socket is there is not enough
		if err == nil {
			err = c.Close()
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("dockerd did not listen within %s", setupLimit)
	}
	return ended
}

// coverRoot binds the disk's root file system over the one that docker's store has
// for the container: vfs/dir/ID, where image/vfs/layerdb/mounts/…/mount-id has ID.
func (e *engine) coverRoot() error {
	files, err := filepath.Glob(dockerStore + "/image/vfs/layerdb/mounts/*/mount-id")
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("there are %d in docker's store", len(files))
	}
	var id []byte
	if err == nil {
		id, err = os.ReadFile(files[0])
	}
	if err == nil {
		err = unix.Mount(e.plan.Rootfs, filepath.Join(dockerStore, "vfs/dir", strings.TrimSpace(string(id))), "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("find the container's root: %w", err)
	}
	return nil
}

// lastOf is the end of a log, on lines of its own; empty where there is none.
func lastOf(file string, most int) string {
	data, _ := os.ReadFile(file)
	text := strings.TrimSpace(string(data))
	if text == "" {
		return ""
	}
	return "\n" + text[max(0, len(text)-most):]
}
