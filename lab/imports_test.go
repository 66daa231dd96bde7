package lab

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stages are the rooms that never import each other: data is the pipeline, and
// lab the only joiner.
var stages = []string{"oci", "disk", "kernel", "probe"}

// testOnly is for tests of every room, and knows none.
var testOnly = []string{"lab/debiantest", "lab/corpus", "lab/corpus/listing"}

// TestImportRules holds the house together: main -> lab/cli -> lab -> the
// stages, and nothing the other way.
func TestImportRules(t *testing.T) {
	checked := 0
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != "..") {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		if d.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", name)
		if err != nil {
			return err
		}
		from := path.Dir(filepath.ToSlash(rel))
		for _, imp := range f.Imports {
			to, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if to, ours := strings.CutPrefix(to, "lab/"); ours {
				checked++
				if !allowed(from, to, strings.HasSuffix(name, "_test.go")) {
					t.Errorf("%s: %s must not import %s", name, from, to)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked == 0 {
		t.Fatal("no import of our own was seen")
	}
}

func allowed(from, to string, test bool) bool {
	room := func(p string) string { first, _, _ := strings.Cut(p, "/"); return first }
	stage := slices.Contains(stages, room(from))
	switch {
	case slices.Contains(testOnly, from) && !test:
		return slices.Contains(testOnly, to)
	case slices.Contains(testOnly, to):
		return test
	case from == ".":
		return true
	case stage:
		return room(to) == room(from)
	case to == "lab/cli":
		return false // main's alone
	case strings.HasPrefix(from, "lab/") && from != "lab/cli":
		// The rooms below lab do not know it, nor the command line.
		return to != "lab"
	}
	return true
}
