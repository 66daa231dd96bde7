package kconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDrift(t *testing.T) {
	pin := Config{"A": "y", "B": "y", "C": "n", "D": "64", "E": "m", "SAME": "y"}
	is := Config{"A": "y", "C": "y", "D": "8192", "E": "n", "NEW": "y", "OFF": "n", "SAME": "y"}
	drift := Drift(pin, is)
	want := []Change{{"B", "y", ""}, {"C", "", "y"}, {"D", "64", "8192"}, {"E", "m", ""}, {"NEW", "", "y"}}
	if diff := cmp.Diff(want, drift); diff != "" {
		t.Errorf("Drift (-want +got):\n%s", diff)
	}
	if got := Brief(drift, 4); got != "B y -> n, E m -> n, D 64 -> 8192, C n -> y, 1 more" {
		t.Errorf("Brief: %s", got)
	}
	if got := Drift(pin, pin); len(got) != 0 || Brief(got, 4) != "" {
		t.Errorf("a configuration differs from itself: %v", got)
	}
	if got := Drift(nil, Config{"A": "y"}); len(got) != 1 {
		t.Errorf("%v", got)
	}
}
