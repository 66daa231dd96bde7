package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"lab/kernel/kconfig"
	"lab/lab/bundle"
)

// OnlyMeasured is an outcome of DiffBundles: both bundles answer the same, and
// what differs was measured.
const OnlyMeasured = "only measurements differ"

// A BundleDiff says in what two bundles differ.
type BundleDiff struct {
	Outcome     string         `json:"outcome"` // Same, OnlyMeasured or Different
	Differences []BundleChange `json:"differences"`
}

// A BundleChange is in what two bundles differ, A and B.
type BundleChange struct {
	Member string `json:"member"`
	Field  string `json:"field,omitempty"` // of a member that has such: kernels[good].digest
	Was    string `json:"was"`             // in A, in one line; empty where there is none
	Is     string `json:"is"`              // in B
	// Measured says that it may differ between two bundles of the same answers: how
	// long something took, a console, the host, who signed.
	Measured bool `json:"measured"`
}

const (
	maxDifferences = 10_000
	maxCompared    = 8 << 20 // bytes of a member that is looked into; of larger ones the digests tell
)

// DiffBundles verifies two bundles and compares them, member by member, and these
// field by field or line by line.
func (l *Lab) DiffBundles(ctx context.Context, a, b BundleSource) (BundleDiff, error) {
	was, err := l.openBundle(ctx, a, true)
	if err != nil {
		return BundleDiff{}, err
	}
	defer was.Close()
	is, err := l.openBundle(ctx, b, true)
	if err != nil {
		return BundleDiff{}, err
	}
	defer is.Close()
	d := bundleDiffer{a: was.Bundle, b: is.Bundle}
	d.signatures()
	if err := d.manifests(); err != nil {
		return BundleDiff{}, err
	}
	if err := d.members(ctx); err != nil {
		return BundleDiff{}, err
	}
	found := BundleDiff{Outcome: Same, Differences: append([]BundleChange{}, d.found...)}
	for _, f := range d.found {
		if found.Outcome = OnlyMeasured; !f.Measured {
			found.Outcome = Different
			break
		}
	}
	return found, nil
}

// bundleDiffer compares two open bundles.
type bundleDiffer struct {
	a, b  *bundle.Bundle
	found []BundleChange
}

// add notes a difference. Those that are too many are not told, but one is.
func (d *bundleDiffer) add(f BundleChange) {
	if f.Field, f.Was, f.Is = oneLine(f.Field), oneLine(f.Was), oneLine(f.Is); len(d.found) < maxDifferences || !f.Measured && len(d.found) == maxDifferences {
		d.found = append(d.found, f)
	}
}

func (d *bundleDiffer) signatures() {
	who := func(b *bundle.Bundle) string {
		if b.Signature == nil {
			return ""
		}
		return b.Signature.Fingerprint
	}
	if a, b := who(d.a), who(d.b); a != b {
		d.add(BundleChange{Member: "SHA256SUMS.sig", Was: a, Is: b, Measured: true})
	}
}

// manifests compares all but the lists of members.
func (d *bundleDiffer) manifests() error {
	var sides [2]any
	for i, b := range []*bundle.Bundle{d.a, d.b} {
		m := b.Manifest
		m.Members = nil
		data, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("compare manifests: %w", err)
		}
		if sides[i], err = decodeAny(data); err != nil {
			return fmt.Errorf("compare manifests: %w", err)
		}
	}
	d.json("manifest.json", "", sides[0], sides[1])
	return nil
}

// members compares the members of both, in the order of the tar.
func (d *bundleDiffer) members(ctx context.Context) error {
	list := func(b *bundle.Bundle) map[string]bundle.Member {
		members := map[string]bundle.Member{}
		for _, m := range b.Manifest.Members {
			members[m.Name] = m
		}
		return members
	}
	size := func(m bundle.Member) string { return fmt.Sprintf("%d bytes", m.Size) }
	as, bs := list(d.a), list(d.b)
	for _, a := range d.a.Manifest.Members {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, both := bs[a.Name]
		switch {
		case !both:
			d.add(BundleChange{Member: a.Name, Was: size(a)})
		case a.Mode != b.Mode:
			d.add(BundleChange{Member: a.Name, Field: "mode", Was: fmt.Sprintf("%#o", a.Mode), Is: fmt.Sprintf("%#o", b.Mode)})
		}
		if both && a.SHA256 != b.SHA256 {
			if err := d.member(a, b); err != nil {
				return err
			}
		}
	}
	for _, b := range d.b.Manifest.Members {
		if _, both := as[b.Name]; !both {
			d.add(BundleChange{Member: b.Name, Is: size(b)})
		}
	}
	return nil
}

