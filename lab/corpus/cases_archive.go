package corpus

import (
	"bytes"
	"strings"
)

// archives are tars with odd ends.
func archives() []Case {
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	entries := with(Dir("d/"), File("d/a", "A"), File("b", strings.Repeat("b", 600)))
	left := tree(`b {3d0686a6}
		d/
		d/a "A"`)
	odd := func(name, about, rule string, raw func([]byte) []byte) Case {
		return Case{Name: name, About: about, Rule: rule, Layers: []Layer{{Entries: entries, Raw: raw}}, Tree: left}
	}
	return []Case{
		{Name: "layer-empty", About: "a layer of the end mark alone, above and below others, as old Docker writes for each step that changes nothing", Rule: "docker: sha256:a3ed95ca…",
			Layers: layers(nil, with(File("a", "A")), nil), Tree: tree(`a "A"`)},
		{Name: "layer-zero-bytes", About: "a layer of no bytes at all", Rule: "containerd, umoci: the end of the stream ends the archive",
			Layers: []Layer{{Raw: cut(1024)}, {Entries: with(File("a", "A"))}, {Raw: cut(1024), Packed: Gzip}}, Tree: tree(`a "A"`)},
		odd("end-missing", "an archive without an end mark", "writers that are not closed; all readers take the end of the file", cut(1024)),
		odd("end-one-block", "an end mark of one block", "old Go and Python writers", cut(512)),
		odd("end-padded", "zeros up to a whole record behind the end mark", "GNU tar -b 20", func(b []byte) []byte { return append(b, make([]byte, -len(b)&(20*512-1)+10240)...) }),
		odd("end-padded-odd", "zeros that are no whole block behind the end mark", "docker save, tar-split", func(b []byte) []byte { return append(b, make([]byte, 777)...) }),
		{Name: "same-layer-twice", About: "one blob that an image lists twice", Rule: "docker build, ADD of the same file",
			Layers: layers(with(File("a", "A")), with(File("a", "B"), File("c", "C")), with(File("a", "A"))),
			Tree: tree(`a "A"
				c "C"`)},
	}
}

