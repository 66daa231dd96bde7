package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"

	"lab/probe"
)

// SetSELinuxPolicy gives a test the policy of a file. Empty leaves it as it is.
func SetSELinuxPolicy(s *probe.Spec, file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read SELinux policy: %w", err)
	}
	defer f.Close()
	if s.SELinuxPolicy, err = packPolicy(f); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func packPolicy(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, probe.MaxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("read SELinux policy: %w", err)
	}
	return probe.PackPolicy(data)
}

// Where a system has its policies (selinux_config(5)): TYPE/policy/policy.VERSION, with
// SELINUXTYPE=TYPE in the file config.
var (
	policyFile = regexp.MustCompile(`^etc/selinux/([A-Za-z0-9_-]+)/policy/policy\.([0-9]{1,3})$`)
	policyType = regexp.MustCompile(`(?m)^SELINUXTYPE=([A-Za-z0-9_-]+)\s*$`)
)

const selinuxConfig = "etc/selinux/config"

// SetBasePolicy gives a test the policy of the guest's base: of the type that the base
// has configured the one of the newest version.
func (l *Lab) SetBasePolicy(ctx context.Context, s *Spec) error {
	if s.Base == "" {
		return errors.New("take the SELinux policy of the base: there is no base; name an image with --base REF, or the policy's file")
	}
	store, err := l.store()
	if err != nil {
		return err
	}
	img, _, err := l.fetch(ctx, store, *s, Load{Reference: s.Base})
	if err != nil {
		return err
	}
	r, err := flatten(img, s.Limits)(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	l.Progress.Show("looking for the SELinux policy of %s", s.Base)
	defer l.Progress.Show("")
	if s.Test.SELinuxPolicy, err = findPolicy(r); err != nil {
		return fmt.Errorf("take the SELinux policy of %s: %w", s.Base, err)
	}
	return nil
}

// findPolicy finds the policy in a root file system.
func findPolicy(root io.Reader) ([]byte, error) {
	type found struct {
		version int
		packed  []byte
		err     error
	}
	newest := map[string]found{} // by type
	kind := ""
	for t := tar.NewReader(root); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		if name == selinuxConfig && h.Typeflag == tar.TypeReg {
			data, err := io.ReadAll(io.LimitReader(t, 64<<10))
			if err != nil {
				return nil, err
			}
			if m := policyType.FindSubmatch(data); m != nil {
				kind = string(m[1])
			}
		}
		if m := policyFile.FindStringSubmatch(name); m != nil && h.Typeflag == tar.TypeReg {
			if version, _ := strconv.Atoi(m[2]); version > newest[m[1]].version {
				packed, err := packPolicy(t)
				newest[m[1]] = found{version, packed, err}
			}
		}
	}
	if kind == "" {
		return nil, fmt.Errorf("it has no SELINUXTYPE= in /%s: name the policy's file", selinuxConfig)
	}
	if newest[kind].version == 0 {
		return nil, fmt.Errorf("it has no policy in /etc/selinux/%s/policy, where /%s says that it is: that is made when the policy's package is configured, and not only unpacked", kind, selinuxConfig)
	}
	return newest[kind].packed, newest[kind].err
}
