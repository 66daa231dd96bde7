package corpus

const whiteoutRule = "Whiteouts"

// timeOfParents is umoci's way with directories: it gives back its time to the
// one right above an entry, and to none above that or below a whiteout.
const timeOfParents = "umoci gives back its time only to the directory right above what changes"

// whiteouts are layers that hide single names of lower layers.
func whiteouts() []Case {
	return []Case{
		{Name: "whiteout-file", About: "a file is gone, its neighbour stays", Rule: whiteoutRule,
			Layers: layers(with(File("a", "A"), File("b", "B")), with(Whiteout("a"))),
			Tree:   tree(`b "B"`)},
		{Name: "whiteout-directory", About: "a whole tree is gone", Rule: whiteoutRule,
			Layers: layers(with(Dir("d/"), Dir("d/e/"), File("d/e/f", "F"), File("g", "")), with(Whiteout("d"))),
			Tree:   tree(`g`)},
		{Name: "whiteout-deep", About: "a whiteout four directories down, none of which its layer lists", Rule: whiteoutRule,
			Layers: layers(with(Dir("a/").mode(0o711), File("a/b/c/d", "D"), File("a/b/c/e", "E")), with(Whiteout("a/b/c/d"))),
			Tree: tree(`a/ 0711
				a/b/ implied
				a/b/c/ implied
				a/b/c/e "E"`),
			Umoci: Other{Paths: []string{"a"}, Why: timeOfParents}},
		{Name: "whiteout-special", About: "symlink, device and fifo are hidden as files are; what a symlink leads to is not", Rule: whiteoutRule,
			Layers: layers(with(File("target", "T"), Symlink("link", "target"), Device("null", TypeChar, 1, 3), Device("pipe", TypeFIFO, 0, 0)),
				with(Whiteout("link"), Whiteout("null"), Whiteout("pipe"))),
			Tree: tree(`target "T"`)},
		{Name: "whiteout-nothing", About: "what is hidden was never there, nor its directory, or its directory is a file", Rule: "umoci and containerd ignore it",
			Layers: layers(with(File("a", "A")), with(Whiteout("b"), Whiteout("no/where/c"), Whiteout("a/d"))),
			Tree:   tree(`a "A"`)},
		{Name: "whiteout-first-layer", About: "the lowest layer has nothing to hide", Rule: whiteoutRule,
			Layers: one(Whiteout("a"), File("a", "A"), File("d/x", "X"), Whiteout("d")),
			Tree: tree(`a "A"
				d/ implied
				d/x "X"`)},
		{Name: "whiteout-then-file", About: "the same layer makes the name anew, behind the whiteout", Rule: whiteoutRule,
			Layers: layers(with(File("a", "old").mode(0o4755)), with(Whiteout("a"), File("a", "new"))),
			Tree:   tree(`a "new"`)},
		{Name: "file-then-whiteout", About: "the same in the other order: a whiteout hides nothing of its own layer", Rule: whiteoutRule,
			Layers: layers(with(File("a", "old")), with(File("a", "new"), Whiteout("a"))),
			Tree:   tree(`a "new"`)},
		{Name: "whiteout-directory-made-anew", About: "hidden and made again: nothing of the old one shows through, not even its mode", Rule: whiteoutRule,
			Layers: layers(with(Dir("d/").mode(0o700).owner(7, 7).xattr("user.old", "1"), File("d/old", "O")), with(Whiteout("d"), Dir("d/"), File("d/new", "N"))),
			Tree: tree(`d/
				d/new "N"`)},
		{Name: "directory-made-anew-then-whiteout", About: "the same with the whiteout last", Rule: whiteoutRule,
			Layers: layers(with(Dir("d/").mode(0o700), File("d/old", "O"), File("d/s/old", "O")), with(Dir("d/"), File("d/new", "N"), Whiteout("d"))),
			Tree: tree(`d/
				d/new "N"`),
			Umoci: Other{Paths: []string{"d"}, Why: timeOfParents}},
		{Name: "whiteout-directory-implied-anew", About: "hidden and made again by what is in it alone", Rule: whiteoutRule,
			Layers: layers(with(Dir("d/").mode(0o700), File("d/old", "O")), with(File("d/new", "N"), Whiteout("d"))),
			Tree: tree(`d/ implied
				d/new "N"`),
			Umoci: Other{Paths: []string{"d"}, Why: "umoci hides what it has not unpacked yet: with the whiteout last, the old directory stays"}},
		{Name: "whiteout-parent-and-child", About: "a directory is hidden, and what is in it as well", Rule: whiteoutRule,
			Layers: layers(with(File("d/a", "A"), File("d/b", "B"), File("e", "")), with(Whiteout("d"), Whiteout("d/a"))),
			Tree:   tree(`e`)},
		{Name: "whiteout-child-of-hidden-made-anew", About: "a directory is hidden and made again while a name in it is hidden on its own", Rule: whiteoutRule,
			Layers: layers(with(File("d/a", "A"), File("d/b", "B")), with(Whiteout("d"), Dir("d/"), Whiteout("d/a"), File("d/c", "C"))),
			Tree: tree(`d/
				d/c "C"`)},
		{Name: "whiteout-and-back", About: "hidden in the second layer, back in the third, hidden in the fourth, back in the fifth", Rule: whiteoutRule,
			Layers: layers(with(File("a", "1")), with(Whiteout("a")), with(File("a", "3").mode(0o600)), with(Whiteout("a")), with(Dir("a/"))),
			Tree:   tree(`a/`)},
		{Name: "whiteout-two-layers-down", About: "what is hidden lies below a layer that does not speak of it", Rule: whiteoutRule,
			Layers: layers(with(File("d/a", "A")), with(File("d/b", "B")), with(Whiteout("d/a"))),
			Tree: tree(`d/ implied
				d/b "B"`)},
		{Name: "whiteout-with-content", About: "a whiteout that is no empty file: its name alone counts", Rule: "containerd, umoci: only the name is looked at",
			Layers: layers(with(File("a", "A"), File("b", "B")), with(File(".wh.a", "not empty"), Device(".wh.b", TypeChar, 0, 0))),
			Tree:   nil},
		{Name: "whiteout-odd-names", About: "hidden names that begin with dots or hold odd bytes", Rule: whiteoutRule,
			Layers: layers(with(File(".hidden", ""), File("..a", ""), File("a b\n*", ""), File("\xff", ""), File("k", "K")),
				with(Whiteout(".hidden"), Whiteout("..a"), Whiteout("a b\n*"), Whiteout("\xff"))),
			Tree: tree(`k "K"`)},
		{Name: "whiteout-glob", About: "a star in a whiteout is a star and no pattern", Rule: whiteoutRule,
			Layers: layers(with(File("a", ""), File("b", ""), File("*", "")), with(Whiteout("*"))),
			Tree: tree(`a
				b`)},
		{Name: "whiteout-dot-slash", About: "written ./ and with a leading slash, as GNU tar and old Docker do", Rule: whiteoutRule,
			Layers: layers(with(File("a", ""), File("d/b", ""), File("c", "")), with(Whiteout("./a"), Whiteout("/d/b"))),
			Tree: tree(`c
				d/ implied`)},
		{Name: "not-whiteouts", About: "names that only look like whiteouts", Rule: whiteoutRule,
			Layers: layers(with(File("x", "X")), with(File("wh.x", ""), File(".whx", ""), File(".wh", ""), File("a.wh.x", ""), File("..wh.x", ""))),
			Tree: tree(`..wh.x
				.wh
				.whx
				a.wh.x
				wh.x
				x "X"`)},
		{Name: "aufs-bookkeeping", About: "what Docker's first storage driver left in its layers is no part of the image, but files in plnk are targets of hard links", Rule: "aufs(5), .wh..wh.*; containerd archive/tar.go, whiteoutMetaPrefix",
			Layers: one(Dir(".wh..wh.plnk/"), File(".wh..wh.plnk/1.2", "A"), Hard("a", ".wh..wh.plnk/1.2"), Hard("b", ".wh..wh.plnk/1.2"), File(".wh..wh.aufs", ""), Dir(".wh..wh.orph/")),
			Tree: tree(`a "A"
				b = a`),
			Umoci: Other{Paths: []string{".", ".wh..wh.plnk", ".wh..wh.plnk/1.2", "a", "b"}, Why: "umoci takes the marks of aufs for whiteouts of other names"}},
		{Name: "aufs-below", About: "the same in a directory that nobody lists", Rule: "containerd archive/tar.go, whiteoutMetaPrefix",
			Layers: layers(with(File("d/keep", "K")), with(File(".wh..wh.plnk/1.2", "A"), Hard("d/a", ".wh..wh.plnk/1.2"), File("d/.wh..wh.orph/x", ""))),
			Tree: tree(`d/ implied
				d/a "A"
				d/keep "K"`),
			Umoci: Other{Paths: []string{".", ".wh..wh.plnk", ".wh..wh.plnk/1.2", "d", "d/.wh..wh.orph", "d/.wh..wh.orph/x", "d/a"}, Why: "umoci takes the marks of aufs for whiteouts of other names"}},
	}
}