// packings are the ways to compress a layer, and the wrong names for it.
func packings() []Case {
	entries := with(Dir("d/"), File("d/text", strings.Repeat("compress me ", 5000)), File("b", "B"), Hard("c", "d/text"))
	left := tree(`b "B"
		c {b5288b13}
		d/
		d/text = c`)
	packed := func(name, about, rule string, p Packing, mediaType string) Case {
		return Case{Name: name, About: about, Rule: rule, Layers: []Layer{{Entries: entries, Packed: p, Type: mediaType}, {Entries: with(File("b", "B")), Packed: p, Type: mediaType}}, Tree: left}
	}
	const oci, docker = "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"
	other := map[string]Other{
		"pack-mislabelled-plain": {Error: "unexpected EOF", Why: "umoci goes by the media type"},
		"pack-mislabelled-gzip":  {Error: "gzip: invalid header", Why: "umoci goes by the media type"},
		"pack-mislabelled-zstd":  {Error: "gzip: invalid header", Why: "umoci 0.4 knows no zstd"},
		"pack-docker-in-oci":     {Error: "blob is not correct mediatype", Why: "umoci knows OCI's types alone"},
		"foreign-docker":         noDocker,
	}
	noZstd := Other{Error: "blob is not correct mediatype", Why: "umoci 0.4 knows no zstd"}
	list := []Case{
		packed("pack-plain", "a layer as a plain tar", "media-types.md", Plain, ""),
		packed("pack-gzip", "the usual layer", "+gzip Media Types", Gzip, ""),
		packed("pack-gzip-members", "gzip in several members, one of them empty, cut inside headers", "RFC 1952, 2.2: members follow each other; pigz -i, estargz", GzipMembers, ""),
		packed("pack-gzip-header", "a gzip header with name, comment and extra field", "RFC 1952, 2.3", GzipHeader, ""),
		packed("pack-zstd", "zstd", "+zstd Media Types", Zstd, ""),
		packed("pack-zstd-frames", "zstd in several frames", "RFC 8878, 3.1; zstd:chunked of podman", ZstdFrames, ""),
		packed("pack-zstd-skippable", "frames without data in front and behind", "RFC 8878, 3.1.2; zstd:chunked, pzstd", ZstdSkippable, ""),
		packed("pack-mislabelled-plain", "a gzip layer that is called a plain one", "seen in registries; docker and containerd look at the bytes", Gzip, oci),
		packed("pack-mislabelled-gzip", "a plain layer that is called gzip", "seen in registries; docker and containerd look at the bytes", Plain, oci+"+gzip"),
		packed("pack-mislabelled-zstd", "a zstd layer that is called gzip", "seen in registries; docker and containerd look at the bytes", Zstd, oci+"+gzip"),
		packed("pack-docker-in-oci", "Docker's layer type in an OCI manifest", "manifests made from Docker's layers", Gzip, docker+".gzip"),
		packed("pack-docker-zstd", "Docker's zstd type", "containerd images.MediaTypeDockerSchema2LayerZstd", Zstd, docker+".zstd"),
		packed("foreign", "non-distributable layers that the registry holds all the same", "Non-Distributable Layers", Gzip, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
		packed("foreign-plain", "the same without compression", "Non-Distributable Layers", Plain, "application/vnd.oci.image.layer.nondistributable.v1.tar"),
		packed("foreign-zstd", "the same with zstd", "Non-Distributable Layers", Zstd, "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
		{Name: "foreign-docker", About: "Docker's foreign layers, with the address they come from, above a common one", Rule: "Docker image manifest v2 schema 2, foreign.diff.tar.gzip", Image: Docker,
			Layers: []Layer{{Entries: entries, Packed: Gzip, Type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", URLs: []string{"https://example.com/layer"}}, {Entries: with(File("b", "B")), Packed: Gzip}}, Tree: left},
		{Name: "pack-mixed", About: "each layer in another packing", Rule: "images built upon others",
			Layers: []Layer{{Entries: with(File("a", "1"), File("b", "1")), Packed: Gzip}, {Entries: with(File("a", "2"), File("c", "2")), Packed: Zstd}, {Entries: with(Whiteout("b"))}}, Tree: tree(`a "2"
				c "2"`)},
	}
	for i, c := range list {
		if list[i].Umoci = other[c.Name]; list[i].Umoci.Error != "" {
			continue
		}
		for _, l := range c.Layers {
			if l.Packed == Zstd || l.Packed == ZstdFrames || l.Packed == ZstdSkippable {
				list[i].Umoci = noZstd
			}
		}
	}
	return list
}

// noDocker is umoci with Docker's manifests, noIndex with an index.
var (
	noDocker = Other{Error: "not implemented: application/vnd.docker.distribution.manifest", Why: "umoci knows OCI's types alone"}
	noIndex  = Other{Error: "tag is ambiguous", Why: "umoci 0.4 chooses no platform"}
)

// shapes are the documents around the layers.
func shapes() []Case {
	shaped := func(name, about, rule string, s Shape, umoci Other) Case {
		return Case{Name: name, About: about, Rule: rule, Image: s, Umoci: umoci,
			Layers: []Layer{{Entries: with(File("a", "1"), File("gone", "")), Packed: Gzip}, {Entries: with(File("a", "2"), Whiteout("gone")), Packed: Gzip}}, Tree: tree(`a "2"`)}
	}
	return []Case{
		shaped("image-oci", "an OCI manifest", "manifest.md", OCI, Other{}),
		shaped("image-untyped", "a manifest that does not say its own media type", "manifest.md: mediaType SHOULD be used", Untyped, Other{}),
		shaped("image-docker", "Docker's manifest of schema 2", "Docker image manifest v2 schema 2", Docker, noDocker),
		shaped("image-index", "an index with three platforms, ours the last", "image-index.md", Index, noIndex),
		shaped("image-docker-list", "Docker's manifest list", "Docker image manifest v2 schema 2, manifest list", DockerList, noDocker),
		shaped("image-attested", "an index with an attestation for platform unknown/unknown in front", "BuildKit, attestation storage", Attested, noIndex),
		shaped("image-nested", "an index in an index", "image-index.md", Nested, noIndex),
		shaped("image-empty-history", "a history with more steps than layers", "config.md, empty_layer", EmptyHistory, Other{}),
		{Name: "image-docker-many", About: "Docker's manifest with packings that it has no name for", Rule: "containerd looks at the bytes", Image: Docker,
			Layers: []Layer{{Entries: with(File("a", "1"))}, {Entries: with(File("b", "2")), Packed: Zstd}}, Tree: tree(`a "1"
				b "2"`), Umoci: noDocker},
	}
}

// join is tars behind one another, which some readers see and others do not.
func join(behind []byte) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Join([][]byte{b, behind}, nil) }
}
