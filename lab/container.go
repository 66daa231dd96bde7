package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"lab/probe"
	"lab/probe/seccomp"
)

// SetSeccomp gives a test the filter of system calls that is meant: default or
// unconfined, or the file of a profile. Empty leaves it as it is.
func SetSeccomp(s *probe.Spec, profile string) error {
	switch profile {
	case "":
		return nil
	case probe.SeccompDefault, probe.SeccompUnconfined:
		s.Seccomp, s.SeccompProfile = profile, ""
		return nil
	}
	f, err := os.Open(profile)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q is neither default nor unconfined, and no file", profile)
	}
	if err != nil {
		return fmt.Errorf("read seccomp profile: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, seccomp.MaxProfile+1))
	if err != nil {
		return fmt.Errorf("read seccomp profile: %w", err)
	}
	if err := seccomp.Check(data); err != nil {
		return fmt.Errorf("%s: %w", profile, err)
	}
	s.Seccomp, s.SeccompProfile = filepath.Base(profile), string(data)
	return nil
}
