package corpus

import "strings"

// sparse are files with holes. "Sparse files SHOULD NOT be used because they
// lack consistent support across tar implementations": they come from tar -S and
// from disk images in layers.
func sparse() []Case {
	forms := []struct {
		name, rule string
		form       Form
	}{
		{"gnu", "GNU tar, Storing Sparse Files: type S", GNUSparse},
		{"pax-0.0", "GNU tar, PAX 0", Sparse00},
		{"pax-0.1", "GNU tar, PAX 0", Sparse01},
		{"pax-1.0", "GNU tar, PAX 1", Sparse10},
	}
	const mib = 1 << 20
	var scattered []Span
	for i := range 60 {
		// All but the last are whole blocks: readers disagree on others, and GNU tar
		// writes none.
		scattered = append(scattered, Span{int64(i) * 20 * blockSize, strings.Repeat(string(rune('a'+i%26)), blockSize*(1+i%3))})
	}
	var list []Case
	for _, f := range forms {
		list = append(list,
			Case{Name: "sparse-" + dashed(f.name), About: "data in the middle and at the very end, none at the start", Rule: f.rule,
				Layers: one(holes("a", f.form, 8*mib+3, Span{mib + blockSize, strings.Repeat("m", 2*blockSize)}, Span{8 * mib, "end"}), File("b", "B")),
				Tree: tree(`a {6e9f5812}
					b "B"`)},
			Case{Name: "sparse-" + dashed(f.name) + "-hole", About: "a file that is all hole, one that ends in a hole, and one that has none", Rule: f.rule,
				Layers: one(holes("a", f.form, 5*mib+1), holes("b", f.form, mib, Span{0, "start"}), holes("c", f.form, 4, Span{0, "full"}), File("d", "D")),
				Tree: tree(`a {09b203d5}
					b {08861b88}
					c "full"
					d "D"`)},
			Case{Name: "sparse-" + dashed(f.name) + "-scattered", About: "sixty pieces, more than one header holds, with mode, owner and a long name", Rule: f.rule,
				Layers: one(holes(strings.Repeat("long/", 30)+"a", f.form, 60*20*blockSize, scattered...).mode(0o4750).owner(70000, 5)),
				Tree:   append(impliedTree(strings.Repeat("long/", 30)), quoteOdd(strings.Repeat("long/", 30)+"a")+" {264f8c8b} 4750 70000:5")})
	}
	for i, c := range list {
		if strings.HasPrefix(c.Name, "sparse-gnu") {
			list[i].Umoci = noSparse
		}
	}
	return list
}

// noSparse is umoci with GNU's own sparse files.
var noSparse = Other{Error: `unknown typeflag '\x53'`, Why: "umoci, containerd and docker do not know type S, which archive/tar reads for them"}

func dashed(s string) string { return strings.ReplaceAll(s, ".", "") }
