//go:build linux

package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lab/probe"
)

// take is called when the engine has made the container, whose first process waits to
// become the command: the one moment at which all that it is given can be seen, and
// at which a trace can begin with the command.
func (e *engine) take(made specs.State) error {
	if err := e.readGiven(made); err != nil {
		return fmt.Errorf("see what %s gives the container: %w", e.spec.Runtime, err)
	}
	return e.trace(made.Pid)
}

// readGiven asks the kernel what the process has, and the runtime's config.json
// (runtime-spec, config-linux.md) for what of it the kernel does not tell.
func (e *engine) readGiven(made specs.State) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", made.Pid))
	if err != nil {
		return err
	}
	if err := e.readStatus(string(status)); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(made.Bundle, "config.json"))
	if err != nil {
		return err
	}
	var config struct {
		Linux struct {
			Seccomp json.RawMessage `json:"seccomp"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("read config.json: %w", err)
	}
	// What the agent would have loaded is nobody's here.
	e.plan.Seccomp = nil
	if len(config.Linux.Seccomp) == 0 {
		if e.told.SeccompMode != "" {
			e.plan.SeccompName = probe.SeccompUnconfined
		}
		return nil
	}
	sum := sha256.Sum256(config.Linux.Seccomp)
	e.told.Profile = "sha256:" + hex.EncodeToString(sum[:])
	return nil
}

// seccompModes are those of /proc/PID/status (proc(5)).
var seccompModes = map[string]string{"0": "disabled", "1": "strict", "2": "filter"}

// readStatus reads the lines of /proc/PID/status that say what the process may do.
func (e *engine) readStatus(status string) error {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "CapBnd":
			set, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return fmt.Errorf("read CapBnd: %w", err)
			}
			e.plan.Caps = capSet(set)
		case "Seccomp":
			e.told.SeccompMode = seccompModes[value]
		}
	}
	return nil
}

// facts asks the engine for what a template tells between bars.
func (e *engine) facts(template string, args ...string) ([]string, error) {
	said, err := e.ask(append(args, "--format", template)...)
	if err != nil {
		return nil, err
	}
	facts := strings.Split(strings.TrimSpace(said), "|")
	if want := strings.Count(template, "|") + 1; len(facts) != want {
		return nil, fmt.Errorf("%s %s tells %d things of %d: %s", e.spec.Runtime, args[0], len(facts), want, cut(said, 4<<10))
	}
	return facts, nil
}

// rests takes down what an engine rests on: its runtime, by the path or the name that
// it has in the base, and its drivers.
func (e *engine) rests(runtime, cgroups, storage string) (err error) {
	e.told.CgroupDriver, e.told.StorageDriver = cgroups, storage
	below := engine{container: e.container, ended: e.ended}
	if below.path, err = findEngine(filepath.Base(runtime)); err != nil {
		return err
	}
	e.told.Runtime, err = below.version()
	return err
}
