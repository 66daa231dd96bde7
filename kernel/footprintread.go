package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Limits on what a tree may make us read. A build of every driver there is
// leaves some 30,000 .cmd files of 40 kB.
const (
	maxCmdFile   = 8 << 20
	maxFootprint = 1_000_000 // paths; Linux has about 80,000 files
)

// readFootprint gathers the footprint of the build in a work tree from its
// .cmd files. What is left in them from an earlier build of another commit
// makes the footprint larger, which is safe. It is nil, and no error, when
// there is nothing like a kernel's.
//
// The directories of the tree are dealt out to all processors, and most of the
// words to look at were seen before: 1,300 files of 48 MB take a tenth of the
// time that reading them one by one would.
func readFootprint(src string) (*Footprint, error) {
	queue := dirQueue{ready: sync.NewCond(&sync.Mutex{})}
	queue.push("")
	readers := make([]cmdReader, runtime.NumCPU())
	errs := make([]error, len(readers))
	var wg sync.WaitGroup
	for i := range readers {
		readers[i] = cmdReader{src: src, seen: map[string]bool{}, files: map[string]bool{}}
		wg.Go(func() {
			for {
				dir, ok := queue.pop()
				if !ok {
					return
				}
				dirs, err := readers[i].directory(dir)
				if err != nil {
					errs[i] = errors.Join(errs[i], err)
				}
				queue.done(dirs)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read what the build read: %w", err)
	}
	f := &Footprint{files: map[string]bool{}}
	for _, r := range readers {
		maps.Copy(f.files, r.files)
	}
	if err := settle(src, f.files); err != nil {
		return nil, fmt.Errorf("read what the build read: %w", err)
	}
	if !f.files[everyKernelHas] {
		return nil, nil
	}
	return f, nil
}

// dirQueue deals out directories that are found while others are read.
type dirQueue struct {
	ready *sync.Cond
	dirs  []string
	open  int // directories in the queue or at work
}

func (q *dirQueue) push(dirs ...string) {
	q.ready.L.Lock()
	defer q.ready.L.Unlock()
	q.dirs = append(q.dirs, dirs...)
	q.open += len(dirs)
	q.ready.Broadcast()
}

func (q *dirQueue) pop() (string, bool) {
	q.ready.L.Lock()
	defer q.ready.L.Unlock()
	for len(q.dirs) == 0 && q.open > 0 {
		q.ready.Wait()
	}
	if len(q.dirs) == 0 {
		return "", false
	}
	last := len(q.dirs) - 1
	dir := q.dirs[last]
	q.dirs = q.dirs[:last]
	return dir, true
}

// done ends a directory's turn and adds those in it.
func (q *dirQueue) done(dirs []string) {
	q.push(dirs...)
	q.ready.L.Lock()
	defer q.ready.L.Unlock()
	if q.open--; q.open == 0 {
		q.ready.Broadcast()
	}
}

// A cmdReader is one reader of .cmd files, with its own memory of words.
type cmdReader struct {
	src   string
	seen  map[string]bool // words that were looked at, in directory dir where they depend on it
	files map[string]bool
}

// directory reads the .cmd files of one directory and names the directories in
// it. Directories without objects, such as Documentation, have none.
func (r *cmdReader) directory(dir string) (dirs []string, err error) {
	entries, err := os.ReadDir(filepath.Join(r.src, dir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir():
			if dir != "" || name != "Documentation" {
				dirs = append(dirs, path.Join(dir, name))
			}
		case e.Type().IsRegular() && strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".cmd") || strings.HasSuffix(name, ".d")):
			if err := r.file(dir, name); err != nil {
				return nil, err
			}
		}
	}
	return dirs, nil
}

func (r *cmdReader) file(dir, name string) error {
	full := filepath.Join(r.src, dir, name)
	info, err := os.Lstat(full)
	if err != nil {
		return err
	}
	if info.Size() > maxCmdFile {
		return fmt.Errorf("%s has more than %d bytes", path.Join(dir, name), maxCmdFile)
	}
	data, err := os.ReadFile(full)
	if err != nil {
		return err
	}
	r.words(dir, data)
	if len(r.files) > maxFootprint {
		return fmt.Errorf("it names more than %d files", maxFootprint)
	}
	return nil
}

// words takes from a .cmd file every word that could be a path in the tree,
// whatever its place in the command or among the dependencies: too many do no
// harm. Kbuild writes paths from the tree's root or absolute ones; the makefiles
// below tools/ (tools/build/Makefile.build) write them from the directory too.
func (r *cmdReader) words(dir string, data []byte) {
	for len(data) > 0 {
		end := bytes.IndexAny(data, " \t\r\n")
		word := data
		if end >= 0 {
			word, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		if len(word) < 3 || word[0] == '$' || r.seen[string(word)] {
			continue
		}
		r.word(dir, string(word))
	}
}

// tokens that compilers' options put before a path, or a shell around it.
const around = `"'();,:=\`

func (r *cmdReader) word(dir, word string) {
	p := strings.Trim(word, around)
	if i := strings.LastIndexAny(p, "=,"); i >= 0 {
		p = p[i+1:]
	}
	p = strings.TrimPrefix(p, r.src+"/")
	if p == "" || p[0] == '/' || p[0] == '-' || p[0] == '$' || !strings.ContainsAny(p, "./") {
		r.seen[word] = true
		return
	}
	fromDir := strings.HasPrefix(p, "../") || strings.HasPrefix(p, "./") || !strings.Contains(p, "/")
	if !fromDir {
		r.seen[word] = true
	} else {
		r.add(path.Join(dir, p))
	}
	r.add(path.Clean(p))
}

func (r *cmdReader) add(p string) {
	if plain(p) {
		r.files[p] = true
	}
}

// settle adds what those files really are that are reached through symbolic
// links, because git knows a file by its own path only, and drops the paths that
// are not there and those that matter in any case, such as objects.
func settle(src string, files map[string]bool) error {
	root, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	own := map[string]string{} // directories by what they are called
	var found []string
	for name := range files {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.IsDir() {
			delete(files, name)
			continue
		}
		dir := path.Dir(name)
		if _, known := own[dir]; !known {
			own[dir] = below(root, dir)
		}
		if p := path.Join(own[dir], path.Base(name)); p != name {
			found = append(found, p)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			found = append(found, below(root, name))
		}
	}
	for _, p := range found {
		files[p] = true
	}
	for p := range files {
		if alwaysMatters(Change{'M', p}) != "" {
			delete(files, p)
		}
	}
	return nil
}

// below is the real path of p in the tree, or p where it leads nowhere or out
// of the tree.
func below(root, p string) string {
	real, err := filepath.EvalSymlinks(filepath.Join(root, p))
	if err != nil {
		return p
	}
	rel, err := filepath.Rel(root, real)
	if err != nil || !filepath.IsLocal(rel) {
		return p
	}
	return rel
}
