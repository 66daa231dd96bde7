// Package calls compares what two runs of a program asked the kernel, and finds the
// first system call that answers differently.
//
// A trace is text as strace -f writes it, a line for each call that has returned:
//
//	PID NAME(ARG, ARG, …) = RESULT
//	PID NAME(ARG, ARG, …) = -1 ERRNO (what it means)
//
// Other lines (signals, exits, what is not understood) take no part.
//
// Threads count as their process. Processes are paired by the program that they last
// executed, and of the same program by the order in which they were seen. The calls
// of a pair are aligned by what was asked (the name, and the arguments that the
// program gave, without what changes from run to run) with an anchored diff, whose
// time is n log n whatever the traces hold. Of two aligned calls the answers are
// compared: the result, and what the kernel wrote into the arguments.
package calls

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

const (
	maxCalls = 500_000 // of a trace; those after them take no part
	maxLine  = 16 << 10
	maxKey   = 512 // bytes of what is asked that tell calls apart
	around   = 5   // calls of the paragraph before and behind
)

// A Difference is the first in which two traces differ.
type Difference struct {
	// Answer: the same was asked, and answered differently. Otherwise only one of
	// the two asked, and no answer differs.
	Answer  bool   `json:"answer"`
	Program string `json:"program,omitempty"` // that the process had executed
	A       Side   `json:"a"`
	B       Side   `json:"b"`
}

// A Side is what one of the traces has.
type Side struct {
	Call string `json:"call"` // empty where only the other run made it
	// Around are calls of the process: some before, the call itself, some behind.
	Around []string `json:"around"`
	At     int      `json:"at"` // where in Around the call is, or would be
}

// Compare finds the first call of trace a that trace b answers differently; where
// there is none, the first that only one of them has; nil where there is neither.
func Compare(a, b []byte) *Difference {
	pa, pb := processes(a), processes(b)
	others := map[string]*process{}
	for _, p := range pb {
		others[p.key] = p
	}
	var answer, alone *found
	for _, p := range pa {
		q := others[p.key]
		if q == nil {
			continue // its fork or exec is what differs, in its parent
		}
		x, y := compareProcess(p, q)
		answer, alone = earlier(answer, x), earlier(alone, y)
	}
	if answer != nil {
		return answer.tell(true)
	}
	if alone != nil {
		return alone.tell(false)
	}
	return nil
}

// found is where two processes differ: at their calls i and j.
type found struct {
	a, b       *process
	i, j       int
	onlyA, one bool // of a call that one alone makes: whether it is a
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
	return &Difference{Answer: answer, Program: f.a.program, A: f.a.side(f.i, !f.one || f.onlyA), B: f.b.side(f.j, !f.one || !f.onlyA)}
}

// compareProcess finds the first two aligned calls with different answers, and the
// first call that has no counterpart.
func compareProcess(a, b *process) (answer, alone *found) {
	pair := func(i, j int) {
		if answer == nil && a.calls[i].answer != b.calls[j].answer {
			answer = &found{a: a, b: b, i: i, j: j}
		}
	}
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
				pair(i, j)
			}
		case ' ':
			pair(i, j)
			i, j = i+1, j+1
		case '-', '+':
			onlyA := line[0] == '-'
			if alone == nil {
				alone = &found{a: a, b: b, i: i, j: j, one: true, onlyA: onlyA}
			}
			if onlyA {
				i++
			} else {
				j++
			}
		}
	}
	for ; i < len(a.calls) && j < len(b.calls); i, j = i+1, j+1 {
		pair(i, j)
	}
	return answer, alone
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
}

type call struct {
	line          int // of the trace
	text          string
	asked, answer string
}

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
	from := max(0, at-around)
	s := Side{At: at - from}
	for _, c := range p.calls[min(len(p.calls), from):min(len(p.calls), at+around+1)] {
		s.Around = append(s.Around, c.text)
	}
	if made {
		s.Call = p.calls[at].text
	}
	return s
}

// processes parts a trace, in the order in which its processes were first seen.
func processes(trace []byte) []*process {
	lines, threadOf := parse(trace)
	of := map[int]*process{}
	var list []*process
	for _, l := range lines {
		pid := l.pid
		for n := 0; n < 100; n++ { // a hostile trace may have a circle
			leader, ok := threadOf[pid]
			if !ok {
				break
			}
			pid = leader
		}
		p := of[pid]
		if p == nil {
			p = &process{paths: map[string]string{}}
			of[pid] = p
			list = append(list, p)
		}
		if (l.name == "execve" || l.name == "execveat") && l.result == "0" {
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
	number, pid  int
	name, args   string
	result, text string
}

// parse reads the calls of a trace, and of which process a thread is.
func parse(trace []byte) (lines []line, threadOf map[int]int) {
	threadOf = map[int]int{}
	number := 0
	for text := range bytes.Lines(trace) {
		number++
		l, ok := parseLine(text)
		if !ok {
			continue
		}
		if l.number = number; strings.HasPrefix(l.name, "clone") && strings.Contains(l.args, "CLONE_THREAD") {
			if child, err := strconv.Atoi(l.result); err == nil && child > 0 {
				threadOf[child] = l.pid
			}
		}
		if lines = append(lines, l); len(lines) == maxCalls {
			break
		}
	}
	return lines, threadOf
}

// parseLine reads a call. The last ") = " ends the arguments: what follows it is a
// number, a name and a text of the kernel's, none of which has that.
func parseLine(text []byte) (line, bool) {
	if len(text) > maxLine {
		return line{}, false
	}
	s := strings.TrimRight(string(text), "\r\n")
	number, rest, ok := strings.Cut(s, " ")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil || pid < 1 {
		return line{}, false
	}
	rest = strings.TrimLeft(rest, " ") // strace pads short numbers
	open := strings.IndexByte(rest, '(')
	end := strings.LastIndex(rest, " = ")
	if open < 1 || end < open {
		return line{}, false
	}
	name, args := rest[:open], strings.TrimRight(rest[open+1:end], " ")
	if strings.ContainsAny(name, " \"<") || !strings.HasSuffix(args, ")") {
		return line{}, false
	}
	return line{pid: pid, name: name, args: args[:len(args)-1], result: rest[end+3:], text: rest}, true
}

// add takes a call in, unless it is one of those that a program makes as often as
// the time that passes makes it.
func (p *process) add(l line) {
	if slices.Contains(timing, l.name) {
		return
	}
	args := p.describe(l)
	asked := l.name + "(" + given(l.name, args) + ")"
	if len(asked) > maxKey {
		asked = asked[:maxKey]
	}
	p.calls = append(p.calls, call{line: l.number, text: l.text, asked: strings.ReplaceAll(asked, "\n", " "), answer: p.answer(l, args)})
	p.follow(l)
}
