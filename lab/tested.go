package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"lab/kernel"
)

// Roles of a tested commit.
const (
	RoleEnd     = "end"     // a given good or bad, verified first
	RoleStep    = "step"    // chosen by the search
	RoleConfirm = "confirm" // the answer and its parents, tested again
	RoleAgain   = "again"   // of a test that fails at times: run once more
	RoleAudit   = "audit"   // inferred before, and now built and booted
	RoleHand    = "hand"    // not tested: somebody gave the verdict
	RoleProof   = "proof"   // the answer reverted on the bad end, or applied on the good one
)

// Tested is one commit's test in a bisect.
type Tested struct {
	Commit kernel.Commit `json:"commit"`
	Role   string        `json:"role"`
	// Confirms is, of a parent that is tested with the answer, the hash of the
	// answer: either may be done first.
	Confirms string `json:"confirms,omitempty"`
	Verdict
	// ByHand is a verdict that somebody gave: of a trial that they were asked
	// about, or, where the role is RoleHand, without one.
	ByHand bool `json:"by_hand,omitempty"`
	End    End  `json:"end"`
	Exit   int  `json:"exit"` // the test's exit status, when End is test
	// Inferred names the commit whose kernel has the same bytes and whose
	// verdict was taken over; empty where this one was tested itself.
	Inferred string `json:"inferred,omitempty"`
	// Unbuilt is an inferred verdict of a commit that was not even built:
	// nothing that differs between the two is compiled.
	Unbuilt bool     `json:"unbuilt,omitempty"`
	Tree    string   `json:"tree,omitempty"`    // where there is no kernel: the hash of the commit's tree
	Kernel  string   `json:"kernel,omitempty"`  // digest of the kernel image
	Image   string   `json:"image,omitempty"`   // what was tested of the image under test, where images are bisected
	Set     []string `json:"set,omitempty"`     // where settings are bisected: the differences that were made to the good one
	Along   []string `json:"along,omitempty"`   // what is otherwise than the set says, since Kconfig has it so
	Modules string   `json:"modules,omitempty"` // digest of the modules that came along with it
	Dir     string   `json:"dir,omitempty"`     // what the trial saw, below the bisect's folder
	Drift   int      `json:"drift,omitempty"`   // symbols of its config that differ from the first kernel's
	// Known is the kind of known breakage that kept it from being built.
	Known string `json:"known,omitempty"`
	// OnTop is what became of the picks and patches at this commit.
	OnTop  []kernel.Addition `json:"on_top,omitempty"`
	Cached bool              `json:"cached"`
	// Restored: it did not boot, but went on from a snapshot of an earlier boot.
	Restored bool `json:"restored,omitempty"`
	// Prepared names the commit during whose test this one's kernel was built,
	// or had begun to be: it came from the cache for that reason only.
	Prepared string        `json:"prepared,omitempty"`
	Build    time.Duration `json:"build_ns"`
	Boot     time.Duration `json:"boot_ns"`
	Test     time.Duration `json:"test_ns"`
	Left     int           `json:"left"` // candidates that could be the first bad commit when it was chosen
}

// test gives a commit's verdict: from the journal, from a kernel of the same
// bytes, or by a trial. It is in the journal before anybody acts on it. What is
// tested next in any case begins meanwhile, as far as there is room.
func (b *bisection) test(ctx context.Context, c kernel.Commit, role string, left int) (Tested, error) {
	if t := b.journal.tested(c.Hash, role); t != nil && role != RoleAgain {
		if !b.fresh[t] {
			b.Progress.Say("  %s, as %s before: %s", b.called(t.Mark), told(*t), t.Reason)
		}
		return *t, nil
	}
	for b.room() == 0 && !b.isFlying(c, role) {
		if _, err := b.await(ctx, 0); err != nil {
			return Tested{}, err
		}
	}
	if !b.isFlying(c, role) {
		if t, err := b.takeOff(ctx, c, role, left); err != nil {
			return Tested{}, err
		} else if t != nil {
			return *t, nil
		}
	}
	for {
		for _, next := range b.queue {
			if b.room() == 0 || b.isFlying(next, role) || b.journal.tested(next.Hash, role) != nil {
				continue
			}
			if _, err := b.takeOff(ctx, next, role, left); err != nil {
				return Tested{}, err
			}
		}
		t, err := b.await(ctx, 0)
		if err != nil {
			return Tested{}, err
		}
		if t != nil && t.Commit.Hash == c.Hash && t.Role == role {
			return *t, nil
		}
	}
}

