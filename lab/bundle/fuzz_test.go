package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// Whatever decode accepts is written again the same way, and is sound.
func FuzzManifest(f *testing.F) {
	m, files := sample(f)
	for _, e := range entries(f, write(f, m, files))[:1] {
		f.Add(e.data)
		f.Add(bytes.Replace(e.data, []byte(`"memory": 256`), []byte(`"memory": -1`), 1))
		f.Add(bytes.Replace(e.data, []byte("REPORT.txt"), []byte("../x"), 1))
	}
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(m)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%v: %s is written again as %s", err, data, again)
		}
		if !json.Valid(data) || m.Format != Format {
			t.Fatalf("accepted %s", data)
		}
		for _, e := range m.Members {
			if strings.Contains(e.Name, "..") && strings.Contains("/"+e.Name+"/", "/../") || strings.HasPrefix(e.Name, "/") {
				t.Fatalf("accepted the name %q", e.Name)
			}
		}
	})
}

// Whatever Open accepts is, byte for byte, the bundle that its manifest says.
func FuzzOpen(f *testing.F) {
	m, files := sample(f)
	sound := write(f, m, files)
	f.Add(sound)
	f.Add(sound[:len(sound)/2])
	f.Add(assemble(f, entries(f, sound)[1:]))
	for i, h := range hostiles(f) {
		if i%8 == 0 && len(h.data) < 32<<10 {
			f.Add(h.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var content bytes.Buffer
		var names []string
		m, signature, err := read(bytes.NewReader(data), func(name string) (io.WriteCloser, error) {
			if checkName(name) != nil {
				t.Fatalf("extracts %q", name)
			}
			names = append(names, name)
			return kept{&content}, nil
		})
		if err != nil {
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("%v is no RefusedError", err)
			}
			return
		}
		if len(names) != len(m.Members) {
			t.Fatalf("extracted %v of %v", names, m.Members)
		}
		manifest, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		w := tarWriter{w: &again}
		w.data(manifestName, manifest)
		w.data(sumsName, sums(manifest, m.Members))
		for _, e := range m.Members {
			w.header(e.Name, e.Mode, e.Size)
			w.write(content.Next(int(e.Size)))
			w.write(make([]byte, padding(e.Size)))
		}
		if signature != nil {
			if !bytes.HasPrefix(data, again.Bytes()) {
				t.Fatal("not the bytes that were accepted")
			}
			return // of the signature there is FuzzSignature
		}
		w.write(make([]byte, 2*blockSize))
		if w.err != nil || !bytes.Equal(again.Bytes(), data) {
			t.Fatalf("%v: not the bytes that were accepted", w.err)
		}
	})
}

type kept struct{ *bytes.Buffer }

func (kept) Close() error { return nil }