// isMeasured says whether a member is a measurement as a whole. What a guest's
// console says depends on the time it has; what the kernel died of is in
// trial.json. A build's log is that of what was still to be compiled. What is
// compressed has its content's digest in the manifest, and a page tells again what
// other members do.
func isMeasured(name string) bool {
	base := path.Base(name)
	return base == "console.log" || base == "build.log" || path.Ext(name) == ".gz" || name == "report.html"
}

// member compares two members of a name whose digests differ.
func (d *bundleDiffer) member(a, b bundle.Member) error {
	as, err := readMember(d.a, a)
	if err != nil {
		return err
	}
	bs, err := readMember(d.b, b)
	if err != nil {
		return err
	}
	before := len(d.found)
	switch {
	case as == nil || bs == nil || isMeasured(a.Name):
	case path.Base(a.Name) == "config":
		d.configs(a.Name, as, bs)
	case path.Ext(a.Name) == ".json":
		d.documents(a.Name, "", as, bs)
	case path.Ext(a.Name) == ".jsonl":
		d.lines(a.Name, as, bs)
	}
	if len(d.found) > before {
		return nil
	}
	f := BundleChange{Member: a.Name, Measured: isMeasured(a.Name)}
	if as == nil || bs == nil || !isText(as) || !isText(bs) {
		f.Was, f.Is = fmt.Sprintf("%d bytes, sha256:%.12s…", a.Size, a.SHA256), fmt.Sprintf("%d bytes, sha256:%.12s…", b.Size, b.SHA256)
		d.add(f)
		return nil
	}
	if ofGuest(a.Name) {
		as, bs = lasting(as), lasting(bs)
	}
	if n, was, is := firstOther(as, bs); n > 0 {
		f.Field, f.Was, f.Is = fmt.Sprintf("line %d", n), was, is
	} else {
		f.Field, f.Measured = "times, addresses and process numbers", true
	}
	d.add(f)
	return nil
}

// ofGuest says whether a member is what a guest printed, with its times.
func ofGuest(name string) bool { return strings.HasPrefix(name, "runs/") }

// readMember reads a member that is not too large to look into; of others it
// gives nil.
func readMember(b *bundle.Bundle, m bundle.Member) ([]byte, error) {
	if m.Size > maxCompared {
		return nil, nil
	}
	data, err := os.ReadFile(b.Path(m.Name))
	if err != nil {
		return nil, fmt.Errorf("compare bundles: %w", err)
	}
	return append([]byte{}, data...), nil
}

func isText(data []byte) bool { return utf8.Valid(data) && !bytes.ContainsRune(data, 0) }

// firstOther gives the first line, from 1, in which two texts differ.
func firstOther(a, b []byte) (n int, was, is string) {
	as, bs := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	at := func(lines []string, i int) string {
		if i < len(lines) {
			return lines[i]
		}
		return ""
	}
	for i := range max(len(as), len(bs)) {
		if was, is = at(as, i), at(bs, i); was != is {
			return i + 1, was, is
		}
	}
	return 0, "", ""
}

// configs compares the values of kernels' configurations. What is no
// configuration, or differs in comments alone, is left to the texts.
func (d *bundleDiffer) configs(name string, a, b []byte) {
	was, err := kconfig.Parse(bytes.NewReader(a))
	if err != nil {
		return
	}
	is, err := kconfig.Parse(bytes.NewReader(b))
	if err != nil {
		return
	}
	for _, c := range kconfig.Drift(was, is) {
		d.add(BundleChange{Member: name, Field: c.Symbol, Was: c.Was, Is: c.Is})
	}
}

