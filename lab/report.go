package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"lab/lab/bundle"
	"lab/lab/report"
)

// The most that is read of a bundle's members for a report.
const (
	maxResult = 64 << 20 // result.json, trial.json: a KiB or two a test
	maxOutput = 8 << 20  // of a run, and its console
	maxGraph  = 16 << 20
)

// Report verifies the bundle of a source and gathers what there is to tell of it. One
// that is damaged or odd gives a *bundle.RefusedError. That all its bytes are what
// its manifest says does not make true what they tell: see [report.Document.Plain].
func (l *Lab) Report(ctx context.Context, from BundleSource) (report.Document, error) {
	b, err := l.openBundle(ctx, from, true)
	if err != nil {
		return report.Document{}, err
	}
	defer b.Close()
	d, err := gather(b.Bundle)
	if err != nil {
		return report.Document{}, fmt.Errorf("report of %s: %w", from.Place, err)
	}
	return d, nil
}

// gather reads the members that a report is made of.
func gather(b *bundle.Bundle) (report.Document, error) {
	var found Bisection
	data, err := member(b, "result.json", maxResult)
	if err != nil {
		return report.Document{}, err
	}
	if err := json.Unmarshal(data, &found); err != nil {
		return report.Document{}, fmt.Errorf("read result.json: %w", err)
	}
	var trials [2]Trial
	for i, role := range []string{bundle.RoleGood, bundle.RoleBad} {
		r, _ := b.Manifest.Run(role)
		if trials[i], err = recorded(b, r); err != nil {
			return report.Document{}, err
		}
	}
	var patch []byte
	if c := b.Manifest.Culprit; c != nil && c.Patch != "" {
		if patch, err = member(b, c.Patch, maxOutput); err != nil {
			return report.Document{}, err
		}
	}
	if data, err = member(b, memberGraph, maxGraph); err != nil {
		return report.Document{}, err
	}
	graph, err := parseGraph(data)
	if err != nil {
		return report.Document{}, fmt.Errorf("read %s: %w", memberGraph, err)
	}
	return document(b.Manifest, found, trials[0], trials[1], patch, graph)
}

// recorded reads what a run saw.
func recorded(b *bundle.Bundle, r bundle.Run) (Trial, error) {
	var t Trial
	data, err := member(b, path.Join(r.Dir, trialFile), maxResult)
	if err != nil {
		return t, err
	}
	if data != nil {
		if err := json.Unmarshal(data, &t); err != nil {
			return t, fmt.Errorf("read %s: %w", path.Join(r.Dir, trialFile), err)
		}
	}
	for name, text := range t.streams() {
		if *text, err = member(b, path.Join(r.Dir, name), maxOutput); err != nil {
			return t, err
		}
	}
	return t, nil
}

// member reads a member of an open bundle, or as much as may be of one that is
// longer; one that there is not is empty.
func member(b *bundle.Bundle, name string, most int64) ([]byte, error) {
	p := b.Path(name)
	if p == "" {
		return nil, nil
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, fmt.Errorf("read member: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read member %s: %w", name, err)
	}
	return data, nil
}

// parseGraph reads bisect/graph.jsonl.
func parseGraph(data []byte) ([]report.Node, error) {
	var nodes []report.Node
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var n report.Node
		if err := json.Unmarshal(s.Bytes(), &n); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(nodes)+1, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, s.Err()
}

// document joins what a report tells.
func document(m bundle.Manifest, found Bisection, good, bad Trial, patch []byte, graph []report.Node) (report.Document, error) {
	d := report.Document{
		Manifest: m, Range: found.Range, Sure: found.Sure(), Proof: found.Proof.Text(found.Terms), Confidence: found.Confidence, PValue: found.PValue,
		Known: knownSkips(found.Tested), Next: found.Next(), Graph: graph, Log: found.Log, Patch: string(patch),
	}
	for _, side := range []struct {
		role string
		t    Trial
		run  *report.Run
	}{{bundle.RoleGood, good, &d.Good}, {bundle.RoleBad, bad, &d.Bad}} {
		t := side.t
		*side.run = report.Run{
			Stdout: string(t.Result.Stdout), Stderr: string(t.Result.Stderr), Syslog: string(t.Result.Syslog), Audit: string(t.Result.Audit), Truncated: t.Result.Truncated,
			Console: string(t.Console), Reports: t.Reports, Boot: t.Boot, Test: t.Test,
		}
		if k := t.Result.Container; k != nil {
			side.run.Engine = k.Made()
		}
		if k, _ := m.Kernel(side.role); k.Image != "" {
			var err error
			if side.run.Command, err = m.Command(side.role, standalone(m, side.role)); err != nil {
				return d, fmt.Errorf("command for the %s kernel: %w", side.role, err)
			}
		}
	}
	for _, t := range found.Tested {
		d.Steps = append(d.Steps, report.Step{
			Commit: t.Commit.Hash, Title: t.Commit.Title, Role: t.Role, Verdict: string(t.Mark), Reason: t.Reason,
			Inferred: t.Inferred, Unbuilt: t.Unbuilt, ByHand: t.ByHand, Left: t.Left, Build: t.Build, Boot: t.Boot, Test: t.Test,
		})
	}
	for _, r := range found.Runs {
		d.Runs = append(d.Runs, report.Count{Commit: r.Commit.Hash, Title: r.Commit.Title, Bad: r.Bad, Good: r.Good})
	}
	if found.Pair != nil {
		d.Pair = found.Pair.Text(found.Terms)
	}
	if h := found.Hunks; h != nil && h.Culprit != nil && h.Flip != nil {
		d.Hunks = h.Flip.Patch
	}
	if t := found.Terms; t != nil {
		d.Words = map[string]string{"good": t.Good, "bad": t.Bad}
	}
	return d, nil
}

// Maintainers asks scripts/get_maintainer.pl of a checked out kernel tree who is to
// be told of a patch. The script sees the patch alone, and does not ask git.
func Maintainers(ctx context.Context, tree, patch string) (string, error) {
	const script = "scripts/get_maintainer.pl"
	tree, err := filepath.Abs(tree)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", tree, err)
	}
	if _, err := os.Stat(filepath.Join(tree, script)); err != nil {
		return "", fmt.Errorf("ask for maintainers: %w: a checked out kernel tree is wanted", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("no answer within a minute"))
	defer cancel()
	cmd := exec.CommandContext(ctx, "perl", script, "--nogit", "--nogit-fallback", "--rolestats")
	cmd.Dir = tree
	cmd.Stdin = strings.NewReader(patch)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", script, err, oneLine(complaint.String()))
	}
	return string(out), nil
}
