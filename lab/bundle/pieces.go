package bundle

import (
	"cmp"
	"slices"
)

// What is kept apart where bundles are shared: what is worth the round trips to a
// registry, in no more pieces than such are used to.
const (
	leastPiece = 64 << 10
	mostPieces = 28
)

// Piece is the content of a member, and where in the bundle's file it is.
type Piece struct {
	Member       string
	Offset, Size int64
	SHA256       string // 64 hexadecimal digits
}

// Pieces gives the bundle's large members, in the order of the tar: bundles of the
// same disk or kernel have these in common, wherever they are in the file.
func (b *Bundle) Pieces() ([]Piece, error) {
	manifest, err := encode(b.Manifest)
	if err != nil {
		return nil, err
	}
	members := b.Manifest.Members
	list := sums(manifest, members)
	var pieces []Piece
	for i, m := range members {
		if m.Size >= leastPiece {
			pieces = append(pieces, Piece{m.Name, membersEnd(manifest, list, members[:i]) + blockSize, m.Size, m.SHA256})
		}
	}
	slices.SortStableFunc(pieces, func(a, b Piece) int { return cmp.Compare(b.Size, a.Size) })
	pieces = pieces[:min(len(pieces), mostPieces)]
	slices.SortFunc(pieces, func(a, b Piece) int { return cmp.Compare(a.Offset, b.Offset) })
	return pieces, nil
}
