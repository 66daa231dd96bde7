//go:build linux

package agent

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModules loads the modules that the list at path names, one a line, in
// that order. What does not load is a note: the kernel may do without. On any
// machine, most drivers find that it has not what they drive (ENODEV): they are
// left out without a word, and with them the modules that rest on them, of which
// the kernel would complain at length.
func loadModules(path string, anyMachine bool) (notes []string) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []string{fmt.Sprintf("load modules: %v", err)}
	}
	defer f.Close()
	absent := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		module := strings.TrimSpace(lines.Text())
		if module == "" {
			continue
		}
		if anyMachine && restsOn(module, absent) {
			absent[moduleName(module)] = true
			continue
		}
		err := loadModule(module)
		switch {
		case err == nil, errors.Is(err, unix.EEXIST):
		case anyMachine && errors.Is(err, unix.ENODEV):
			absent[moduleName(module)] = true
		default:
			notes = append(notes, fmt.Sprintf("load module %s: %v", module, err))
		}
	}
	if err := lines.Err(); err != nil {
		notes = append(notes, fmt.Sprintf("load modules: read %s: %v", path, err))
	}
	return notes
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	image, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return unix.InitModule(image, "")
}

// moduleName is the name by which modules speak of the one in that file.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// restsOn says whether a module depends on one of those that are absent, by
// the "depends=a,b" of its .modinfo section (include/linux/moduleinfo.h).
func restsOn(path string, absent map[string]bool) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false // the kernel will say what is wrong with it
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return false
	}
	info, err := section.Data()
	if err != nil {
		return false
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok {
			for name := range strings.SplitSeq(list, ",") {
				if absent[moduleName(name)] {
					return true
				}
			}
		}
	}
	return false
}