// lines compares texts of one JSON value a line.
func (d *bundleDiffer) lines(name string, a, b []byte) {
	as, bs := bytes.Split(bytes.TrimSuffix(a, []byte("\n")), []byte("\n")), bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if len(as) != len(bs) {
		d.add(BundleChange{Member: name, Field: "lines", Was: fmt.Sprint(len(as)), Is: fmt.Sprint(len(bs))})
	}
	for i := range min(len(as), len(bs)) {
		if !bytes.Equal(as[i], bs[i]) {
			d.documents(name, fmt.Sprintf("line %d", i+1), as[i], bs[i])
		}
	}
}

// documents compares two JSON texts. What is none is left to the texts.
func (d *bundleDiffer) documents(name, field string, a, b []byte) {
	was, err := decodeAny(a)
	if err != nil {
		return
	}
	is, err := decodeAny(b)
	if err != nil {
		return
	}
	d.json(name, field, was, is)
}

func decodeAny(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one value: %w", err)
	}
	return v, nil
}

// measuredField has the names of fields that are measurements: how long something
// took, whether a kernel was in the cache already, or prepared in time, and QEMU's log of
// a run, which has all the moments at which something came.
var measuredField = regexp.MustCompile(`(_ns|^duration|^cached|^prepared|^recording)$`)

// json compares two decoded values, fields by name and elements by what they are
// called, or by number.
func (d *bundleDiffer) json(member, field string, a, b any) {
	name := field[strings.LastIndexByte(field, '.')+1:]
	f := BundleChange{
		Member: member, Field: field,
		Measured: measuredField.MatchString(name) || strings.Contains(field, ".recording.") || member == "manifest.json" && strings.HasPrefix(field, "host."),
	}
	join := func(key string) string { return strings.TrimPrefix(field+"."+key, ".") }
	switch was := a.(type) {
	case map[string]any:
		if is, ok := b.(map[string]any); ok {
			for _, key := range keysOf(was, is) {
				d.json(member, join(key), was[key], is[key])
			}
			return
		}
	case []any:
		if is, ok := b.([]any); ok {
			d.arrays(member, field, was, is)
			return
		}
	}
	if f.Was, f.Is = jsonText(a), jsonText(b); f.Was == f.Is {
		return
	}
	was, is := []byte(f.Was), []byte(f.Is)
	if ofGuest(member) { // a report of the kernel's, say
		was, is = lasting(was), lasting(is)
	}
	switch n, wasLine, isLine := firstOther(was, is); {
	case n == 0:
		f.Measured = true
	case strings.Contains(f.Was, "\n") && strings.Contains(f.Is, "\n"):
		f.Field, f.Was, f.Is = fmt.Sprintf("%s, line %d", field, n), wasLine, isLine
	}
	d.add(f)
}

// keysOf gives the keys of both, sorted.
func keysOf(a, b map[string]any) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// arrays compares two arrays: by the field that names each of their elements, if
// there is one, or else by their numbers.
func (d *bundleDiffer) arrays(member, field string, a, b []any) {
	for _, key := range []string{"dir", "name", "role"} {
		as, bs := named(a, key), named(b, key)
		if as == nil || bs == nil {
			continue
		}
		for _, name := range keysOf(as, bs) {
			d.json(member, field+"["+name+"]", as[name], bs[name])
		}
		return
	}
	at := func(list []any, i int) any {
		if i < len(list) {
			return list[i]
		}
		return nil
	}
	for i := range max(len(a), len(b)) {
		d.json(member, fmt.Sprintf("%s[%d]", field, i), at(a, i), at(b, i))
	}
}

// named gives the elements by their field key; nil where one has none, or two
// have the same.
func named(list []any, key string) map[string]any {
	m := map[string]any{}
	for _, v := range list {
		object, _ := v.(map[string]any)
		name, ok := object[key].(string)
		if _, twice := m[name]; !ok || twice {
			return nil
		}
		m[name] = v
	}
	return m
}

// jsonText is a value in one line: a text as it is, nothing for none.
func jsonText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error() // of what was decoded there is none
	}
	return string(data)
}
