package oci

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/lab/corpus"
	"lab/lab/corpus/listing"
)

// TestCorpus pulls every image of the corpus from a registry, flattens it and
// compares what comes out with what the layer rules leave.
func TestCorpus(t *testing.T) {
	host, _ := serve(t)
	s := newStore(t)
	for _, c := range corpus.Good() {
		t.Run(c.Name, func(t *testing.T) {
			want := c.Files()
			ref, img, err := c.Push(host)
			if err != nil {
				t.Fatal(err)
			}
			pulled, err := s.Pull(t.Context(), ref, amd64)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := pulled.Pin.Digest, must(img.Digest()).String(); got != want {
				t.Errorf("pinned to %s, want %s", got, want)
			}
			r := Flatten(t.Context(), pulled)
			defer r.Close()
			stream, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			checkStream(t, bytes.NewReader(stream))
			got, err := listing.ReadTar(bytes.NewReader(stream))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(listing.Lines(want), listing.Lines(got)); diff != "" {
				t.Errorf("-reference +flattened:\n%s", diff)
			}
		})
	}
}

// TestCorpusRefused does the same with what must be refused: the error says
// which image, which layer and which entry.
func TestCorpusRefused(t *testing.T) {
	host, _ := serve(t)
	s := newStore(t)
	for _, c := range corpus.Refused() {
		if c.By == corpus.ByDisk {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			ref, img, err := c.Push(host)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Pull(t.Context(), ref, amd64)
			if err == nil || !strings.Contains(err.Error(), c.Refused) {
				t.Fatalf("error %v, want one with %q", err, c.Refused)
			}
			layers := must(img.Layers())
			names := []string{ref, must(layers[len(layers)-1].Digest()).String()}
			if c.By == corpus.ByPull {
				names = append(names, "entry ")
			}
			for _, s := range names {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error does not say %s: %v", s, err)
				}
			}
		})
	}
}
