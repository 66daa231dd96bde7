package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxConfigDifferences bounds what is said of two configurations.
const maxConfigDifferences = 100

// compareConfig says what differs in a container's configuration, key by key, on
// top of that its bytes do. What is no configuration, or none that can be read,
// has nothing to add.
func (d *differ) compareConfig(ctx context.Context, a, b *Stat) []Difference {
	if !isConfig(a.Path) || !isConfig(b.Path) {
		return nil
	}
	var flat [2]map[string]string
	for i, s := range []struct {
		t *Tree
		f *Stat
	}{{d.was.t, a}, {d.is.t, b}} {
		text, err := s.t.readSmall(ctx, s.f)
		if err != nil {
			return nil
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		var v any
		if decoder.Decode(&v) != nil {
			return nil
		}
		flat[i] = make(map[string]string)
		flatten(flat[i], "", v)
	}
	keys := slices.AppendSeq(slices.Collect(maps.Keys(flat[0])), maps.Keys(flat[1]))
	slices.Sort(keys)
	var list []Difference
	for _, key := range slices.Compact(keys) {
		if was, is := flat[0][key], flat[1][key]; was != is {
			list = append(list, Difference{"config " + key, was, is})
		}
	}
	return list[:min(len(list), maxConfigDifferences)]
}

func isConfig(p string) bool {
	parts := strings.Split(p, "/")
	return len(parts) == 4 && parts[1] == containersDir && parts[3] == "config.json"
}

// flatten takes objects apart: {"a": {"b": 1}, "c": [2]} is a.b and c. Lists stay
// whole, as an argument that was put in moves all behind it.
func flatten(out map[string]string, key string, v any) {
	object, ok := v.(map[string]any)
	if !ok || len(object) == 0 {
		text, err := json.Marshal(v)
		if err != nil {
			text = fmt.Append(nil, v)
		}
		out[key] = string(text)
		return
	}
	for name, v := range object {
		if key != "" {
			name = key + "." + name
		}
		flatten(out, name, v)
	}
}

// printable is s where all of it can be shown, else s in quotes with escapes.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
