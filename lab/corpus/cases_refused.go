package corpus

import "strings"

// refusedNames are entries for which there is no place.
func refusedNames() []Case {
	const climbs = "path leads out of the root directory"
	bad := func(name, about, refused string, entries ...Entry) Case {
		return Case{Name: name, About: about, Rule: "engines fail, or clamp such names to the root", Refused: refused, Layers: one(entries...)}
	}
	return []Case{
		bad("bad-climbs", "a name that leads out", `entry "../corpus": `+climbs, File("../corpus", "")),
		bad("bad-climbs-absolute", "the same from the root", climbs, File("/../corpus", "")),
		bad("bad-climbs-later", "a name that leads out in its middle", climbs, File("a/../../corpus", "")),
		bad("bad-climbs-whiteout", "a whiteout outside", climbs, Whiteout("../corpus")),
		bad("bad-root-file", "the root as a file", "root directory", File("./", "").kind(TypeReg)),
		bad("bad-root-symlink", "the root as a link", "root directory", Symlink("/", "x")),
		bad("bad-empty-name", "a file without a name", "root directory", File("", "x")),
		bad("bad-name-256", "a name of 256 bytes", "256 bytes", File(strings.Repeat("n", 256), "")),
		bad("bad-name-256-directory", "a directory of that name in the middle of a path", "256 bytes", File("a/"+strings.Repeat("n", 256)+"/b", "")),
		bad("bad-name-256-in-symlink", "a link that leads to one", "256 bytes", Symlink("a", strings.Repeat("n", 256)), File("a/b", "")),
		bad("bad-path-4097", "a path of 4,097 bytes", "4097 bytes", File(strings.Repeat("0123456789abcde/", 256)+"n", "")),
		bad("bad-path-gnu", "a path of 4,400 bytes in GNU's form", "4400 bytes", File(strings.Repeat("abc/", 1100), "").form(GNU)),
		bad("bad-path-through-symlinks", "a path that becomes too long because of where links lead", "bytes; Linux opens at most", Symlink("a", strings.Repeat("0123456789abcde/", 250)), File("a/"+strings.Repeat("0123456789abcde/", 20)+"b", "")),
		bad("bad-whiteout-empty", "a whiteout of nothing", "whiteout of nothing", File("a", ""), File(".wh.", "")),
		bad("bad-whiteout-dot", "a whiteout of its own directory", "whiteout of nothing", File("a/b", ""), File("a/.wh..", "")),
		bad("bad-whiteout-dots", "a whiteout of the directory above", "whiteout of nothing", File("a/b", ""), File("a/.wh...", "")),
		bad("bad-below-whiteout", "a file in a directory that is called like a whiteout", "reserved", File(".wh.a/b", "")),
	}
}

// refusedLinks are links that lead nowhere or in circles.
func refusedLinks() []Case {
	const hardly = "engines fail: link(2)"
	bad := func(name, about, rule, refused string, entries ...Entry) Case {
		return Case{Name: name, About: about, Rule: rule, Refused: refused, Layers: one(entries...)}
	}
	return []Case{
		bad("bad-link-climbs", "a hard link's target outside", "engines fail, or clamp such names to the root", "path leads out of the root directory", Hard("a", "../../corpus")),
		bad("bad-link-dangles", "a hard link to nothing", hardly, `entry "a": hard link's target "b" does not exist`, Hard("a", "b")),
		bad("bad-link-forward", "a hard link in front of its target", hardly, "does not exist", Hard("a", "b"), File("b", "")),
		bad("bad-link-directory", "a hard link to a directory", hardly, "is a directory", Dir("d/"), Hard("a", "d")),
		bad("bad-link-root", "a hard link to the root", hardly, "root directory", Hard("a", "/")),
		bad("bad-link-below-file", "a hard link to what cannot be", hardly, "not a directory", File("a", ""), Hard("b", "a/c")),
		{Name: "bad-link-removed", About: "a hard link to what a lower layer has hidden", Rule: hardly, Refused: "does not exist",
			Layers: layers(with(File("a", "")), with(Whiteout("a")), with(Hard("b", "a")))},
		bad("bad-below-file", "a file below a file", "engines fail: open(2)", `"a" is not a directory`, File("a", ""), File("a/b", "")),
		bad("bad-below-device", "or below a device", "engines fail: open(2)", `"a" is not a directory`, Device("a", TypeChar, 1, 3), Dir("a/b/")),
		bad("bad-loop", "a file below links in a circle", "path_resolution(7): ELOOP", "symbolic links", Symlink("a", "b"), Symlink("b", "a"), File("a/c", "")),
		bad("bad-loop-self", "below a link to itself", "path_resolution(7): ELOOP", "symbolic links", Symlink("a", "a/a"), File("a/c", "")),
		{Name: "bad-loop-whiteout", About: "a whiteout below such links", Rule: "path_resolution(7): ELOOP", Refused: "symbolic links",
			Layers: layers(with(Symlink("a", "b"), Symlink("b", "a")), with(Whiteout("a/c")))},
		bad("bad-symlink-empty", "a link to nothing at all", "symlink(2): ENOENT", "target has 0 bytes", Symlink("a", "")),
		bad("bad-symlink-4096", "a link's target of 4,096 bytes", "symlink(2): ENAMETOOLONG", "target has 4096 bytes", Symlink("a", strings.Repeat("x", 4096))),
	}
}

