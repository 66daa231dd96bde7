package kconfig

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// truth is a value of Kconfig's three-valued logic, in its order, or unknown:
// what depends on the compiler or the environment.
type truth int

const (
	no truth = iota
	mod
	yes
	unknown
)

// expr is a dependency as Kconfig writes it
// (Documentation/kbuild/kconfig-language.rst, "Menu dependencies").
type expr struct {
	op          string // "" for a symbol or constant, "!", "&&", "||", "=", "!=", "<", …
	word        string // of a leaf
	quoted      bool   // the leaf is a constant
	left, right *expr
}

const maxNesting = 100 // of parentheses and negations

// both joins two conditions, either of which may be nil for none.
func both(a, b *expr) *expr {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return &expr{op: "&&", left: a, right: b}
}

// parseExpr reads an expression to the end of the words.
func parseExpr(words []token) (*expr, error) {
	p := exprParser{words: words}
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if len(p.words) > 0 {
		return nil, fmt.Errorf("%q stands behind an expression", p.words[0].text)
	}
	return e, nil
}

type exprParser struct{ words []token }

func (p *exprParser) next(texts ...string) (string, bool) {
	if len(p.words) > 0 && !p.words[0].quoted {
		for _, text := range texts {
			if p.words[0].text == text {
				p.words = p.words[1:]
				return text, true
			}
		}
	}
	return "", false
}

func (p *exprParser) or(depth int) (*expr, error) {
	return p.chain("||", depth, func(depth int) (*expr, error) { return p.chain("&&", depth, p.unary) })
}

func (p *exprParser) chain(op string, depth int, part func(int) (*expr, error)) (*expr, error) {
	left, err := part(depth)
	for err == nil {
		if _, ok := p.next(op); !ok {
			break
		}
		var right *expr
		if right, err = part(depth); err == nil {
			left = &expr{op: op, left: left, right: right}
		}
	}
	return left, err
}

func (p *exprParser) unary(depth int) (*expr, error) {
	if depth > maxNesting {
		return nil, errors.New("an expression is nested too deeply")
	}
	if _, ok := p.next("!"); ok {
		e, err := p.unary(depth + 1)
		return &expr{op: "!", left: e}, err
	}
	if _, ok := p.next("("); ok {
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if _, ok := p.next(")"); !ok {
			return nil, errors.New("a parenthesis is not closed")
		}
		return e, nil
	}
	left, err := p.leaf()
	if err != nil {
		return nil, err
	}
	if op, ok := p.next("=", "!=", "<", "<=", ">", ">="); ok {
		right, err := p.leaf()
		return &expr{op: op, left: left, right: right}, err
	}
	return left, nil
}

func (p *exprParser) leaf() (*expr, error) {
	if len(p.words) == 0 {
		return nil, errors.New("an expression ends too early")
	}
	w := p.words[0]
	if !w.quoted && strings.ContainsAny(w.text, "()&|!=<>") && !strings.HasPrefix(w.text, "$(") {
		return nil, fmt.Errorf("%q stands where a symbol is wanted", w.text)
	}
	p.words = p.words[1:]
	return &expr{word: w.text, quoted: w.quoted}, nil
}

// eval gives what the expression is in a resolved configuration.
func (e *expr) eval(c Config) truth {
	if e == nil {
		return yes
	}
	switch e.op {
	case "":
		if strings.Contains(e.word, "$(") {
			return unknown
		}
		word := e.word
		if value, ok := c[word]; ok && !e.quoted {
			word = value
		}
		return map[string]truth{"y": yes, "m": mod}[word]
	case "!":
		if t := e.left.eval(c); t != unknown {
			return yes - t
		}
		return unknown
	case "&&":
		l, r := e.left.eval(c), e.right.eval(c)
		if l == no || r == no {
			return no
		}
		return worse(l, r)
	case "||":
		l, r := e.left.eval(c), e.right.eval(c)
		if l == yes || r == yes {
			return yes
		}
		if l == unknown || r == unknown {
			return unknown
		}
		return max(l, r)
	}
	return e.compare(c)
}

func worse(l, r truth) truth {
	if l == unknown || r == unknown {
		return unknown
	}
	return min(l, r)
}

// compare compares two leaves: as numbers where both are, else as strings.
func (e *expr) compare(c Config) truth {
	l, r := e.left.text(c), e.right.text(c)
	if strings.Contains(l+r, "$(") {
		return unknown
	}
	order := strings.Compare(l, r)
	if a, err := strconv.ParseInt(l, 0, 64); err == nil {
		if b, err := strconv.ParseInt(r, 0, 64); err == nil {
			order = cmp.Compare(a, b)
		}
	}
	holds := map[string]bool{"=": order == 0, "!=": order != 0, "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}
	if holds[e.op] {
		return yes
	}
	return no
}

func (e *expr) text(c Config) string {
	if e.quoted || e.op != "" {
		return e.word
	}
	value, ok := c[e.word]
	switch {
	case ok:
		return strings.Trim(value, `"`)
	case strings.Trim(e.word, "0123456789abcdefxABCDEF-") == "" || e.word == "y" || e.word == "m" || e.word == "n":
		return e.word
	}
	return "n" // as a symbol that is off compares
}

// String writes the expression as Kconfig has it.
func (e *expr) String() string {
	if e == nil {
		return "y"
	}
	inner := func(part *expr) string {
		if part.op == "||" && e.op != "||" || e.op == "!" && part.op != "" && part.op != "!" {
			return "(" + part.String() + ")"
		}
		return part.String()
	}
	switch {
	case e.op == "" && e.quoted:
		return strconv.Quote(e.word)
	case e.op == "":
		return e.word
	case e.op == "!":
		return "!" + inner(e.left)
	case e.op == "&&" || e.op == "||":
		return inner(e.left) + " " + e.op + " " + inner(e.right)
	}
	return e.left.String() + e.op + e.right.String()
}

// blame names those parts of a condition that keep it below what is wanted.
func (e *expr) blame(c Config, want truth) []string {
	if e == nil {
		return nil
	}
	got := e.eval(c)
	if got >= want {
		return nil
	}
	switch {
	case e.op == "&&":
		return append(e.left.blame(c, want), e.right.blame(c, want)...)
	case e.op == "" && got == mod:
		return []string{e.word + " is m"}
	case e.op == "":
		return []string{e.word + " is not set"}
	case e.op == "!" && e.left.op == "":
		return []string{e.left.word + " is " + c[e.left.word]}
	}
	return []string{e.String() + " does not hold"}
}
