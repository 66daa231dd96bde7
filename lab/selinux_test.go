package lab

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"lab/probe"
)

// aPolicy is the beginning of a binary policy, with a mark.
func aPolicy(mark string) string {
	b := binary.LittleEndian.AppendUint32(nil, 0xf97cff8c)
	b = binary.LittleEndian.AppendUint32(b, 8)
	return string(b) + "SE Linux" + mark
}

func TestFindPolicy(t *testing.T) {
	const config = "# a comment\nSELINUX=permissive\nSELINUXTYPE=mine \n"
	for name, c := range map[string]struct {
		files map[string]string
		err   string
	}{
		"the newest":      {map[string]string{"./etc/selinux/config": config, "etc/selinux/mine/policy/policy.9": aPolicy("old"), "etc/selinux/mine/policy/policy.33": aPolicy("want"), "etc/selinux/yours/policy/policy.40": aPolicy("no")}, ""},
		"no config":       {map[string]string{"etc/selinux/mine/policy/policy.33": aPolicy("x")}, "no SELINUXTYPE= in /etc/selinux/config"},
		"no policy":       {map[string]string{"etc/selinux/config": config}, "no policy in /etc/selinux/mine/policy"},
		"something else":  {map[string]string{"etc/selinux/config": config, "etc/selinux/mine/policy/policy.33": "text"}, "policy"},
		"a path for type": {map[string]string{"etc/selinux/config": "SELINUXTYPE=../mine\n"}, "no SELINUXTYPE="},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, text := range c.files {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		packed, err := findPolicy(&b)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if policy, again := probe.UnpackPolicy(packed); err != nil || again != nil || string(policy) != aPolicy("want") {
			t.Errorf("%s: %q, %v, %v", name, policy, err, again)
		}
	}
	err := (&Lab{}).SetBasePolicy(t.Context(), &Spec{})
	if err == nil || !strings.Contains(err.Error(), "--base REF") {
		t.Errorf("no base: %v", err)
	}
}
