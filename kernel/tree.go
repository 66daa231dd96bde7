package kernel

import (
	"context"
	"errors"
	"time"

	"lab/kernel/kconfig"
)

// Commit is a commit of the tree.
type Commit struct {
	Hash    string    `json:"hash"`
	Parents []string  `json:"parents,omitempty"`
	Title   string    `json:"title"`
	Author  string    `json:"author"` // "Name <address>"
	Date    time.Time `json:"date"`   // when it was committed
}

// Tree is a git repository to build kernels from.
type Tree struct {
	repo string
}

// BuildOptions says how to build.
type BuildOptions struct {
	Fragments []kconfig.Fragment
	Jobs      int // 0: one for each CPU
	// Progress, if set, is called for each line of the build's output with the
	// number of objects made and the number that is expected (0: unknown).
	Progress func(line string, objects, total int)
}

var errUnfinished = errors.New("not yet")

func OpenTree(ctx context.Context, cache, repo string) (*Tree, error) { return nil, errUnfinished }
func (t *Tree) Close() error                                          { return nil }
func (t *Tree) Resolve(ctx context.Context, rev string) (Commit, error) {
	return Commit{}, errUnfinished
}
func (t *Tree) Range(ctx context.Context, good []string, bad string) ([]Commit, error) {
	return nil, errUnfinished
}
func (t *Tree) IsAncestor(ctx context.Context, a, b string) (bool, error) {
	return false, errUnfinished
}
func (t *Tree) Show(ctx context.Context, commit string) (patch []byte, err error) {
	return nil, errUnfinished
}
func (t *Tree) Build(ctx context.Context, commit string, o BuildOptions) (k Kernel, f *Failure, cached bool, err error) {
	return Kernel{}, nil, false, errUnfinished
}
