package disk

import (
	"bytes"
	"context"
	"fmt"
)

// compareContent compares two regular files, each pair of inodes but once.
func (d *differ) compareContent(ctx context.Context, a, b *Stat) ([]Difference, error) {
	if a.Size != b.Size {
		list := []Difference{{"size", fmt.Sprint(a.Size), fmt.Sprint(b.Size)}}
		return append(list, d.compareConfig(ctx, a, b)...), nil
	}
	both := [2]uint32{a.Inode, b.Inode}
	several := a.Links > 1 && b.Links > 1
	at, known := d.compared[both]
	if !known || !several {
		one, err := d.was.t.Content(a)
		if err != nil {
			return nil, err
		}
		two, err := d.is.t.Content(b)
		if err != nil {
			return nil, err
		}
		if at, err = d.firstDifference(ctx, one, two); err != nil {
			return nil, fmt.Errorf("compare %q of %s and %s: %w", d.was.path, d.was.t.image, d.is.t.image, err)
		}
		if several {
			d.compared[both] = at
		}
	}
	if at < 0 {
		return nil, nil
	}
	return append([]Difference{contentDifference(at)}, d.compareConfig(ctx, a, b)...), nil
}

// contentDifference is that bytes differ, from one on that counts from 0.
func contentDifference(at int64) Difference {
	return Difference{"content", "", fmt.Sprintf("differs at byte %d", at)}
}

// firstDifference finds the first byte that differs between contents of the same
// size, -1 for none. What is a hole in both is not read.
func (d *differ) firstDifference(ctx context.Context, a, b *Content) (int64, error) {
	for i := range d.bufs {
		if d.bufs[i] == nil {
			d.bufs[i] = make([]byte, chunk)
		}
	}
	for at := int64(0); at < a.Size; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		end, err := sharedHole(a, b, at)
		if err != nil {
			return 0, err
		}
		if end > at {
			at = end
			continue
		}
		n := min(chunk, a.Size-at)
		one, two := d.bufs[0][:n], d.bufs[1][:n]
		if err := a.read(one, at); err != nil {
			return 0, err
		}
		if err := b.read(two, at); err != nil {
			return 0, err
		}
		if !bytes.Equal(one, two) {
			for i := range one {
				if one[i] != two[i] {
					return at + int64(i), nil
				}
			}
		}
		at += n
	}
	return -1, nil
}

// sharedHole tells up to where both are a hole from at on; at itself for none.
func sharedHole(a, b *Content, at int64) (int64, error) {
	end := a.Size
	for _, c := range []*Content{a, b} {
		if c.hole == nil {
			return at, nil
		}
		e, hole, err := c.hole(at)
		if err != nil {
			return 0, err
		}
		if !hole {
			return at, nil
		}
		end = min(end, e)
	}
	return end, nil
}
