package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSourceList: source packages come from where packages come from, of this
// release and its updates only.
func TestSourceList(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	apt := `#!/bin/sh
echo 'deb-src http://127.0.0.1/debian/ bookworm main'
echo 'deb-src http://127.0.0.1/debian/ bookworm contrib'
echo 'deb-src http://127.0.0.1/debian-security/ bookworm-security main'
echo 'deb-src http://127.0.0.1/other/ bookwormy main'
echo 'deb-src http://127.0.0.1/flat/ ./ '
`
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(apt), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	path, err := sourceList(t.Context(), dir, "bookworm")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	want := "deb-src http://127.0.0.1/debian/ bookworm main\ndeb-src http://127.0.0.1/debian-security/ bookworm-security main\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := sourceList(t.Context(), dir, "trixie"); err == nil || !strings.Contains(err.Error(), "knows no archive of trixie") {
		t.Errorf("a release that is not there: %v", err)
	}
}
