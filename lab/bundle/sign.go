package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/google/renameio/v2"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Key is what a bundle is signed with: it gives an armored signature of a
// bundle's SHA256SUMS.
type Key func(sums []byte) (armored []byte, err error)

// ReadKey reads a private key of ssh's. One with a passphrase is asked for it. The
// file of a public key, KEY.pub, stands for the private one that ssh-agent has.
func ReadKey(path string, passphrase func() ([]byte, error)) (Key, error) {
	data, err := readSmall(path, maxSigners)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if public, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		if _, err := agentSigner(public, nil); err != nil {
			return nil, fmt.Errorf("read key %s: %w", path, err)
		}
		return func(sums []byte) ([]byte, error) { return agentSigner(public, sums) }, nil
	}
	private, err := ssh.ParsePrivateKey(data)
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		var words []byte
		if words, err = passphrase(); err == nil {
			private, err = ssh.ParsePrivateKeyWithPassphrase(data, words)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return func(sums []byte) ([]byte, error) { return signed(private, sums) }, nil
}

// ReadSignature reads a signature that was made elsewhere, as by ssh-keygen with
// a key in hardware.
func ReadSignature(path string) (Key, error) {
	data, err := readSmall(path, maxSignature)
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	s, err := sshsig.Unarmor(data)
	if err != nil {
		return nil, fmt.Errorf("read signature %s: %w", path, err)
	}
	return func([]byte) ([]byte, error) { return sshsig.Armor(s), nil }, nil
}

func signed(key ssh.Signer, sums []byte) ([]byte, error) {
	s, err := sshsig.Sign(bytes.NewReader(sums), key, sshsig.HashSHA512, Namespace)
	if err != nil {
		return nil, err
	}
	return sshsig.Armor(s), nil
}

// agentSigner lets ssh-agent sign; without anything to sign it looks whether the
// agent could.
func agentSigner(public ssh.PublicKey, sums []byte) ([]byte, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errors.New("it is a public key, and no ssh-agent that has the private one is running (SSH_AUTH_SOCK)")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("ask ssh-agent: %w", err)
	}
	defer conn.Close()
	keys, err := agent.NewClient(conn).Signers()
	if err != nil {
		return nil, fmt.Errorf("ask ssh-agent: %w", err)
	}
	for _, k := range keys {
		if !bytes.Equal(k.PublicKey().Marshal(), public.Marshal()) {
			continue
		}
		if sums == nil {
			return nil, nil
		}
		return signed(k, sums)
	}
	return nil, fmt.Errorf("ssh-agent has no key %s: add it with ssh-add", ssh.FingerprintSHA256(public))
}

// Sign verifies the bundle at path and writes it to out, which may be path, with
// the signature that key makes. One that was there is replaced; all other bytes
// stay as they are. The file appears whole or not at all.
func Sign(ctx context.Context, path, out string, key Key) (*Signature, error) {
	b, err := Verify(ctx, path)
	if err != nil {
		return nil, err
	}
	manifest, err := encode(b.Manifest)
	if err != nil {
		return nil, err
	}
	list := sums(manifest, b.Manifest.Members)
	armored, err := key(list)
	if err != nil {
		return nil, fmt.Errorf("sign bundle %s: %w", path, err)
	}
	signature, err := parseSignature(armored, list)
	if err != nil {
		return nil, fmt.Errorf("sign bundle %s: the signature is %w", path, err)
	}
	in, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("sign bundle: %w", err)
	}
	defer in.Close()
	w, err := renameio.NewPendingFile(out, renameio.WithPermissions(0o644))
	if err != nil {
		return nil, fmt.Errorf("sign bundle %s: %w", path, err)
	}
	defer w.Cleanup()
	if _, err := io.Copy(w, contextReader{ctx, io.LimitReader(in, membersEnd(manifest, list, b.Manifest.Members))}); err != nil {
		return nil, fmt.Errorf("sign bundle %s: %w", path, err)
	}
	t := tarWriter{w: w}
	t.data(signatureName, armored)
	t.write(make([]byte, 2*blockSize))
	if t.err != nil {
		return nil, t.err
	}
	if err := w.CloseAtomicallyReplace(); err != nil {
		return nil, fmt.Errorf("sign bundle %s: %w", path, err)
	}
	return signature, nil
}

// membersEnd is where in the tar the last member's padding ends.
func membersEnd(manifest, sums []byte, members []Member) int64 {
	end := int64(0)
	add := func(size int64) { end += blockSize + size + padding(size) }
	add(int64(len(manifest)))
	add(int64(len(sums)))
	for _, m := range members {
		add(m.Size)
	}
	return end
}
