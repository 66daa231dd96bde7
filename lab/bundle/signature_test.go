package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keys of each kind that people have, by ssh-keygen's options.
var keys = map[string][]string{
	"ed25519":   {"-t", "ed25519"},
	"ecdsa-256": {"-t", "ecdsa", "-b", "256"},
	"ecdsa-521": {"-t", "ecdsa", "-b", "521"},
	"rsa-2048":  {"-t", "rsa", "-b", "2048"},
}

func noPassphrase() ([]byte, error) { return nil, errors.New("no passphrase is expected") }

// newKey makes a key and a file of allowed signers that has it.
func newKey(t testing.TB, passphrase string, kind ...string) (key, allowed string) {
	t.Helper()
	key = filepath.Join(t.TempDir(), "key")
	run(t, nil, "ssh-keygen", append(kind, "-q", "-N", passphrase, "-C", "", "-f", key)...)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return key, put(t, []byte("# who may\n\nmaintainer@example.org "+string(public)))
}

// run runs a program that must succeed, and gives its output.
func run(t testing.TB, stdin []byte, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run lab doctor --install", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func signWith(t testing.TB, path, keyFile string) *Signature {
	t.Helper()
	key, err := ReadKey(keyFile, noPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Sign(context.Background(), path, path, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read1(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What lab signs ssh-keygen verifies, and the other way round.
func TestSignaturesAreOpenSSHs(t *testing.T) {
	ctx := context.Background()
	m, files := sample(t)
	unsigned := write(t, m, files)
	for kind, options := range keys {
		t.Run(kind, func(t *testing.T) {
			keyFile, allowed := newKey(t, "", options...)
			trusted, err := ReadSigners(allowed)
			if err != nil {
				t.Fatal(err)
			}
			path := put(t, unsigned)
			if _, err := mustVerify(t, path).SignedBy(trusted, time.Now()); err == nil || !strings.HasSuffix(err.Error(), "it is not signed") {
				t.Errorf("unsigned: %v", err)
			}

			// lab, then ssh-keygen, with nothing but tar beside it.
			s := signWith(t, path, keyFile)
			if printed := run(t, nil, "ssh-keygen", "-lf", keyFile+".pub"); !strings.Contains(printed, s.Fingerprint) {
				t.Errorf("%s is not in %s", s.Fingerprint, printed)
			}
			if data := read1(t, path); !bytes.HasPrefix(data, unsigned[:len(unsigned)-2*blockSize]) {
				t.Error("signing changed what was there before")
			}
			dir := t.TempDir()
			run(t, nil, "tar", "-C", dir, "-xf", path)
			sums := filepath.Join(dir, sumsName)
			verify := []string{"-Y", "verify", "-f", allowed, "-I", "maintainer@example.org", "-n", Namespace, "-s"}
			run(t, read1(t, sums), "ssh-keygen", append(verify, sums+".sig")...)
			who, err := mustVerify(t, path).SignedBy(trusted, time.Now())
			if err != nil || who != "maintainer@example.org" {
				t.Errorf("signed by %q: %v", who, err)
			}

			// ssh-keygen, then lab. The one of before is replaced.
			if err := os.Remove(sums + ".sig"); err != nil {
				t.Fatal(err)
			}
			run(t, nil, "ssh-keygen", "-Y", "sign", "-f", keyFile, "-n", Namespace, sums)
			theirs, err := ReadSignature(sums + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			other := filepath.Join(dir, "other.tar")
			if _, err := Sign(ctx, path, other, theirs); err != nil {
				t.Fatal(err)
			}
			if _, err := mustVerify(t, other).SignedBy(trusted, time.Now()); err != nil {
				t.Error(err)
			}
			b, err := Open(ctx, other, filepath.Join(dir, "q"))
			if err != nil {
				t.Fatal(err)
			}
			if b.Signature.Fingerprint != s.Fingerprint || b.Path(signatureName) != "" {
				t.Errorf("%+v, %s", b.Signature, b.Path(signatureName))
			}
		})
	}
}

func mustVerify(t testing.TB, path string) *Bundle {
	t.Helper()
	b, err := Verify(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeysWithPassphrasesAndAgents(t *testing.T) {
	keyFile, allowed := newKey(t, "open sesame", "-t", "ed25519")
	trusted, err := ReadSigners(allowed)
	if err != nil {
		t.Fatal(err)
	}
	m, files := sample(t)
	path := put(t, write(t, m, files))
	if _, err := ReadKey(keyFile, noPassphrase); err == nil || !strings.Contains(err.Error(), "no passphrase is expected") {
		t.Errorf("without its passphrase: %v", err)
	}
	key, err := ReadKey(keyFile, func() ([]byte, error) { return []byte("open sesame"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(context.Background(), path, path, key); err != nil {
		t.Fatal(err)
	}
	if _, err := mustVerify(t, path).SignedBy(trusted, time.Now()); err != nil {
		t.Error(err)
	}

	// The agent has another key, then the right one.
	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := agent.StdoutPipe() // it tells of the socket when that is there
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatalf("ssh-agent is not installed: run lab doctor --install: %v", err)
	}
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	another, _ := newKey(t, "", "-t", "ed25519")
	if _, err := ReadKey(another+".pub", noPassphrase); err == nil || !strings.Contains(err.Error(), "ssh-agent has no key SHA256:") {
		t.Errorf("a key that the agent lacks: %v", err)
	}
	run(t, nil, "ssh-add", "-q", another)
	signWith(t, path, another+".pub")
	var refused *RefusedError
	if _, err := mustVerify(t, path).SignedBy(trusted, time.Now()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "which is not in "+allowed) {
		t.Errorf("signed by another: %v", err)
	}
}

func TestRefusedSignatures(t *testing.T) {
	ctx := context.Background()
	keyFile, _ := newKey(t, "", "-t", "ed25519")
	m, files := sample(t)
	unsigned := write(t, m, files)
	body := unsigned[:len(unsigned)-2*blockSize]
	path := put(t, unsigned)
	signWith(t, path, keyFile)
	sound := read1(t, path)
	armored := func(namespace string, data []byte) []byte {
		file := put(t, data)
		run(t, nil, "ssh-keygen", "-q", "-Y", "sign", "-f", keyFile, "-n", namespace, file)
		return read1(t, file+".sig")
	}
	with := func(name string, mode int64, signature []byte) []byte {
		b := bytes.NewBuffer(bytes.Clone(body))
		w := tarWriter{w: b}
		w.header(name, mode, int64(len(signature)))
		w.write(signature)
		w.write(make([]byte, padding(int64(len(signature)))+2*blockSize))
		return b.Bytes()
	}
	normal := func(signature []byte) []byte {
		again, err := ReadSignature(put(t, signature))
		if err != nil {
			t.Fatal(err)
		}
		data, _ := again(nil)
		return data
	}
	sums := func() []byte {
		manifest, _ := encode(mustVerify(t, path).Manifest)
		return sums(manifest, mustVerify(t, path).Manifest.Members)
	}()
	if _, err := Verify(ctx, put(t, with(signatureName, 0o644, normal(armored(Namespace, sums))))); err != nil {
		t.Errorf("what the others are made of: %v", err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no signature":      {with(signatureName, 0o644, []byte("hello\n")), "not an SSH signature"},
		"empty":             {with(signatureName, 0o644, nil), "not an SSH signature"},
		"of other bytes":    {with(signatureName, 0o644, normal(armored(Namespace, []byte("other")))), "not of this bundle's SHA256SUMS"},
		"another purpose":   {with(signatureName, 0o644, normal(armored("git", sums))), `made for "git", not for "lab-bundle"`},
		"ssh-keygen's form": {with(signatureName, 0o644, armored(Namespace, sums)), "not in the form that lab writes"},
		"another mode":      {with(signatureName, 0o755, normal(armored(Namespace, sums))), "the tar header of SHA256SUMS.sig is not the one a bundle has: mode"},
		"large":             {with(signatureName, 0o644, make([]byte, maxSignature+1)), "has 65537 bytes, more than 65536"},
		"another name":      {with(signatureName+"2", 0o644, normal(armored(Namespace, sums))), `the tar has "SHA256SUMS.sig2", which the manifest does not have`},
		"twice":             {append(bytes.Clone(sound[:len(sound)-2*blockSize]), sound[len(body):]...), `the tar has "SHA256SUMS.sig", which the manifest does not have`},
		"cut":               {sound[:len(body)+blockSize+10], "SHA256SUMS.sig: truncated at byte 10"},
		"of another bundle": {append(bytes.Replace(body, []byte("It broke."), []byte("It brake."), 1), sound[len(body):]...), "REPORT.txt: damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, c.data)
			_, err := Verify(ctx, path)
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	elsewhere := func([]byte) ([]byte, error) { return armored("git", sums), nil }
	out := filepath.Join(t.TempDir(), "out.tar")
	if _, err := Sign(ctx, path, out, elsewhere); err == nil || !strings.Contains(err.Error(), "the signature is not in the form") {
		t.Errorf("signed by something odd: %v", err)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("a bundle is left: %v", err)
	}
}

func TestSignersAreReadAsOpenSSHDoes(t *testing.T) {
	keyFile, _ := newKey(t, "", "-t", "ed25519")
	public := strings.TrimSpace(string(read1(t, keyFile+".pub")))
	m, files := sample(t)
	path := put(t, write(t, m, files))
	signWith(t, path, keyFile)
	dir := t.TempDir()
	run(t, nil, "tar", "-C", dir, "-xf", path)
	sums := filepath.Join(dir, sumsName)
	for line, want := range map[string]string{ // the principals, or the error
		"a@b " + public:                                  "a@b",
		"a@b,c@d " + public + " a comment":               "a@b,c@d",
		`"a b" ` + public:                                "a b",
		`a@b namespaces="lab-bundle,git" ` + public:      "a@b",
		`a@b namespaces="lab-*" ` + public:               "a@b",
		`a@b NAMESPACES="git" ` + public:                 "it is allowed for git only, not for lab-bundle",
		`a@b namespaces="!lab-bundle,*" ` + public:       "it is allowed for !lab-bundle,* only",
		`a@b valid-after="20200101" ` + public:           "a@b",
		`a@b valid-after="20990101" ` + public:           "it is allowed from 2099-01-01",
		`a@b valid-before="20200101000000Z" ` + public:   "it was allowed until 2020-01-01T00:00:00Z only",
		`a@b valid-before="20990101" ` + public:          "a@b",
		"a@b cert-authority " + public:                   "which is not in",
		"# a@b " + public:                                "which is not in",
		`a@b valid-after="yesterday" ` + public:          `line 1: "yesterday" is no time like`,
		`a@b verify-required ` + public:                  `line 1: option "verify-required" is not known`,
		public:                                           "line 1: there is no public key behind the principals",
		"a@b":                                            "line 1: principals, the type of a key and the key are wanted",
		`"a@b ` + public:                                 "line 1: a quotation mark is not closed",
		"a@b " + strings.Replace(public, "AAAA", "!", 1): "line 1: there is no public key",
	} {
		t.Run(line[:min(30, len(line))], func(t *testing.T) {
			allowed := put(t, []byte(line+"\n"))
			who, err := "", error(nil)
			if trusted, failed := ReadSigners(allowed); failed == nil {
				who, err = mustVerify(t, path).SignedBy(trusted, time.Now())
			} else {
				err = failed
			}
			if err == nil && who != want || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%q, %v; want %s", who, err, want)
			}
			// OpenSSH's own opinion, of principals that are no patterns.
			cmd := exec.Command("ssh-keygen", "-Y", "find-principals", "-f", allowed, "-n", Namespace, "-s", sums+".sig")
			if theirs := cmd.Run() == nil; theirs != (err == nil) && !strings.Contains(strings.ToLower(line), "namespaces") {
				t.Errorf("ssh-keygen takes it: %v, lab: %v", theirs, err)
			}
		})
	}
	if _, err := ReadSigners(put(t, bytes.Repeat([]byte("\n"), maxSigners+1))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a large file: %v", err)
	}
}

// Whatever is taken for a signature of one text is none of another.
func FuzzSignature(f *testing.F) {
	keyFile, _ := newKey(f, "", "-t", "ed25519")
	key, err := ReadKey(keyFile, noPassphrase)
	if err != nil {
		f.Fatal(err)
	}
	message := []byte("message")
	sound, err := key(message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add(bytes.Replace(sound, []byte("\n"), nil, 3))
	f.Add([]byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseSignature(data, message); err == nil {
			if _, err := parseSignature(data, []byte("another")); err == nil || s.key == nil {
				t.Fatalf("accepted %q", data)
			}
		}
	})
}

func FuzzSigners(f *testing.F) {
	keyFile, _ := newKey(f, "", "-t", "ed25519")
	public := string(read1(f, keyFile+".pub"))
	f.Add([]byte("a@b " + public))
	f.Add([]byte(fmt.Sprintf("\"a b\" namespaces=\"x,!y\",valid-after=\"20200101Z\" %s# c\n", public)))
	f.Add([]byte("a \"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseSigners(data)
		for _, s := range list {
			if err != nil || s.key == nil || s.principals == "" || strings.Contains(s.principals, "\n") {
				t.Fatalf("%+v, %v", s, err)
			}
			s.mayNot(time.Now())
		}
	})
}
