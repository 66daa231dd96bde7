package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"

	"lab/disk"
	"lab/lab/corpus"
	"lab/lab/corpus/listing"
	"lab/lab/debiantest"
	"lab/oci"
)

// TestCorpus takes each image of the corpus the whole way, from a registry to a
// disk that a real kernel mounts, and compares every path that the kernel sees
// with the layer rules' own answer and with what umoci unpacks from the same
// image. It prints the table of all cases.
func TestCorpus(t *testing.T) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
	if os.Geteuid() != 0 {
		t.Fatal("umoci makes devices and trusted attributes for root alone: run as root")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &fs); err != nil || fs.Type != unix.EXT4_SUPER_MAGIC {
		t.Fatalf("umoci would unpack to %s, which is not ext4 and keeps other things: set TMPDIR to a folder on ext4 (%v)", os.TempDir(), err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	store, err := oci.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var table []corpusRow
	spec := disk.Spec{Free: 16 << 20, Epoch: time.Unix(1_700_000_000, 0)}
	for _, c := range corpus.All() {
		row := corpusRow{Case: c, Umoci: "not asked"}
		switch {
		case c.Refused != "":
			row.Guest = refusedCase(t, store, host, c)
		default:
			container, err := pullCase(t.Context(), store, host, c)
			if err != nil {
				t.Errorf("%s: %v", c.Name, err)
				continue
			}
			spec.Containers = append(spec.Containers, container)
			row.Umoci = askUmoci(t, c)
		}
		table = append(table, row)
	}

	image, err := disk.Build(t.Context(), filepath.Join(t.TempDir(), "corpus.img"), spec)
	if err != nil {
		t.Fatal(err)
	}
	debiantest.Fsck(t, image.Path)
	console, lines := debiantest.Guest{Disk: image.Path, Initramfs: guestInitramfs}.Boot(t)
	if bad := regexp.MustCompile(`(?m)^.*(EXT4-fs (error|warning)|BUG|WARNING|Oops|Call Trace|I/O error).*$`).FindString(console); bad != "" {
		t.Errorf("the kernel complains: %s", bad)
	}
	seen := byContainer(t, lines[1:])
	for i, row := range table {
		if row.Case.Refused != "" {
			continue
		}
		want := corpus.OnExt4(row.Case.Files())
		diff := compareFiles(want, seen[row.Case.Name])
		for _, line := range diff.lines {
			t.Errorf("%s: %s", row.Case.Name, line)
		}
		table[i].Guest = fmt.Sprintf("same, %d paths", len(want))
		if len(diff.lines) > 0 {
			table[i].Guest = fmt.Sprintf("DIFFERS at %q", diff.paths)
		}
	}
	printTable(t, table)
}

// corpusRow is a line of the table.
type corpusRow struct {
	Case         corpus.Case
	Umoci, Guest string
}

// pullCase pushes a case, pulls it and flattens it when the disk asks for it.
func pullCase(ctx context.Context, store *oci.Store, host string, c corpus.Case) (disk.Container, error) {
	ref, _, err := c.Push(host)
	if err != nil {
		return disk.Container{}, err
	}
	img, err := store.Pull(ctx, ref, oci.PullOptions{Platform: "linux/amd64"})
	if err != nil {
		return disk.Container{}, err
	}
	return disk.Container{
		Name: c.Name, Digest: img.Pin.Digest, Config: []byte("{}"),
		Open: func(ctx context.Context) (io.ReadCloser, error) { return oci.Flatten(ctx, img), nil },
	}, nil
}

// refusedCase checks the error of a case that must not get onto a disk.
func refusedCase(t *testing.T, store *oci.Store, host string, c corpus.Case) string {
	t.Helper()
	container, err := pullCase(t.Context(), store, host, c)
	image := c.Name
	if c.By == corpus.ByDisk {
		if err != nil {
			t.Errorf("%s: refused before the disk is written: %v", c.Name, err)
			return "DIFFERS"
		}
		dir := t.TempDir()
		_, err = disk.Build(t.Context(), filepath.Join(dir, "disk.img"), disk.Spec{Containers: []disk.Container{container}})
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", c.Name, left)
		}
	}
	if err == nil || !strings.Contains(err.Error(), c.Refused) || !strings.Contains(err.Error(), image) {
		t.Errorf("%s: error %v, want one with %q that names the image", c.Name, err, c.Refused)
		return "DIFFERS"
	}
	return "refused: " + c.Refused
}

