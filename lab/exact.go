package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"path"
	"time"
)

const (
	// exactParameter tells the agent that nothing may depend on the host.
	exactParameter = "lab.exact"
	// exactPace is how much slower an exact machine may be than its clock, before a
	// guest counts as one that hangs.
	exactPace = 5
	// exactWords is lastWords for an exact machine: it ends by itself, and what it says
	// until then belongs to the run.
	exactWords = time.Minute
)

// validateExact names what cannot be exact.
func (s *Spec) validateExact() error {
	switch {
	case !s.Machine.Exact:
		return nil
	case s.Command != nil:
		return fmt.Errorf("a command of your own cannot be exact: only lab's virtual machine can")
	case s.Machine.Accel == "kvm":
		return fmt.Errorf("an exact machine takes tcg: with kvm the host's time shines through")
	case s.Machine.CPUs > 1:
		return fmt.Errorf("an exact machine has one processor, not %d", s.Machine.CPUs)
	case s.Test.Epoch.IsZero():
		return fmt.Errorf("an exact machine needs a clock that begins at a given time")
	}
	return nil
}

// exactDigest is Trial.Exact.
func exactDigest(t Trial) string {
	h := sha256.New()
	part(h, []byte(fmt.Sprintf("%s %d %s %t", t.End, t.Result.Exit, t.Result.Signal, t.Result.TimedOut)))
	part(h, t.Console)
	for _, said := range outputs(t) {
		if said.name == auditFile && len(said.data) == 0 {
			continue // as before there were records
		}
		part(h, said.data)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// part hashes bytes so that no two sequences of parts are the same.
func part(h hash.Hash, data []byte) {
	fmt.Fprintf(h, "%d:", len(data)) // a hash never fails
	h.Write(data)
}

// compareExact compares a run on an exact machine with the recorded one, byte by byte.
func (r *rerunner) compareExact(before Trial, run *Rerun) error {
	if run.Identical = before.Exact != "" && before.Exact == run.Trial.Exact; run.Identical {
		return nil
	}
	where := "in how it ended"
	for _, said := range append([]said{{"console.log", run.Trial.Console}}, outputs(run.Trial)...) {
		then, err := os.ReadFile(r.bundle.Path(path.Join(run.Recorded.Dir, said.name)))
		if err != nil {
			if os.IsNotExist(err) {
				continue
			}
			return fmt.Errorf("read what was recorded: %w", err)
		}
		if n := firstDifference(then, said.data); n > 0 {
			where = fmt.Sprintf("in line %d of %s: %s; then: %s", n, said.name, lineOf(said.data, n), lineOf(then, n))
			break
		}
	}
	run.Differences = append(run.Differences, "not identical, first "+where)
	if m := r.bundle.Manifest.Machine; m.QEMU != r.qemu.version {
		run.Differences = append(run.Differences, "another QEMU may count instructions in another way")
	}
	if r.exact {
		run.Outcome = Different
	}
	return nil
}

// firstDifference is the number of the first line, from 1, in which two texts differ; 0
// where they are the same.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return 0
	}
	as, bs := bytes.SplitAfter(a, []byte("\n")), bytes.SplitAfter(b, []byte("\n"))
	n := 0
	for n < min(len(as), len(bs)) && bytes.Equal(as[n], bs[n]) {
		n++
	}
	return n + 1
}

// lineOf is the n-th line of a text, from 1, fit to be shown.
func lineOf(text []byte, n int) string {
	lines := bytes.Split(text, []byte("\n"))
	if n > len(lines) {
		return "(it ends before)"
	}
	return fmt.Sprintf("%q", oneLine(string(lines[n-1])))
}
