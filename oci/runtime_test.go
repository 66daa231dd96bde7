package oci

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files anew")

func withConfig(t testing.TB, c v1.Config) v1.Image {
	t.Helper()
	img, err := mutate.Config(linuxImage(t, "amd64"), c)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestRuntimeSpecGolden(t *testing.T) {
	spec, err := RuntimeSpec(withConfig(t, v1.Config{
		Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"exec app"}, User: "app:staff",
		Env: []string{"A=1", "B=x=y", "A=2"}, WorkingDir: "srv/../data",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const golden = "testdata/config.json"
	if *update {
		ok(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRuntimeSpecProcess(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    v1.Config
		want specs.Process
	}{
		{"nothing", v1.Config{}, specs.Process{Cwd: "/", Env: []string{defaultPath}}},
		{"command only", v1.Config{Cmd: []string{"a", "b"}}, specs.Process{Args: []string{"a", "b"}, Cwd: "/", Env: []string{defaultPath}}},
		{"a path of its own", v1.Config{Env: []string{"PATH=/x"}}, specs.Process{Cwd: "/", Env: []string{"PATH=/x"}}},
		{"numbers", v1.Config{User: "1000:100"}, specs.Process{Cwd: "/", Env: []string{defaultPath}, User: specs.User{UID: 1000, GID: 100, Username: "1000:100"}}},
		{"a number", v1.Config{User: "7"}, specs.Process{Cwd: "/", Env: []string{defaultPath}, User: specs.User{UID: 7, Username: "7"}}},
		{"number and name", v1.Config{User: "7:wheel"}, specs.Process{Cwd: "/", Env: []string{defaultPath}, User: specs.User{Username: "7:wheel"}}},
		{"cwd that climbs", v1.Config{WorkingDir: "../../etc"}, specs.Process{Cwd: "/etc", Env: []string{defaultPath}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec, err := RuntimeSpec(withConfig(t, tt.c))
			if err != nil {
				t.Fatal(err)
			}
			got := *spec.Process
			got.Capabilities = nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, c := range []v1.Config{{Env: []string{"novalue"}}, {Env: []string{"=x"}}, {Env: []string{"A=\x00"}}, {Cmd: []string{"a\x00b"}}, {User: "\x00"}} {
		if spec, err := RuntimeSpec(withConfig(t, c)); err == nil {
			t.Errorf("%+v gave %+v", c, spec.Process)
		}
	}
	windows, err := mutate.ConfigFile(linuxImage(t, "amd64"), &v1.ConfigFile{OS: "windows"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RuntimeSpec(windows); err == nil || !strings.Contains(err.Error(), "windows") {
		t.Errorf("a Windows image: %v", err)
	}
}

// The names are those of Docker's mask, 0xa80425fb.
func TestDefaultCapabilities(t *testing.T) {
	var mask uint64
	for _, name := range defaultCapabilities {
		for _, c := range capability.ListKnown() {
			if "CAP_"+strings.ToUpper(c.String()) == name {
				mask |= 1 << c
			}
		}
	}
	if mask != 0xa80425fb {
		t.Errorf("mask %#x", mask)
	}
}

// Whoever changes a spec changes no other.
func TestRuntimeSpecIsOnesOwn(t *testing.T) {
	img := withConfig(t, v1.Config{Cmd: []string{"a"}})
	first, err := RuntimeSpec(img)
	if err != nil {
		t.Fatal(err)
	}
	first.Process.Capabilities.Bounding[0] = "changed"
	first.Mounts[0].Options[0] = "changed"
	first.Linux.MaskedPaths[0] = "changed"
	second, err := RuntimeSpec(img)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(second)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "changed") {
		t.Error("specs share memory")
	}
}
