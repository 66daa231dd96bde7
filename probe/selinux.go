package probe

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds of an SELinux policy, in bytes: Debian's has 2.1 MB, and packed a third of
// that. A bundle's manifest has room for it once.
const (
	MaxPolicy       = 16 << 20
	maxPackedPolicy = 3 << 19
)

// SELinuxFS are the ways of Spec.SELinuxFS besides the default.
var SELinuxFS = []string{"rw", "ro", "none"}

// policyMagic begins a binary policy, little-endian, and behind it stands the length
// of policyTarget, which follows (security/selinux/ss/policydb.h).
const (
	policyMagic  = 0xf97cff8c
	policyTarget = "SE Linux"
)

// PackPolicy makes of a binary SELinux policy what a Spec has of it.
func PackPolicy(policy []byte) ([]byte, error) {
	if err := checkPolicy(policy); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(policy)
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil && b.Len() > maxPackedPolicy {
		err = fmt.Errorf("it has %d bytes when packed, and may have %d", b.Len(), maxPackedPolicy)
	}
	if err != nil {
		return nil, fmt.Errorf("pack SELinux policy: %w", err)
	}
	return b.Bytes(), nil
}

// UnpackPolicy is the policy that PackPolicy packed; of nothing it is nothing.
func UnpackPolicy(packed []byte) ([]byte, error) {
	if len(packed) == 0 {
		return nil, nil
	}
	if len(packed) > maxPackedPolicy {
		return nil, fmt.Errorf("unpack SELinux policy: more than %d bytes", maxPackedPolicy)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack SELinux policy: %w", err)
	}
	policy, err := io.ReadAll(io.LimitReader(z, MaxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("unpack SELinux policy: %w", err)
	}
	return policy, checkPolicy(policy)
}

// checkPolicy sees whether it is a policy at all; the rest the kernel checks.
func checkPolicy(policy []byte) error {
	switch {
	case len(policy) > MaxPolicy:
		return fmt.Errorf("SELinux policy: it has more than %d bytes", MaxPolicy)
	case len(policy) < 8+len(policyTarget)+4 || binary.LittleEndian.Uint32(policy) != policyMagic || string(policy[8:8+len(policyTarget)]) != policyTarget:
		return errors.New("SELinux policy: it is no binary policy, as /etc/selinux/TYPE/policy has them")
	}
	return nil
}

// PolicyVersion is the version of the format that an unpacked policy is in.
func PolicyVersion(policy []byte) int {
	return int(binary.LittleEndian.Uint32(policy[8+len(policyTarget):]))
}

// PolicyDigest is that of an unpacked policy: of the file that it came from.
func PolicyDigest(policy []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(policy))
}
