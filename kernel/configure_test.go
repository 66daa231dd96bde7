package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel/kconfig"
)

// Asking for a configuration changes nothing of what is built.
func TestConfigureBetweenBuilds(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	second := r.change("second", "README", "more\n")
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	build(t, tree, first, o).compiled(t, "src/a.o", "src/b.o", "src/c.o")
	got, failure, err := tree.Configure(t.Context(), second, fragments("CONFIG_B=y\nCONFIG_NOSUCH=y\n"))
	if err != nil || failure != nil {
		t.Fatalf("%v, %+v", err, failure)
	}
	if got.Commit != second || !strings.Contains(string(got.Config), "CONFIG_B=y") {
		t.Errorf("%s:\n%s", got.Commit, got.Config)
	}
	// There is no Kconfig to explain it.
	if len(got.Lost) != 1 || got.Lost[0] != (kconfig.Difference{Symbol: "NOSUCH", Requested: "y"}) {
		t.Errorf("lost %+v", got.Lost)
	}
	build(t, tree, second, o).compiled(t)

	r.write(map[string]string{"KCONFIG_BROKEN": ""})
	broken := r.commit("broken")
	if _, failure, err = tree.Configure(t.Context(), broken, o); err != nil || failure == nil || failure.Line != "init/Kconfig:7: syntax error" {
		t.Errorf("a broken Kconfig: %v, %+v", err, failure)
	}
	build(t, tree, second, fragments("CONFIG_A=n\n"))
}

func TestHostConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	text := "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.7 Kernel Configuration\n#\nCONFIG_SYSTEM_TRUSTED_KEYS=\"/build/keys.pem\"\nCONFIG_GONE=y"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := HostConfig(t.Context(), t.TempDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kconfig.Merge(f)
	if err != nil || c["SYSTEM_TRUSTED_KEYS"] != `""` || c["GONE"] != "y" || !f.Full() || f.Name != "host:"+path {
		t.Errorf("%+v, %v", c, err)
	}
	// It is only to start from.
	r, err := newRequest([]kconfig.Fragment{f, {Name: "mine", Data: []byte("CONFIG_A=y\n")}})
	if err != nil || len(r.config) != 1 || !r.full || !strings.Contains(string(r.text), "CONFIG_GONE=y") {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := HostConfig(t.Context(), t.TempDir(), path+"x"); err == nil || !strings.Contains(err.Error(), "host:"+path+"x") {
		t.Errorf("error %v", err)
	}
}
