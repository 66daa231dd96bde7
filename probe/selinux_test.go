package probe

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"strings"
	"testing"
)

// aPolicy begins as the kernel wants one to, and goes on with anything.
func aPolicy(size int) []byte {
	p := binary.LittleEndian.AppendUint32(nil, policyMagic)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(policyTarget)))
	p = append(p, policyTarget...)
	p = binary.LittleEndian.AppendUint32(p, 33)
	return append(p, make([]byte, size-len(p))...)
}

func TestPolicy(t *testing.T) {
	policy := aPolicy(100 << 10)
	packed, err := PackPolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnpackPolicy(packed)
	if err != nil || !bytes.Equal(got, policy) || PolicyVersion(got) != 33 {
		t.Errorf("a policy of version 33 came back with %d bytes, %v", len(got), err)
	}
	again, _ := PackPolicy(policy)
	if !bytes.Equal(again, packed) {
		t.Error("packed twice, it differs")
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(aPolicy(MaxPolicy + 1))
	_ = z.Close()
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{SELinuxPolicy: bomb.Bytes()}, "it has more than 16777216 bytes"},
		{Spec{SELinuxPolicy: packed[:len(packed)-9]}, "unexpected EOF"},
		{Spec{SELinuxPolicy: []byte("policy")}, "unpack SELinux policy"},
		{Spec{SELinuxPolicy: make([]byte, maxPackedPolicy+1)}, "more than 1572864 bytes"},
		{Spec{SELinuxFS: "yes"}, `selinuxfs "yes": want rw, ro, none`},
		{Spec{SELinuxFS: "ro", SELinuxPolicy: packed}, ""},
	} {
		err := c.spec.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
	if _, err := PackPolicy([]byte("module policy 1.0;")); err == nil || !strings.Contains(err.Error(), "no binary policy") {
		t.Errorf("text is packed: %v", err)
	}
}

func FuzzUnpackPolicy(f *testing.F) {
	packed, err := PackPolicy(aPolicy(100))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		policy, err := UnpackPolicy(data)
		if err != nil || len(policy) == 0 {
			return
		}
		_ = PolicyVersion(policy)
		packed, err := PackPolicy(policy)
		if err != nil {
			return // it does not pack as well here
		}
		if again, err := UnpackPolicy(packed); err != nil || !bytes.Equal(again, policy) {
			t.Errorf("packed again it is another: %v", err)
		}
	})
}
