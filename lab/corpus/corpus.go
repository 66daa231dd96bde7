// Package corpus is a collection of images that exercises the layer rules of
// the OCI image specification and the oddities that are seen in registries. Each
// case is data: what its layers hold, how they are written and packed, and what
// has to come out. Only tests import it.
//
// Three things answer for a case. [Case.Tree], written by hand, says what is
// left. [Case.Files] works it out by the layer rules from the entries themselves,
// in another way than package oci does and without reading a tar. And umoci
// unpacks it on the host, see [Umoci]. The guest's kernel is the fourth: it says
// what became of it on a disk.
//
// References to the specification are to opencontainers/image-spec v1.1,
// layer.md unless another file is named.
package corpus

import (
	"slices"
	"strings"

	"lab/lab/corpus/listing"
)

// Case is one image.
type Case struct {
	Name  string // letters, digits and dashes: it names a container
	About string // what is odd about it
	Rule  string // where the rule is written, or who makes images like this
	// Layers, the lowest first.
	Layers []Layer
	Image  Shape
	// Tree is what is left, a line for each path as [Case.Describe] writes it.
	Tree []string
	// Refused is part of the error of a case that must be refused, which goes on
	// to name image, layer and entry. By says who refuses.
	Refused string
	By      Stage
	// Umoci is what umoci does otherwise, and why that is not followed.
	Umoci Other
}

// Stage is where a case is refused.
type Stage int

// The stages.
const (
	ByPull  Stage = iota // the image is pulled and flattened
	ByPlain              // as ByPull, and no layer or entry is to blame
	ByDisk               // the disk is written
)

// Other is what another implementation does with a case.
type Other struct {
	Error string   // part of the error with which it refuses the case
	Paths []string // at which it differs
	Why   string   // reason in either case
}

// Layer is one layer.
type Layer struct {
	Entries []Entry
	Raw     func([]byte) []byte // makes the tar of the entries another
	Packed  Packing
	Type    string   // media type; empty: the one of the image's dialect and packing
	URLs    []string // of a foreign layer
}

// Packing is how a layer is compressed.
type Packing int

// The packings. The last four are streams in pieces, as pigz, pzstd, estargz,
// zstd:chunked and concatenation make them.
const (
	Plain Packing = iota
	Gzip
	Zstd
	GzipMembers   // several members one after the other
	ZstdFrames    // several frames
	ZstdSkippable // skippable frames in front of and behind the data
	GzipHeader    // a header with name, comment and extra field
)

// Shape is what an image's documents look like.
type Shape int

// The shapes.
const (
	OCI          Shape = iota // an OCI manifest
	Untyped                   // an OCI manifest without its media type
	Docker                    // Docker's schema 2
	Index                     // an OCI index of several platforms
	DockerList                // a Docker manifest list
	Attested                  // an index as BuildKit makes it, with an attestation
	Nested                    // an index in an index
	EmptyHistory              // a history with steps that made no layer
)

// All is every case, in a fixed order.
func All() []Case {
	return slices.Concat(whiteouts(), opaques(), replaced(), parents(), hardLinks(), special(), names(), longNames(),
		numbers(), times(), xattrs(), acls(), sparse(), duplicates(), archives(), packings(), shapes(),
		refusedNames(), refusedLinks(), refusedValues())
}

// Good is the cases that must work.
func Good() []Case { return pick(func(c Case) bool { return c.Refused == "" }) }

// Refused is the cases that must not.
func Refused() []Case { return pick(func(c Case) bool { return c.Refused != "" }) }

func pick(want func(Case) bool) []Case {
	return slices.DeleteFunc(All(), func(c Case) bool { return !want(c) })
}

// Files is what the layer rules leave of the case, on a file system without
// limits.
func (c Case) Files() []listing.File {
	var layers [][]Entry
	for _, l := range c.Layers {
		layers = append(layers, l.Entries)
	}
	return Apply(layers)
}

// one is a case's single layer, layers several.
func one(entries ...Entry) []Layer { return []Layer{{Entries: entries}} }

func layers(list ...[]Entry) []Layer {
	var all []Layer
	for _, l := range list {
		all = append(all, Layer{Entries: l})
	}
	return all
}

// with is the entries of one layer of several.
func with(entries ...Entry) []Entry { return entries }

// tree splits the lines of a Case.Tree, written as one text.
func tree(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
