package ext4

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Tags of an access control list (include/uapi/linux/posix_acl.h).
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// The two encodings: in a system.posix_acl_* attribute every entry has an id
// (include/uapi/linux/posix_acl_xattr.h); on the disk only users and groups that
// are named have one (fs/ext4/acl.h).
const (
	aclWireVersion = 2
	aclWireEntry   = 8
	aclDiskVersion = 1
)

// aclToDisk turns the value of a system.posix_acl_access or _default attribute
// into what ext4 keeps. It refuses the lists that the kernel would refuse
// (fs/posix_acl.c, posix_acl_valid): the owner, named users, the group, named
// groups, the mask and the others come in this order, and a mask is needed with
// named ones. A list without entries is nil: setting it means to have none.
func aclToDisk(wire []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(wire) == 0 {
		return nil, nil
	}
	if len(wire) < 4 || (len(wire)-4)%aclWireEntry != 0 {
		return nil, fmt.Errorf("access control list of %d bytes is malformed", len(wire))
	}
	if v := le.Uint32(wire); v != aclWireVersion {
		return nil, fmt.Errorf("access control list has version %d, not %d", v, aclWireVersion)
	}
	if len(wire) == 4 {
		return nil, nil
	}
	disk := le.AppendUint32(nil, aclDiskVersion)
	var seen, last uint16
	for e := wire[4:]; len(e) > 0; e = e[aclWireEntry:] {
		tag, perm, id := le.Uint16(e), le.Uint16(e[2:]), le.Uint32(e[4:])
		named := tag == aclUser || tag == aclGroup
		switch {
		case tag == 0 || tag > aclOther || tag&(tag-1) != 0:
			return nil, fmt.Errorf("access control list has an entry with unknown tag %#x", tag)
		case tag < last || tag == last && !named:
			return nil, fmt.Errorf("access control list has entries out of order or twice")
		case perm > 7:
			return nil, fmt.Errorf("access control list has permissions %#o", perm)
		}
		seen, last = seen|tag, tag
		disk = le.AppendUint16(disk, tag)
		disk = le.AppendUint16(disk, perm)
		if named {
			disk = le.AppendUint32(disk, id)
		}
	}
	if seen&aclUserObj == 0 || seen&aclGroupObj == 0 || seen&aclOther == 0 || seen&(aclUser|aclGroup) != 0 && seen&aclMask == 0 {
		return nil, fmt.Errorf("access control list lacks an entry that it needs")
	}
	return disk, nil
}

// aclForMode makes an access list one that a kernel would keep beside that mode,
// as chmod(2) after setting it leaves it: the owner's, the others' and the mask's
// permissions, or the group's where there is no mask, are the mode's
// (fs/posix_acl.c, __posix_acl_chmod_masq). A list that says no more than the
// mode is nil (posix_acl_equiv_mode).
func aclForMode(disk []byte, mode uint16) []byte {
	le := binary.LittleEndian
	const header, short, long = 4, 4, 8
	if len(disk) == header+3*short {
		return nil
	}
	group := disk // the entry whose permissions are the mode's group bits
	for e := disk[header:]; len(e) > 0; {
		switch tag := le.Uint16(e); tag {
		case aclUserObj:
			le.PutUint16(e[2:], mode>>6&7)
		case aclOther:
			le.PutUint16(e[2:], mode&7)
		case aclGroupObj, aclMask: // the mask comes later
			group = e
		case aclUser, aclGroup:
			e = e[long:]
			continue
		}
		e = e[short:]
	}
	le.PutUint16(group[2:], mode>>3&7)
	return disk
}

// aclFromText turns the text form that star and GNU tar --acls put into
// SCHILY.acl.* records into the value of a system.posix_acl_* attribute. Entries
// are "user:1000:rw-" or "group:staff:r-x:50", separated by commas or newlines;
// the number behind a name counts, and a name without one is an error, because
// nothing here knows the container's users.
func aclFromText(text string) ([]byte, error) {
	le := binary.LittleEndian
	wire := le.AppendUint32(nil, aclWireVersion)
	tags := map[string][2]uint16{"user": {aclUserObj, aclUser}, "group": {aclGroupObj, aclGroup}, "mask": {aclMask}, "other": {aclOther}}
	for _, entry := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		entry, _, _ = strings.Cut(entry, "#") // "#effective:r--"
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		f := strings.Split(entry, ":")
		if len(f) == 2 { // "mask:rwx", "other:r--"
			f = []string{f[0], "", f[1]}
		}
		if len(f) < 3 || len(f) > 4 {
			return nil, fmt.Errorf("access control list entry %q is malformed", entry)
		}
		tag, id := tags[f[0]][0], uint32(0xffffffff)
		if f[1] != "" {
			number := f[1]
			if len(f) == 4 {
				number = f[3]
			}
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("access control list entry %q names no number; make the tar with --xattrs", entry)
			}
			tag, id = tags[f[0]][1], uint32(n)
		}
		if tag == 0 {
			return nil, fmt.Errorf("access control list entry %q is of no known kind", entry)
		}
		var perm uint16
		for _, c := range f[2] {
			i := strings.IndexRune("xwr-", c)
			if i < 0 {
				return nil, fmt.Errorf("access control list entry %q has unknown permissions", entry)
			}
			perm |= 1 << i & 7
		}
		wire = le.AppendUint16(wire, tag)
		wire = le.AppendUint16(wire, perm)
		wire = le.AppendUint32(wire, id)
	}
	return wire, nil
}
