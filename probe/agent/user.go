//go:build linux

package agent

import (
	"fmt"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An identity is who the container's command runs as.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

// resolveUser finds who config means. Its Username, when it has one, is an
// image's USER: USER[:GROUP], names or numbers, looked up in the container's
// passwd and group files as Docker does: a number needs no entry, a name does;
// without a group it is the user's own, and the supplementary groups are those
// that the group file lists the user in.
func resolveUser(config specs.User, passwd, group string) (identity, error) {
	if config.Username == "" {
		id := identity{uid: int(config.UID), gid: int(config.GID), home: "/"}
		for _, g := range config.AdditionalGids {
			id.groups = append(id.groups, int(g))
		}
		// Only for the home directory: numbers are what they are.
		if u, err := user.GetExecUserPath(fmt.Sprint(config.UID), &user.ExecUser{Home: "/"}, passwd, group); err == nil {
			id.home = u.Home
			if len(id.groups) == 0 {
				id.groups = u.Sgids
			}
		}
		return id, nil
	}
	u, err := user.GetExecUserPath(config.Username, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return identity{}, fmt.Errorf("resolve user %q in the container: %w", config.Username, err)
	}
	id := identity{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: u.Home}
	for _, g := range config.AdditionalGids {
		id.groups = append(id.groups, int(g))
	}
	return id, nil
}
