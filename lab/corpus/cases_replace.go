package corpus

const replaceRule = "Changeset over existing files"

// replaced are names that an upper layer gives to something else.
func replaced() []Case {
	return []Case{
		{Name: "no-layers", About: "an image of nothing", Rule: "docker build FROM scratch", Layers: nil, Tree: nil},
		{Name: "file-over-file", About: "nothing of the old file is left: mode, owner, attributes", Rule: replaceRule,
			Layers: layers(with(File("a", "old").mode(0o4711).owner(1, 2).xattr("user.x", "1")), with(File("a", "new"))),
			Tree:   tree(`a "new"`)},
		{Name: "shorter-over-longer", About: "nothing of a longer file shows behind a shorter one", Rule: replaceRule,
			Layers: layers(with(File("a", "a long content")), with(File("a", "b"))),
			Tree:   tree(`a "b"`)},
		{Name: "empty-over-file", About: "an empty file replaces one with content", Rule: replaceRule,
			Layers: layers(with(File("a", "A")), with(File("a", ""))),
			Tree:   tree(`a`)},
		{Name: "metadata-only", About: "chmod and chown in an upper layer bring the whole file again", Rule: "docker build, RUN chmod",
			Layers: layers(with(File("a", "A")), with(File("a", "A").mode(0o2750).owner(33, 33))),
			Tree:   tree(`a "A" 2750 33:33`)},
		{Name: "file-over-directory", About: "a tree gives way to a file", Rule: replaceRule,
			Layers: layers(with(File("a/b/c", "C"), File("a/d", "D")), with(File("a", "A"))),
			Tree:   tree(`a "A"`)},
		{Name: "directory-over-file", About: "a file gives way to a tree", Rule: replaceRule,
			Layers: layers(with(File("a", "A")), with(Dir("a/"), File("a/b", "B"))),
			Tree: tree(`a/
				a/b "B"`)},
		{Name: "symlink-over-directory", About: "usr-merge: a directory becomes a link", Rule: replaceRule,
			Layers: layers(with(File("lib/b", "B"), Dir("usr/"), Dir("usr/lib/")), with(Symlink("lib", "usr/lib"))),
			Tree: tree(`lib -> usr/lib
				usr/
				usr/lib/`)},
		{Name: "directory-over-symlink", About: "the link is replaced, and what it led to stays", Rule: replaceRule,
			Layers: layers(with(Dir("x/").mode(0o711), File("x/y", "Y"), Symlink("a", "x")), with(Dir("a/"), File("a/b", "B"))),
			Tree: tree(`a/
				a/b "B"
				x/ 0711
				x/y "Y"`)},
		{Name: "file-over-symlink", About: "the link's target is not written through it", Rule: replaceRule,
			Layers: layers(with(File("x", "X"), Symlink("a", "x")), with(File("a", "A"))),
			Tree: tree(`a "A"
				x "X"`)},
		{Name: "file-over-absolute-symlink", About: "the same where the link's target is absolute", Rule: replaceRule,
			Layers: layers(with(File("etc/x", "X"), Symlink("a", "/etc/x")), with(File("a", "A"))),
			Tree: tree(`a "A"
				etc/ implied
				etc/x "X"`)},
		{Name: "symlink-over-file", About: "and the other way round", Rule: replaceRule,
			Layers: layers(with(File("x", "X"), File("a", "A")), with(Symlink("a", "x"))),
			Tree: tree(`a -> x
				x "X"`)},
		{Name: "symlink-over-symlink", About: "a link turns to another place", Rule: replaceRule,
			Layers: layers(with(Symlink("a", "x")), with(Symlink("a", "/y"))),
			Tree:   tree(`a -> /y`)},
		{Name: "device-over-file", About: "every other kind of file in turn", Rule: replaceRule,
			Layers: layers(with(File("a", "A"), Dir("b/"), File("b/x", ""), Symlink("c", "a"), Device("d", TypeChar, 1, 3)),
				with(Device("a", TypeChar, 1, 3), Device("b", TypeFIFO, 0, 0), Device("c", TypeBlock, 8, 1), File("d", "D"))),
			Tree: tree(`a c1:3 0600
				b p 0600
				c b8:1 0600
				d "D"`)},
		{Name: "directory-metadata", About: "mode, owner, time and attributes of a directory change; what is in it stays", Rule: replaceRule,
			Layers: layers(with(Dir("d/").xattr("user.old", "1"), File("d/a", "A"), File("d/s/b", "B")), with(Dir("d/").mode(0o3770).owner(5, 6).at(77, 88).xattr("user.new", "2"))),
			Tree: tree(`d/ 3770 5:6 user.new="2" @77.000000088
				d/a "A"
				d/s/ implied
				d/s/b "B"`)},
		{Name: "directory-implied-then-listed", About: "a directory that only its files speak of, until an upper layer lists it", Rule: replaceRule,
			Layers: layers(with(File("d/a", "A")), with(Dir("d/").mode(0o750))),
			Tree: tree(`d/ 0750
				d/a "A"`)},
		{Name: "directory-listed-then-implied", About: "an upper layer adds a file and does not list the directory, which stays as it is", Rule: replaceRule,
			Layers: layers(with(Dir("d/").mode(0o750).owner(1, 1), File("d/a", "A")), with(File("d/b", "B"))),
			Tree: tree(`d/ 0750 1:1
				d/a "A"
				d/b "B"`)},
		{Name: "directory-after-its-files", About: "a directory comes behind what is in it", Rule: "tars that were put together by program",
			Layers: one(File("d/a", "A"), File("d/s/b", "B"), Dir("d/s/").mode(0o700), Dir("d/").mode(0o711)),
			Tree: tree(`d/ 0711
				d/a "A"
				d/s/ 0700
				d/s/b "B"`)},
		{Name: "missing-parents", About: "none of the directories is listed", Rule: "ko, Bazel and other builders without a file system",
			Layers: one(File("a/b/c/d", "D"), Symlink("e/f", "../a"), Dir("g/h/")),
			Tree: tree(`a/ implied
				a/b/ implied
				a/b/c/ implied
				a/b/c/d "D"
				e/ implied
				e/f -> ../a
				g/ implied
				g/h/`)},
		{Name: "root-entry", About: "the root has mode, owner and time", Rule: "the specification's own example begins with ./",
			Layers: one(Dir("./").mode(0o1700).owner(7, 8).at(5, 6), File("./a", "A")),
			Tree: tree(`./ 1700 7:8 @5.000000006
				a "A"`)},
		{Name: "root-entry-slash", About: "the root as / and ., changed by upper layers", Rule: "jib, buildah",
			Layers: layers(with(Dir("/").mode(0o700), File("/a", "A")), with(Dir(".").mode(0o711).owner(1, 1)), with(File("b", "B"))),
			Tree: tree(`./ 0711 1:1
				a "A"
				b "B"`)},
		{Name: "root-entry-no-name", About: "the root as a directory without a name", Rule: "path.Clean makes it .",
			Layers: one(File("a", "A"), Dir("").mode(0o711)),
			Tree: tree(`./ 0711
				a "A"`)},
		{Name: "layers-127", About: "as many layers as aufs could lay upon one another, each changing the same file and adding one", Rule: "aufs: 127 branches; moby layer/layer_store.go: maxLayerDepth = 125",
			Layers: manyLayers(127), Tree: manyLayersTree(127)},
	}
}

