package kconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Limits on a tree's Kconfig files. Linux 6.1 has 1,600 of them in 4 MB, no more
// than 9 deep.
const (
	maxFiles   = 20_000
	maxSources = 30 // deep
	maxBytes   = 64 << 20
)

// A Tree is what a source tree's Kconfig files say of dependencies. It is enough
// to explain why a symbol was lost, and to foresee which are made together: values
// are Kconfig's to give.
type Tree struct {
	symbols map[string][]definition
	forced  map[string][]selection // by the symbol that is selected
	order   map[string]int         // of the symbols, as the files have them
}

// A definition is one "config" block of a symbol. A symbol may have several, of
// which each can make it visible.
type definition struct {
	depends *expr // all that must hold, with the blocks around
	visible *expr // for its prompt to be shown, besides depends
	prompt  bool
	title   string    // what the prompt says
	choice  int       // which choice it belongs to, from 1; 0 for none
	values  []setting // its defaults, of which the first that holds counts
}

// A setting is a value on a condition.
type setting struct{ value, condition *expr }

// A selection forces a symbol, whatever that depends on.
type selection struct {
	by        string
	condition *expr
}

// ReadTree reads the Kconfig files of a source tree for an architecture, as
// SRCARCH names it ("x86"), beginning with the file Kconfig at its root.
func ReadTree(tree fs.FS, arch string) (*Tree, error) {
	r := treeReader{
		Tree: &Tree{symbols: map[string][]definition{}, forced: map[string][]selection{}, order: map[string]int{}},
		fs:   tree, replace: strings.NewReplacer("$(SRCARCH)", arch, "$SRCARCH", arch, "$(srctree)/", "", "$(ARCH)", arch, "$ARCH", arch),
	}
	if err := r.file("Kconfig", 0); err != nil {
		return nil, fmt.Errorf("read dependencies: %w", err)
	}
	return r.Tree, nil
}

// treeReader keeps what encloses the line at hand, across files: a menu may be
// opened in one and source others.
type treeReader struct {
	*Tree
	fs      fs.FS
	replace *strings.Replacer
	blocks  []block
	choices int
	files   int
	bytes   int64

	symbol  string      // of the config block at hand, "" for none
	current *definition // likewise
}

// A block is what if, menu and choice open.
type block struct {
	kind             string
	depends, visible *expr
	choice           int
}

func (r *treeReader) file(name string, depth int) error {
	if r.files++; r.files > maxFiles || depth > maxSources {
		return fmt.Errorf("%s: too many files, or too deep", name)
	}
	f, err := r.fs.Open(path.Clean(name))
	if errors.Is(err, fs.ErrNotExist) && depth > 0 {
		return nil // not all of the tree may be there
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes-r.bytes+1))
	if err != nil {
		return err
	}
	if r.bytes += int64(len(data)); r.bytes > maxBytes {
		return fmt.Errorf("%s: more than %d bytes in all", name, maxBytes)
	}
	lines := strings.Split(strings.ReplaceAll(string(data), "\\\n", " "), "\n")
	for i := 0; i < len(lines); i++ {
		words := tokens(lines[i])
		if len(words) == 0 {
			continue
		}
		if word := strings.Trim(words[0].text, "-"); word == "help" && len(words) == 1 {
			i = skipHelp(lines, i+1) - 1
			continue
		}
		if err := r.line(words, depth); err != nil {
			return fmt.Errorf("%s: line %d: %w", name, i+1, err)
		}
	}
	r.end()
	return nil
}

// skipHelp finds the end of a help text: the first line that is indented less
// than the text's first.
func skipHelp(lines []string, i int) int {
	text := -1
	for ; i < len(lines); i++ {
		if strings.TrimSpace(lines[i]) == "" {
			continue
		}
		indent := 0
	measure:
		for _, c := range lines[i] {
			switch c {
			case '\t':
				indent += 8 - indent%8
			case ' ':
				indent++
			default:
				break measure
			}
		}
		if text < 0 {
			text = indent
		}
		if indent < text || indent == 0 {
			break
		}
	}
	return i
}

// line takes one line in. What it does not know cannot change a dependency.
func (r *treeReader) line(words []token, depth int) error {
	rest := words[1:]
	switch words[0].text {
	case "config", "menuconfig":
		r.end()
		if len(rest) == 1 {
			r.symbol, r.current = rest[0].text, &definition{}
		}
	case "if", "menu", "choice":
		r.end()
		b := block{kind: words[0].text}
		if b.kind == "if" {
			e, err := parseExpr(rest)
			if err != nil {
				return err
			}
			b.depends = e
		}
		if b.kind == "choice" {
			r.choices++
			b.choice = r.choices
		}
		if len(r.blocks) > maxNesting {
			return errors.New("blocks are nested too deeply")
		}
		r.blocks = append(r.blocks, b)
	case "endif", "endmenu", "endchoice":
		r.end()
		n := len(r.blocks) - 1
		if n < 0 || "end"+r.blocks[n].kind != words[0].text {
			return fmt.Errorf("%s closes nothing", words[0].text)
		}
		r.blocks = r.blocks[:n]
	case "comment", "mainmenu":
		r.end()
		r.symbol, r.current = "", &definition{} // whose depends is nobody's
	case "source":
		r.end()
		if len(rest) != 1 {
			return errors.New("source wants a file")
		}
		name := r.replace.Replace(rest[0].text)
		if strings.Contains(name, "$") {
			return nil
		}
		if !fs.ValidPath(path.Clean(name)) {
			return fmt.Errorf("%q is outside of the tree", name)
		}
		return r.file(name, depth+1)
	default:
		return r.attribute(words[0].text, rest)
	}
	return nil
}