// askUmoci compares what umoci makes of a case with the rules, and a difference
// with what is known of it.
func askUmoci(t *testing.T, c corpus.Case) string {
	t.Helper()
	got, err := c.Unpack(t.Context(), t.TempDir())
	var failed *corpus.UmociError
	switch {
	case errors.As(err, &failed):
		if c.Umoci.Error == "" || !strings.Contains(failed.Output, c.Umoci.Error) {
			t.Errorf("%s: %v\n%s", c.Name, failed, failed.Output)
			return "DIFFERS: " + failed.Error()
		}
		return fmt.Sprintf("error: %s (%s)", c.Umoci.Error, c.Umoci.Why)
	case err != nil:
		t.Errorf("%s: %v", c.Name, err)
		return "DIFFERS"
	case c.Umoci.Error != "":
		t.Errorf("%s: umoci has no error %q any more", c.Name, c.Umoci.Error)
	}
	want := corpus.OnExt4(c.Files())
	diff := compareFiles(unpacked(want, want), unpacked(want, got))
	if !slices.Equal(diff.paths, c.Umoci.Paths) {
		t.Errorf("%s: umoci differs at %q, is known to differ at %q:\n%s", c.Name, diff.paths, c.Umoci.Paths, strings.Join(diff.lines, "\n"))
		return fmt.Sprintf("DIFFERS at %q", diff.paths)
	}
	if len(diff.paths) > 0 {
		return fmt.Sprintf("differs at %q: %s", diff.paths, c.Umoci.Why)
	}
	return "same"
}

// unpacked leaves out what an unpacked folder cannot have from the image: when it
// was last read and changed, and when directories were made that no layer lists.
func unpacked(want, files []listing.File) []listing.File {
	implied := make(map[string]bool)
	for _, f := range want {
		implied[f.Name] = f.Type() == listing.TypeDir && f.Mtime == listing.Time{}
	}
	var list []listing.File
	for _, f := range files {
		f.Atime, f.Ctime = listing.Time{}, listing.Time{}
		if implied[f.Name] {
			f.Mtime = listing.Time{}
		}
		list = append(list, f)
	}
	return list
}

// difference is where two listings differ.
type difference struct {
	paths []string // sorted, each once
	lines []string
}

func compareFiles(want, got []listing.File) (d difference) {
	wanted, have := listing.Lines(want), listing.Lines(got)
	name := func(line string) string { f, _ := listing.Parse(line); return f.Name }
	for _, line := range wanted {
		if !slices.Contains(have, line) {
			d.lines, d.paths = append(d.lines, "rules: "+line), append(d.paths, name(line))
		}
	}
	for _, line := range have {
		if !slices.Contains(wanted, line) {
			d.lines, d.paths = append(d.lines, "seen:  "+line), append(d.paths, name(line))
		}
	}
	slices.Sort(d.paths)
	d.paths = slices.Compact(d.paths)
	return d
}

// byContainer takes the guest's listing apart.
func byContainer(t *testing.T, lines []string) map[string][]listing.File {
	t.Helper()
	seen := make(map[string][]listing.File)
	for _, line := range lines {
		f, err := listing.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		container, rest, _ := strings.Cut(f.Name, "/")
		root := container + "/rootfs"
		if rest != "rootfs" && !strings.HasPrefix(rest, "rootfs/") {
			continue // the container's own folder and config.json
		}
		under := func(p string) string {
			if p == root {
				return "."
			}
			return strings.TrimPrefix(p, root+"/")
		}
		f.Name, f.Inode = under(f.Name), under(f.Inode)
		seen[container] = append(seen[container], f)
	}
	return seen
}

func guestInitramfs(w io.Writer, files []debiantest.File) error {
	var list []disk.File
	for _, f := range files {
		list = append(list, disk.File{Path: f.Path, Mode: f.Mode, Data: f.Data, Source: f.Source})
	}
	return disk.WriteInitramfs(w, list)
}

func printTable(t *testing.T, rows []corpusRow) {
	t.Helper()
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CASE\tRULE\tUMOCI\tGUEST")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Case.Name, r.Case.Rule, r.Umoci, r.Guest)
	}
	w.Flush()
	t.Logf("%d cases\n%s", len(rows), b.String())
}
