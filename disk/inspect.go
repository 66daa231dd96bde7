package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// An Inspection is what a disk image is and what is on it.
type Inspection struct {
	Path       string               `json:"path"`
	Size       int64                `json:"size"`             // in bytes, as is
	Digest     string               `json:"digest,omitempty"` // sha256:… of the file's bytes
	Table      string               `json:"table,omitempty"`  // gpt or mbr
	GUID       string               `json:"guid,omitempty"`
	Partitions []InspectedPartition `json:"partitions"`
	Containers []InspectedContainer `json:"containers"`
	Boot       *InspectedBoot       `json:"boot,omitempty"` // nil where nothing boots by itself
}

// An InspectedPartition is a partition and its file system.
type InspectedPartition struct {
	Partition
	Usage *Usage `json:"usage,omitempty"` // where its file system is known
	Error string `json:"error,omitempty"` // why that cannot be read
}

// An InspectedContainer is a container on a disk of ours, by its config.json.
type InspectedContainer struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Dir     string   `json:"dir"`
	User    string   `json:"user"` // as "0:0", or the name that the image gives
	Env     int      `json:"env"`  // variables that are set
	Error   string   `json:"error,omitempty"`
}

// An InspectedBoot is how an image boots by itself.
type InspectedBoot struct {
	Loaders []string      `json:"loaders"` // the programs that firmware starts, by their paths
	Config  string        `json:"config"`  // loader.conf as it is
	Entries []LoaderEntry `json:"entries"`
}

// A LoaderEntry is an entry of the loader's menu (Boot Loader Specification, "Type
// #1").
type LoaderEntry struct {
	Path    string   `json:"path"`
	Title   string   `json:"title"`
	Kernel  string   `json:"kernel"`
	Initrd  []string `json:"initrd"`
	Cmdline string   `json:"cmdline"`
}

// Inspect looks at all of an image but its contents; with digest it reads these
// too. What of a partition or a container cannot be read is said beside it.
func (r *Reader) Inspect(ctx context.Context, digest bool) (Inspection, error) {
	in := Inspection{Path: r.Path, Size: r.Size, Table: r.Table, GUID: r.GUID, Containers: []InspectedContainer{}}
	for _, p := range r.Partitions {
		in.Partitions = append(in.Partitions, r.inspectPartition(p))
	}
	if t, err := r.Tree(""); err == nil {
		configs, err := t.Configs(ctx)
		if err != nil {
			return in, err
		}
		for _, name := range slices.Sorted(maps.Keys(configs)) {
			in.Containers = append(in.Containers, inspectContainer(name, configs[name]))
		}
	}
	for _, p := range r.Partitions {
		if p.FileSystem != FileSystemFAT32 || in.Boot != nil {
			continue
		}
		t, err := r.tree(p)
		if err != nil {
			continue // which is said beside the partition
		}
		if in.Boot, err = t.inspectBoot(ctx); err != nil {
			return in, err
		}
	}
	var err error
	if digest {
		in.Digest, err = r.Digest(ctx)
	}
	return in, err
}

func (r *Reader) inspectPartition(p Partition) InspectedPartition {
	in := InspectedPartition{Partition: p}
	if p.FileSystem == "" {
		return in
	}
	t, err := r.tree(p)
	if err != nil {
		in.Error = err.Error()
		return in
	}
	u := t.Usage()
	in.Usage = &u
	return in
}

func inspectContainer(name string, config []byte) InspectedContainer {
	in := InspectedContainer{Name: name, Command: []string{}}
	// The parts of the runtime specification's config.md that tell what would run.
	var c struct {
		Process struct {
			Args []string `json:"args"`
			Env  []string `json:"env"`
			Cwd  string   `json:"cwd"`
			User struct {
				UID      uint32 `json:"uid"`
				GID      uint32 `json:"gid"`
				Username string `json:"username"`
			} `json:"user"`
		} `json:"process"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		in.Error = fmt.Sprintf("read config.json: %v", err)
		return in
	}
	p := c.Process
	in.Command = append(in.Command, p.Args...)
	in.Dir, in.Env, in.User = p.Cwd, len(p.Env), p.User.Username
	if in.User == "" {
		in.User = fmt.Sprintf("%d:%d", p.User.UID, p.User.GID)
	}
	return in
}

// inspectBoot reads what an EFI system partition boots, nil for nothing.
func (t *Tree) inspectBoot(ctx context.Context) (*InspectedBoot, error) {
	boot := &InspectedBoot{Loaders: []string{}, Entries: []LoaderEntry{}}
	programs, err := t.files("/EFI/BOOT", ".efi")
	if err != nil || len(programs) == 0 {
		return nil, err
	}
	for _, s := range programs {
		boot.Loaders = append(boot.Loaders, s.Path)
	}
	config, err := t.files("/loader", "loader.conf")
	if err != nil {
		return nil, err
	}
	for _, s := range config {
		b, err := t.readSmall(ctx, &s)
		if err != nil {
			return nil, err
		}
		boot.Config = string(b)
	}
	entries, err := t.files("/loader/entries", ".conf")
	if err != nil {
		return nil, err
	}
	for _, s := range entries {
		b, err := t.readSmall(ctx, &s)
		if err != nil {
			return nil, err
		}
		boot.Entries = append(boot.Entries, loaderEntry(s.Path, string(b)))
	}
	return boot, nil
}

// files lists the regular files of a directory whose names end so, in any case;
// none where the directory is not there.
func (t *Tree) files(dir, suffix string) ([]Stat, error) {
	d, err := t.Lookup(dir, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := t.ReadDir(&d)
	return slices.DeleteFunc(list, func(s Stat) bool {
		return s.Type() != TypeRegular || !strings.HasSuffix(strings.ToLower(path.Base(s.Path)), suffix)
	}), err
}

func loaderEntry(p, text string) LoaderEntry {
	e := LoaderEntry{Path: p, Initrd: []string{}}
	var options []string
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		value = strings.TrimSpace(value)
		switch key {
		case "title":
			e.Title = value
		case "linux", "efi":
			e.Kernel = value
		case "initrd":
			e.Initrd = append(e.Initrd, value)
		case "options":
			options = append(options, value)
		}
	}
	e.Cmdline = strings.Join(options, " ")
	return e
}

// Configs gives the runtime configurations on a disk of ours, by the names of
// their containers; nil where there is no folder of containers.
func (t *Tree) Configs(ctx context.Context) (map[string][]byte, error) {
	dir, err := t.Lookup("/"+containersDir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := t.ReadDir(&dir)
	if err != nil {
		return nil, err
	}
	configs := make(map[string][]byte)
	for _, c := range list {
		s, err := t.Lookup(path.Join(c.Path, "config.json"), false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		b, err := t.readSmall(ctx, &s)
		if err != nil {
			return nil, err
		}
		configs[path.Base(c.Path)] = b
	}
	return configs, nil
}

// readSmall reads a file that is small where someone means well.
func (t *Tree) readSmall(ctx context.Context, s *Stat) ([]byte, error) {
	if s.Size > maxConfig {
		return nil, t.wrap("read", s.Path, fmt.Errorf("%d bytes are more than the %d allowed", s.Size, maxConfig))
	}
	var b bytes.Buffer
	err := t.WriteContent(ctx, &b, s)
	return b.Bytes(), err
}
