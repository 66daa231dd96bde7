package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Who and when, the same everywhere, so that the hashes are.
const (
	author     = "lab demo <demo@lab.invalid>"
	firstDate  = 1704103200 // 2024-01-01 10:00:00 UTC
	dateStep   = 5*3600 + 1260
	mainBranch = "refs/heads/main"
)

// makeHistory fills the empty directory dir with a bare repository: the
// archive's files in a first commit, the series on top.
func makeHistory(ctx context.Context, dir, archive string, progress func(done, total int64, what string)) (Repo, error) {
	init := git(ctx, dir, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", ".")
	if out, err := init.CombinedOutput(); err != nil {
		return Repo{}, fmt.Errorf("git init: %w: %s", err, firstLine(string(out)))
	}
	s, err := openSource(ctx, archive, progress)
	if err != nil {
		return Repo{}, err
	}
	defer s.close()

	// No deltas and the fastest zlib level: a tree is read many times more
	// often than it is stored, and searching deltas would cost minutes.
	marks := filepath.Join(dir, "marks")
	cmd := git(ctx, dir, "-c", "core.compression=1", "-c", "pack.compression=1", "-c", "fastimport.unpackLimit=0",
		"fast-import", "--quiet", "--done", "--depth=0", "--export-marks="+marks)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return Repo{}, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return Repo{}, fmt.Errorf("start git fast-import: %w", err)
	}
	im := &importer{w: bufio.NewWriterSize(stdin, 1<<20)}
	plan, err := im.history(s, archive)
	if err == nil {
		err = im.w.Flush()
	}
	stdin.Close() // without the stream's "done" git gives up: nothing half is published
	if waitErr := cmd.Wait(); waitErr != nil && (err == nil || brokenPipe(err)) {
		err = fmt.Errorf("git fast-import: %w: %s", waitErr, firstLine(stderr.String()))
	}
	if ctx.Err() != nil {
		return Repo{}, ctx.Err()
	}
	if err != nil {
		return Repo{}, err
	}
	if err := s.close(); err != nil {
		return Repo{}, err
	}
	hashes, err := readMarks(marks)
	if err != nil {
		return Repo{}, err
	}
	if err := os.Remove(marks); err != nil {
		return Repo{}, err
	}
	return Repo{Good: hashes[plan.good], Bad: hashes[plan.bad], Culprit: hashes[plan.culprit], Commits: plan.bad - plan.good}, nil
}

// brokenPipe tells a write that failed because git had ended.
func brokenPipe(err error) bool {
	return errors.Is(err, errPipe) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed)
}

// marked says which marks (":N" in git-fast-import(1)) the ends are.
type marked struct{ good, bad, culprit int }

// An importer writes a stream for git-fast-import(1).
type importer struct {
	w    *bufio.Writer
	mark int // of the last commit
}

// history writes the whole stream.
func (im *importer) history(s *source, archive string) (marked, error) {
	keep := map[string]bool{"Makefile": true}
	for _, c := range series {
		for _, e := range c.Edits {
			keep[e.Path] = true
		}
	}
	// The kernel's version stands in its Makefile, which comes late in the
	// archive; the name of the archive has to do for the first title.
	title := "Import " + strings.SplitN(filepath.Base(archive), ".tar", 2)[0]
	im.commit(mainBranch, title+"\n\nThe source of the distribution's kernel, unchanged.\n", 0, 0)
	err := s.each(keep, func(name, mode string, size int64, content io.Reader, link string) error {
		if link != "" {
			fmt.Fprintf(im.w, "C %s %s\n", quote(link), name)
			return nil
		}
		return im.file(name, mode, size, content)
	})
	if err != nil {
		return marked{}, err
	}
	base := branch{mark: im.mark, files: make(map[string]string)}
	for name, f := range s.kept {
		base.files[name] = string(f.data)
	}
	branches := map[string]branch{"": base}
	var plan marked
	for _, c := range series {
		head, err := c.apply(branches)
		if err != nil {
			return marked{}, fmt.Errorf("commit %q: %w", c.Title, err)
		}
		ref := mainBranch
		if c.Branch != "" {
			ref = "refs/heads/" + c.Branch
		}
		im.commit(ref, c.message(), head.mark, head.merged)
		for _, name := range head.changed {
			mode := "100644"
			if f, ok := s.kept[name]; ok {
				mode = f.mode
			}
			text := head.files[name]
			if err := im.file(name, mode, int64(len(text)), strings.NewReader(text)); err != nil {
				return marked{}, err
			}
		}
		branches[c.Branch] = branch{mark: im.mark, files: head.files}
		switch c.Is {
		case isGood:
			plan.good = im.mark
		case isCulprit:
			plan.culprit = im.mark
		}
	}
	plan.bad = im.mark
	fmt.Fprintf(im.w, "reset refs/tags/good\nfrom :%d\n\nreset refs/tags/bad\nfrom :%d\n\ndone\n", plan.good, plan.bad)
	return plan, nil
}

// commit begins a commit; its files follow. Parents are marks, 0 is none.
// Errors of the stream's writer show at its next Flush.
func (im *importer) commit(ref, message string, from, merge int) {
	im.mark++
	date := firstDate + int64(im.mark-1)*dateStep
	fmt.Fprintf(im.w, "commit %s\nmark :%d\nauthor %s %d +0000\ncommitter %s %d +0000\ndata %d\n%s\n",
		ref, im.mark, author, date, author, date, len(message), message)
	if from != 0 {
		fmt.Fprintf(im.w, "from :%d\n", from)
	}
	if merge != 0 {
		fmt.Fprintf(im.w, "merge :%d\n", merge)
	}
}

func (im *importer) file(name, mode string, size int64, content io.Reader) error {
	fmt.Fprintf(im.w, "M %s inline %s\ndata %d\n", mode, name, size)
	if _, err := io.CopyN(im.w, content, size); err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	return im.w.WriteByte('\n')
}

// quote writes a path that is followed by another one: a space would end it.
func quote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// readMarks reads what fast-import exported: lines ":1 <hash>".
func readMarks(name string) (map[int]string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	hashes := make(map[int]string)
	line := regexp.MustCompile(`^:([0-9]+) ([0-9a-f]{40,64})$`)
	for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		m := line.FindStringSubmatch(l)
		if m == nil {
			return nil, fmt.Errorf("read marks: odd line %q", l)
		}
		var mark int
		if _, err := fmt.Sscan(m[1], &mark); err != nil {
			return nil, fmt.Errorf("read marks: %w", err)
		}
		hashes[mark] = m[2]
	}
	return hashes, nil
}

// git is a git command in a bare repository that hears nothing from the user's
// configuration or environment, so that the objects depend on the input alone.
func git(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := command(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + dir,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_DIR=" + dir, "GIT_DEFAULT_HASH=sha1",
	}
	return cmd
}