// attribute takes in a line of a block.
func (r *treeReader) attribute(word string, rest []token) error {
	plain, cond, err := splitIf(rest)
	if err != nil {
		return err
	}
	var enclosing *block
	if r.current == nil && len(r.blocks) > 0 {
		enclosing = &r.blocks[len(r.blocks)-1]
	}
	switch word {
	case "depends":
		if len(rest) == 0 || rest[0].text != "on" {
			return errors.New("depends on what?")
		}
		e, err := parseExpr(rest[1:])
		if err != nil {
			return err
		}
		if r.current != nil {
			r.current.depends = both(r.current.depends, e)
		} else if enclosing != nil {
			enclosing.depends = both(enclosing.depends, e)
		}
	case "visible":
		if enclosing != nil {
			enclosing.visible = both(enclosing.visible, cond)
		}
	case "bool", "boolean", "tristate", "string", "int", "hex", "prompt":
		prompt := len(plain) > 0 && plain[0].quoted
		switch {
		case r.current != nil:
			if prompt {
				r.current.prompt, r.current.visible, r.current.title = true, cond, plain[0].text
			}
		case enclosing != nil && prompt: // of a choice
			enclosing.visible = both(enclosing.visible, cond)
		}
	case "default", "def_bool", "def_tristate":
		if r.current != nil && len(plain) > 0 {
			value, err := parseExpr(plain)
			if err != nil {
				return err
			}
			r.current.values = append(r.current.values, setting{value, cond})
		}
	case "select":
		if r.current != nil && r.symbol != "" && len(plain) == 1 {
			r.forced[plain[0].text] = append(r.forced[plain[0].text], selection{r.symbol, cond})
		}
	}
	return nil
}

// splitIf parts "WORDS if EXPR".
func splitIf(words []token) (plain []token, cond *expr, err error) {
	for i, w := range words {
		if w.text == "if" && !w.quoted {
			cond, err = parseExpr(words[i+1:])
			return words[:i], cond, err
		}
	}
	return words, nil, nil
}

// end completes the config block at hand with what the blocks around it say.
func (r *treeReader) end() {
	if r.current != nil && r.symbol != "" {
		d := *r.current
		for i := len(r.blocks) - 1; i >= 0; i-- {
			b := r.blocks[i]
			d.depends, d.visible = both(b.depends, d.depends), both(b.visible, d.visible)
			if d.choice == 0 {
				d.choice = b.choice
			}
		}
		r.symbols[r.symbol] = append(r.symbols[r.symbol], d)
		if _, known := r.order[r.symbol]; !known {
			r.order[r.symbol] = len(r.order)
		}
	}
	r.symbol, r.current = "", nil
}

// A token is a word of a line.
type token struct {
	text   string
	quoted bool
}

// tokens parts a line into words. "$(macro,with spaces)" is one of them.
func tokens(line string) []token {
	var words []token
	for i := 0; i < len(line); {
		c := line[i]
		rest := line[i:]
		switch {
		case c == ' ' || c == '\t' || c == '\r':
			i++
			continue
		case c == '#':
			return words
		case c == '"' || c == '\'':
			end, text := 1, strings.Builder{}
			for ; end < len(rest) && rest[end] != c; end++ {
				if rest[end] == '\\' && end+1 < len(rest) {
					end++
				}
				text.WriteByte(rest[end])
			}
			words = append(words, token{text.String(), true})
			i += min(end+1, len(rest))
		case strings.HasPrefix(rest, "&&"), strings.HasPrefix(rest, "||"), strings.HasPrefix(rest, "!="), strings.HasPrefix(rest, "<="), strings.HasPrefix(rest, ">="):
			words = append(words, token{rest[:2], false})
			i += 2
		case strings.IndexByte("!=<>()", c) >= 0:
			words = append(words, token{rest[:1], false})
			i++
		default:
			end, open := 0, 0
			for ; end < len(rest); end++ {
				switch {
				case strings.HasPrefix(rest[end:], "$("):
					open++
					end++
				case open > 0 && rest[end] == '(':
					open++
				case open > 0 && rest[end] == ')':
					open--
				case open == 0 && strings.IndexByte(" \t\r#\"'&|!=<>()", rest[end]) >= 0:
					goto word
				}
			}
		word:
			end = max(end, 1) // a lone & or | is a word
			words = append(words, token{rest[:end], false})
			i += end
		}
	}
	return words
}
