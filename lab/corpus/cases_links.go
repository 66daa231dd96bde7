package corpus

import (
	"slices"
	"strings"
)

// parents are entries below symlinks. The specification does not speak of them;
// every engine follows such links inside the root, as if by chroot(2).
func parents() []Case {
	const rule = "containerd fs.RootPath, umoci securejoin: symlinks are followed inside the root"
	return []Case{
		{Name: "parent-symlink", About: "usr-merge: an entry below a link that a lower layer made", Rule: rule,
			Layers: layers(with(Dir("usr/"), Dir("usr/lib/"), Symlink("lib", "usr/lib")), with(File("lib/a", "A"))),
			Tree: tree(`lib -> usr/lib
				usr/
				usr/lib/
				usr/lib/a "A"`)},
		{Name: "parent-symlink-same-layer", About: "and that the same layer made", Rule: rule,
			Layers: one(Dir("usr/"), Symlink("lib", "usr"), File("lib/a", "A")),
			Tree: tree(`lib -> usr
				usr/
				usr/a "A"`)},
		{Name: "parent-absolute", About: "an absolute link begins at the image's root", Rule: rule,
			Layers: layers(with(Dir("usr/"), Symlink("d/lib", "/usr")), with(File("d/lib/a", "A"))),
			Tree: tree(`d/ implied
				d/lib -> /usr
				usr/
				usr/a "A"`)},
		{Name: "parent-climbs", About: "a link with more .. than there are directories ends at the root", Rule: rule,
			Layers: one(Dir("d/"), Symlink("d/up", "../../../../corpus"), File("d/up/a", "A")),
			Tree: tree(`corpus/ implied
				corpus/a "A"
				d/
				d/up -> ../../../../corpus`)},
		{Name: "parent-chain", About: "a link to a link to a link, relative and absolute", Rule: rule,
			Layers: layers(with(Dir("x/"), Dir("x/y/"), Symlink("a", "b"), Symlink("b", "/c"), Symlink("c", "x/../x/./y/")), with(File("a/f", "F"))),
			Tree: tree(`a -> b
				b -> /c
				c -> x/../x/./y/
				x/
				x/y/
				x/y/f "F"`)},
		{Name: "parent-in-the-middle", About: "links at several places of one path", Rule: rule,
			Layers: layers(with(Dir("r/s/"), Symlink("a", "r"), Symlink("r/s/t", "../../u"), Dir("u/")), with(File("a/s/t/f", "F"))),
			Tree: tree(`a -> r
				r/ implied
				r/s/
				r/s/t -> ../../u
				u/
				u/f "F"`)},
		{Name: "parent-dangling", About: "a link to what is not there yet, which is made", Rule: rule,
			Layers: one(Symlink("a", "b/c"), File("a/d", "D")),
			Tree: tree(`a -> b/c
				b/ implied
				b/c/ implied
				b/c/d "D"`)},
		{Name: "parent-loop-unused", About: "links in a circle that nothing is below", Rule: "symlink(2) looks at no target",
			Layers: one(Symlink("a", "b"), Symlink("b", "a"), Symlink("self", "self")),
			Tree: tree(`a -> b
				b -> a
				self -> self`)},
		{Name: "parent-root", About: "a link to the root", Rule: rule,
			Layers: one(Symlink("a", "/"), File("a/b", "B"), Symlink("c", "."), File("c/d", "D")),
			Tree: tree(`a -> /
				b "B"
				c -> .
				d "D"`)},
		{Name: "parent-link-not-replaced-by-implied", About: "missing parents do not take the place of a link", Rule: rule,
			Layers: layers(with(Dir("x/"), Symlink("a", "x")), with(File("a/s/t/f", "F"))),
			Tree: tree(`a -> x
				x/
				x/s/ implied
				x/s/t/ implied
				x/s/t/f "F"`),
			Umoci: Other{Paths: []string{"x"}, Why: timeOfParents}},
		{Name: "parent-directory-entry", About: "a directory listed below a link goes where the link leads", Rule: rule,
			Layers: layers(with(Dir("usr/"), Dir("usr/lib/").mode(0o700), File("usr/lib/a", "A"), Symlink("lib", "usr/lib")), with(Dir("lib/").mode(0o711))),
			Tree: tree(`lib/ 0711
				usr/
				usr/lib/ 0700
				usr/lib/a "A"`)},
		{Name: "whiteout-through-symlink", About: "a whiteout below a link hides what the link leads to", Rule: rule,
			Layers: layers(with(File("usr/a", "A"), File("usr/b", "B"), Symlink("lib", "usr")), with(Whiteout("lib/a"))),
			Tree: tree(`lib -> usr
				usr/ implied
				usr/b "B"`)},
		{Name: "opaque-through-symlink", About: "and so does an opaque mark", Rule: rule,
			Layers: layers(with(File("usr/a", "A"), File("usr/s/b", "B"), Symlink("lib", "/usr")), with(File("lib/.wh..wh..opq", ""), File("lib/c", "C"))),
			Tree: tree(`lib -> /usr
				usr/ implied
				usr/c "C"`)},
		{Name: "whiteout-of-symlink-to-directory", About: "the link is hidden, not the directory", Rule: whiteoutRule,
			Layers: layers(with(File("usr/a", "A"), Symlink("lib", "usr")), with(Whiteout("lib"))),
			Tree: tree(`usr/ implied
				usr/a "A"`)},
		{Name: "whiteout-below-replaced-symlink", About: "a layer puts a directory in the link's place, with a whiteout in it: the old target keeps its file", Rule: replaceRule,
			Layers: layers(with(File("usr/a", "A"), Symlink("lib", "usr")), with(Dir("lib/"), Whiteout("lib/a"))),
			Tree: tree(`lib/
				usr/ implied
				usr/a "A"`)},
		{Name: "symlink-targets", About: "links whose targets are of every odd form, none of which is changed", Rule: "symlink(2)",
			Layers: one(Symlink("a", "."), Symlink("b", "./x//y/../z/"), Symlink("c", "/"), Symlink("d", "//x"), Symlink("e", " \n\xff"), Symlink("f", strings.Repeat("t", 60)),
				Symlink("g", strings.Repeat("t", 59)), Symlink("h", strings.Repeat("../", 500)+"x"), Symlink("i", strings.Repeat("/0123456789abcde", 255)+"/0123456789abcd")),
			Tree: tree(`a -> .
				b -> ./x//y/../z/
				c -> /
				d -> //x
				e -> " \n\xff"
				f -> tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt
				g -> ttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt
				h -> ../../../../../../..…/../../../../../../x(1501)
				i -> /0123456789abcde/012…abcde/0123456789abcd(4095)`)},
		{Name: "symlink-modes", About: "Linux knows one mode for links, whatever the archive says", Rule: "symlink(7); builders without a file system write 0644, 0755 or nothing",
			Layers: one(Symlink("a", "x").mode(0), Symlink("b", "x").mode(0o644), Symlink("c", "x").mode(0o4755), Symlink("d", "x").owner(5, 6)),
			Tree: tree(`a -> x
				b -> x
				c -> x
				d -> x 5:6`)},
	}
}

