package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Namespaces that only a Reader meets.
const (
	xattrSystem  = 7
	xattrRichACL = 8
)

const (
	inlineData   = "data"  // in xattrSystem: the rest of a small file's content
	maxXattrSize = 1 << 16 // XATTR_SIZE_MAX
)

// Xattrs gives the extended attributes of a file by their full names, with the
// values that getxattr(2) gives: nil when there are none.
func (fsys *Reader) Xattrs(n *Node) (map[string]string, error) {
	b, err := fsys.inode(n.Ino)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	var all map[string]string
	add := func(entries, values []byte) error {
		list, err := fsys.readXattrs(entries, values)
		for name, value := range list {
			if all == nil {
				all = make(map[string]string)
			}
			all[name] = value
		}
		return err
	}
	if at := smallInode + extraSize(b); len(b) > smallInode && at+4 < len(b) && le.Uint32(b[at:]) == xattrMagic {
		err = add(b[at+4:], b[at+4:])
	}
	if at := int64(le.Uint32(b[0x68:])) | int64(le.Uint16(b[0x76:]))<<32; at != 0 && err == nil {
		var block []byte
		if block, err = fsys.readBlock(at); err == nil && le.Uint32(block) != xattrMagic {
			err = fmt.Errorf("block %d has no magic number", at)
		}
		if err == nil {
			err = add(block[xattrHeaderSize:], block)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read attributes of inode %d: %w", n.Ino, err)
	}
	return all, nil
}

func (fsys *Reader) readXattrs(entries, values []byte) (map[string]string, error) {
	le := binary.LittleEndian
	list := make(map[string]string)
	for e := entries; len(e) >= 4 && le.Uint32(e) != 0; {
		if len(e) < xattrEntrySize || xattrEntrySize+int(e[0]) > len(e) {
			return nil, fmt.Errorf("an entry does not fit in")
		}
		name, offset, inode, size := string(e[xattrEntrySize:][:e[0]]), int64(le.Uint16(e[2:])), le.Uint32(e[4:]), int64(le.Uint32(e[8:]))
		index := e[1]
		e = e[min(len(e), xattrEntrySize+round4(len(name))):]
		if index == xattrSystem && name == inlineData {
			continue
		}
		var value []byte
		switch {
		case inode != 0:
			var err error
			if value, err = fsys.xattrInode(inode, size); err != nil {
				return nil, fmt.Errorf("value of %q: %w", name, err)
			}
		case size == 0:
		case offset+size > int64(len(values)):
			return nil, fmt.Errorf("value of %q with %d bytes does not fit in", name, size)
		default:
			value = values[offset:][:size]
		}
		full, value, err := xattrFromDisk(index, name, value)
		if err != nil {
			return nil, err
		}
		list[full] = string(value)
	}
	return list, nil
}

// xattrInode reads a value that has an inode of its own (ea_inode).
func (fsys *Reader) xattrInode(ino uint32, size int64) ([]byte, error) {
	n, err := fsys.Node(ino)
	if err != nil {
		return nil, err
	}
	if n.Size != size || size > maxXattrSize {
		return nil, fmt.Errorf("inode %d of %d bytes for %d", ino, n.Size, size)
	}
	c, err := fsys.Content(n)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// xattrFromDisk undoes what newXattr does.
func xattrFromDisk(index uint8, name string, value []byte) (string, []byte, error) {
	for _, ns := range xattrNamespaces {
		if ns.index != index {
			continue
		}
		if ns.whole != (name == "") {
			break
		}
		if !ns.whole {
			return ns.prefix + name, value, nil
		}
		wire, err := aclFromDisk(value)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", ns.prefix, err)
		}
		return ns.prefix, wire, nil
	}
	switch index {
	case xattrSystem:
		return "system." + name, value, nil
	case xattrRichACL:
		return "system.richacl", value, nil
	}
	return "", nil, fmt.Errorf("attribute %q is in the unknown namespace %d", name, index)
}

// aclFromDisk undoes aclToDisk.
func aclFromDisk(disk []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(disk) < 4 || le.Uint32(disk) != aclDiskVersion {
		return nil, fmt.Errorf("access control list of %d bytes is malformed", len(disk))
	}
	wire := le.AppendUint32(nil, aclWireVersion)
	for e := disk[4:]; len(e) > 0; {
		size, id := 4, uint32(1<<32-1)
		if len(e) >= 4 && (le.Uint16(e) == aclUser || le.Uint16(e) == aclGroup) {
			size = 8
		}
		if len(e) < size {
			return nil, fmt.Errorf("access control list ends within an entry")
		}
		if size == 8 {
			id = le.Uint32(e[4:])
		}
		wire = le.AppendUint32(append(wire, e[:4]...), id)
		e = e[size:]
	}
	return wire, nil
}
