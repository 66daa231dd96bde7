//go:build linux

package agent

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// findCommand finds the command's file: name itself when it has a slash, else
// the first file that the calling user may execute in the directories of path.
func findCommand(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, explainExec(name, executable(name))
	}
	var denied string
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if dir == "" {
			file = "./" + name
		}
		switch err := executable(file); {
		case err == nil:
			return file, nil
		case errors.Is(err, unix.EACCES) && denied == "":
			denied = file
		}
	}
	if denied != "" {
		return "", fmt.Errorf("command %s: %s is not an executable file", name, denied)
	}
	return "", fmt.Errorf("command %s: not found in the container's PATH (%s)", name, path)
}

func executable(file string) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return unix.EACCES
	}
	// The real user is the effective one here, which access(2) asks for.
	return unix.Access(file, unix.X_OK)
}

// explainExec makes of execve's error (execve(2)) what is the matter with the
// file; nil stays nil.
func explainExec(file string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Lstat(file); statErr != nil {
			return fmt.Errorf("command %s: no such file in the container", file)
		}
		if i := interpreter(file); i != "" {
			return fmt.Errorf("command %s: its interpreter %s is not there", file, i)
		}
		return fmt.Errorf("command %s: it is a link to a file that is not there", file)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("command %s: it is not an executable file: %w", file, err)
	case errors.Is(err, unix.ENOEXEC):
		f, elfErr := elf.Open(file)
		if elfErr != nil && interpreter(file) != "" {
			return fmt.Errorf("command %s: a script, and the kernel runs none (CONFIG_BINFMT_SCRIPT): %w", file, err)
		}
		if elfErr != nil {
			return fmt.Errorf("command %s: neither a program nor a script that begins with #!: %w", file, err)
		}
		defer f.Close()
		return fmt.Errorf("command %s: a program for another machine, %s (%s): %w", file, f.Machine, f.Class, err)
	}
	return fmt.Errorf("command %s: %w", file, err)
}

// interpreter is the file that a script or a dynamic program asks to be run
// by, "" when there is none.
func interpreter(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 256).ReadSlice('\n') // a script's first line
	if script, ok := strings.CutPrefix(string(line), "#!"); ok {
		if fields := strings.Fields(script); len(fields) > 0 {
			return fields[0]
		}
		return ""
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, min(p.Filesz, 4096))
			if n, err := p.ReadAt(b, 0); err == nil || n > 0 {
				return unix.ByteSliceToString(b[:n])
			}
		}
	}
	return ""
}
