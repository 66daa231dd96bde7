package corpus

import (
	"encoding/binary"
	"fmt"
	"strings"
)

const xattrRule = "File Attributes: xattrs, as SCHILY.xattr records"

// capability is cap_net_raw=ep in revision 2 (include/uapi/linux/capability.h).
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func xattrs() []Case {
	many := File("a", "A")
	manyLine := `a "A"`
	for i := range 40 {
		name := fmt.Sprintf("user.attribute-%02d", i)
		many = many.xattr(name, strings.Repeat("v", i+1))
		manyLine += fmt.Sprintf(" %s=%q", name, strings.Repeat("v", i+1))
	}
	return []Case{
		{Name: "xattr-capability", About: "file capabilities, on files with and without setuid", Rule: xattrRule + "; capabilities(7)",
			Layers: one(File("ping", "P").mode(0o755).xattr("security.capability", capability), File("su", "S").mode(0o4755).owner(0, 5).xattr("security.capability", capability)),
			Tree: tree(`ping "P" 0755 security.capability="\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
				su "S" 4755 0:5 security.capability="\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`)},
		{Name: "xattr-namespaces", About: "user., trusted. and security. on a file and a directory", Rule: xattrRule + "; xattr(7)",
			Layers: one(File("a", "A").xattr("user.u", "1").xattr("trusted.t", "2").xattr("security.s", "3"), Dir("d/").xattr("user.u", "4").xattr("trusted.t", "5").xattr("security.s", "6")),
			Tree: tree(`a "A" security.s="3" trusted.t="2" user.u="1"
				d/ security.s="6" trusted.t="5" user.u="4"`)},
		{Name: "xattr-on-special", About: "trusted. and security. on symlink, device and fifo", Rule: xattrRule + "; xattr(7)",
			Layers: one(Symlink("l", "x").xattr("trusted.t", "1").xattr("security.s", "2"), Device("c", TypeChar, 1, 3).xattr("trusted.t", "1"), Device("p", TypeFIFO, 0, 0).xattr("security.s", "1")),
			Tree: tree(`c c1:3 0600 trusted.t="1"
				l -> x security.s="2" trusted.t="1"
				p p 0600 security.s="1"`)},
		{Name: "xattr-overlay", About: "marks of overlayfs, which mean nothing in a layer but stay what they are", Rule: "overlayfs.rst; File Attributes: xattrs",
			Layers: layers(with(Dir("d/"), File("d/a", "A")), with(Dir("d/").xattr("trusted.overlay.opaque", "y").xattr("user.overlay.opaque", "y"))),
			Tree: tree(`d/ trusted.overlay.opaque="y" user.overlay.opaque="y"
				d/a "A"`),
			Umoci: Other{Paths: []string{"d"}, Why: "umoci leaves out trusted.overlay.opaque, lest overlayfs heed it; no overlayfs is made of a disk's directories"}},
		{Name: "xattr-values", About: "empty values, zero bytes, newlines and equal signs", Rule: xattrRule,
			Layers: one(File("a", "A").xattr("user.empty", "").xattr("user.zero", "\x00").xattr("user.odd", "\x00\xff=\n 12 path=x\n"), Dir("d/").xattr("trusted.empty", "")),
			Tree: tree(`a "A" user.empty="" user.odd="\x00\xff=\n 12 path=x\n" user.zero="\x00"
				d/ trusted.empty=""`),
			Umoci: Other{Paths: []string{"a", "d"}, Why: "archive/tar's old field, which umoci reads, drops empty values; containerd and docker read the records"}},
		{Name: "xattr-names", About: "names as long as they may be, with dots, colons and bytes that are no UTF-8", Rule: "XATTR_NAME_MAX",
			Layers: one(File("a", "A").xattr("user."+strings.Repeat("n", 250), "1").xattr("user.a.b:c", "2").xattr("user.\xff", "3").xattr("user. ", "4")),
			Tree:   []string{`a "A" user. ="4" user.a.b:c="2" user.` + strings.Repeat("n", 250) + `="1" user.` + "\xff" + `="3"`}},
		{Name: "xattr-large", About: "values that need a block of their own, on several files the same", Rule: xattrRule + "; Documentation/filesystems/ext4/attributes.rst",
			Layers: one(File("a", "A").xattr("user.big", strings.Repeat("v", 3900)), File("b", "B").xattr("user.big", strings.Repeat("w", 2000)).xattr("trusted.big", strings.Repeat("x", 1900)), File("c", "C").xattr("user.big", strings.Repeat("v", 3900))),
			Tree: tree(`a "A" user.big=3900 bytes
				b "B" trusted.big=1900 bytes user.big=2000 bytes
				c "C" user.big=3900 bytes`)},
		{Name: "xattr-many", About: "forty attributes: some fit beside the inode, the rest in a block", Rule: xattrRule,
			Layers: one(many), Tree: []string{manyLine}},
		{Name: "xattr-libarchive", About: "bsdtar's records in base64, alone and beside the others, which win", Rule: "libarchive tar(5), LIBARCHIVE.xattr; the specification wants SCHILY.xattr alone",
			Layers: one(File("a", "A").bsdtar("user.x:y", "hello").bsdtar("user.%", "\x00\xff"), File("b", "B").bsdtar("user.x", "bsd").xattr("user.x", "star")),
			Tree: tree(`a "A" user.%="\x00\xff" user.x:y="hello"
				b "B" user.x="star"`),
			Umoci: Other{Paths: []string{"a"}, Why: "umoci, containerd and docker read SCHILY.xattr alone; bsdtar writes both, so what only it wrote is kept"}},
		{Name: "xattr-foreign", About: "attributes of other systems, which Linux refuses to set on ext4", Rule: "tars made on macOS; containerd and docker ignore ENOTSUP",
			Layers: one(File("a", "A").xattr("com.apple.provenance", "\x01").xattr("user.x", "1")),
			Tree:   tree(`a "A" com.apple.provenance="\x01" user.x="1"`)},
		{Name: "xattr-user-on-special", About: "user. attributes where Linux has none: on symlinks, devices and fifos", Rule: "xattr(7): only on regular files and directories",
			Layers: one(Symlink("l", "x").xattr("user.x", "1").xattr("trusted.x", "2"), Device("p", TypeFIFO, 0, 0).xattr("user.x", "1")),
			Tree: tree(`l -> x trusted.x="2" user.x="1"
				p p 0600 user.x="1"`),
			Umoci: Other{Error: "operation not permitted", Why: "nothing can set them, so there is nothing to keep; docker leaves them out"}},
		{Name: "xattr-replaced", About: "an upper layer's entry brings the attributes anew: what it does not list is gone", Rule: replaceRule,
			Layers: layers(with(File("a", "A").xattr("user.one", "1").xattr("user.two", "2"), Dir("d/").xattr("user.one", "1")), with(File("a", "A").xattr("user.two", "3"), Dir("d/"))),
			Tree: tree(`a "A" user.two="3"
				d/`)},
	}
}

