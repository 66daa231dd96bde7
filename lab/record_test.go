package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel/qemu"
)

func TestRecordable(t *testing.T) {
	for want, s := range map[string]Spec{
		"":                    {Machine: MachineSpec{CPUs: 1}},
		"in a guest":          {Symptom: Symptom{Kind: SymptomBuild}},
		"--accel tcg alone":   {Machine: MachineSpec{Accel: "kvm"}},
		"without a recording": {Machine: MachineSpec{Exact: true}},
		"one processor alone": {Machine: MachineSpec{CPUs: 2}},
	} {
		if err := s.Recordable(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestPlayBackDamaged: what is no recording is no execution either, whatever it says.
func TestPlayBackDamaged(t *testing.T) {
	if _, err := qemu.Find("amd64"); err != nil {
		t.Fatalf("%v: run lab doctor --install", err)
	}
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	m := qemu.Machine{Kernel: write("kernel", strings.Repeat("MZ", 4096)), Replay: write("log", "no log at all"), Confined: true}
	p, err := playBack(t.Context(), m, Trial{}, Trial{}, func(string) ([]byte, error) { return nil, nil })
	if err != nil || p.Outcome != CannotRun || len(p.Differences) != 1 || !strings.Contains(p.Differences[0], "qemu exited: status 1") {
		t.Errorf("%+v, %v", p, err)
	}

	write(recordingFile, "one")
	write(trialFile, `{"recording": "sha256:0"}`)
	s := Spec{Images: []Load{{Name: "test", Reference: "rootfs:nothing"}}}
	s.Test.Command = []string{"true"}
	if _, err := (&Lab{}).PlayBack(t.Context(), s, dir); err == nil || !strings.Contains(err.Error(), "it is damaged") {
		t.Errorf("got %v", err)
	}
}
