// Package calls compares what two runs of a program asked the kernel, and finds the
// first system call that answers differently.
//
// A trace is text as [lab/probe/trace] and strace -f write it. Signals, exits and what
// is not understood take no part.
//
// Threads count as their process. Processes are paired by the program that they last
// executed, and of the same program by the order in which they were seen. The calls
// of a pair are aligned by what was asked (the name, and the arguments that the
// program gave, without what changes from run to run) with an anchored diff, whose
// time is n log n whatever the traces hold. Of two aligned calls the answers are
// compared: the result, and what the kernel wrote into the arguments. What differs as
// well between two runs of the same is noise.
package calls

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"lab/probe/trace"
)

const (
	maxCalls = 500_000 // of a trace; those after them take no part
	maxKey   = 512     // bytes of what is asked that tell calls apart
	around   = 5       // calls of the paragraph before and behind
)

// A Difference is the first in which two traces differ.
type Difference struct {
	// Answer: the same was asked, and answered differently. Otherwise only one of
	// the two asked, and no answer differs.
	Answer  bool   `json:"answer"`
	Program string `json:"program,omitempty"` // that the process had executed
	Name    string `json:"name"`              // of the system call
	Of      string `json:"of,omitempty"`      // what it is about: a path, the type of a message
	A       Side   `json:"a"`
	B       Side   `json:"b"`
}

// A Side is what one of the traces has.
type Side struct {
	Call   string `json:"call"`             // empty where only the other run made it
	Answer string `json:"answer,omitempty"` // to it, in short: an errno, or a number
	// Errno is the error, EPERM: of the call, or of the acknowledgement (netlink's) of
	// what it sent.
	Errno        string `json:"errno,omitempty"`
	Acknowledged bool   `json:"acknowledged,omitempty"`
	PID          int    `json:"pid,omitempty"`  // of the process or thread that made it, in the trace
	Nth          int    `json:"nth,omitempty"`  // of its calls of that name, from 1
	Line         int    `json:"line,omitempty"` // of the trace, from 1
	// Around are calls of the process: some before, the call itself, some behind.
	Around []string `json:"around"`
	At     int      `json:"at"` // where in Around the call is, or would be
}

// Compare finds the first call of run a that run b answers differently; where there
// is none, the first that only one of them makes; nil where there is neither. Of
// each run there is a trace, and there may be traces of the same done again: what
// differs among those tells nothing, and is passed over as noise.
func Compare(a, b [][]byte) (first *Difference, noise int) {
	pa, pb := measured(a), measured(b)
	others := byKey(pb)
	var answer, alone *found
	for _, p := range pa {
		q := others[p.key]
		if q == nil {
			continue // its fork or exec is what differs, in its parent
		}
		x, y, n := compareProcess(p, q)
		answer, alone, noise = earlier(answer, x), earlier(alone, y), noise+n
	}
	if answer != nil {
		return answer.tell(true), noise
	}
	if alone != nil {
		return alone.tell(false), noise
	}
	return nil, noise
}

// measured parts the first trace into processes, and notes of each call what it was
// in the other traces.
func measured(traces [][]byte) []*process {
	if len(traces) == 0 {
		return nil
	}
	list := processes(traces[0])
	for _, again := range traces[1:] {
		others := byKey(processes(again))
		for _, p := range list {
			q := others[p.key]
			if q == nil {
				q = new(process)
			}
			align(p, q, func(i, j int, inP, inQ bool) {
				switch {
				case !inQ:
					p.atTimes[p.calls[i].asked] = true
				case !inP:
					p.atTimes[q.calls[j].asked] = true
				case q.calls[j].reply != p.calls[i].reply:
					p.calls[i].others = append(p.calls[i].others, q.calls[j].reply)
				}
			})
		}
	}
	return list
}

func byKey(list []*process) map[string]*process {
	m := map[string]*process{}
	for _, p := range list {
		m[p.key] = p
	}
	return m
}

// found is where two processes differ: at their calls i and j.
type found struct {
	a, b     *process
	i, j     int
	inA, inB bool // who made the call
}

