package report

import (
	"encoding/json"
	"encoding/xml"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// matrixOf makes a matrix of axes, each a word and its values between blanks, whose
// verdicts are given by a function of the titles.
func matrixOf(judge func(titles []string) string, axes ...string) Matrix {
	m := Matrix{Format: MatrixFormat, Test: []string{"useradd", "-m", "test"}, Dir: "state"}
	n := 1
	for _, a := range axes {
		words := strings.Fields(a)
		axis := MatrixAxis{Name: words[0], Noun: words[0], Phrase: map[string]string{"kernel": "on %s", "image": "in %s", "cmdline": "with %s"}[words[0]]}
		for _, w := range words[1:] {
			axis.Values = append(axis.Values, MatrixValue{Title: w, Value: w})
		}
		n *= len(axis.Values)
		m.Axes = append(m.Axes, axis)
	}
	for i := range n {
		c := MatrixCell{At: make([]int, len(axes)), Reason: "exit status 0"}
		titles := make([]string, len(axes))
		for a := len(axes) - 1; a >= 0; a-- {
			values := m.Axes[a].Values
			c.At[a], i = i%len(values), i/len(values)
			titles[a] = values[c.At[a]].Title
		}
		switch c.Verdict = judge(titles); c.Verdict {
		case "good":
			c.Good = 1
		case "bad":
			c.Bad, c.Reason, c.Said = 1, "exit status 12", "useradd: cannot set SELinux context"
			c.Run.Stderr = "useradd: cannot set SELinux context\n"
		case "flaky":
			c.Verdict, c.Good, c.Bad, c.Reason = "bad", 3, 2, "exit status 1"
		default:
			c.Skip, c.Reason = 1, "does not boot: panic"
		}
		c.Run.Console = "Linux version 6.1\n"
		m.Cells = append(m.Cells, c)
	}
	m.Tell()
	return m
}

func exampleMatrix() Matrix {
	m := matrixOf(func(at []string) string {
		switch {
		case at[0] == "4.19" && at[2] == "security=apparmor":
			return "skip"
		case at[1] == "bullseye" && at[2] == "security=selinux":
			return "bad"
		case at[1] == "trixie" && at[0] == "6.12" && at[2] == "security=selinux":
			return "flaky"
		}
		return "good"
	}, "kernel 4.19 5.10 6.1 6.12", "image bullseye bookworm trixie", "cmdline none security=apparmor security=selinux")
	m.Cells[0].Boot, m.Cells[0].Test = 2e9, 1e9
	return m
}

func hostileMatrix() Matrix {
	evil := "</title></style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>`` @team | \u202e\x1b[2J\x00\xff\r\n"
	m := matrixOf(func(at []string) string { return []string{"good", "bad", "skip", evil}[len(at[0])%4] }, "kernel a bb ccc dddd", "image x y", "cmdline "+strings.Repeat("q ", 50))
	flood := strings.Repeat(evil+"\n", 200)
	for i := range m.Axes {
		for j := range m.Axes[i].Values {
			m.Axes[i].Values[j].Title += evil
		}
	}
	for i := range m.Cells {
		c := &m.Cells[i]
		c.Reason, c.Said, c.Dir, c.Run = evil, flood[:5000], evil, Run{Stdout: flood, Stderr: flood, Syslog: flood, Console: flood}
	}
	m.Test, m.Dir = []string{flood, evil}, evil
	m.Tell()
	return m
}

func renderMatrix(t *testing.T, m Matrix, form string) string {
	t.Helper()
	data, err := RenderMatrix(m, form)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestMatrixSays looks at the sentence: the smallest set of values that explains the
// bad cells, or the good ones where that is shorter.
func TestMatrixSays(t *testing.T) {
	has := func(words ...string) func([]string) string {
		return func(at []string) string {
			for _, w := range words {
				if slices.Contains(strings.Split(w, "|"), "") {
					panic(w)
				}
				if !slices.ContainsFunc(strings.Split(w, "|"), func(one string) bool { return slices.Contains(at, one) }) {
					return "good"
				}
			}
			return "bad"
		}
	}
	not := func(f func([]string) string) func([]string) string {
		return func(at []string) string { return map[string]string{"good": "bad", "bad": "good"}[f(at)] }
	}
	kernels, images, cmdlines := "kernel 5.10 6.1 6.12", "image old new", "cmdline none selinux"
	for _, test := range []struct {
		judge func([]string) string
		want  string
	}{
		{has("selinux"), "bad only with selinux, on every kernel and image"},
		{has("selinux", "old"), "bad only in old with selinux, on every kernel"},
		{has("6.1|6.12"), "good only on 5.10, on every image and cmdline"},
		{has("5.10|6.1", "old"), "bad only on 5.10 or 6.1 in old, on every cmdline"},
		{has("6.12", "new", "selinux"), "bad only on 6.12 in new with selinux"},
		{not(has("6.1", "old")), "good only on 6.1 in old, on every cmdline"},
		{has(), "bad in every cell"},
		{not(has()), "good in every cell"},
		{func(at []string) string {
			if at[0] == "6.1" || at[1] == "new" && at[2] == "selinux" {
				return "bad"
			}
			return "good"
		}, "bad on 6.1, and in new with selinux"},
		{func(at []string) string {
			if at[0] == "6.12" {
				return "skip"
			}
			return has("selinux")(at)
		}, "bad only with selinux, on every kernel and image; 4 cells could not be judged"},
		{func([]string) string { return "skip" }, "no cell could be judged"},
	} {
		m := matrixOf(test.judge, kernels, images, cmdlines)
		if got := strings.Join(m.Says, "\n"); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	if got := exampleMatrix().Says; len(got) != 2 || got[1] != "fails at times only: 6.12 · trixie · security=selinux (bad in 2 of 5 runs)" {
		t.Errorf("%q", got)
	}
}

// TestMatrixText pins how tables of one, two and three axes lie.
func TestMatrixText(t *testing.T) {
	bad := func(at []string) string {
		if slices.Contains(at, "6.12") && !slices.Contains(at, "new") {
			return "bad"
		}
		return "good"
	}
	for _, test := range []struct {
		axes []string
		want string
	}{
		{[]string{"kernel 6.1 6.12"}, `2 kernels = 2 cells

6.1   good      exit status 0
6.12  BAD       exit status 12; it said: useradd: cannot set SELinux context

bad only on 6.12
1 good, 1 bad; state in state
`},
		{[]string{"kernel 5.10 6.1 6.12", "image old new", "cmdline quiet"}, `3 kernels × 2 images × 1 cmdline = 6 cells
cmdline: quiet

      old       new
5.10  good      good
6.1   good      good
6.12  BAD*      good

* differs from most of its row or column

bad only on 6.12 in old
  bad: exit status 12; it said: useradd: cannot set SELinux context
    6.12 · old
5 good, 1 bad; state in state
`},
		{[]string{"kernel 6.1 6.12", "image old new", "cmdline none a=very,long,boot,option,indeed"}, `2 kernels × 2 images × 2 cmdlines = 8 cells

                                      old       new
6.1   none                            good      good
      a=very,long,boot,option,indeed  good      good
6.12  none                            BAD       good
      a=very,long,boot,option,indeed  BAD       good

bad only on 6.12 in old, on every cmdline
  bad: exit status 12; it said: useradd: cannot set SELinux context
    6.12 · old · none
    6.12 · old · a=very,long,boot,option,indeed
6 good, 2 bad; state in state
`},
	} {
		m := matrixOf(bad, test.axes...)
		if diff := cmp.Diff(test.want, m.Text(false)); diff != "" {
			t.Error(diff)
		}
		if got := m.Text(true); !strings.Contains(got, "\x1b[1;31mBAD") || !strings.Contains(got, "\x1b[32mgood\x1b[0m") {
			t.Errorf("no colours in %q", got)
		}
	}
}

// TestMatrixForms reads each form as programs do.
func TestMatrixForms(t *testing.T) {
	if testing.Short() {
		t.Skip("long, with one goroutine")
	}
	for name, m := range map[string]Matrix{"example": exampleMatrix(), "hostile": hostileMatrix()} {
		for _, form := range MatrixForms {
			got := renderMatrix(t, m, form)
			if len(got) > 4*MaxHTML || strings.ContainsAny(got, "\x1b\x00\r") || strings.Contains(got, "\u202e") {
				t.Errorf("%s: %s: %d bytes, or what steers a terminal", name, form, len(got))
			}
			if form == FormHTML && len(got) > MaxHTML {
				t.Errorf("%s: a page of %d bytes", name, len(got))
			}
		}
		var back Matrix
		if err := json.Unmarshal([]byte(renderMatrix(t, m, FormJSON)), &back); err != nil || len(back.Cells) != len(m.Cells) {
			t.Errorf("%s: %d cells, %v", name, len(back.Cells), err)
		}
		var suites struct {
			Failures int `xml:"failures,attr"`
			Skipped  int `xml:"skipped,attr"`
			Cases    []struct {
				Name string `xml:"name,attr"`
			} `xml:"testsuite>testcase"`
		}
		if err := xml.Unmarshal([]byte(renderMatrix(t, m, FormJUnit)), &suites); err != nil {
			t.Fatal(err)
		}
		bad, skip := 0, 0
		for _, c := range m.Cells {
			switch c.Verdict {
			case "bad":
				bad++
			case "good":
			default:
				skip++
			}
		}
		if suites.Failures != bad || suites.Skipped != skip || len(suites.Cases) != len(m.Cells) {
			t.Errorf("%s: %d failures, %d skipped of %d cases", name, suites.Failures, suites.Skipped, len(suites.Cases))
		}
	}
	page := renderMatrix(t, exampleMatrix(), FormHTML)
	for _, want := range []string{
		`<th scope="row" rowspan="3">4.19</th>`, `<td class="bad odd"><a href="#cell-`, `<td class="bad flaky odd"><a href="#cell-`, `useradd: cannot set SELinux context`, `bad 2/5`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %s on the page", want)
		}
	}
	md := renderMatrix(t, exampleMatrix(), FormMarkdown)
	if !strings.Contains(md, "| `4.19` | `bullseye` | good | good |") && !strings.Contains(md, "| `4.19` |") {
		t.Error(md)
	}
}
