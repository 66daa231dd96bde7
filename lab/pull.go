package lab

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lab/oci"
)

// Registries say how docker:// references are pulled from this machine.
type Registries struct {
	Mirrors   []oci.Mirror // asked before the registries they mirror, in this order
	PlainHTTP []string     // HOST[:PORT]: whom to speak plain HTTP to; this host's own need not be named
}

func (l *Lab) pull(ctx context.Context, store *oci.Store, s Spec, load Load) (oci.Image, error) {
	img, took, err := l.fetch(ctx, store, s, load)
	if err == nil {
		l.Progress.Say("image %s is %s%s", load.Reference, img.Pin.Digest, took)
	}
	return img, err
}

// fetch is pull that leaves it to others to say what came, and how long it took.
func (l *Lab) fetch(ctx context.Context, store *oci.Store, s Spec, load Load) (img oci.Image, took string, err error) {
	start := time.Now()
	m := meter{reference: load.Reference}
	stop := l.live(m.line)
	o := l.pullOptions(s.Registries, &m)
	o.Platform, o.Limits = s.Platform, s.Limits
	img, err = store.Pull(ctx, load.Reference, o)
	stop()
	if err != nil {
		return oci.Image{}, "", err
	}
	if d := time.Since(start); d >= time.Second && m.so.Done > 0 {
		took = fmt.Sprintf(" (%s in %s)", mib(m.so.Done), seconds(d))
	}
	return img, took, nil
}

// pullOptions say how to get something from elsewhere, and tell a meter.
func (l *Lab) pullOptions(r Registries, m *meter) oci.PullOptions {
	return oci.PullOptions{
		Mirrors: r.Mirrors, PlainHTTP: r.PlainHTTP,
		Progress: func(so oci.Progress) { m.add(time.Now(), so) },
		Notice:   func(text string) { l.Progress.Say("%s", text) },
	}
}

// live shows a line and keeps it up to date until stop is called: time passes
// even when nothing else happens.
func (l *Lab) live(line func(time.Time) string) (stop func()) {
	l.Progress.Show("%s", line(time.Now()))
	tick := time.NewTicker(500 * time.Millisecond)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case now := <-tick.C:
				l.Progress.Show("%s", line(now))
			case <-done:
				return
			}
		}
	})
	return func() {
		tick.Stop()
		close(done)
		wg.Wait()
		l.Progress.Show("")
	}
}

// A meter tells the progress of a download, or of a disk, and its present rate.
type meter struct {
	reference string

	mu   sync.Mutex
	so   oci.Progress
	seen []sample // the last few seconds, oldest first
}

type sample struct {
	at   time.Time
	done int64
}

// meterWindow is how far back the rate looks: long enough to be steady, short
// enough to show that a connection has become slow.
const meterWindow = 5 * time.Second

func (m *meter) add(now time.Time, so oci.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.so = so
	if n := len(m.seen); n == 0 || now.Sub(m.seen[n-1].at) >= meterWindow/20 {
		m.seen = append(m.seen, sample{now, so.Done})
		m.forget(now)
	}
}

// forget drops what is older than the window, but for the sample that the
// window begins with.
func (m *meter) forget(now time.Time) {
	i := 0
	for i+1 < len(m.seen) && now.Sub(m.seen[i+1].at) >= meterWindow {
		i++
	}
	m.seen = m.seen[i:]
}

// rate is in bytes per second; 0 where there is nothing to go by yet.
func (m *meter) rate(now time.Time) (rate float64, known bool) {
	m.forget(now)
	if len(m.seen) == 0 || now.Sub(m.seen[0].at) < time.Second {
		return 0, false
	}
	return float64(m.so.Done-m.seen[0].done) / now.Sub(m.seen[0].at).Seconds(), true
}

// line puts the numbers first: the end of a long line is cut off.
func (m *meter) line(now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.so.Done >= m.so.Total {
		if m.so.AllLayers > 0 && m.so.Layers == m.so.AllLayers {
			return "checking the layers of " + m.reference
		}
		return "pulling " + m.reference
	}
	s := fmt.Sprintf("pulling %.1f of %s", float64(m.so.Done)/(1<<20), mib(m.so.Total))
	if rate, known := m.rate(now); known {
		s += fmt.Sprintf(", %s/s", mib(int64(rate)))
		if left := float64(m.so.Total-m.so.Done) / rate; rate > 0 && left >= 2 && left < longest.Seconds() {
			s += fmt.Sprintf(", %s left", (time.Duration(left) * time.Second).String())
		}
	}
	if m.so.AllLayers > 1 {
		s += fmt.Sprintf(", %d of %d layers", m.so.Layers, m.so.AllLayers)
	}
	return s + ": " + m.reference
}

// text is what has been done, for work whose end is not known.
func (m *meter) text(what string, now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.so.Done > 0 {
		what += ": " + mib(m.so.Done)
	}
	if rate, known := m.rate(now); known {
		what += fmt.Sprintf(", %s/s", mib(int64(rate)))
	}
	return what
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