// hardLinks are files with several names.
func hardLinks() []Case {
	const rule = "Hardlinks"
	return []Case{
		{Name: "hardlink", About: "two names, one file", Rule: rule,
			Layers: one(File("a", "A").mode(0o4711).owner(1, 2), Hard("b", "a")),
			Tree: tree(`a "A" 4711 1:2
				b = a`)},
		{Name: "hardlink-spellings", About: "targets written absolute, with ./ and with ..", Rule: rule,
			Layers: one(File("d/a", "A"), Hard("b", "/d/a"), Hard("c", "./d/a"), Hard("e", "x/../d//a")),
			Tree: tree(`b "A"
				c = b
				d/ implied
				d/a = b
				e = b`)},
		{Name: "hardlink-chain", About: "each name is a link to the one before", Rule: rule,
			Layers: one(File("a", "A"), Hard("b", "a"), Hard("c", "b"), Hard("d", "c")),
			Tree: tree(`a "A"
				b = a
				c = a
				d = a`)},
		{Name: "hardlink-empty", About: "of an empty file", Rule: rule,
			Layers: one(File("a", ""), Hard("b", "a")),
			Tree: tree(`a
				b = a`)},
		{Name: "hardlink-lower", About: "to a file of a lower layer", Rule: rule,
			Layers: layers(with(File("a", "A")), with(Hard("b", "a"))),
			Tree: tree(`a "A"
				b = a`)},
		{Name: "hardlink-lower-removed-later", About: "the name it was made from is hidden by a third layer", Rule: rule,
			Layers: layers(with(File("a", "A")), with(Hard("b", "a"), Hard("c", "a")), with(Whiteout("a"))),
			Tree: tree(`b "A"
				c = b`)},
		{Name: "hardlink-lower-replaced-later", About: "or given to another file", Rule: replaceRule,
			Layers: layers(with(File("a", "A")), with(Hard("b", "a"), Hard("c", "a")), with(File("a", "new"))),
			Tree: tree(`a "new"
				b "A"
				c = b`)},
		{Name: "hardlink-lower-removed-with-directory", About: "or goes with its directory", Rule: rule,
			Layers: layers(with(File("d/a", "A"), Hard("b", "d/a")), with(File("d", "file"))),
			Tree: tree(`b "A"
				d "file"`)},
		{Name: "hardlink-lower-opaque", About: "or below an opaque mark", Rule: rule,
			Layers: layers(with(File("d/a", "A")), with(Hard("d/b", "d/a"), Hard("c", "d/a")), with(File("d/.wh..wh..opq", ""))),
			Tree: tree(`c "A"
				d/ implied`)},
		{Name: "hardlink-then-whiteout", About: "the same layer hides the name the link is made from, behind it", Rule: whiteoutRule,
			Layers: layers(with(File("a", "A")), with(Hard("b", "a"), Whiteout("a"))),
			Tree:   tree(`b "A"`)},
		{Name: "whiteout-then-hardlink", About: "or in front of it", Rule: "no engine: containerd and umoci fail; the order in a layer must not matter",
			Layers: layers(with(File("d/a", "A")), with(Whiteout("d"), Hard("b", "d/a"))),
			Tree:   tree(`b "A"`),
			Umoci:  Other{Error: "no such file or directory", Why: "umoci applies in the order of the archive, though a whiteout must not depend on it"}},
		{Name: "whiteout-on-the-way-of-hardlink", About: "the same layer hides a symlink on the way to the target", Rule: "no engine: containerd and umoci fail; the order in a layer must not matter",
			Layers: layers(with(File("a/x", "X"), Symlink("l", "a")), with(Whiteout("l"), Hard("c", "l/x"))),
			Tree: tree(`a/ implied
				a/x "X"
				c = a/x`),
			Umoci: Other{Error: "no such file or directory", Why: "umoci applies in the order of the archive, though a whiteout must not depend on it"}},
		{Name: "hardlink-over-its-target", About: "a link to itself, as tar writes when it is given a name twice", Rule: "GNU tar, a file named twice",
			Layers: one(File("a", "A"), Hard("a", "a"), File("b", "B"), Hard("b", "./b")),
			Tree: tree(`a "A"
				b "B"`),
			Umoci: Other{Error: "no such file or directory", Why: "umoci removes the name before it links to it; GNU tar and bsdtar leave such an entry alone"}},
		{Name: "hardlink-over-file", About: "a name is taken from another file", Rule: replaceRule,
			Layers: layers(with(File("a", "A"), File("b", "B")), with(Hard("b", "a"))),
			Tree: tree(`a "A"
				b = a`)},
		{Name: "hardlink-over-directory", About: "or from a tree", Rule: replaceRule,
			Layers: layers(with(File("a", "A"), File("b/c", "C")), with(Hard("b", "a"))),
			Tree: tree(`a "A"
				b = a`)},
		{Name: "hardlink-to-symlink", About: "the link has two names, what it leads to one", Rule: "Hardlinks: possible with all file types except directories",
			Layers: one(File("x", "X"), Symlink("a", "x"), Hard("b", "a")),
			Tree: tree(`a -> x
				b = a
				x "X"`)},
		{Name: "hardlink-to-dangling-symlink", About: "even when it leads nowhere", Rule: rule,
			Layers: one(Symlink("a", "no/where"), Hard("b", "a")),
			Tree: tree(`a -> no/where
				b = a`)},
		{Name: "hardlink-to-symlink-lower", About: "and lies in a lower layer that is then replaced", Rule: rule,
			Layers: layers(with(Symlink("a", "x")), with(Hard("b", "a")), with(File("a", "A"))),
			Tree: tree(`a "A"
				b -> x`)},
		{Name: "hardlink-to-special", About: "of a device and a fifo", Rule: "Hardlinks: possible with all file types except directories",
			Layers: one(Device("null", TypeChar, 1, 3), Hard("zero", "null"), Device("pipe", TypeFIFO, 0, 0), Hard("pipe2", "pipe")),
			Tree: tree(`null c1:3 0600
				pipe p 0600
				pipe2 = pipe
				zero = null`)},
		{Name: "hardlink-through-symlink", About: "link and target below symlinked directories", Rule: "containerd fs.RootPath, umoci securejoin: symlinks are followed inside the root",
			Layers: one(File("usr/a", "A"), Symlink("l", "/usr"), Hard("b", "l/a"), Hard("l/c", "b")),
			Tree: tree(`b "A"
				l -> /usr
				usr/ implied
				usr/a = b
				usr/c = b`)},
		{Name: "hardlink-xattrs", About: "attributes are the file's, so of all its names", Rule: rule,
			Layers: one(File("a", "A").xattr("user.x", "1"), Hard("b", "a")),
			Tree: tree(`a "A" user.x="1"
				b = a`)},
		{Name: "hardlink-own-metadata", About: "a link entry that says another mode, owner and time than the file", Rule: "GNU tar and bsdtar heed only the name; containerd and moby apply what comes last",
			Layers: one(File("a", "A").mode(0o755), Hard("b", "a").mode(0).owner(7, 8).at(1, 0)),
			Tree: tree(`a "A" 0755
				b = a`)},
		{Name: "hardlink-with-content", About: "a link entry that brings the content again, as cpio and old bsdtar do", Rule: "pax(1): a link may carry data; archive/tar ignores the size of links",
			Layers: one(File("a", "A"), Hard("b", "a"), File("c", "C")),
			Tree: tree(`a "A"
				b = a
				c "C"`)},
		{Name: "hardlink-many", About: "three hundred names", Rule: rule, Layers: one(manyNames(300)...), Tree: manyNamesTree(300)},
		{Name: "hardlink-rewritten", About: "a file with two names is changed: the upper layer brings it again with both", Rule: "overlayfs with index=off: each name is copied up",
			Layers: layers(with(File("a", "old"), Hard("b", "a"), Hard("c", "a")), with(File("a", "new"), Hard("b", "a"))),
			Tree: tree(`a "new"
				b = a
				c "old"`)},
	}
}

func manyNames(n int) []Entry {
	list := with(File("a/0", "A"))
	for i := 1; i < n; i++ {
		list = append(list, Hard("a/"+number(i), "a/0"))
	}
	return list
}

func manyNamesTree(n int) []string {
	var lines []string
	for i := 1; i < n; i++ {
		lines = append(lines, "a/"+number(i)+" = a/0")
	}
	slices.Sort(lines)
	return append(tree(`a/ implied
		a/0 "A"`), lines...)
}