// acl is a list in the form of the system.posix_acl_* attributes
// (include/uapi/linux/posix_acl_xattr.h).
func acl(entries ...aclEntry) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// noID is in the entries that are not for a user or group by number.
const noID = 1<<32 - 1

func acls() []Case {
	named := acl(aclEntry{0x01, 6, noID}, aclEntry{0x02, 4, 1000}, aclEntry{0x02, 6, 70000}, aclEntry{0x04, 4, noID}, aclEntry{0x08, 5, 99999}, aclEntry{0x10, 6, noID}, aclEntry{0x20, 4, noID})
	plain := acl(aclEntry{0x01, 7, noID}, aclEntry{0x04, 5, noID}, aclEntry{0x20, 1, noID})
	masked := acl(aclEntry{0x01, 7, noID}, aclEntry{0x04, 7, noID}, aclEntry{0x10, 7, noID}, aclEntry{0x20, 7, noID})
	const rule = xattrRule + "; acl(5)"
	return []Case{
		{Name: "acl-access", About: "access lists with users and groups by number; the mode's group bits are the mask", Rule: rule,
			Layers: one(File("a", "A").mode(0o664).xattr("system.posix_acl_access", named), Dir("d/").mode(0o2664).owner(3, 4).xattr("system.posix_acl_access", named)),
			Tree:   []string{`a "A" 0664 system.posix_acl_access=` + brief(named), `d/ 2664 3:4 system.posix_acl_access=` + brief(named)}},
		{Name: "acl-default", About: "default lists of directories, as systemd's journal has them, which new files in them do not inherit here", Rule: rule,
			Layers: one(Dir("d/").xattr("system.posix_acl_default", named), File("d/a", "A"), Dir("d/e/"), Dir("f/").mode(0o751).xattr("system.posix_acl_default", plain)),
			Tree:   []string{`d/ system.posix_acl_default=` + brief(named), `d/a "A"`, `d/e/`, `f/ 0751 system.posix_acl_default=` + brief(plain)}},
		{Name: "acl-mode-differs", About: "a list that says another thing than the mode, which is set after it and wins", Rule: "containerd and moby: attributes, then chmod(2); fs/posix_acl.c, posix_acl_chmod",
			Layers: one(File("a", "A").mode(0o751).xattr("system.posix_acl_access", named), File("b", "B").mode(0o640).xattr("system.posix_acl_access", masked)),
			Tree:   []string{`a "A" 0751 system.posix_acl_access=` + brief(named), `b "B" 0640 system.posix_acl_access=` + brief(masked)},
			Umoci:  Other{Paths: []string{"a", "b"}, Why: "umoci sets the mode first, so that the list wins"}},
		{Name: "acl-minimal", About: "a list that says no more than the mode, of which nothing is kept", Rule: "fs/posix_acl.c, posix_acl_equiv_mode",
			Layers: one(File("a", "A").mode(0o751).xattr("system.posix_acl_access", plain)),
			Tree:   []string{`a "A" 0751 system.posix_acl_access=` + brief(plain)}},
		{Name: "acl-misplaced", About: "lists where Linux has none: on a symlink, and a default one on a file", Rule: "fs/posix_acl.c, set_posix_acl: EOPNOTSUPP, EACCES",
			Layers: one(Symlink("l", "x").xattr("system.posix_acl_access", named), File("a", "A").xattr("system.posix_acl_default", named)),
			Tree:   []string{`a "A" system.posix_acl_default=` + brief(named), `l -> x system.posix_acl_access=` + brief(named)},
			Umoci:  Other{Error: "permission denied", Why: "nothing can set them, so there is nothing to keep"}},
		{Name: "acl-text", About: "lists in the text form of star and of tar --acls are not kept", Rule: "star, SCHILY.acl.*; the specification wants SCHILY.xattr alone, and so do docker, containerd and umoci",
			Layers: one(File("a", "A").mode(0o664).record("SCHILY.acl.access", "user::rw-,user:bin:r--:2,group::r--,mask::rw-,other::r--"), Dir("d/").record("SCHILY.acl.default", "user::rwx\ngroup::r-x\nother::r-x\n")),
			Tree: tree(`a "A" 0664
				d/`)},
	}
}
