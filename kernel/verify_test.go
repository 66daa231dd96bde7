package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerify(t *testing.T) {
	r := newRepo(t)
	cache := t.TempDir()
	o := fragments("CONFIG_A=y\n")
	v, err := Verify(t.Context(), cache, r.dir, "HEAD", o)
	if err != nil || !v.Same || v.Image == "" || v.Differs != "" {
		t.Errorf("%+v, %v", v, err)
	}
	// The place of the build in the kernel, or the time: not the same.
	r.write(map[string]string{"HOOK": "pwd >> src/a.o; cp /bin/true vmlinux\n"})
	r.commit("its place")
	v, err = Verify(t.Context(), cache, r.dir, "HEAD", o)
	if err != nil || v.Same || !strings.HasPrefix(v.Differs, "bzImage: byte ") || !strings.HasSuffix(v.Differs, "in the compressed kernel") {
		t.Errorf("%+v, %v", v, err)
	}
	r.write(map[string]string{"HOOK": "echo \"char v[] = \\\"$PWD\\\"; int main(void) { return 0; }\" | gcc -x c -o vmlinux -\n"})
	r.commit("in vmlinux")
	v, err = Verify(t.Context(), cache, r.dir, "HEAD", o)
	if err != nil || v.Same || !strings.HasPrefix(v.Differs, "vmlinux: byte ") {
		t.Errorf("%+v, %v", v, err)
	}
	r.write(map[string]string{"HOOK": "", "src/a.c": "int a(void) { return gone; }\n"})
	r.commit("broken")
	if v, err = Verify(t.Context(), cache, r.dir, "HEAD", o); err != nil || v.Failure == nil || v.Same {
		t.Errorf("%+v, %v", v, err)
	}
	left, err := os.ReadDir(cache)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFirstDifference(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	image := append(fakeHeader("6.1"), make([]byte, 200_000)...)
	change := func(at int) []byte {
		b := append([]byte(nil), image...)
		b[at]++
		return b
	}
	one := write("one", image)
	for want, data := range map[string][]byte{
		"":                                      image,
		"byte 700, in the setup code":           change(700),
		"byte 150000, in the compressed kernel": change(150_000),
		"byte 201023, in the compressed kernel": image[:len(image)-1],
	} {
		if got, err := firstDifference(one, write("two", data)); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	other := append([]byte(nil), program...)
	other[len(other)-1]++ // of the section headers
	if got, err := firstDifference(write("elf", program), write("elf2", other)); err != nil || !strings.HasSuffix(got, "in the ELF headers") {
		t.Errorf("%q, %v", got, err)
	}
}
