package probe

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/probe/trace"
	"lab/probe/wire"
)

// full has a value in every field.
var full = Spec{
	Container: "app", Command: []string{"sh", "-c", "true"}, Env: []string{"A=b"}, User: "nobody:nogroup", Cwd: "/tmp", Runtime: "crun", Guest: true, Init: "systemd",
	CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"ALL"}, Seccomp: "mine.json", SeccompProfile: `{"defaultAction":"SCMP_ACT_ALLOW"}`, UserNS: true, Cgroup: "2",
	Devices: true, Unmasked: true, Writable: true, Privileged: true, SELinuxFS: "rw", SELinuxPolicy: packedPolicy,
	Terminal: &Terminal{TTY: true, Window: wire.Window{Rows: 24, Cols: 80}}, Timeout: 90 * time.Second,
	Epoch: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), Trace: true, Mark: &trace.Mark{PID: 1, Call: "sendto", N: 2}, MaxOutput: 1000,
}

var packedPolicy, _ = PackPolicy(aPolicy(100))

var fullJSON = `{"container":"app","command":["sh","-c","true"],"env":["A=b"],"user":"nobody:nogroup","cwd":"/tmp","runtime":"crun","guest":true,"init":"systemd","cap_add":["NET_ADMIN"],"cap_drop":["ALL"],"seccomp":"mine.json","seccomp_profile":"{\"defaultAction\":\"SCMP_ACT_ALLOW\"}","userns":true,"cgroup":"2","devices":true,"unmasked":true,"writable":true,"privileged":true,"selinux_fs":"rw","selinux_policy":"` + base64.StdEncoding.EncodeToString(packedPolicy) + `","terminal":{"tty":true,"rows":24,"cols":80},"epoch":"2020-01-02T03:04:05Z","trace":true,"mark":{"pid":1,"call":"sendto","n":2},"max_output":1000,"timeout":"1m30s"}`

func TestSpecJSON(t *testing.T) {
	for i, v := 0, reflect.ValueOf(full); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s has no value in this test", v.Type().Field(i).Name)
		}
	}
	for want, s := range map[string]Spec{fullJSON: full, `{}`: {}} {
		got, err := json.Marshal(s)
		if err != nil || string(got) != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
		back, err := ParseSpec(strings.NewReader(want))
		if d := cmp.Diff(s, back); err != nil || d != "" {
			t.Errorf("%s: %v %s", want, err, d)
		}
	}
}

func TestParseSpecRefuses(t *testing.T) {
	for in, want := range map[string]string{
		``:                               "unexpected end of JSON",
		`{"comand":["x"]}`:               `unknown field "comand"`,
		`{"timeout":"soon"}`:             `invalid duration "soon"`,
		`{"timeout":5}`:                  "timeout",
		`{} {}`:                          "after top-level value",
		`{"timeout":"-1s"}`:              "timeout -1s is negative",
		strings.Repeat(" ", 5<<20):       "more than 4194304 bytes",
		`{"command":["` + "\x00" + `"]}`: "invalid character",
	} {
		if _, err := ParseSpec(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %q", in, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, s := range []Spec{{}, full, {User: "0"}, {CapAdd: []string{"all", "cap_sys_admin", "Chown"}}, {Env: []string{"A="}}} {
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for want, s := range map[string]Spec{
		`container name "../x"`:             {Container: "../x"},
		`container name ".x"`:               {Container: ".x"},
		"no image's command runs":           {Guest: true},
		"the command's name is empty":       {Command: []string{""}},
		`argument "a\x00b" has a NUL byte`:  {Command: []string{"a\x00b"}},
		"131072 bytes, the kernel accepts":  {Command: []string{"x", strings.Repeat("x", 128<<10)}},
		"bytes together":                    {Command: []string{"x"}, Env: strings.Split(strings.Repeat("A="+strings.Repeat("x", 100<<10)+" ", 21), " ")[:21]},
		`"A" is not NAME=value`:             {Env: []string{"A"}},
		`"=b" is not NAME=value`:            {Env: []string{"=b"}},
		`user "a:b:c" is not USER[:GROUP]`:  {User: "a:b:c"},
		`working directory "tmp" is not`:    {Cwd: "tmp"},
		`capability "WINGS" is unknown`:     {CapDrop: []string{"WINGS"}},
		`capability "CAP_ALL" is unknown`:   {CapAdd: []string{"CAP_ALL"}},
		`seccomp profile "x": want default`: {Seccomp: "x"},
		"it has no name":                    {SeccompProfile: `{"defaultAction":"SCMP_ACT_ALLOW"}`},
		"has no defaultAction":              {Seccomp: "x", SeccompProfile: `{}`},
		`profile's name "x\n"`:              {Seccomp: "x\n", SeccompProfile: `{"defaultAction":"SCMP_ACT_ALLOW"}`},
		`version "3"`:                       {Cgroup: "3"},
		`init "upstart": want systemd`:      {Init: "upstart"},
		"version 2: not 1":                  {Init: "systemd", Cgroup: "1"},
		"timeout -1ns is negative":          {Timeout: -1},
		"output limit of -1 bytes":          {MaxOutput: -1},
		"output limit of 67108865 bytes":    {MaxOutput: LimitMaxOutput + 1},
		"epoch 1969-12-31T00:00:00Z":        {Epoch: time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	err := Spec{Cwd: "x", Timeout: -1}.Validate()
	if n := len(strings.Split(err.Error(), "\n")); n != 2 {
		t.Errorf("%d errors, want both at once: %v", n, err)
	}
}

func TestResultJSON(t *testing.T) {
	r := Result{
		Exit: 137, Signal: "SIGKILL", TimedOut: true, Stdout: []byte("out\xff"), Stderr: []byte{}, Syslog: []byte("m\n"), Truncated: true,
		Started: true, Complete: true, Error: "e", Notes: []string{"n"}, Release: "6.1", Duration: 1500 * time.Millisecond,
	}
	const want = `{"exit":137,"signal":"SIGKILL","timed_out":true,"stdout":"b3V0/w==","stderr":"","syslog":"bQo=","truncated":true,"started":true,"complete":true,"error":"e","notes":["n"],"release":"6.1","duration":"1.5s"}`
	got, err := json.Marshal(r)
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	var back Result
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, back); d != "" {
		t.Error(d)
	}
}

func TestPassed(t *testing.T) {
	good := Result{Started: true, Complete: true}
	if !good.Passed() {
		t.Error("a good result did not pass")
	}
	for name, change := range map[string]func(*Result){
		"exit":       func(r *Result) { r.Exit = 1 },
		"signal":     func(r *Result) { r.Signal = "SIGSEGV" },
		"timeout":    func(r *Result) { r.TimedOut = true },
		"error":      func(r *Result) { r.Error = "x" },
		"started":    func(r *Result) { r.Started = false },
		"incomplete": func(r *Result) { r.Complete = false },
	} {
		r := good
		change(&r)
		if r.Passed() {
			t.Errorf("%s: passed", name)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add(fullJSON)
	f.Add(`{"timeout":"1h","epoch":"0001-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSpec(strings.NewReader(in))
		if err != nil {
			return
		}
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("a valid spec does not encode: %v", err)
		}
		again, err := ParseSpec(strings.NewReader(string(data)))
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(data) {
			t.Errorf("%s became %s, %v", data, twice, err)
		}
	})
}
