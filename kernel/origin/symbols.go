package origin

import (
	"bufio"
	"debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Symbols are the functions of a kernel, and, where there is debug information, the
// lines of its source.
type Symbols struct {
	funcs []symbol // by address
	data  *dwarf.Data
}

type symbol struct {
	addr uint64
	name string
}

// A Place is a function, and a line of its source where that is known.
type Place struct {
	Function string `json:"function"`
	Offset   uint64 `json:"offset,omitempty"` // of the instruction in the function, where the line is not known
	File     string `json:"file,omitempty"`   // kernel/audit.c
	Line     int    `json:"line,omitempty"`
	// Jumped: it did not call what it led to, but ended by jumping there, from where is
	// not known.
	Jumped bool `json:"jumped,omitempty"`
}

// String is the place as people write it.
func (p Place) String() string {
	switch {
	case p.Jumped:
		return p.Function + ", by a jump"
	case p.File != "":
		return fmt.Sprintf("%s at %s:%d", p.Function, p.File, p.Line)
	}
	return fmt.Sprintf("%s+%#x", p.Function, p.Offset)
}

// maxSymbols is how many are taken: a kernel of everything has 200,000.
const maxSymbols = 2_000_000

// ReadSymbols reads a System.map (nm(1)'s format) or a vmlinux.
func ReadSymbols(file string) (*Symbols, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	defer f.Close()
	var s *Symbols
	var magic [4]byte
	if n, _ := f.ReadAt(magic[:], 0); n == 4 && string(magic[:]) == elf.ELFMAG {
		s, err = readELF(f)
	} else {
		s, err = readMap(f)
	}
	if s, err = newSymbols(s, err); err != nil {
		return nil, fmt.Errorf("read symbols of %s: %w", file, err)
	}
	return s, nil
}

// newSymbols are those that were read, in order.
func newSymbols(s *Symbols, err error) (*Symbols, error) {
	if err != nil {
		return nil, err
	}
	if len(s.funcs) == 0 {
		return nil, errors.New("it has no functions")
	}
	slices.SortStableFunc(s.funcs, func(a, b symbol) int {
		switch {
		case a.addr < b.addr:
			return -1
		case a.addr > b.addr:
			return 1
		}
		return 0
	})
	return s, nil
}

// readMap reads lines such as "ffffffff81000000 T _text", of a System.map or of
// /proc/kallsyms.
func readMap(r io.Reader) (*Symbols, error) {
	s := new(Symbols)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if len(parts) < 3 || !strings.ContainsAny(parts[1], "tTwW") {
			continue
		}
		addr, err := strconv.ParseUint(parts[0], 16, 64)
		if err != nil {
			return nil, err
		}
		if addr == 0 { // not told, to who is not root (kptr_restrict in sysctl/kernel.rst)
			continue
		}
		if s.funcs = append(s.funcs, symbol{addr, parts[2]}); len(s.funcs) > maxSymbols {
			return nil, errors.New("it has too many")
		}
	}
	return s, lines.Err()
}

func readELF(r io.ReaderAt) (*Symbols, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	list, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	s := new(Symbols)
	for _, sym := range list {
		if t := elf.ST_TYPE(sym.Info); t == elf.STT_FUNC || t == elf.STT_NOTYPE && sym.Section != elf.SHN_ABS && sym.Section != elf.SHN_UNDEF {
			s.funcs = append(s.funcs, symbol{sym.Value, sym.Name})
		}
	}
	if f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		if s.data, err = f.DWARF(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Address is where the first function begins that has one of the names; 0 if none is
// there.
func (s *Symbols) Address(names ...string) uint64 {
	for _, name := range names {
		for _, f := range s.funcs {
			if f.name == name {
				return f.addr
			}
		}
	}
	return 0
}

// Extent is from where to where a function goes.
func (s *Symbols) Extent(name string) (from, to uint64) {
	from = s.Address(name)
	i := sort.Search(len(s.funcs), func(i int) bool { return s.funcs[i].addr > from })
	if from == 0 || i == len(s.funcs) {
		return from, from
	}
	return from, s.funcs[i].addr
}

// Places is where an instruction is: the function, before it those that are inlined
// there, the innermost first. There is one at least.
func (s *Symbols) Places(addr uint64) []Place {
	if s.data != nil {
		if places, err := s.lines(addr); err == nil && len(places) > 0 {
			return places
		}
	}
	return []Place{s.function(addr)}
}

// function is the place without debug information.
func (s *Symbols) function(addr uint64) Place {
	i := sort.Search(len(s.funcs), func(i int) bool { return s.funcs[i].addr > addr })
	if i == 0 {
		return Place{Function: fmt.Sprintf("%#x", addr)}
	}
	return Place{Function: s.funcs[i-1].name, Offset: addr - s.funcs[i-1].addr}
}

// lines is Places by the debug information.
func (s *Symbols) lines(addr uint64) ([]Place, error) {
	r := s.data.Reader()
	unit, err := r.SeekPC(addr)
	if err != nil {
		return nil, err
	}
	table, err := s.data.LineReader(unit)
	if err != nil || table == nil {
		return nil, err
	}
	var line dwarf.LineEntry
	if err := table.SeekPC(addr, &line); err != nil {
		return nil, err
	}
	dir, _ := unit.Val(dwarf.AttrCompDir).(string)
	short := func(name string) string { return strings.TrimPrefix(strings.TrimPrefix(name, dir+"/"), "./") }
	at := Place{File: short(line.File.Name), Line: line.Line}
	var places []Place
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if err != nil || e == nil {
			return places, err
		}
		if e.Tag == 0 {
			depth--
			continue
		}
		inside := e.Tag == dwarf.TagLexDwarfBlock
		if e.Tag == dwarf.TagSubprogram || e.Tag == dwarf.TagInlinedSubroutine {
			ranges, err := s.data.Ranges(e)
			if err != nil {
				return places, err
			}
			inside = slices.ContainsFunc(ranges, func(r [2]uint64) bool { return r[0] <= addr && addr < r[1] })
			if inside {
				// Outside in: what is at hand is where the inner one is called.
				inner := at
				if e.Tag == dwarf.TagInlinedSubroutine && len(places) > 0 {
					file, _ := e.Val(dwarf.AttrCallFile).(int64)
					number, _ := e.Val(dwarf.AttrCallLine).(int64)
					if files := table.Files(); file >= 0 && int(file) < len(files) && files[file] != nil {
						places[0].File, places[0].Line = short(files[file].Name), int(number)
					}
				}
				inner.Function = s.nameOf(e)
				places = append([]Place{inner}, places...)
			}
		}
		switch {
		case e.Children && inside:
			depth++
		case e.Children:
			r.SkipChildren()
		}
	}
	return places, nil
}

// nameOf is a function's name, which may be at the entry that it is an instance of.
func (s *Symbols) nameOf(e *dwarf.Entry) string {
	for range 4 {
		if name, ok := e.Val(dwarf.AttrName).(string); ok {
			return name
		}
		of, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			if of, ok = e.Val(dwarf.AttrSpecification).(dwarf.Offset); !ok {
				break
			}
		}
		r := s.data.Reader()
		r.Seek(of)
		next, err := r.Next()
		if err != nil || next == nil {
			break
		}
		e = next
	}
	return "?"
}
