package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// A table is kept next to the blobs once a layer has been read whole, so that
// listing it again costs milliseconds. The file is a line with the format and
// the checksum of the rest, and the rest is gob. Whatever is wrong with it,
// the layer is there to make it again.
const tableFormat = "lab layer table 3"

func (l *storeLayer) tablePath() string {
	// Both digests: another image may give the same blob a wrong diff id, and
	// that has to be found out.
	return filepath.Join(l.store.dir, "headers", l.desc.Digest.Algorithm, l.desc.Digest.Hex+"-"+l.diffID.Hex)
}

// table lists the layer and remembers the list. A list that exists says that
// digest and diff id have been verified together.
func (l *storeLayer) table(ctx context.Context, b *budget) (*table, error) {
	if t := l.savedTable(); t != nil {
		if err := b.addBytes(t.Size); err != nil {
			return nil, err
		}
		for i := range t.Entries {
			if err := b.addEntry(t.Entries[i].metadata()); err != nil {
				return nil, fmt.Errorf("entry %s: %w", quote(t.Entries[i].Name), err)
			}
		}
		return t, nil
	}
	t, err := readTable(ctx, l, b)
	if err != nil {
		return nil, err
	}
	l.saveTable(t)
	return t, nil
}

func (l *storeLayer) savedTable() *table {
	b, err := os.ReadFile(l.tablePath())
	if err != nil {
		return nil
	}
	head, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(head) != tableHead(body) {
		return nil
	}
	t := &table{}
	if gob.NewDecoder(bytes.NewReader(body)).Decode(t) != nil {
		return nil
	}
	return t
}

// saveTable does its best: a full disk here costs time later, not the result.
func (l *storeLayer) saveTable(t *table) {
	var body bytes.Buffer
	if gob.NewEncoder(&body).Encode(t) != nil {
		return
	}
	path := l.tablePath()
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	_ = renameio.WriteFile(path, append([]byte(tableHead(body.Bytes())+"\n"), body.Bytes()...), 0o644)
}

func tableHead(body []byte) string {
	return fmt.Sprintf("%s %x", tableFormat, sha256.Sum256(body))
}
