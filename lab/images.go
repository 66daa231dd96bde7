package lab

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lab/kernel"
	"lab/oci"
)

// A gallery is the axis of a container's images, or of one image's layers, on
// one kernel. The bisect knows each image as a commit: its hash is a digest of
// the reference, its title the reference.
type gallery struct {
	*Lab
	row
	spec   Spec
	at     int    // of the image under test in the Spec's
	loads  []Load // in the place of that one
	source constant
}

// openGallery finds the images that the options name.
func (l *Lab) openGallery(ctx context.Context, o BisectOptions) (*gallery, error) {
	g := &gallery{Lab: l, spec: o.Spec, row: row{what: "image"}}
	g.spec.Images = slices.Clone(g.spec.Images)
	g.at = slices.IndexFunc(g.spec.Images, func(i Load) bool { return i.Name == g.spec.Test.Container })
	if g.at < 0 {
		return nil, fmt.Errorf("the test runs in %s, which is none of the images", g.spec.Test.Container)
	}
	err := g.list(ctx, o)
	if err == nil && len(g.loads) < 2 {
		err = fmt.Errorf("%s: a bisect needs two at least, a good one and a bad one", plural(len(g.loads), g.what))
	}
	if err != nil {
		return nil, err
	}
	g.spec.Images[g.at] = g.loads[0]
	g.source.source, err = l.source(ctx, g.spec)
	return g, err
}

// list makes the row.
func (g *gallery) list(ctx context.Context, o BisectOptions) error {
	name := g.spec.Images[g.at].Name
	if o.Layers != "" {
		return g.listLayers(ctx, Load{Name: name, Reference: o.Layers})
	}
	seen := map[string]bool{}
	for _, ref := range o.Images {
		refs, err := g.expand(ctx, ref)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			if seen[ref] {
				return fmt.Errorf("image %s is named twice", ref)
			}
			seen[ref] = true
			g.put(Load{Name: name, Reference: ref}, ref)
		}
	}
	return nil
}

func (g *gallery) put(load Load, title string) {
	g.loads = append(g.loads, load)
	g.add(fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Appendf(nil, "%d %s", load.Layers, load.Reference))), title)
}

func (g *gallery) listLayers(ctx context.Context, load Load) error {
	g.what = "layer"
	store, err := g.store()
	if err != nil {
		return err
	}
	img, err := g.image(ctx, store, g.spec, load, "")
	if err != nil {
		return err
	}
	titles, err := oci.LayerTitles(img)
	if err != nil {
		return err
	}
	for i, title := range titles {
		load.Layers = i + 1
		g.put(load, strings.TrimSuffix(fmt.Sprintf("layer %d: %s", i+1, oneLine(title)), ": "))
	}
	return nil
}

// tagRange is FROM..TO of a repository's tags, as in app:1..20 and app:1..app:20.
var tagRange = regexp.MustCompile(`^(.*):([\w.-]+?)\.\.(?:(.*):)?(\w[\w.-]*)$`)

// expand gives the references that one stands for: a range of a repository's
// tags, or the files that a pattern matches. Both are put in the order of their
// versions; whatever else is one reference.
func (g *gallery) expand(ctx context.Context, ref string) ([]string, error) {
	transport, rest, _ := strings.Cut(ref, ":")
	if oci.HasTransport(ref) && transport != "docker" {
		if !strings.ContainsAny(rest, "*?[") {
			return []string{ref}, nil
		}
		files, err := filepath.Glob(rest)
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("nothing matches")
		}
		if err != nil {
			return nil, fmt.Errorf("find images %s: %w", ref, err)
		}
		slices.SortStableFunc(files, kernel.CompareRPM)
		for i := range files {
			files[i] = transport + ":" + files[i]
		}
		return files, nil
	}
	m := tagRange.FindStringSubmatch(ref)
	if m == nil {
		return []string{ref}, nil
	}
	repository, from, other, to := m[1], m[2], m[3], m[4]
	if other != "" && other != repository {
		return nil, fmt.Errorf("find images %s: %s and %s are two repositories", ref, repository, other)
	}
	for _, end := range []string{from, to} {
		if !version.MatchString(end) {
			return nil, fmt.Errorf("find images %s: tag %s is not a version, and so in no order: name the images one by one, from the oldest to the newest", ref, end)
		}
	}
	if compareTags(from, to) > 0 {
		return nil, fmt.Errorf("find images %s: %s comes after %s: are the two swapped?", ref, from, to)
	}
	tags, err := oci.Tags(ctx, repository+":"+from, oci.PullOptions{
		Mirrors: g.spec.Registries.Mirrors, PlainHTTP: g.spec.Registries.PlainHTTP,
		Notice: func(text string) { g.Progress.Say("%s", text) },
	})
	if err != nil {
		return nil, err
	}
	picked := tagsBetween(tags, from, to)
	for _, end := range []string{from, to} {
		if !slices.Contains(picked, end) {
			return nil, fmt.Errorf("find images %s: there is no tag %s between the two in %s", ref, end, repository)
		}
	}
	for i := range picked {
		picked[i] = repository + ":" + picked[i]
	}
	return picked, nil
}

