package lab

import (
	"cmp"

	"lab/kernel"
	"lab/lab/search"
)

// A Runs is how often a commit was tested, and what came out. A verdict that was
// taken over from another commit is not a run.
type Runs struct {
	Commit kernel.Commit `json:"commit"`
	Bad    int           `json:"bad"`
	Good   int           `json:"good"`
}

func (r Runs) evidence() search.Evidence { return search.Evidence{Bad: r.Bad, Good: r.Good} }

// certain is how many passes a verdict by hand weighs: a test that fails in one run
// of a hundred passes so many in a row once in 23,000 times.
const certain = 1000

// evidence turns a bisect's tests into what the search weighs: for every commit
// of a lineage how often it failed and passed. doubt says that the same bytes have
// done both.
//
// Commits with the same bytes have the same verdict, so that their runs count
// for all of them, and must count but once. What passed says most of the
// youngest of them, for it clears whatever that is built upon; what failed of
// the oldest.
//
// What somebody said by hand is certain: they are not asked again, and what they
// said of what does not show the symptom weighs as sure of them passes: of what is
// good, or where a repair is hunted of what is bad.
func evidence(records []record, l *lineage, sure int, fix bool) (e []search.Evidence, doubt bool) {
	type bytes struct {
		search.Evidence
		oldest, youngest int // of commits; -1 for none
	}
	alike := map[string]*bytes{}
	e = make([]search.Evidence, len(l.commits))
	of := map[string]string{} // what a commit comes out as
	for _, r := range records {
		t := r.Tested
		if t == nil {
			continue
		}
		i, listed := l.at[t.Commit.Hash]
		if t.Mark == Skip {
			if listed {
				e[i].Skip = true
			}
			continue
		}
		key := t.bytes()
		if t.Kernel == "" {
			key = cmp.Or(of[t.Inferred], of[t.Commit.Hash], t.Commit.Hash)
		}
		of[t.Commit.Hash] = key
		b := alike[key]
		if b == nil {
			b = &bytes{oldest: -1, youngest: -1}
			alike[key] = b
		}
		if listed {
			if b.oldest < 0 || i < b.oldest {
				b.oldest = i
			}
			b.youngest = max(b.youngest, i)
		}
		if listed && t.ByHand {
			e[i].Skip = true
		}
		n := 1
		if t.ByHand && (t.Mark == Bad) == fix {
			n = sure
		}
		switch {
		case t.Inferred != "":
		case t.Mark == Bad:
			b.Bad += n
		default:
			b.Good += n
		}
	}
	for _, b := range alike {
		doubt = doubt || b.Bad > 0 && b.Good > 0
		if b.oldest >= 0 {
			e[b.oldest].Bad += b.Bad
			e[b.youngest].Good += b.Good
		}
	}
	return e, doubt
}

// bytes names what was tested.
func (t *Tested) bytes() string { return t.Kernel + " " + t.Modules + " " + t.Image }

// runsOf counts the runs of a commit's bytes.
func runsOf(records []record, c kernel.Commit) Runs {
	e, _ := evidence(records, newLineage([]kernel.Commit{c}), 1, false)
	return Runs{Commit: c, Bad: e[0].Bad, Good: e[0].Good}
}
