package search

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// graphs are the histories of real projects, as far as their shape goes: in
// testdata/graphs a line for each commit, with its date and the numbers of its
// parents' lines. Parents come first, the last line is built upon all others and
// the first is older than all. The packs they were read from are the test data of
// the Go module github.com/go-git/go-git-fixtures/v4, version 4.2.1.
//
//	git rev-list --topo-order --reverse --parents --timestamp TIP |
//	awk '{x[$2]=NR-1; s=$1; for (i=3; i<=NF; i++) s=s" "x[$i]; print s}'
var graphs = []string{"desk", "go-git", "rumprun-xen", "spinnaker", "storable"}

// A graph is a history with its commits' dates.
type graph struct {
	name    string
	parents [][]int
	dates   []int64
}

func readGraph(t testing.TB, name string) graph {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "graphs", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	g := graph{name: name}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		var numbers []int
		for _, field := range strings.Fields(line) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, n)
		}
		g.dates = append(g.dates, int64(numbers[0]))
		g.parents = append(g.parents, numbers[1:])
	}
	return g
}

// candidates are all commits but the first, which is good.
func (g graph) candidates() []Candidate {
	c := make([]Candidate, len(g.parents)-1)
	for i := range c {
		c[i].ID = strconv.Itoa(i + 1)
		for _, p := range g.parents[i+1] {
			if p > 0 {
				c[i].Parents = append(c[i].Parents, p-1)
			}
		}
	}
	return c
}
