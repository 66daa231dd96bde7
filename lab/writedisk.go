package lab

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"lab/disk"
	"lab/oci"
)

// writeDisk writes the image to path, or into the cache where path is empty, and
// tells how far it is. The spec's streams are counted from then on.
func (l *Lab) writeDisk(ctx context.Context, spec disk.Spec, path string) (disk.Image, error) {
	start := time.Now()
	var read atomic.Int64
	for i := range spec.Containers {
		counted(&spec.Containers[i], &read)
		if store := spec.Containers[i].Store; store != nil {
			counted(store, &read)
		}
	}
	if spec.Base != nil {
		counted(spec.Base, &read)
	}
	var m meter
	stop := l.live(func(now time.Time) string {
		m.add(now, oci.Progress{Done: read.Load()})
		return m.text("writing the guest disk", now)
	})
	defer stop()
	if path != "" {
		return disk.Build(ctx, path, spec)
	}
	dir, err := l.dir("disks")
	if err != nil {
		return disk.Image{}, err
	}
	d, cached, err := disk.Cached(ctx, dir, spec)
	if err == nil && !cached {
		l.Progress.Say("guest disk written in %s", seconds(time.Since(start)))
	}
	return d, err
}

// counted has a container's stream add to n what is read of it.
func counted(c *disk.Container, n *atomic.Int64) {
	open := c.Open
	c.Open = func(ctx context.Context) (io.ReadCloser, error) {
		r, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return &countedReader{r, n}, nil
	}
}

type countedReader struct {
	io.ReadCloser
	n *atomic.Int64
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.n.Add(int64(n))
	return n, err
}
