package kconfig

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"os"
	"strings"
)

//go:embed *.config
var builtin embed.FS

// Builtin returns a fragment that lab carries: "container" (what containers
// and lab's guest need, without modules), "tiny" (the least that runs a
// container test, for quick builds), or one to lie on top of these: "selinux",
// "exact" (for an exact machine) and "debug" (the kernel's own checks). Each says in its head what it is for.
func Builtin(name string) (Fragment, bool) {
	if name == "" || strings.ContainsAny(name, "/\\.") {
		return Fragment{}, false
	}
	data, err := builtin.ReadFile(name + ".config")
	if err != nil {
		return Fragment{}, false
	}
	return Fragment{Name: name, Data: data}, true
}

// Builtins lists the names that Builtin knows.
func Builtins() []string {
	entries, err := builtin.ReadDir(".")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".config"))
	}
	return names
}

// Load returns the builtin fragment of that name, or else reads the file.
// A file that bears a builtin's name is reached as ./name.
func Load(nameOrPath string) (Fragment, error) {
	if f, ok := Builtin(nameOrPath); ok {
		return f, nil
	}
	file, err := os.Open(nameOrPath)
	if os.IsNotExist(err) && !strings.ContainsAny(nameOrPath, "/.") {
		return Fragment{}, fmt.Errorf("load config %s: no such file, and the builtin ones are %s", nameOrPath, strings.Join(Builtins(), ", "))
	}
	if err != nil {
		return Fragment{}, fmt.Errorf("load config: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return Fragment{}, fmt.Errorf("load config: %w", err)
	}
	if _, err := Parse(bytes.NewReader(data)); err != nil {
		return Fragment{}, fmt.Errorf("load config %s: %w", nameOrPath, err)
	}
	return Fragment{Name: nameOrPath, Data: data}, nil
}
