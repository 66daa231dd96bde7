package corpus

// special are devices, fifos and the bits above the permissions.
func special() []Case {
	return []Case{
		{Name: "devices", About: "character and block devices, numbers small and as large as Linux has them", Rule: "File Types; include/linux/kdev_t.h: 12 and 20 bits",
			Layers: one(Device("null", TypeChar, 1, 3).mode(0o666), Device("zero", TypeChar, 0, 0), Device("sda1", TypeBlock, 8, 1).mode(0o660).owner(0, 6),
				Device("old", TypeChar, 255, 255), Device("major", TypeBlock, 256, 0), Device("minor", TypeChar, 0, 256), Device("last", TypeBlock, 4095, 1048575)),
			Tree: tree(`last b4095:1048575 0600
				major b256:0 0600
				minor c0:256 0600
				null c1:3 0666
				old c255:255 0600
				sda1 b8:1 0660 0:6
				zero c0:0 0600`)},
		{Name: "fifo", About: "a named pipe with an owner and attributes", Rule: "File Types",
			Layers: one(Device("pipe", TypeFIFO, 0, 0).mode(0o1622).owner(9, 9).xattr("trusted.x", "1")),
			Tree:   tree(`pipe p 1622 9:9 trusted.x="1"`)},
		{Name: "setuid", About: "setuid, setgid and sticky on files, with owners, whose change would clear them", Rule: "File Attributes; chown(2)",
			Layers: one(File("u", "x").mode(0o4755), File("g", "x").mode(0o2755).owner(0, 42), File("t", "x").mode(0o1644), File("all", "x").mode(0o7777).owner(1000, 1000), File("noexec", "x").mode(0o6644).owner(5, 5)),
			Tree: tree(`all "x" 7777 1000:1000
				g "x" 2755 0:42
				noexec "x" 6644 5:5
				t "x" 1644
				u "x" 4755`)},
		{Name: "setgid-directories", About: "and on directories; new files in a setgid directory have their own group", Rule: "File Attributes; inode(7)",
			Layers: one(Dir("u/").mode(0o4755), Dir("g/").mode(0o2775).owner(0, 50), File("g/f", "F").owner(3, 4), Dir("g/d/").mode(0o755).owner(3, 4), Dir("tmp/").mode(0o1777)),
			Tree: tree(`g/ 2775 0:50
				g/d/ 3:4
				g/f "F" 3:4
				tmp/ 1777
				u/ 4755`)},
		{Name: "no-permissions", About: "files and directories that nobody may read", Rule: "File Attributes",
			Layers: one(Dir("d/").mode(0), File("d/f", "F").mode(0), Symlink("d/l", "f")),
			Tree: tree(`d/ 0000
				d/f "F" 0000
				d/l -> f`)},
		{Name: "type-in-mode", About: "modes with the type's bits, as some writers repeat them", Rule: "archive/tar before Go 1.9, and moby since: fillGo18FileTypeBits",
			Layers: one(File("f", "F").mode(0o100640), Dir("d/").mode(0o40750), Symlink("l", "f").mode(0o120777), Device("p", TypeFIFO, 0, 0).mode(0o10600)),
			Tree: tree(`d/ 0750
				f "F" 0640
				l -> f
				p p 0600`)},
		{Name: "empty-directories", About: "directories with nothing in them", Rule: "File Types",
			Layers: one(Dir("a/"), Dir("a/b/"), Dir("c/").mode(0o1777)),
			Tree: tree(`a/
				a/b/
				c/ 1777`)},
		{Name: "file-sizes", About: "sizes around those of tar's and ext4's blocks", Rule: "ustar: data in blocks of 512",
			Layers: one(sized(511), sized(512), sized(513), sized(1024), sized(4095), sized(4096), sized(4097), sized(12288), sized(1<<20)),
			Tree: tree(`size-1024 {f90eb660}
				size-1048576 {c482a43e}
				size-12288 {fe0783c1}
				size-4095 {37e8608e}
				size-4096 {fe3210fb}
				size-4097 {619a168a}
				size-511 {ce660b4c}
				size-512 {cf731c16}
				size-513 {cfe28004}`)},
	}
}

// sized is a file of so many bytes, none of which is zero.
func sized(n int) Entry {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i%251) + 1
	}
	return File("size-"+number(n), string(b))
}
