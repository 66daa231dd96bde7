package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// fakeKVM makes a QEMU with which "-accel kvm" does what a test asks for; the
// rest it leaves to the real one. It notes each start in a file.
func fakeKVM(t *testing.T, kvm string) (binary string, starts func() string) {
	t.Helper()
	real := needQEMU(t)
	dir := t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
args="$*"
case "$args" in
*--version*) exec %[1]s --version ;;
*"-accel kvm"*) printf k >>%[2]s/starts; %[3]s ;;
esac
printf t >>%[2]s/starts
exec %[1]s "$@"
`, real, dir, kvm)
	binary = filepath.Join(dir, "qemu")
	if err := os.WriteFile(binary, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return binary, func() string {
		b, err := os.ReadFile(filepath.Join(dir, "starts"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}
}

const (
	kvmWorks  = `a=; for x; do [ "$x" = kvm ] && x=tcg; set -- "$@" "$x"; shift; done`
	kvmCrawls = `i=0; while [ $i -lt 2000000 ]; do i=$((i+1)); done; ` + kvmWorks
	kvmHangs  = `exec sleep 1000`
	kvmDies   = `echo 'qemu: failed to initialize kvm: Permission denied' >&2; exit 1`
	kvmResets = `exit 0`
)

func TestAccelerator(t *testing.T) {
	device := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const forever = time.Hour // however busy the host is
	for name, c := range map[string]struct {
		kvm, accel, reason string
		deadline           time.Duration
	}{
		"works":  {kvmWorks, "kvm", "a guest booted in ", forever},
		"crawls": {kvmCrawls, "tcg", device + " works, but a guest's boot takes ", forever},
		"hangs":  {kvmHangs, "tcg", device + " opens, but a guest did not boot within ", 10 * time.Second},
		"dies":   {kvmDies, "tcg", device + " opens, but a guest did not boot: qemu exited: status 1: qemu: failed to initialize kvm: Permission denied", forever},
		"resets": {kvmResets, "tcg", device + " opens, but a guest did not boot: it ended without a sign of life", forever},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary, starts := fakeKVM(t, c.kvm)
			cache := filepath.Join(t.TempDir(), "made", "by", "it")
			o := ProbeOptions{Binary: binary, Deadline: c.deadline, kvm: device}
			a, err := Accelerator(t.Context(), cache, o)
			if err != nil {
				t.Fatal(err)
			}
			if a.Name != c.accel || !strings.HasPrefix(a.Reason, c.reason) || a.Proof != ProofTiny || a.Remembered || a.Tried.IsZero() {
				t.Errorf("got %+v, want %s: %s", a, c.accel, c.reason)
			}
			tried := starts()
			b, err := Accelerator(t.Context(), cache, o)
			if err != nil {
				t.Fatal(err)
			}
			a.Remembered = true
			if b != a || starts() != tried {
				t.Errorf("the second time: %+v after %q, want %+v after %q", b, starts(), a, tried)
			}
			o.Refresh = true
			if b, err = Accelerator(t.Context(), cache, o); err != nil || b.Remembered || b.Name != c.accel || starts() != tried+tried {
				t.Errorf("refreshed: %+v, %v after %q", b, err, starts())
			}
		})
	}
}

// TestAcceleratorHere asks about the real host, whatever it is.
func TestAcceleratorHere(t *testing.T) {
	needQEMU(t)
	a, err := Accelerator(t.Context(), "", ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "kvm" && a.Name != "tcg" || a.Reason == "" || a.Remembered {
		t.Errorf("%+v", a)
	}
	t.Logf("%+v", a)
}

func TestAcceleratorNoDevice(t *testing.T) {
	binary, starts := fakeKVM(t, kvmWorks)
	cache := t.TempDir()
	a, err := Accelerator(t.Context(), cache, ProbeOptions{Binary: binary, kvm: "/nope"})
	if err != nil || a.Name != "tcg" || a.Reason != "/nope: no such file or directory" || a.Proof != ProofNone {
		t.Errorf("%+v, %v", a, err)
	}
	if left, _ := os.ReadDir(cache); len(left) != 0 || starts() != "" {
		t.Errorf("%v remembered after %q", left, starts())
	}
}

func TestAcceleratorErrors(t *testing.T) {
	device := os.DevNull
	if _, err := Accelerator(t.Context(), "", ProbeOptions{Binary: "qemu-none", kvm: device}); !errors.As(err, new(*ErrMissing)) {
		t.Errorf("got %v, want ErrMissing", err)
	}
	binary, _ := fakeKVM(t, kvmWorks)
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("not a kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Accelerator(t.Context(), "", ProbeOptions{Binary: binary, Kernel: junk, Deadline: 2 * time.Second, kvm: device})
	if err == nil || !strings.Contains(err.Error(), "does not boot with tcg either") {
		t.Errorf("a probe that cannot work: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Accelerator(ctx, "", ProbeOptions{Binary: binary, kvm: device}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRemember: what outranks what, and a damaged file.
func TestRemember(t *testing.T) {
	needQEMU(t)
	dir := t.TempDir()
	version, err := Version(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, hostName)
	if err := os.WriteFile(path, []byte(`{"format":1,"hosts":{"x":`), 0o644); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		add  Accel
		want Accel
	}{
		{Accel{Name: "kvm", Proof: ProofTiny, Reason: "1"}, Accel{Name: "kvm", Proof: ProofTiny, Reason: "1"}},
		{Accel{Name: "tcg", Proof: ProofLinux, Reason: "2"}, Accel{Name: "tcg", Proof: ProofLinux, Reason: "2"}},
		{Accel{Name: "kvm", Proof: ProofTiny, Reason: "3"}, Accel{Name: "tcg", Proof: ProofLinux, Reason: "2"}},
		{Accel{Name: "kvm", Proof: ProofLinux, Reason: "4"}, Accel{Name: "kvm", Proof: ProofLinux, Reason: "4"}},
		{Accel{Name: "tcg", Proof: ProofTiny, Reason: "5"}, Accel{Name: "tcg", Proof: ProofTiny, Reason: "5"}},
	}
	for i, s := range steps {
		if err := Remember(t.Context(), dir, "", s.add); err != nil {
			t.Fatal(err)
		}
		got, ok := recall(dir, hostKey(version))
		if got.Tried.IsZero() {
			t.Errorf("step %d: no time", i)
		}
		got.Tried = time.Time{}
		s.want.Remembered = true
		if !ok || got != s.want {
			t.Errorf("step %d: got %+v, want %+v", i, got, s.want)
		}
	}
	if err := Remember(t.Context(), dir, "", Accel{Name: "xen", Proof: ProofTiny}); err == nil {
		t.Error("remembered an unknown accelerator")
	}
	if err := Remember(t.Context(), dir, "", Accel{Name: "kvm"}); err == nil {
		t.Error("remembered without a proof")
	}
	for i := range maxHosts + 5 {
		if _, err := remember(t.Context(), dir, fmt.Sprint(i), Accel{Name: "tcg", Proof: ProofTiny, Tried: now()}); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := readHosts(path); err != nil || len(h.Hosts) != maxHosts {
		t.Errorf("%d hosts, %v", len(h.Hosts), err)
	}
	if err := os.Truncate(path, maxHostFile+1); err != nil {
		t.Fatal(err)
	}
	if _, ok := recall(dir, "1"); ok {
		t.Error("read a file that is too large")
	}
}

func TestHostKey(t *testing.T) {
	a, b := hostKey("7.2"), hostKey("7.2")
	if a != b || len(a) != 64 || a == hostKey("8.0") {
		t.Errorf("%s, %s, %s", a, b, hostKey("8.0"))
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte(`{"format":1,"hosts":{"k":{"name":"tcg","reason":"r","proof":"linux","tried":"2025-01-02T03:04:05Z"}}}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"hosts":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseHosts(data); err == nil && h.Format != hostFormat {
			t.Errorf("accepted format %d", h.Format)
		}
	})
}

func TestWatch(t *testing.T) {
	w := &watch{marker: []byte("needle"), found: make(chan struct{})}
	for _, s := range []string{"hay", "nee", "", "d", "le?"} {
		select {
		case <-w.found:
			t.Fatal("found too early")
		default:
		}
		w.Write([]byte(s))
	}
	<-w.found
	w.Write([]byte("needle"))
}

// TestThread: QEMU does not end with the thread that called Start.
func TestThread(t *testing.T) {
	needQEMU(t)
	seen := &watch{marker: []byte(tinyMarker), found: make(chan struct{})}
	m := Machine{Kernel: tinyKernel(t, false), Memory: 128, Console: seen}
	var vm *VM
	var err error
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		vm, err = m.Start(t.Context())
		close(done)
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err != nil {
		t.Error(err)
	}
	<-seen.found
}