// save keeps a trial, and says where below the bisect's folder.
func (b *bisection) save(t Trial, c kernel.Commit) (string, error) {
	dir := b.journal.trialDir(c)
	return dir, t.Save(filepath.Join(b.journal.dir, dir))
}

// record has a verdict in the journal and then says it.
func (b *bisection) record(r *Tested) error {
	if err := b.journal.add(record{Event: eventVerdict, Tested: r}); err != nil {
		return err
	}
	b.fresh[r] = true
	of := ""
	if b.jobs > 1 {
		of = brief(r.Commit) + " "
	}
	b.Progress.Say("  %s%s: %s (%s)", of, b.called(r.Mark), r.Reason, b.took(*r))
	return nil
}

// guestOf gives the guest that a candidate is tried with: where images are
// bisected one of its own, whose image the record then names.
func (b *bisection) guestOf(ctx context.Context, r *Tested, known []record) (*guest, error) {
	if b.gallery == nil {
		return b.guest, nil
	}
	before := ""
	for _, old := range known {
		if old.Tested != nil && old.Tested.Commit.Hash == r.Commit.Hash {
			before = old.Tested.Image
		}
	}
	before, _, _ = strings.Cut(before, "#")
	g, load, err := b.gallery.guest(ctx, r.Commit, b.result.Images, before)
	if err != nil {
		return nil, err
	}
	r.Image = g.images[b.gallery.at].Digest
	if load.Layers > 0 {
		r.Image += fmt.Sprintf("#%d", load.Layers)
	}
	return g, nil
}

// sameBytes finds an earlier test of a kernel, or image, with the very same bytes.
// What is tested again on purpose is not inferred.
func sameBytes(known []record, t Trial, r Tested) *Tested {
	if own(r.Role) != "" || t.End != EndBuilt {
		return nil
	}
	for _, old := range known {
		if o := old.Tested; o != nil && o.Kernel == r.Kernel && o.Image == r.Image && o.Modules == r.Modules && o.Inferred == "" {
			return o
		}
	}
	return nil
}

// took says where a test's time went.
func (b *bisection) took(t Tested) string {
	if t.Unbuilt {
		return "same binary as " + short(t.Inferred) + ": nothing it touches is compiled; neither built nor booted"
	}
	built := "built in " + seconds(t.Build)
	switch {
	case b.gallery != nil && t.Image != "":
		built = "image " + short(t.Image)
	case b.commands != nil && t.Inferred != "":
		return "the same files as " + short(t.Inferred) + ": not run again"
	case b.commands != nil:
		return "ran for " + seconds(t.Test)
	case b.settings != nil && !b.settings.builds() && (t.Cached || t.Build == 0):
		built = "the same kernel"
	case b.settings == nil && isPackageHash(t.Commit.Hash):
		built = "ready made"
	case t.Prepared != "" && t.Build < time.Second:
		built = "kernel ready, prepared while " + short(t.Prepared) + " was tested"
	case t.Prepared != "":
		built += ", begun while " + short(t.Prepared) + " was tested"
	case t.Cached:
		built = "kernel cached"
	}
	if t.Inferred != "" {
		same := short(t.Inferred)
		if isPackageHash(t.Inferred) {
			same = b.journal.title(t.Inferred)
		}
		return built + ", same bytes as " + same + ": not booted again"
	}
	if t.Boot == 0 {
		return built
	}
	booted := "booted in "
	if t.Restored {
		booted = "restored in "
	}
	return fmt.Sprintf("%s, %s%s, tested in %s", built, booted, seconds(t.Boot), seconds(t.Test))
}
