package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// UseraddCommand is the test of the story of useradd: exit status 12 where the kernel
// enforces SELinux, 0 where it does not.
var UseraddCommand = []string{"useradd", "-m", "-d", "/home/test", "test"}

// allow is a policy for SELinux that permits everything: what breaks is not what it
// forbids, but that there is one.
//
//go:embed allow.cil
var allow []byte

// Useradd is what the story of useradd takes.
type Useradd struct {
	Kernel string // the distribution's cloud kernel, a .deb
	Root   string // a tar with useradd of Debian 11, the users it wants, and SELinux said to be on
	Policy string // a binary policy that permits everything
}

// GetUseradd makes all of it below dir, which must be empty or not there; say, which
// may be nil, is told what is done. It takes apt-get, mmdebstrap and secilc, and
// Debian's archive.
func GetUseradd(ctx context.Context, dir string, say func(string)) (Useradd, error) {
	u, err := getUseradd(ctx, dir, say)
	if err != nil {
		return u, fmt.Errorf("get the parts of the story of useradd: %w", err)
	}
	return u, nil
}

func getUseradd(ctx context.Context, dir string, say func(string)) (u Useradd, err error) {
	if say == nil {
		say = func(string) {}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return u, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return u, err
	}
	say("downloading the distribution's cloud kernel")
	depends, err := run(ctx, dir, "apt-cache", "depends", "--important", "linux-image-cloud-amd64")
	if err != nil {
		return u, err
	}
	_, name, ok := strings.Cut(depends, "Depends: ")
	if name, _, _ = strings.Cut(name, "\n"); !ok || strings.TrimSpace(name) == "" {
		return u, errors.New("apt-cache knows no linux-image-cloud-amd64: run apt-get update")
	}
	if _, err := run(ctx, dir, "apt-get", "--quiet", "-o", "APT::Sandbox::User=", "download", strings.TrimSpace(name)); err != nil {
		return u, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return u, errors.Join(err, fmt.Errorf("apt-get downloaded %d packages of %s", len(debs), strings.TrimSpace(name)))
	}
	u = Useradd{debs[0], filepath.Join(dir, "bullseye.tar"), filepath.Join(dir, "allow.28")}

	say("making a container with useradd of Debian 11")
	if _, err := run(ctx, dir, "mmdebstrap", "--quiet", `--aptopt=Acquire::Check-Valid-Until "false"`, "--variant=extract", "--include=passwd",
		`--extract-hook=cd "$1"/etc && mkdir -p selinux &&
		echo root:x:0:0:root:/root:/bin/sh >passwd && echo root:x:0: >group &&
		printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' >selinux/config`, "bullseye", u.Root); err != nil {
		return u, err
	}

	say("making a policy that permits everything")
	source := filepath.Join(dir, "allow.cil")
	if err := os.WriteFile(source, allow, 0o644); err != nil {
		return u, err
	}
	_, err = run(ctx, dir, "secilc", "-c", "28", "-o", u.Policy, "-f", os.DevNull, source)
	return u, err
}