// opaques are layers that hide all that lower layers have in a directory.
func opaques() []Case {
	const rule = "Opaque Whiteout"
	return []Case{
		{Name: "opaque", About: "the directory stays as it was, without its files", Rule: rule,
			Layers: layers(with(Dir("d/").mode(0o700), File("d/a", "A"), Dir("d/s/"), File("d/s/b", "B")), with(File("d/.wh..wh..opq", ""))),
			Tree:   tree(`d/ 0700`)},
		{Name: "opaque-then-files", About: "new files come behind the mark", Rule: rule,
			Layers: layers(with(Dir("d/").mode(0o700), File("d/a", "A")), with(Dir("d/"), File("d/.wh..wh..opq", ""), File("d/c", "C"))),
			Tree: tree(`d/
				d/c "C"`)},
		{Name: "files-then-opaque", About: "the specification's own example: the mark comes last and hides none of them", Rule: whiteoutRule,
			Layers: layers(with(Dir("a/"), Dir("a/b/"), Dir("a/b/c/"), File("a/b/c/bar", "B")),
				with(Dir("a/"), Dir("a/b/"), Dir("a/b/c/"), File("a/b/c/foo", "F"), File("a/.wh..wh..opq", ""))),
			Tree: tree(`a/
				a/b/
				a/b/c/
				a/b/c/foo "F"`),
			Umoci: Other{Paths: []string{"a/b/c"}, Why: timeOfParents}},
		{Name: "opaque-between-files", About: "the mark stands among the layer's own files", Rule: rule,
			Layers: layers(with(File("d/old", ""), File("d/s/old", "")), with(File("d/a", "A"), File("d/.wh..wh..opq", ""), File("d/b", "B"))),
			Tree: tree(`d/ implied
				d/a "A"
				d/b "B"`)},
		{Name: "opaque-replaces-same-name", About: "a file of the same name on both sides of the mark's layers", Rule: rule,
			Layers: layers(with(File("d/a", "old").mode(0o4755)), with(File("d/a", "new"), File("d/.wh..wh..opq", ""))),
			Tree: tree(`d/ implied
				d/a "new"`)},
		{Name: "opaque-root", About: "nothing of the lower layers is left", Rule: rule,
			Layers: layers(with(Dir("./").mode(0o700), File("a", ""), File("d/b", "")), with(File(".wh..wh..opq", ""), File("c", ""))),
			Tree: tree(`./ 0700
				c`),
			Umoci: Other{Paths: []string{"."}, Why: timeOfParents}},
		{Name: "opaque-deep", About: "four directories down, none listed", Rule: rule,
			Layers: layers(with(File("a/b/c/d/e", "E"), File("a/b/x", "X")), with(File("a/b/c/.wh..wh..opq", ""))),
			Tree: tree(`a/ implied
				a/b/ implied
				a/b/c/ implied
				a/b/x "X"`)},
		{Name: "opaque-every-depth", About: "a mark in each directory of a path", Rule: rule,
			Layers: layers(with(File("a/1", ""), File("a/b/2", ""), File("a/b/c/3", "")),
				with(File("a/.wh..wh..opq", ""), File("a/b/.wh..wh..opq", ""), File("a/b/c/.wh..wh..opq", ""), File("a/b/c/new", ""))),
			Tree: tree(`a/ implied
				a/b/ implied
				a/b/c/ implied
				a/b/c/new`),
		},
		{Name: "opaque-subdirectory-kept-by-name", About: "below the mark a directory is listed again: its old files are hidden all the same", Rule: rule,
			Layers: layers(with(File("d/s/old", ""), File("d/t/old", "")), with(File("d/.wh..wh..opq", ""), Dir("d/s/"), File("d/s/new", ""))),
			Tree: tree(`d/ implied
				d/s/
				d/s/new`)},
		{Name: "opaque-nothing", About: "a mark in a directory that is not there, and in one that is a file; neither makes one", Rule: "containerd makes the directory; the specification says nothing",
			Layers: layers(with(File("f", "F")), with(File("no/where/.wh..wh..opq", ""), File("f/.wh..wh..opq", ""))),
			Tree:   tree(`f "F"`)},
		{Name: "opaque-new-directory", About: "a mark in a directory that its layer makes, as overlayfs drivers write it", Rule: "docker, podman on overlay2: an opaque upper directory",
			Layers: one(Dir("d/"), File("d/.wh..wh..opq", ""), File("d/a", "A")),
			Tree: tree(`d/
				d/a "A"`)},
		{Name: "opaque-and-whiteout", About: "both ways of hiding in one directory", Rule: rule,
			Layers: layers(with(File("d/a", ""), File("d/b", "")), with(Whiteout("d/a"), File("d/.wh..wh..opq", ""), File("d/b", "B"))),
			Tree: tree(`d/ implied
				d/b "B"`)},
		{Name: "opaque-directory-over-file", About: "a file becomes a directory with a mark in it", Rule: rule,
			Layers: layers(with(File("d", "file")), with(Dir("d/"), File("d/.wh..wh..opq", ""), File("d/a", "A"))),
			Tree: tree(`d/
				d/a "A"`)},
		{Name: "opaque-twice", About: "two layers with marks, files of the layer between are hidden too", Rule: rule,
			Layers: layers(with(File("d/a", "")), with(File("d/.wh..wh..opq", ""), File("d/b", "")), with(File("d/.wh..wh..opq", ""), File("d/c", ""))),
			Tree: tree(`d/ implied
				d/c`)},
	}
}