func (f *found) line() int {
	if f.i < len(f.a.calls) {
		return f.a.calls[f.i].line
	}
	return 1 << 40
}

func earlier(f, g *found) *found {
	if f == nil || g != nil && g.line() < f.line() {
		return g
	}
	return f
}

func (f *found) tell(answer bool) *Difference {
	d := &Difference{Answer: answer, Program: f.a.program, A: f.a.side(f.i, f.inA), B: f.b.side(f.j, f.inB)}
	if f.inA {
		d.Name, d.Of = f.a.calls[f.i].name, f.a.calls[f.i].of
	} else {
		d.Name, d.Of = f.b.calls[f.j].name, f.b.calls[f.j].of
	}
	return d
}

// compareProcess finds the first two aligned calls with different answers, and the
// first call that has no counterpart, and counts those that are noise.
func compareProcess(a, b *process) (answer, alone *found, noise int) {
	atTimes := func(c call) bool { return a.atTimes[c.asked] || b.atTimes[c.asked] }
	align(a, b, func(i, j int, inA, inB bool) {
		f := &found{a: a, b: b, i: i, j: j, inA: inA, inB: inB}
		switch {
		case inA && inB && a.calls[i].answer == b.calls[j].answer:
		case inA && inB && !steady(a.calls[i], b.calls[j]), inA && !inB && atTimes(a.calls[i]), inB && !inA && atTimes(b.calls[j]):
			noise++
		case inA && inB && answer == nil:
			answer = f
		case inA != inB && alone == nil:
			alone = f
		}
	})
	return answer, alone, noise
}

// steady tells of two calls whose answers differ whether that means something: each
// has one answer in all runs, or else the two never had an answer of the same kind.
func steady(x, y call) bool {
	if len(x.others)+len(y.others) == 0 {
		return true
	}
	for _, a := range append(slices.Clip(x.others), x.reply) {
		for _, b := range append(slices.Clip(y.others), y.reply) {
			if a.kind == b.kind {
				return false
			}
		}
	}
	return true
}

// align goes through the calls of two processes: those that are the same side by
// side, and between them those that only one has.
func align(a, b *process, visit func(i, j int, inA, inB bool)) {
	i, j := 0, 0
	hunks := diff.Diff("a", a.asked(), "b", b.asked())
	inside := false
	for line := range bytes.Lines(hunks) {
		if !inside && line[0] != '@' {
			continue // names of the texts
		}
		switch line[0] {
		case '@':
			inside = true
			for toA, toB := hunkStart(string(line)); i < toA && j < toB; i, j = i+1, j+1 {
				visit(i, j, true, true)
			}
		case ' ':
			visit(i, j, true, true)
			i, j = i+1, j+1
		case '-':
			visit(i, j, true, false)
			i++
		case '+':
			visit(i, j, false, true)
			j++
		}
	}
	for ; i < len(a.calls) && j < len(b.calls); i, j = i+1, j+1 {
		visit(i, j, true, true)
	}
}

// hunkStart reads "@@ -1,2 +3,4 @@": the calls, from 0, at which the hunk begins.
func hunkStart(line string) (a, b int) {
	var n, m int
	if _, err := fmt.Sscanf(line, "@@ -%d,%d +%d,%d @@", &a, &n, &b, &m); err != nil {
		return 0, 0
	}
	if n > 0 {
		a-- // of no lines it is the line before
	}
	if m > 0 {
		b--
	}
	return a, b
}

// A process has the calls of all its threads.
type process struct {
	program string
	key     string // program and number, by which processes are paired
	calls   []call
	paths   map[string]string // of its descriptors, as far as they were seen to be opened
	atTimes map[string]bool   // what is asked more often in one run of the same than in another
}

type call struct {
	line, pid  int // where it is in the trace, and whose
	nth        int // of that name and process or thread, from 1
	name, text string
	asked, of  string
	short      string  // the answer, to be told
	errno      string  // of it
	descriptor string  // that it begins with
	reply              // the answer, to be compared
	others     []reply // to the same, in other runs of the same
}

