package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Save writes all that a trial saw into a folder, which is made when missing:
// trial.json, console.log, stdout, stderr, syslog, audit, trace where there is one, and, where there was a
// machine, qemu.args (one argument a line) and cmdline. Files of these names
// are replaced; nothing else in the folder is touched.
func (t Trial) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save trial: %w", err)
	}
	files, err := t.files()
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := renameio.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("save trial: %w", err)
		}
	}
	return nil
}

// streams are the files of a saved trial that hold what the guest said.
func (t *Trial) streams() map[string]*[]byte {
	return map[string]*[]byte{"stdout": &t.Result.Stdout, "stderr": &t.Result.Stderr, "syslog": &t.Result.Syslog, auditFile: &t.Result.Audit, traceFile: &t.Result.Trace, "console.log": &t.Console}
}

// traceFile holds the system calls of a test that was traced.
const traceFile = "trace"

// files is what a trial leaves behind, by file name.
func (t Trial) files() (map[string][]byte, error) {
	short := t
	short.Result.Stdout, short.Result.Stderr, short.Result.Syslog, short.Result.Audit, short.Result.Trace = nil, nil, nil, nil, nil // files of their own
	data, err := json.MarshalIndent(short, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode trial: %w", err)
	}
	files := map[string][]byte{trialFile: append(data, '\n')}
	if t.End == EndBuild || t.End == EndBuilt {
		return files, nil
	}
	if t.Kernel.Digest == "" { // a command of the user's
		files["stdout"], files["stderr"] = t.Result.Stdout, t.Result.Stderr
		return files, nil
	}
	files["console.log"] = t.Console
	files["stdout"], files["stderr"], files["syslog"] = t.Result.Stdout, t.Result.Stderr, t.Result.Syslog
	files[auditFile] = t.Result.Audit
	if len(t.Result.Trace) > 0 {
		files[traceFile] = t.Result.Trace
	}
	files["qemu.args"] = []byte(strings.Join(t.Args, "\n") + "\n")
	files["cmdline"] = []byte(t.Cmdline + "\n")
	return files, nil
}
