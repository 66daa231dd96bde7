package corpus

import "lab/lab/corpus/listing"

// numbers are owners, modes and sizes in every notation that tar has.
func numbers() []Case {
	return []Case{
		{Name: "owners", About: "around 2^16, where old file systems end, 2^21, where a header's field ends, and 2^31", Rule: "File Attributes; POSIX pax, uid and gid",
			Layers: one(File("a", "").owner(65534, 65535), File("b", "").owner(65535, 65536), File("c", "").owner(2097151, 2097152), File("d", "").owner(1<<31-1, 1<<31), Dir("e/").owner(1<<31, 1<<32-2), Symlink("f", "a").owner(1<<32-2, 70000)),
			Tree: tree(`a 65534:65535
				b 65535:65536
				c 2097151:2097152
				d 2147483647:2147483648
				e/ 2147483648:4294967294
				f -> a 4294967294:70000`)},
		{Name: "owners-gnu", About: "the same numbers in base 256, which may also stand for small ones", Rule: "GNU tar, Basic Tar Format: base-256",
			Layers: one(File("a", "A").owner(65536, 2097152).form(GNU), File("b", "B").owner(1<<31, 1<<32-2).form(GNU), File("c", "C").owner(1, 2).mode(0o4755).form(GNUBinary), Dir("d/").owner(1<<32-2, 0).form(GNUBinary),
				Device("e", TypeChar, 1, 300).form(GNUBinary)),
			Tree: tree(`a "A" 65536:2097152
				b "B" 2147483648:4294967294
				c "C" 4755 1:2
				d/ 4294967294:0
				e c1:300 0600`)},
		{Name: "owner-names", About: "names of users and groups, which count for nothing: the number does", Rule: "File Attributes: uname secondary to uid",
			Layers: one(Entry{Name: "a", Type: TypeReg, Mode: 0o644, UID: 5, GID: 6, User: "daemon", Group: "nosuchgroup", Time: aTime}, Entry{Name: "b", Type: TypeReg, Mode: 0o644, User: "not\xffutf8", Time: aTime}),
			Tree: tree(`a 5:6
				b`)},
		{Name: "ustar", About: "everything in plain ustar", Rule: "POSIX ustar",
			Layers: one(Dir("d/").form(USTAR), File("d/a", "A").owner(7, 8).form(USTAR), Symlink("l", "d/a").form(USTAR), Hard("h", "d/a").form(USTAR), Device("c", TypeChar, 5, 1).form(USTAR), Device("p", TypeFIFO, 0, 0).form(USTAR)),
			Tree: tree(`c c5:1 0600
				d/
				d/a "A" 7:8
				h = d/a
				l -> d/a
				p p 0600`)},
		{Name: "v7", About: "headers of before POSIX, with the type flag of those days", Rule: "tar(5), Old-Style Archive Format",
			Layers: one(File("a", "A").kind(TypeRegA).form(V7), Symlink("l", "a").form(V7), Hard("h", "a").form(V7), File("e", "").kind(TypeRegA).form(V7)),
			Tree: tree(`a "A"
				e
				h = a
				l -> a`)},
		{Name: "typeflag-old-and-contiguous", About: "type flags zero and 7, which are plain files to everybody", Rule: "POSIX ustar: typeflag NUL and 7",
			Layers: one(File("a", "A").kind(TypeRegA), File("b", "B").kind(TypeCont), File("c", "C").kind(TypeCont).form(GNU)),
			Tree: tree(`a "A"
				b "B"
				c "C"`),
			Umoci: Other{Error: "unknown typeflag", Why: "type 7 is to be taken for a regular file where there are no contiguous ones"}},
		{Name: "mixed-forms", About: "every dialect in one archive", Rule: "cat and tar -A make such",
			Layers: one(File("a", "A").form(V7), File("b", "B").form(USTAR), File("c", "C").form(GNU), File("d", "D").at(1, 5), holes("e", GNUSparse, 4096, Span{0, "E"}), File("f", "F").form(V7)),
			Tree: tree(`a "A"
				b "B"
				c "C"
				d "D" @1.000000005
				e {aaf4fbcd}
				f "F"`),
			Umoci: noSparse},
		{Name: "global-header", About: "a header for all entries, as git archive writes it", Rule: "POSIX pax, typeflag g; docker and containerd take nothing from it",
			Layers: one(Entry{Name: "pax_global_header", Type: TypeGlobal, Records: []Record{{"comment", "0123456789abcdef"}, {"mtime", "5"}}}, File("a", "A")),
			Tree:   tree(`a "A"`),
			Umoci:  Other{Error: "unknown typeflag", Why: "docker and containerd ignore such a header"}},
		{Name: "unknown-records", About: "PAX records that mean nothing here", Rule: "POSIX pax: unknown keywords are ignored",
			Layers: one(File("a", "A").record("comment", "x").record("VENDOR.thing", "\x00\xff\n=").record("SCHILY.dev", "1").record("SCHILY.ino", "2").record("SCHILY.nlink", "1").record("LIBARCHIVE.creationtime", "5.5").record("MSWINDOWS.fileattr", "32").record("RHT.security.selinux", "x")),
			Tree:   tree(`a "A"`)},
		{Name: "records-before-header", About: "records that repeat what the header says, and that contradict it, and win", Rule: "POSIX pax: records override the header",
			Layers: one(Entry{Name: "a", Type: TypeReg, Mode: 0o644, UID: 1<<21 + 5, Time: listing.Time{Sec: 7, Nsec: 1}, Body: "A"}),
			Tree:   tree(`a "A" 2097157:0 @7.000000001`)},
	}
}

