package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lab/lab"
)

// slurm is a cluster of several nodes on this host: slurm.conf(5).
type slurm struct {
	dir   string
	nodes map[string]*exec.Cmd // slurmd of each
}

const slurmConf = `ClusterName=lab
SlurmctldHost=%[2]s(127.0.0.1)
SlurmctldPort=%[3]d
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=%[1]s/munge.socket
StateSaveLocation=%[1]s
SlurmdSpoolDir=%[1]s/%%n
SlurmctldPidFile=%[1]s/slurmctld.pid
SlurmdPidFile=%[1]s/%%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/linear
MailProg=/bin/true
NodeName=n[1-3] NodeHostname=%[2]s NodeAddr=127.0.0.1 Port=[%[4]d,%[5]d,%[6]d] CPUs=1
PartitionName=all Nodes=ALL Default=YES
`

// startSlurm starts a cluster, which ends with the test.
func startSlurm(t *testing.T) *slurm {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("Slurm's daemons run jobs of root's only as root")
	}
	s := &slurm{dir: t.TempDir(), nodes: map[string]*exec.Cmd{}}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ = strings.Cut(host, ".")
	args := []any{s.dir, host}
	var ports []net.Listener
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports, args = append(ports, l), append(args, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range ports {
		l.Close()
	}
	key := filepath.Join(s.dir, "munge.key")
	for name, data := range map[string]string{key: strings.Repeat("of this test", 100), filepath.Join(s.dir, "slurm.conf"): fmt.Sprintf(slurmConf, args...)} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SLURM_CONF", filepath.Join(s.dir, "slurm.conf"))
	s.start(t, "munged", "--foreground", "--force", "--key-file="+key, "--socket="+s.dir+"/munge.socket",
		"--pid-file="+s.dir+"/munge.pid", "--log-file="+s.dir+"/munge.log", "--seed-file="+s.dir+"/munge.seed")
	s.start(t, "slurmctld", "-D", "-c")
	for _, n := range []string{"n1", "n2", "n3"} {
		if err := os.Mkdir(filepath.Join(s.dir, n), 0o755); err != nil {
			t.Fatal(err)
		}
		s.nodes[n] = s.start(t, "slurmd", "-D", "-N", n)
	}
	// They find each other in a second or two.
	for {
		if out, _ := exec.Command("sinfo", "--noheader", "--states=idle", "--format=%D").Output(); strings.TrimSpace(string(out)) == "3" {
			return s
		}
		if t.Context().Err() != nil {
			t.Fatal("the cluster does not come up")
		}
	}
}

// start starts a daemon, for as long as the test runs.
func (s *slurm) start(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join("/usr/sbin", name), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run lab doctor --install", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	return cmd
}

// die ends a node as a power cut does: its daemon, and a job's processes from one
// of them up to the step's own.
func (s *slurm) die(t *testing.T, node string, pid int) {
	t.Helper()
	s.nodes[node].Process.Kill()
	var doomed []int // all are known before the first one dies, and others of it
	for {
		// proc_pid_stat(5): pid (comm) state ppid
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		comm, rest, _ := strings.Cut(string(stat), ") ")
		parent, err := strconv.Atoi(strings.Fields(rest)[1])
		if err != nil || parent <= 1 && !strings.Contains(comm, "slurmstepd") {
			t.Fatalf("no step of Slurm's above the command: %s, %v", stat, err)
		}
		doomed = append(doomed, pid)
		if strings.Contains(comm, "slurmstepd") {
			break
		}
		pid = parent
	}
	for _, pid := range slices.Backward(doomed) { // the step first: nothing is told by those below it
		syscall.Kill(pid, syscall.SIGKILL)
	}
	// The controller finds out by itself, half a minute later at the earliest.
	if out, err := exec.Command("scontrol", "update", "nodename="+node, "state=down", "reason=power").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestSlurm bisects over a real cluster, a node of which dies under a test: the
// answer is the same, and no verdict comes of it.
func TestSlurm(t *testing.T) {
	needE2E(t)
	s := startSlurm(t)
	home := t.TempDir()
	const commits, culprit = 40, 27
	killedRepo(t, home, commits, culprit)
	fifo, hang := filepath.Join(home, "fifo"), filepath.Join(home, "hang")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hang, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// The culprit's parent, without which there is no answer, says where it is and waits as long as the file hang is there.
	command := fmt.Sprintf("test -n \"$SLURMD_NODENAME\" || exit 125; if grep -qx 26 number && test -f %s; then echo $SLURMD_NODENAME $$ > %s; exec sleep 1000; fi; grep -q fine state", hang, fifo)
	cmd := labCmd(home, "bisect", "--repo", "linux", "--good", "good", "--bad", "main", "--steady", "--dir", "state", "--json", "--jobs", "3", "--launcher", "srun -N1 -n1 -c1", "--run", command)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	started, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		started.Close()
	}()
	line, err := bufio.NewReader(started).ReadString('\n')
	if err != nil {
		t.Fatalf("no test waits: %v, %v\n%s", err, <-ended, said.String())
	}
	node, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(text)
	if err != nil || s.nodes[node] == nil {
		t.Fatalf("%q is no node and its process", line)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	s.die(t, node, pid)
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	var found lab.Bisection
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s died\n%s", node, said.String())
	if found.Culprit == nil || found.Culprit.Title != fmt.Sprintf("change %d", culprit) {
		t.Errorf("found %+v", found.Culprit)
	}
	if !strings.Contains(said.String(), "no verdict from where it ran; it is given out again") {
		t.Error("nothing is said of the node that died")
	}
	tested := map[string]bool{}
	for _, r := range found.Tested {
		key := r.Role + r.Commit.Hash
		if tested[key] || r.Mark == lab.Skip || (r.Mark == lab.Good) != (r.Reason == "exit status 0") {
			t.Errorf("%s, twice or otherwise than it is: %+v", r.Commit.Title, r)
		}
		tested[key] = true
	}
	if out, err := exec.Command("squeue", "--noheader", "--states=running,pending").Output(); err != nil || len(out) > 0 {
		t.Errorf("jobs are left: %s, %v", out, err)
	}
}