// version is what a tag begins with; what stands behind it is its flavour.
var version = regexp.MustCompile(`^v?[0-9]+([._-]?[0-9]+)*`)

// tagsBetween picks the tags from one to another, in the order of their
// versions, of the flavour that both have: of 1.2, 1.3 and 1.3-alpine, from 1.2
// to 1.3, the first two.
func tagsBetween(tags []string, from, to string) []string {
	flavour := func(tag string) string { return version.ReplaceAllString(tag, "") }
	var picked []string
	for _, tag := range tags {
		if version.MatchString(tag) && flavour(tag) == flavour(from) &&
			compareTags(from, tag) <= 0 && compareTags(tag, to) <= 0 {
			picked = append(picked, tag)
		}
	}
	slices.SortFunc(picked, func(a, b string) int { return cmp.Or(compareTags(a, b), strings.Compare(a, b)) })
	return slices.Compact(picked)
}

func compareTags(a, b string) int {
	return kernel.CompareRPM(strings.TrimPrefix(a, "v"), strings.TrimPrefix(b, "v"))
}

func (g *gallery) ends(_ context.Context, o BisectOptions, result *Bisection) ([]kernel.Commit, error) {
	return g.between(o, g.pick, result)
}

// pick finds the image that the user means: by its reference, its tag, or the
// number of its layers.
func (g *gallery) pick(what string) (int, error) {
	found := -1
	for i, load := range g.loads {
		if what != load.Reference && what != g.commits[i].Title && !strings.HasSuffix(load.Reference, ":"+what) &&
			what != filepath.Base(load.Reference) && (load.Layers == 0 || what != fmt.Sprint(load.Layers)) {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("%s could be %s or %s: give its reference", what, g.commits[found].Title, g.commits[i].Title)
		}
		found = i
	}
	if found < 0 {
		var titles []string
		for _, c := range g.commits {
			titles = append(titles, c.Title)
		}
		return 0, fmt.Errorf("%s is none of the %ss %s", what, g.what, some(titles, 12))
	}
	return found, nil
}

func (g *gallery) identity() []string {
	names := []string{"kernel " + g.source.name()}
	for i := range g.loads {
		names = append(names, g.commits[i].Hash)
	}
	return names
}

// trial gets the one kernel.
func (g *gallery) trial(ctx context.Context, _ kernel.Commit) (Trial, error) {
	return g.source.trial(ctx)
}

// guest makes the guest with a candidate in it, of the images that are pinned.
func (g *gallery) guest(ctx context.Context, c kernel.Commit, pinned []Image, digest string) (*guest, Load, error) {
	i, err := g.find(c.Hash)
	if err != nil {
		return nil, Load{}, err
	}
	s := g.spec
	s.Images, pinned = slices.Clone(s.Images), slices.Clone(pinned)
	s.Images[g.at], pinned[g.at].Digest = g.loads[i], digest
	made, err := g.prepare(ctx, s, pinned)
	return made, g.loads[i], err
}

func (g *gallery) Close() error {
	g.source.Close()
	return nil
}
