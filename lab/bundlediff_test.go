package lab

import (
	"testing"
)

// A document does not differ from itself, and what A has of B is what B has of A.
func FuzzDocuments(f *testing.F) {
	f.Add(`{"a": [1, {"name": "x", "b_ns": 2}], "c": "one\ntwo"}`, `{"a": [{"name": "x", "b_ns": 3}], "c": "one\nthree", "d": null}`)
	f.Add(`[{"role": "good"}, {"role": "good"}]`, `[{"role": "good", "exit": 1}]`)
	f.Add(`{"text": "[    0.100000] BUG"}`, `{"text": "[    0.200000] BUG"}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		diff := func(a, b string) []BundleChange {
			d := bundleDiffer{}
			d.documents("runs/good-1/trial.json", "", []byte(a), []byte(b))
			return d.found
		}
		if found := diff(a, a); len(found) > 0 {
			t.Fatalf("%q differs from itself: %+v", a, found)
		}
		there, back := diff(a, b), diff(b, a)
		if len(there) != len(back) {
			t.Fatalf("%+v, and the other way %+v", there, back)
		}
		for i, f := range there {
			if o := back[i]; f.Field != o.Field || f.Was != o.Is || f.Is != o.Was || f.Measured != o.Measured {
				t.Fatalf("%+v, and the other way %+v", f, o)
			}
		}
	})
}

// A recording is a measurement, wherever its digest is told.
func TestRecordingsAreMeasured(t *testing.T) {
	for a, b := range map[string]string{
		`{"recording": "sha256:1"}`: `{"recording": "sha256:2"}`,
		`{"runs": [{"dir": "runs/bad-recorded", "recording": {"digest": "1"}}]}`: `{"runs": [{"dir": "runs/bad-recorded", "recording": {"digest": "2"}}]}`,
	} {
		d := bundleDiffer{}
		d.documents("manifest.json", "", []byte(a), []byte(b))
		if len(d.found) != 1 || !d.found[0].Measured {
			t.Errorf("%s: %+v", a, d.found)
		}
	}
}

// A symbol's address is no address of the guest's.
func TestOnlyGuestsTextsHaveTimes(t *testing.T) {
	a, b := []byte(`{"x": "at 0xffffffff81000000"}`), []byte(`{"x": "at 0xffffffff82000000"}`)
	for member, measured := range map[string]bool{"runs/bad-1/trial.json": true, "result.json": false} {
		d := bundleDiffer{}
		d.documents(member, "", a, b)
		if len(d.found) != 1 || d.found[0].Measured != measured {
			t.Errorf("%s: %+v", member, d.found)
		}
	}
}
