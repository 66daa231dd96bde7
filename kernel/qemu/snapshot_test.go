package qemu

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSnapshotOfAnother: only the machine that was saved is restored, from a
// snapshot that is whole, and nothing of it has a name.
func TestSnapshotOfAnother(t *testing.T) {
	needQEMU(t)
	dir := t.TempDir()
	m := Machine{Kernel: tinyKernel(t, true), Initrd: emptyDisk(t), Memory: 64, Snapshots: true, Ports: []string{"lab"}, Disks: []Disk{{Path: emptyDisk(t)}}}
	vm, err := m.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := vm.Save(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := vm.Wait(); err != nil {
		t.Errorf("the machine that was saved ended with %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	if s.Size < 1<<16 || s.Size > 64<<20 {
		t.Errorf("a machine that did nothing takes %d bytes", s.Size)
	}
	m.Initrd = ""
	for range 2 {
		if vm, err = m.Restore(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		vm.Kill()
		if err := vm.Wait(); err != nil {
			t.Error(err)
		}
	}
	other := m
	other.Memory = 65
	if _, err := other.Restore(t.Context(), s); err == nil || !strings.Contains(err.Error(), "not the one that was saved") {
		t.Errorf("another machine: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	cancel(why)
	if _, err := m.Restore(ctx, s); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	for _, c := range []struct {
		what   string
		damage func() error
	}{
		{"its end", func() error { s.Size /= 2; return s.file.Truncate(s.Size) }},
		{"its begin", func() error { _, err := s.file.WriteAt([]byte("not a snapshot"), 0); return err }},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		if vm, err := m.Restore(t.Context(), s); err == nil {
			vm.Kill()
			t.Errorf("a snapshot that lost %s is restored", c.what)
		} else {
			t.Log(err)
		}
	}
	m.Snapshots = false
	if vm, err = m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Save(t.Context(), dir); err == nil {
		t.Error("a machine that cannot be told anything is saved")
	}
	<-vm.Done()
}

// TestLinuxSnapshot: a Linux goes on where it was, on each channel, as often as
// one likes.
func TestLinuxSnapshot(t *testing.T) {
	l := e2e(t)
	m := l.machine("modules,echo", nil)
	m.Ports, m.Snapshots, m.Disks = []string{"lab"}, true, []Disk{{Path: emptyDisk(t)}}
	vm, err := m.Start(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(vm.Ports()[0]).ReadString('\n'); err != nil || line != "lab ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	s, err := vm.Save(deadline(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		var out bytes.Buffer
		m.Console = &out
		vm, err := m.Restore(deadline(t), s)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"lab", "ttyS1"} {
			fmt.Fprintf(vm.Ports()[i], "hello %s\n", name)
			r := bufio.NewReader(vm.Ports()[i])
			for _, want := range [][]string{{"got hello lab"}, {"ready", "got hello ttyS1"}}[i] {
				if line, err := r.ReadString('\n'); err != nil || line != name+" "+want+"\n" {
					t.Errorf("%q, %v; want %s", line, err, want)
				}
			}
		}
		if err := vm.Wait(); err != nil || !strings.HasSuffix(out.String(), "reboot: Power down\r\n") {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}