// refusedValues are entries and archives that say what cannot be.
func refusedValues() []Case {
	bad := func(name, about, rule, refused string, layer Layer) Case {
		return Case{Name: name, About: about, Rule: rule, Refused: refused, Layers: []Layer{layer}}
	}
	ending := func(name, about, rule, refused string, layer Layer) Case {
		return Case{Name: name, About: about, Rule: rule, Refused: refused, By: ByPlain, Layers: []Layer{layer}}
	}
	entry := func(e Entry) Layer { return Layer{Entries: with(e)} }
	raw := func(f func([]byte) []byte) Layer {
		return Layer{Entries: with(File("a", strings.Repeat("a", 1000)), File("b", "B")), Raw: f}
	}
	return []Case{
		bad("bad-device", "a major number of 13 bits", "include/linux/kdev_t.h", "4096:0", entry(Device("d", TypeChar, 4096, 0))),
		bad("bad-device-minor", "a minor number of 21 bits", "include/linux/kdev_t.h", "0:1048576", entry(Device("d", TypeBlock, 0, 1<<20))),
		bad("bad-owner", "a user number of 33 bits", "uid_t has 32 bits", "4294967296:0", entry(File("a", "").owner(1<<32, 0))),
		bad("bad-owner-negative", "a negative one, in base 256", "uid_t has no sign", "-1:0", entry(File("a", "").owner(-1, 0).form(GNU))),
		{Name: "bad-owner-none", About: "the number that means no user", Rule: "chown(2): -1 changes nothing, and no file can be that user's", Refused: "owner 4294967295:0", By: ByDisk,
			Layers: []Layer{entry(File("a", "").owner(1<<32-1, 0))}},
		bad("bad-type", "a type that nobody knows", "POSIX ustar: A to Z are a vendor's own", "unknown type", entry(File("a", "").kind('V').form(USTAR))),
		bad("bad-xattr-name", "an attribute's name with an equal sign, which no record can hold", "POSIX pax", "name", entry(File("a", "").bsdtar("user.a=b", ""))),
		bad("bad-xattr-name-256", "an attribute's name of 256 bytes", "XATTR_NAME_MAX", "name", entry(File("a", "").xattr("user."+strings.Repeat("n", 251), ""))),
		bad("bad-xattr-64k", "a value of 65,537 bytes", "XATTR_SIZE_MAX", "65537 bytes", entry(File("a", "").xattr("user.a", strings.Repeat("x", 65537)))),
		bad("bad-xattr-base64", "a bsdtar record that is no base64", "libarchive tar(5)", "illegal base64", entry(File("a", "").record("LIBARCHIVE.xattr.user.a", "*"))),
		bad("bad-truncated", "an archive that breaks off in a file", "the end is missing", "truncated", raw(func(b []byte) []byte { return b[:1000] })),
		bad("bad-checksum", "a header whose sum is wrong", "POSIX ustar, chksum", "not a tar archive", raw(func(b []byte) []byte { b[0] = 'x'; return b })),
		ending("bad-garbage", "bytes behind the end of the archive", "files that one tool sees and another does not", "behind the end of the archive", raw(join([]byte("garbage")))),
		ending("bad-second-archive", "a second archive behind the first", "the same", "behind the end of the archive", raw(join(Tar(File("c", "C"))))),
		bad("bad-not-tar", "something that is no archive", "media-types.md", "not a tar archive", raw(func([]byte) []byte { return []byte(strings.Repeat("not a tar ", 100)) })),
		{Name: "bad-xattr-for-ext4", About: "attributes that are more than ext4 has room for: no kernel without ea_inode could set them", Rule: "Documentation/filesystems/ext4/attributes.rst", Refused: "extended attributes need", By: ByDisk,
			Layers: []Layer{entry(File("a", "").xattr("user.a", strings.Repeat("x", 4100)))}},
		{Name: "bad-acl", About: "an access list that the kernel would refuse", Rule: "fs/posix_acl.c, posix_acl_valid", Refused: "access control list", By: ByDisk,
			Layers: []Layer{entry(File("a", "").xattr("system.posix_acl_access", acl(aclEntry{0x01, 6, noID})))}},
	}
}