func manyLayers(n int) []Layer {
	var list []Layer
	for i := range n {
		name := string(rune('a'+i/26)) + string(rune('a'+i%26))
		list = append(list, Layer{Entries: with(File("same", name), File("d/"+name, name), Whiteout("d/only"))})
	}
	return list
}

func manyLayersTree(n int) []string {
	lines := tree(`d/ implied`)
	last := ""
	for i := range n {
		last = string(rune('a'+i/26)) + string(rune('a'+i%26))
		lines = append(lines, "d/"+last+` "`+last+`"`)
	}
	return append(lines, `same "`+last+`"`)
}

// duplicates break layer.md's rule that an archive must not hold two entries
// for one path. Tools make them all the same, and all readers let the last win.
func duplicates() []Case {
	const rule = "Distributable Format: MUST NOT include duplicate entries; tar -r makes them"
	return []Case{
		{Name: "duplicate-file", About: "a file three times", Rule: rule,
			Layers: one(File("a", "1"), File("b", ""), File("a", "22").mode(0o600), File("a", "3")),
			Tree: tree(`a "3"
				b`)},
		{Name: "duplicate-directory", About: "a directory twice, with another mode, around its files", Rule: rule,
			Layers: one(Dir("d/").mode(0o700).xattr("user.one", "1"), File("d/a", "A"), Dir("d/").mode(0o711)),
			Tree: tree(`d/ 0711
				d/a "A"`)},
		{Name: "duplicate-file-then-directory", About: "the same name as a file and then as a directory", Rule: rule,
			Layers: one(File("a", "1"), Dir("a/"), File("a/b", "B")),
			Tree: tree(`a/
				a/b "B"`)},
		{Name: "duplicate-directory-then-file", About: "and the other way round, with files in it", Rule: rule,
			Layers: one(Dir("a/"), File("a/b", "B"), File("a", "2")),
			Tree:   tree(`a "2"`)},
		{Name: "duplicate-symlink-then-file", About: "a link that the same layer replaces is not written through", Rule: rule,
			Layers: one(File("x", "X"), Symlink("a", "x"), File("a", "A")),
			Tree: tree(`a "A"
				x "X"`)},
		{Name: "duplicate-symlink-then-directory", About: "what comes behind the directory goes into it, what came before went through the link", Rule: rule,
			Layers: one(Dir("x/"), Symlink("a", "x"), File("a/before", "B"), Dir("a/"), File("a/after", "A")),
			Tree: tree(`a/
				a/after "A"
				x/
				x/before "B"`)},
		{Name: "duplicate-spellings", About: "one file under several spellings of its name", Rule: rule,
			Layers: one(File("a", "1"), File("./a", "2"), File("/a", "3"), File("d/../a", "4")),
			Tree:   tree(`a "4"`)},
		{Name: "duplicate-of-linked", About: "a file with two names comes again under one of them: the other keeps the old", Rule: rule,
			Layers: one(File("a", "old"), Hard("b", "a"), File("a", "new")),
			Tree: tree(`a "new"
				b "old"`)},
		{Name: "duplicate-whiteout", About: "a whiteout twice", Rule: rule,
			Layers: layers(with(File("a", ""), File("b", "B")), with(Whiteout("a"), Whiteout("a"))),
			Tree:   tree(`b "B"`)},
	}
}
