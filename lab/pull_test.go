package lab

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"lab/oci"
)

// The clock and the bytes come from the test.
func TestMeter(t *testing.T) {
	start := time.Unix(1000, 0)
	m := meter{reference: "docker://r/app:1"}
	const mib = 1 << 20
	for _, step := range []struct {
		after time.Duration
		so    *oci.Progress
		want  string
	}{
		{0, nil, "pulling docker://r/app:1"},
		{0, &oci.Progress{Total: 100 * mib, AllLayers: 3}, "pulling 0.0 of 100.0 MiB, 0 of 3 layers: docker://r/app:1"},
		{500 * time.Millisecond, &oci.Progress{Done: 1 * mib, Total: 100 * mib, AllLayers: 3}, "pulling 1.0 of 100.0 MiB, 0 of 3 layers: docker://r/app:1"},
		{2 * time.Second, &oci.Progress{Done: 20 * mib, Total: 100 * mib, Layers: 1, AllLayers: 3}, "pulling 20.0 of 100.0 MiB, 10.0 MiB/s, 8s left, 1 of 3 layers: docker://r/app:1"},
		// The rate is that of the last five seconds, not of the whole.
		{4 * time.Second, &oci.Progress{Done: 30 * mib, Total: 100 * mib, Layers: 1, AllLayers: 3}, "pulling 30.0 of 100.0 MiB, 7.5 MiB/s, 9s left, 1 of 3 layers: docker://r/app:1"},
		{9 * time.Second, &oci.Progress{Done: 35 * mib, Total: 100 * mib, Layers: 1, AllLayers: 3}, "pulling 35.0 of 100.0 MiB, 1.0 MiB/s, 1m5s left, 1 of 3 layers: docker://r/app:1"},
		// And it sinks when nothing comes any more.
		{19 * time.Second, nil, "pulling 35.0 of 100.0 MiB, 0.0 MiB/s, 1 of 3 layers: docker://r/app:1"},
		{20 * time.Second, &oci.Progress{Done: 100 * mib, Total: 100 * mib, Layers: 3, AllLayers: 3}, "checking the layers of docker://r/app:1"},
	} {
		now := start.Add(step.after)
		if step.so != nil {
			m.add(now, *step.so)
		}
		if got := m.line(now); got != step.want {
			t.Errorf("after %s: %q, want %q", step.after, got, step.want)
		}
	}
	// However often bytes come, little of it is remembered.
	for i := range 100000 {
		m.add(start.Add(time.Minute+time.Duration(i)*time.Millisecond), oci.Progress{Done: int64(i), Total: 1 << 40})
	}
	if len(m.seen) > 25 {
		t.Errorf("the meter remembers %d samples", len(m.seen))
	}
}

// Where the end is not known, what has been done is told, and how fast it goes.
func TestMeterText(t *testing.T) {
	start := time.Unix(1000, 0)
	var m meter
	for _, step := range []struct {
		after time.Duration
		done  int64
		want  string
	}{
		{0, 0, "writing"},
		{500 * time.Millisecond, 3 << 20, "writing: 3.0 MiB"},
		{2 * time.Second, 200 << 20, "writing: 200.0 MiB, 100.0 MiB/s"},
	} {
		now := start.Add(step.after)
		m.add(now, oci.Progress{Done: step.done})
		if got := m.text("writing", now); got != step.want {
			t.Errorf("after %s: %q, want %q", step.after, got, step.want)
		}
	}
}

// Mirrors are this machine's own business: whatever records a Spec, a bisect's
// key among others, has none of them.
func TestSpecRecordsNoRegistries(t *testing.T) {
	s := Spec{Registries: Registries{
		Mirrors:   []oci.Mirror{{Registry: "docker.io", Host: "secret.example"}},
		PlainHTTP: []string{"hidden.example"},
	}}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "secret") || strings.Contains(string(data), "hidden") {
		t.Errorf("a Spec is recorded as %s", data)
	}
}
