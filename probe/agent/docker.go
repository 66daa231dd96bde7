//go:build linux

package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
)

// Where docker's daemon has its store where the disk has none for it, its log, and an
// image of nothing.
const (
	dockerStore = engineDir + "/docker"
	dockerRoot  = "/var/lib/docker" // its own choice
	dockerLog   = engineDir + "/dockerd"
	dockerNone  = engineDir + "/empty.tar"
	dockerSock  = "/run/docker.sock"
	// containerdSock is where dockerd looks for a containerd that is there already.
	containerdSock   = "/run/containerd/containerd.sock"
	containerdConfig = engineDir + "/containerd.toml"
	// dockerRuntime is this binary, as the runtime that docker has: runc, but that
	// the agent is told of a container before it starts, by dockerStarts.
	dockerRuntime = engineDir + "/runtime"
	dockerStarts  = engineDir + "/starts"
)

// containerdSettings are those that dockerd gives a containerd of its own (moby,
// libcontainerd/supervisor): without what Kubernetes wants.
const containerdSettings = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
`

// dockerdArgs have the daemon do without a network, which the guest need not have.
var dockerdArgs = []string{
	"--containerd", containerdSock, "--add-runtime", "lab=" + dockerRuntime, "--default-runtime", "lab",
	"--host", "unix://" + dockerSock, "--bridge", "none", "--iptables=false", "--ip6tables=false",
}

// beginDocker starts docker's daemon, which makes the container with its own
// defaults for what the test does not choose, of the image in its store. Where there is
// none that the kernel can use, the container is made of an image that is empty, and what
// the store has as its root is then covered with that of the disk.
func (e *engine) beginDocker() (p pipes, err error) {
	if e.spec.UserNS {
		return p, errors.New("docker has user namespaces for all containers of a daemon, or none; lab's has none: run this test by crun, runc or podman")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, lastOf(dockerLog, 4<<10))
		}
	}()
	stored, err := e.mountStore(dockerRoot)
	if err != nil {
		return p, err
	}
	storage := []string{"--storage-driver", "overlay2"}
	if !stored {
		storage = []string{"--storage-driver", "vfs", "--data-root", dockerStore}
	}
	if err := startDockerd(append(storage, "--exec-opt", "native.cgroupdriver="+cgroupDriver(e.spec))...); err != nil {
		return p, err
	}
	args, err := e.createArgs(stored, "systempaths=unconfined")
	if err != nil {
		return p, err
	}
	if stored {
		args = append(args, probe.StoreImage)
	} else {
		if err := e.importNothing(); err != nil {
			return p, err
		}
		args = append(args, engineID)
	}
	if _, err := e.ask(append(args, e.plan.Config.Process.Args...)...); err != nil {
		return p, err
	}
	if !stored {
		if err := e.coverRoot(); err != nil {
			return p, err
		}
	}
	facts, err := e.facts("{{.CgroupDriver}}|{{.Driver}}", "info")
	if err != nil {
		return p, err
	}
	if err := e.rests("runc", facts[0], facts[1]); err != nil {
		return p, err
	}
	starts, err := net.ListenUnix("unix", &net.UnixAddr{Name: dockerStarts})
	if err != nil {
		return p, fmt.Errorf("listen to the start of the container: %w", err)
	}
	defer starts.Close()
	if p, err = e.attach(); err != nil {
		return p, err
	}
	return p, e.awaitStart(starts)
}

// importNothing gives docker an image that is empty.
func (e *engine) importNothing() error {
	// An archive's end, and nothing before (POSIX, pax, "ustar Interchange Format").
	if err := os.WriteFile(dockerNone, make([]byte, 1024), 0o644); err != nil {
		return fmt.Errorf("make an empty image: %w", err)
	}
	_, err := e.ask("import", dockerNone, engineID)
	return err
}

// startDockerd starts the daemon, and returns when it takes commands. On most machines
// containerd is a service of its own, that is there before; one that dockerd starts it
// gives up after 15 s (moby, libcontainerd/supervisor), which a busy host may take.
func startDockerd(options ...string) error {
	err := os.WriteFile(containerdConfig, []byte(containerdSettings), 0o644)
	if err == nil {
		err = os.Symlink(fmt.Sprintf("/proc/%d/exe", os.Getpid()), dockerRuntime)
	}
	if err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	if err := startDaemon(containerdSock, "containerd", "--config", containerdConfig); err != nil {
		return err
	}
	return startDaemon(dockerSock, "dockerd", slices.Concat(dockerdArgs, options)...)
}

// startDaemon starts a daemon of docker's, and returns when it listens.
func startDaemon(sock, name string, args ...string) error {
	path, err := findEngine(name)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(dockerLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	pid, err := syscall.ForkExec(path, slices.Concat([]string{path}, args), &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath, "HOME=/root"}, Files: []uintptr{log.Fd(), log.Fd(), log.Fd()},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", path, explainExec(path, err))
	}
	var ended error
	_, err = waitFor(setupLimit, func() (struct{}, error) {
		var status unix.WaitStatus
		if n, _ := unix.Wait4(pid, &status, unix.WNOHANG, nil); n == pid {
			ended = fmt.Errorf("%s ended with status %d", name, status.ExitStatus())
			return struct{}{}, nil
		}
		c, err := net.Dial("unix", sock) // that the socket is there is not enough
		if err == nil {
			err = c.Close()
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("%s did not listen within %s", name, setupLimit)
	}
	return ended
}

// runtimeProcess is docker's runtime. It never returns.
func runtimeProcess() {
	path, err := findEngine("runc")
	// Options come before the command, and the container's name is last (runc(8)).
	if i := slices.Index(os.Args, "start"); err == nil && i > 0 {
		err = announceStart(path, os.Args[1:i], os.Args[len(os.Args)-1])
	}
	if err == nil {
		err = syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	unix.Exit(1)
}

// announceStart gives the agent the state of a container that is about to start
// (runtime-spec, runtime.md, "State"), and waits for its leave.
func announceStart(runc string, options []string, id string) error {
	state, err := exec.Command(runc, append(slices.Clone(options), "state", id)...).Output()
	if err != nil {
		return fmt.Errorf("ask for the state of the container: %w", err)
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: dockerStarts})
	if err != nil {
		return fmt.Errorf("tell the agent of the container: %w", err)
	}
	defer c.Close()
	if _, err = c.Write(state); err == nil {
		err = c.CloseWrite()
	}
	var refused []byte
	if err == nil {
		refused, err = io.ReadAll(c)
	}
	if err == nil && len(refused) > 0 {
		err = errors.New(string(refused))
	}
	return err
}

// awaitStart takes the container when docker's runtime tells that it starts, or says
// why docker's command ended before.
func (e *engine) awaitStart(starts *net.UnixListener) error {
	c, err := waitFor(setupLimit, func() (*net.UnixConn, error) {
		var status unix.WaitStatus
		if n, _ := unix.Wait4(e.pid, &status, unix.WNOHANG, nil); n == e.pid {
			e.ended[e.pid] = status
			return nil, nil
		}
		_ = starts.SetDeadline(time.Now().Add(10 * time.Millisecond))
		return starts.AcceptUnix()
	})
	if err != nil {
		return fmt.Errorf("docker did not start the container within %s", setupLimit)
	}
	if c == nil {
		return cmp.Or(e.inspect(), errors.New("docker started the container without its runtime"))
	}
	defer c.Close()
	var made specs.State
	if err = json.NewDecoder(io.LimitReader(c, 1<<20)).Decode(&made); err == nil {
		err = e.take(made)
	}
	if err != nil {
		_, _ = c.Write([]byte(err.Error()))
	}
	return err
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
