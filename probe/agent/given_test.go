//go:build linux

package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lab/probe"
	"lab/probe/wire"
)

// TestReadGiven reads what this process has, and a config.json beside it.
func TestReadGiven(t *testing.T) {
	bundle := t.TempDir()
	given := func(config string) *container {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		e := engine{container: &container{plan: plan{SeccompName: probe.SeccompDefault}}}
		if err := e.readGiven(specs.State{Pid: os.Getpid(), Bundle: bundle}); err != nil {
			t.Fatal(err)
		}
		return e.container
	}
	with := given(`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}`)
	if with.plan.SeccompName != probe.SeccompDefault || with.told.Profile != "sha256:fabf03d16015a21e2c652112b1260e478c567b3a7191c11cc02bb20e8a41b6f7" {
		t.Errorf("seccomp %s, profile %s", with.plan.SeccompName, with.told.Profile)
	}
	without := given(`{"linux": {}}`)
	if without.plan.SeccompName != probe.SeccompUnconfined || without.told.Profile != "" {
		t.Errorf("seccomp %s, profile %s", without.plan.SeccompName, without.told.Profile)
	}
	e := engine{container: &container{}}
	if err := e.readGiven(specs.State{Pid: os.Getpid(), Bundle: t.TempDir()}); err == nil {
		t.Error("a bundle without a config.json is read")
	}
}

func TestReadStatus(t *testing.T) {
	e := engine{container: &container{}}
	if err := e.readStatus("Name:\tinit\nCapBnd:\t00000000800405fb\nSeccomp:\t2\nSeccomp_filters:\t1\n"); err != nil {
		t.Fatal(err)
	}
	if e.plan.Caps != 0x800405fb || e.told.SeccompMode != "filter" {
		t.Errorf("capabilities %x, seccomp %s", e.plan.Caps, e.told.SeccompMode)
	}
	if err := e.readStatus("CapBnd:\tmany\n"); err == nil {
		t.Error("no error of what is no number")
	}
	want := wire.Container{SeccompMode: "filter"}
	if d := cmp.Diff(want, e.told); d != "" {
		t.Error(d)
	}
}
