package corpus

import (
	"slices"
	"strconv"
	"strings"
)

func number(n int) string { return strconv.Itoa(n) }

// names are names that are hard to write or to read.
func names() []Case {
	return []Case{
		{Name: "name-spellings", About: "./, a leading slash, doubled slashes, . and .. in the middle", Rule: "the specification's example has ./, Docker's layers have none, others a slash",
			Layers: one(File("./a", "1"), File("/b", "2"), File("c//d", "3"), File("./e/./f", "4"), File("x/../y", "5"), File("././/g", "6"), Dir(".//h//")),
			Tree: tree(`a "1"
				b "2"
				c/ implied
				c/d "3"
				e/ implied
				e/f "4"
				g "6"
				h/
				y "5"`)},
		{Name: "name-directory-without-slash", About: "a directory by its type alone", Rule: "POSIX ustar: typeflag 5",
			Layers: one(Dir("a"), File("a/b", "B"), Dir("./c"), Dir("d").form(USTAR)),
			Tree: tree(`a/
				a/b "B"
				c/
				d/`)},
		{Name: "name-old-directory", About: "a directory by its slash alone, with the type flags of before POSIX and of today's files", Rule: "tar(5), Old-Style Archive Format",
			Layers: one(Dir("a/").kind(TypeRegA).form(V7), File("a/b", "B").kind(TypeRegA).form(V7)),
			Tree: tree(`a/
				a/b "B"`)},
		{Name: "name-slash-on-others", About: "a slash behind the names of link, fifo and device", Rule: "archive/tar: the type counts",
			Layers: one(Symlink("l/", "x"), Device("p/", TypeFIFO, 0, 0), File("x", "X"), Hard("h/", "x")),
			Tree: tree(`h "X"
				l -> x
				p p 0600
				x = h`)},
		{Name: "name-file-with-slash", About: "a slash behind the name of a regular file, which stays one", Rule: "archive/tar: the type counts, but for that of before POSIX",
			Layers: one(File("a/", "A"), File("b/c/", "")),
			Tree: tree(`a "A"
				b/ implied
				b/c`)},
		{Name: "name-255", About: "names of 255 bytes for every kind of file", Rule: "NAME_MAX",
			Layers: one(Dir(strings.Repeat("d", 255)+"/"), File(strings.Repeat("d", 255)+"/"+strings.Repeat("f", 255), "F"), Symlink(strings.Repeat("l", 255), strings.Repeat("d", 255)),
				Hard(strings.Repeat("h", 255), strings.Repeat("d", 255)+"/"+strings.Repeat("f", 255))),
			Tree: tree(`dddddddddddddddddddd…ddddddddddddddddddd/(256)
				dddddddddddddddddddd…ffffffffffffffffffff(511) "F"
				hhhhhhhhhhhhhhhhhhhh…hhhhhhhhhhhhhhhhhhhh(255) = dddddddddddddddddddd…ffffffffffffffffffff(511)
				llllllllllllllllllll…llllllllllllllllllll(255) -> dddddddddddddddddddd…dddddddddddddddddddd(255)`)},
		{Name: "name-255-multibyte", About: "255 bytes in 85 characters", Rule: "NAME_MAX counts bytes",
			Layers: one(File(strings.Repeat("\u20ac", 85), "E")),
			Tree:   []string{strconv.Quote(strings.Repeat("\u20ac", 85)) + ` "E"`}},
		{Name: "name-not-utf8", About: "bytes that are no UTF-8, in PAX records and without", Rule: "POSIX pax wants UTF-8; file systems do not",
			Layers: one(File("latin-\xe9", "1"), File("\xff\xfe/\x80", "2"), Symlink("l", "\xc0\x80"), File("gnu-\xe9", "3").form(GNU), File("ustar-\xe9", "4").form(USTAR), Hard("h", "latin-\xe9")),
			Tree: tree(`"gnu-\xe9" "3"
				h "1"
				l -> "\xc0\x80"
				"latin-\xe9" = h
				"ustar-\xe9" "4"
				"\xff\xfe/" implied
				"\xff\xfe/\x80" "2"`)},
		{Name: "name-hdrcharset", About: "the record by which bsdtar says that names are bytes", Rule: "POSIX pax, hdrcharset=BINARY",
			Layers: one(File("\xe9", "1").record("hdrcharset", "BINARY")),
			Tree:   tree(`"\xe9" "1"`)},
		{Name: "name-odd-bytes", About: "newline, space, backslash, quotes, globs, control characters, a leading dash", Rule: "a name holds any byte but 0 and /",
			Layers: one(File("a\nb", ""), File(" ", ""), File(" lead", ""), File("trail ", ""), File(`back\slash`, ""), File(`\`, ""), File("*?[a]", ""), File(`"'`, ""), File("\x01\x7f", ""), File("-rf", ""), File("a=b", ""), File("#", ""), File("~", ""), File("%s%n", ""), File("tab\t", "")),
			Tree: tree(`"\x01\x7f"
				" "
				" lead"
				"\"'"
				"#"
				"%s%n"
				"*?[a]"
				-rf
				"\\"
				"a\nb"
				"a=b"
				"back\\slash"
				"tab\t"
				"trail "
				"~"`)},
		{Name: "name-dots", About: "names of dots that are not . and ..", Rule: "path_resolution(7)",
			Layers: one(File("...", "3"), File("..a", ""), File("a..", ""), Dir("d.../"), File(".a/..b/...c", "")),
			Tree: tree(`... "3"
				..a
				.a/ implied
				.a/..b/ implied
				.a/..b/...c
				a..
				d.../`)},
		{Name: "name-case", About: "names that differ in case or in how Unicode composes them", Rule: "ext4 without casefold",
			Layers: one(File("a", "1"), File("A", "2"), File("\u00e9", "3"), File("e\u0301", "4")),
			Tree: tree(`A "2"
				a "1"
				"e` + "\u0301" + `" "4"
				"` + "\u00e9" + `" "3"`)},
		{Name: "name-unix", About: "names that other systems keep to themselves", Rule: "names mean nothing to Linux",
			Layers: one(File("CON", ""), File("a:b", ""), File("lost+found/x", "X"), File("C:\\x", "")),
			Tree: tree(`"C:\\x"
				CON
				"a:b"
				"lost+found/" implied
				"lost+found/x" "X"`)},
	}
}

// longNames are names that do not fit a header.
func longNames() []Case {
	deep := strings.Repeat("deep-directory/", 10) // 150 bytes
	long := deep + strings.Repeat("n", 200)
	target := strings.Repeat("t", 150)
	dirs := slices.Clip(append(impliedTree(deep[:135]), quoteOdd(deep)))
	longCase := func(name, about, rule string, form Form) Case {
		return Case{Name: name, About: about, Rule: rule,
			Layers: one(Dir(deep).form(form), File(long, "L").form(form), Symlink("link", target+"/"+long).form(form), Hard("hard", long).form(form), File("short", "S").form(form)),
			Tree: append(dirs, tree(`deep-directory/deep-…nnnnnnnnnnnnnnnnnnnn(350) "L"
				hard = deep-directory/deep-…nnnnnnnnnnnnnnnnnnnn(350)
				link -> tttttttttttttttttttt…nnnnnnnnnnnnnnnnnnnn(501)
				short "S"`)...)}
	}
	path := strings.Repeat("0123456789abcde/", 255) // 4,080 bytes
	return []Case{
		longCase("longname-pax", "names and targets in PAX records", "POSIX pax, path and linkpath", PAX),
		longCase("longname-gnu", "names and targets in entries of their own", "GNU tar, types L and K", GNU),
		{Name: "longname-ustar", About: "names split over the two fields of a header", Rule: "POSIX ustar, prefix",
			Layers: one(File(strings.Repeat("a", 100), "1").form(USTAR), File(strings.Repeat("p", 155)+"/"+strings.Repeat("n", 100), "2").form(USTAR), Dir(deep).form(USTAR)),
			Tree: slices.Concat(tree(`aaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaaaaaaaaaa(100) "1"`), dirs, tree(`pppppppppppppppppppp…ppppppppppppppppppp/(156) implied
				pppppppppppppppppppp…nnnnnnnnnnnnnnnnnnnn(256) "2"`))},
		{Name: "longname-100", About: "names of 99, 100 and 101 bytes, with which a header's field is full, in every form", Rule: "ustar: a name of 100 bytes has no end mark",
			Layers: one(File(strings.Repeat("a", 99), "1").form(V7), File(strings.Repeat("b", 100), "2").form(V7), File(strings.Repeat("c", 100), "3").form(GNU), File(strings.Repeat("d", 101), "4").form(GNU),
				File(strings.Repeat("e", 100), "5"), File(strings.Repeat("f", 101), "6"), Symlink("l", strings.Repeat("a", 100)).form(V7)),
			Tree: tree(`aaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaaaaaaaaaa(99) "1"
				bbbbbbbbbbbbbbbbbbbb…bbbbbbbbbbbbbbbbbbbb(100) "2"
				cccccccccccccccccccc…cccccccccccccccccccc(100) "3"
				dddddddddddddddddddd…dddddddddddddddddddd(101) "4"
				eeeeeeeeeeeeeeeeeeee…eeeeeeeeeeeeeeeeeeee(100) "5"
				ffffffffffffffffffff…ffffffffffffffffffff(101) "6"
				l -> aaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaaaaaaaaaa(100)`)},
		{Name: "path-4095", About: "a path of 4,095 bytes, which is all that Linux opens", Rule: "PATH_MAX",
			Layers: one(Dir("x/"), File("x/"+path[2:]+"0123456789abcde", "P")),
			Tree:   append(append(tree(`x/`), impliedTree("x/" + path[2:])[1:]...), quoteOdd("x/"+path[2:]+"0123456789abcde")+` "P"`),
			Umoci:  Other{Error: "file name too long", Why: "the path is that long in the container, and longer where umoci unpacks it"}},
		{Name: "path-through-itself", About: "a symlink to itself makes longer paths, which nobody opens at once", Rule: "PATH_MAX",
			Layers: one(Symlink("self", "."), File(strings.Repeat("self/", 30)+"a", "A")),
			Tree: tree(`a "A"
				self -> .`)},
	}
}

// impliedTree is all directories of a path, none of them listed by a layer.
func impliedTree(p string) []string {
	var lines []string
	for at := range len(p) {
		if p[at] == '/' {
			lines = append(lines, quoteOdd(p[:at+1])+" implied")
		}
	}
	return lines
}