// A reply is what the kernel answered; of a kind are all that went well, and all that
// failed alike.
type reply struct{ answer, kind string }

func (p *process) asked() []byte {
	var b bytes.Buffer
	for _, c := range p.calls {
		b.WriteString(c.asked)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// side is the paragraph around a call; made tells whether the process made that.
func (p *process) side(at int, made bool) Side {
	from, to := max(0, at-around), min(len(p.calls), at+around+1)
	s := Side{At: at - from}
	for _, c := range p.calls[min(to, from):to] {
		s.Around = append(s.Around, c.text)
	}
	if made {
		c := p.calls[at]
		s.Call, s.Answer, s.Errno, s.PID, s.Nth, s.Line = c.text, c.short, c.errno, c.pid, c.nth, c.line
		if why := acknowledged(p.calls[at:to]); why != "" {
			s.Answer += " (acknowledged: " + why + ")"
			s.Errno, s.Acknowledged = strings.TrimPrefix(why, "-"), true
		}
	}
	return s
}

// processes parts a trace, in the order in which its processes were first seen.
func processes(trace []byte) []*process {
	lines, threadOf := parse(trace)
	of := map[int]*process{}
	var list []*process
	for _, l := range lines {
		pid := l.PID
		for n := 0; n < 100; n++ { // a hostile trace may have a circle
			leader, ok := threadOf[pid]
			if !ok {
				break
			}
			pid = leader
		}
		p := of[pid]
		if p == nil {
			p = &process{paths: map[string]string{}, atTimes: map[string]bool{}}
			of[pid] = p
			list = append(list, p)
		}
		if (l.Name == "execve" || l.Name == "execveat") && l.Result == "0" {
			p.program = firstString(l.args)
		}
		p.add(l)
	}
	numbers := map[string]int{}
	for _, p := range list {
		numbers[p.program]++
		p.key = p.program + " " + strconv.Itoa(numbers[p.program])
	}
	return list
}

// line is a call of a trace.
type line struct {
	trace.Event
	number int
	nth    int // of the calls of that name of that process or thread, from 1
	args   string
}

// parse reads the calls of a trace, and of which process a thread is.
func parse(text []byte) (lines []line, threadOf map[int]int) {
	threadOf = map[int]int{}
	type kind struct {
		pid  int
		name string
	}
	number, made := 0, map[kind]int{}
	for text := range bytes.Lines(text) {
		number++
		if len(text) > trace.MaxLine {
			continue
		}
		e, err := trace.Parse(strings.TrimRight(string(text), "\r\n"))
		if err != nil || e.Name == "" {
			continue
		}
		made[kind{e.PID, e.Name}]++
		l := line{e, number, made[kind{e.PID, e.Name}], strings.Join(e.Args, ", ")}
		if strings.HasPrefix(l.Name, "clone") && strings.Contains(l.args, "CLONE_THREAD") {
			if child, err := strconv.Atoi(l.Result); err == nil && child > 0 {
				threadOf[child] = l.PID
			}
		}
		if lines = append(lines, l); len(lines) == maxCalls {
			break
		}
	}
	return lines, threadOf
}

// add takes a call in, unless it is one of those that a program makes as often as
// the time that passes makes it.
func (p *process) add(l line) {
	if slices.Contains(timing, l.Name) {
		return
	}
	args := p.describe(l)
	asked := l.Name + "(" + given(l.Name, args) + ")"
	if len(asked) > maxKey {
		asked = asked[:maxKey]
	}
	_, text, _ := strings.Cut(l.String(), " ")
	c := call{line: l.number, pid: l.PID, nth: l.nth, errno: l.Errno, name: l.Name, text: text, asked: strings.ReplaceAll(asked, "\n", " ")}
	c.descriptor = descriptor.FindString(l.args)
	c.of, c.short, c.reply = p.about(l), short(l), p.answer(l, args)
	p.calls = append(p.calls, c)
	p.follow(l)
}
