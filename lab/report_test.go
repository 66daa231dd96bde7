package lab

import (
	"encoding/json"
	"strings"
	"testing"

	"lab/lab/bundle"
	"lab/lab/report"
)

// FuzzReport makes reports of what a stranger's bundle may have in its members.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"culprit":{"hash":"sha256:1"},"kernels":[{"digest":"sha256:1","version":"6.1~rc1"}],"runs":[{}],"rate":{},"tested":[{"known":"pie","verdict":"skip"}]}`),
		[]byte(`{"result":{"exit":1},"reports":[{"title":"t","text":"a\nb"}]}`), []byte(`{"parents":[0,1,2]}`+"\n{}\n"), []byte("Signed-off-by: a <a@b>\n"))
	f.Add([]byte(`{"axis":"image","parents":["x"],"culprit":{"title":"y","parents":["x"]}}`), []byte(`{}`), []byte(""), []byte("From: x"))
	f.Fuzz(func(t *testing.T, result, trial, graph, patch []byte) {
		var found Bisection
		var run Trial
		if json.Unmarshal(result, &found) != nil || json.Unmarshal(trial, &run) != nil {
			return
		}
		nodes, err := parseGraph(graph)
		if err != nil {
			return
		}
		run.Console = patch
		m := bundle.Manifest{Platform: "linux/amd64", Culprit: &bundle.Culprit{Commit: strings.Repeat("a", 40), Author: string(patch)}}
		for _, role := range []string{bundle.RoleGood, bundle.RoleBad} {
			m.Kernels = append(m.Kernels, bundle.Kernel{Role: role, Image: "kernels/" + role + "/bzImage"})
			m.Runs = append(m.Runs, bundle.Run{Role: role})
		}
		d, err := document(m, found, run, run, patch, nodes)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range report.Forms {
			if _, err := report.Render(d, form); err != nil {
				t.Errorf("%s: %v", form, err)
			}
		}
	})
}
