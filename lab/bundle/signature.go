package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Namespace is what the signatures of bundles are for (ssh-keygen -n): one made
// for anything else, say a commit, is none of a bundle.
const Namespace = "lab-bundle"

const (
	maxSignature = 64 << 10 // bytes, armored; one of RSA with 16384 bits has about 6 KiB
	maxSigners   = 1 << 20  // bytes of a file of allowed signers
)

// Signature is a bundle's: the member SHA256SUMS.sig, the last of the tar and in
// no list. It is what ssh-keygen -Y sign makes of SHA256SUMS (OpenSSH's
// PROTOCOL.sshsig), which has the digest of the manifest and of all members, and
// so tells every byte of the tar. A signature that is there was made of these
// bytes by this key: that much is checked always. Whose the key is, only
// [Signers] tell.
type Signature struct {
	Type        string // of the key: ssh-ed25519
	Fingerprint string // of the key: SHA256:…, as ssh-keygen -l prints it

	key ssh.PublicKey
}

// parseSignature reads an armored signature, which must be one of message and in
// the one form that lab writes.
func parseSignature(armored, message []byte) (*Signature, error) {
	s, err := sshsig.Unarmor(armored)
	if err != nil {
		return nil, fmt.Errorf("not an SSH signature: %w", err)
	}
	if !bytes.Equal(sshsig.Armor(s), armored) {
		return nil, errors.New("not in the form that lab writes")
	}
	if _, ok := s.PublicKey.(*ssh.Certificate); ok {
		return nil, errors.New("made with a certificate, which lab does not know: sign with the key alone")
	}
	if s.Namespace != Namespace {
		return nil, fmt.Errorf("made for %.60q, not for %q", s.Namespace, Namespace)
	}
	if err := sshsig.Verify(bytes.NewReader(message), s, s.PublicKey, s.HashAlgorithm, Namespace); err != nil {
		return nil, fmt.Errorf("not of this bundle's %s: %w", sumsName, err)
	}
	return &Signature{Type: s.PublicKey.Type(), Fingerprint: ssh.FingerprintSHA256(s.PublicKey), key: s.PublicKey}, nil
}

// Signers are the keys that somebody trusts.
type Signers struct {
	path string
	list []signer
}

// signer is a line of a file of allowed signers.
type signer struct {
	principals    string
	key           ssh.PublicKey
	namespaces    []string // patterns; none is all
	after, before time.Time
}

// ReadSigners reads a file of allowed signers (ssh-keygen(1), ALLOWED SIGNERS):
// the one that ssh-keygen -Y verify and git's gpg.ssh.allowedSignersFile take.
// Lines of certificate authorities are passed over: bundles are signed by keys.
func ReadSigners(path string) (*Signers, error) {
	data, err := readSmall(path, maxSigners)
	if err != nil {
		return nil, fmt.Errorf("read allowed signers: %w", err)
	}
	list, err := parseSigners(data)
	if err != nil {
		return nil, fmt.Errorf("read allowed signers %s: %w", path, err)
	}
	return &Signers{path, list}, nil
}

func parseSigners(data []byte) ([]signer, error) {
	var list []signer
	for n, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s, authority, err := parseSigner(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		if !authority {
			list = append(list, s)
		}
	}
	return list, nil
}

// parseSigner reads one line: principals, options, type of the key, the key.
func parseSigner(line string) (s signer, authority bool, err error) {
	var rest string
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		s.principals, rest, ok = strings.Cut(quoted, `"`)
		if !ok {
			return signer{}, false, errors.New("a quotation mark is not closed")
		}
	} else if i := strings.IndexAny(line, " \t"); i >= 0 {
		s.principals, rest = line[:i], line[i:]
	}
	if s.principals == "" {
		return signer{}, false, errors.New("principals, the type of a key and the key are wanted")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil {
		return signer{}, false, errors.New("there is no public key behind the principals")
	}
	s.key = key
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "cert-authority":
			authority = true
		case "namespaces":
			s.namespaces = strings.Split(value, ",")
		case "valid-after":
			s.after, err = parseTime(value)
		case "valid-before":
			s.before, err = parseTime(value)
		default:
			err = fmt.Errorf("option %.60q is not known", name)
		}
		if err != nil {
			return signer{}, false, err
		}
	}
	return s, authority, nil
}

// parseTime reads YYYYMMDD or YYYYMMDDHHMM[SS], local time unless Z follows.
func parseTime(s string) (time.Time, error) {
	digits, zone := s, time.Local
	if rest, ok := strings.CutSuffix(strings.ToUpper(s), "Z"); ok {
		digits, zone = rest, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) == len(layout) {
			if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%.60q is no time like 20240131 or 202401311200Z", s)
}

// mayNot says why a signer's key does not count for bundles at a time, or "".
func (s signer) mayNot(now time.Time) string {
	allowed := len(s.namespaces) == 0
	for _, pattern := range s.namespaces {
		pattern, not := strings.CutPrefix(pattern, "!")
		if ok, _ := path.Match(pattern, Namespace); ok {
			if allowed = !not; not {
				break
			}
		}
	}
	switch {
	case !allowed:
		return fmt.Sprintf("it is allowed for %s only, not for %s", strings.Join(s.namespaces, ","), Namespace)
	case !s.after.IsZero() && now.Before(s.after):
		return "it is allowed from " + s.after.Format(time.RFC3339) + " on only"
	case !s.before.IsZero() && now.After(s.before):
		return "it was allowed until " + s.before.Format(time.RFC3339) + " only"
	}
	return ""
}

// SignedBy says who signed the bundle: the principals of the line that has the
// key. A bundle that is not signed, or by no key that is allowed at the time, is
// refused with a *RefusedError.
func (b *Bundle) SignedBy(trusted *Signers, now time.Time) (principals string, err error) {
	refused := &RefusedError{Bundle: b.path, Member: signatureName}
	if b.Signature == nil {
		refused.Member, refused.Reason = "", "it is not signed"
		return "", refused
	}
	refused.Reason = fmt.Sprintf("signed by %s, which is not in %s", b.Signature.Fingerprint, trusted.path)
	for _, s := range trusted.list {
		if !bytes.Equal(s.key.Marshal(), b.Signature.key.Marshal()) {
			continue
		}
		why := s.mayNot(now)
		if why == "" {
			return plain(s.principals), nil
		}
		refused.Reason = fmt.Sprintf("signed by %s of %s: %s", b.Signature.Fingerprint, plain(s.principals), why)
	}
	return "", refused
}

// readSmall reads a whole file that is to be small.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() > limit {
		err = fmt.Errorf("read %s: it has %d bytes, more than %d", path, info.Size(), limit)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
