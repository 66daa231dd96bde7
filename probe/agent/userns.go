//go:build linux

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shiftOwners gives all of a root file system to the users that the container's are
// outside its user namespace, as Docker's userns-remap stores images. A mount that
// maps them (mount_setattr(2)) would be quicker, but only since Linux 5.12.
func shiftOwners(root string, by int) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("give the container's files to its users: %w", err)
		}
		var st unix.Stat_t
		if err = unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("give %s to the container's users: %w", path, err)
		}
		// A file with several names is met with each of them.
		if int(st.Uid) >= by || int(st.Gid) >= by {
			return nil
		}
		regular := d.Type().IsRegular()
		var caps []byte
		if regular {
			buf := make([]byte, 64)
			if n, err := unix.Lgetxattr(path, capsXattr, buf); err == nil {
				caps = rootedCaps(buf[:n], uint32(by))
			}
		}
		if err = unix.Lchown(path, int(st.Uid)+by, int(st.Gid)+by); err == nil && regular {
			// What chown(2) takes away of a program.
			if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
				err = unix.Chmod(path, st.Mode&0o7777)
			}
			if err == nil && caps != nil {
				// Before Linux 4.14 no file has capabilities in a user namespace.
				if err = unix.Lsetxattr(path, capsXattr, caps, 0); errors.Is(err, unix.EINVAL) {
					err = nil
				}
			}
		}
		if err != nil {
			return fmt.Errorf("give %s to the container's users: %w", path, err)
		}
		return nil
	})
}

const capsXattr = "security.capability"

// rootedCaps makes a program's capabilities those of the namespace whose root is
// rootid. They are a little-endian word of version and effective bit, two pairs of
// words, and from version 3 on the root (capabilities(7), "File capability extended
// attribute versioning"). Those of other versions it does not know, and gives nil.
func rootedCaps(value []byte, rootid uint32) []byte {
	const version2, version3, versionMask = 0x02000000, 0x03000000, 0xff000000
	if len(value) != 20 || binary.LittleEndian.Uint32(value)&versionMask != version2 {
		return nil
	}
	rooted := append([]byte{}, value...)
	binary.LittleEndian.PutUint32(rooted, binary.LittleEndian.Uint32(value)&^versionMask|version3)
	return binary.LittleEndian.AppendUint32(rooted, rootid)
}