func times() []Case {
	const rule = "File Attributes: mtime"
	at := func(sec int64) *listing.Time { return &listing.Time{Sec: sec} }
	access := File("a", "A")
	access.Atime, access.Ctime = at(1_111_111_111), at(1_222_222_222)
	return []Case{
		{Name: "time-epoch", About: "1970-01-01 and a nanosecond around it", Rule: rule,
			Layers: one(File("a", "").at(0, 0), File("b", "").at(0, 1), File("c", "").at(-1, 999_999_999), Dir("d/").at(1, 0)),
			Tree: tree(`a @0.000000000
				b @0.000000001
				c @-1.999999999
				d/ @1.000000000`)},
		{Name: "time-nanoseconds", About: "times to the nanosecond, on every kind of file", Rule: rule,
			Layers: one(File("a", "").at(1_234_567_890, 123_456_789), Dir("d/").at(1, 999_999_999), Symlink("l", "x").at(2, 2), Device("p", TypeFIFO, 0, 0).at(3, 100_000_000)),
			Tree: tree(`a @1234567890.123456789
				d/ @1.999999999
				l -> x @2.000000002
				p p 0600 @3.100000000`)},
		{Name: "time-before-1970", About: "from 1901, when a signed 32-bit clock begins, to 1969", Rule: rule,
			Layers: one(File("a", "").at(-1, 0), File("b", "").at(-86400*365, 123_456_789), File("c", "").at(-1<<31, 0), File("d", "").at(-1<<31, 1), File("e", "").at(-100, 0).form(GNU)),
			Tree: tree(`a @-1.000000000
				b @-31536000.123456789
				c @-2147483648.000000000
				d @-2147483648.000000001
				e @-100.000000000`),
			Umoci: Other{Paths: []string{"d"}, Why: "utimensat(2) drops the nanoseconds of the first second that ext4 has"}},
		{Name: "time-after-2038", About: "when that clock ends, and after 2106, when an unsigned one does", Rule: rule,
			Layers: one(File("a", "").at(1<<31-1, 999_999_999), File("b", "").at(1<<31, 0), File("c", "").at(1<<32-1, 0), File("d", "").at(1<<32, 5), File("e", "").at(1<<33-1, 0), File("f", "").at(1<<33, 0), File("g", "").at(5<<31-1, 999_999_999), File("h", "").at(1<<33+7, 0).form(GNU)),
			Tree: tree(`a @2147483647.999999999
				b @2147483648.000000000
				c @4294967295.000000000
				d @4294967296.000000005
				e @8589934591.000000000
				f @8589934592.000000000
				g @10737418239.999999999
				h @8589934599.000000000`),
			Umoci: Other{Paths: []string{"g"}, Why: "umoci counts nanoseconds in 64 bits, which end in 2262"}},
		{Name: "time-beyond-ext4", About: "before 1901 and after 2310 no inode of ext4 can say; the nearest it can is kept, as by utimensat(2)", Rule: "fs/ext4/ext4.h, Documentation/filesystems/ext4/inodes.rst",
			Layers: one(File("a", "").at(-1<<31-1, 5), File("b", "").at(5<<31, 5), File("c", "").at(-1<<36, 0), File("d", "").at(1<<38, 0)),
			Tree: tree(`a @-2147483649.000000005
				b @10737418240.000000005
				c @-68719476736.000000000
				d @274877906944.000000000`),
			Umoci: Other{Paths: []string{"b", "c", "d"}, Why: "umoci counts nanoseconds in 64 bits, which begin in 1677 and end in 2262"}},
		{Name: "time-zero", About: "no time at all, as reproducible builders leave it", Rule: "ko and Bazel: mtime 0",
			Layers: one(Dir("d/").at(0, 0), File("d/a", "A").at(0, 0)),
			Tree: tree(`d/ implied
				d/a "A" @0.000000000`)},
		{Name: "time-access-and-change", About: "PAX atime and ctime are not kept: the specification knows mtime alone", Rule: rule,
			Layers: one(access),
			Tree:   tree(`a "A"`)},
		{Name: "time-of-hidden", About: "a directory keeps its time though an upper layer adds to it and takes from it", Rule: replaceRule,
			Layers: layers(with(Dir("d/").at(5, 6), File("d/a", ""), File("d/b", "")), with(Whiteout("d/a"), File("d/c", "")), with(File("d/.wh..wh..opq", ""))),
			Tree:   tree(`d/ @5.000000006`)},
	}
}
