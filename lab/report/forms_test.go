package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPage reads the page as strict XML, which it is written as: whatever text is in
// it, there are the elements and attributes of the template and no others, and
// nothing leads outside.
func TestPage(t *testing.T) {
	checkPage(t, "example", render(t, example(), FormHTML))
	checkPage(t, "hostile", render(t, hostile(""), FormHTML))
	checkPage(t, "matrix", renderMatrix(t, exampleMatrix(), FormHTML))
	checkPage(t, "hostile matrix", renderMatrix(t, hostileMatrix(), FormHTML))
	for _, css := range []string{pageStyle, graphStyle, matrixStyle} {
		if strings.Contains(css, "url(") || strings.Contains(css, "@import") || strings.Contains(css, "<") {
			t.Error("the style sheet refers to something else")
		}
	}
}

// checkPage reads one page.
func checkPage(t *testing.T, name, page string) {
	t.Helper()
	allowed := strings.Fields("html head meta title style body header p h1 h2 h3 q b br span nav a main section dl div dt dd code details summary pre i table thead tbody tr th td svg rect path g circle text tspan ol ul li")
	x := xml.NewDecoder(strings.NewReader(page))
	ids, links := map[string]bool{}, map[string]bool{}
	for {
		token, err := x.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !slices.Contains(allowed, start.Name.Local) {
			t.Fatalf("%s: there is an element %s", name, start.Name.Local)
		}
		for _, a := range start.Attr {
			key := a.Name.Local
			switch {
			case key == "id" && ids[a.Value]:
				t.Errorf("%s: the id %s is there twice", name, a.Value)
			case key == "id":
				ids[a.Value] = true
			case key == "href":
				links[a.Value] = true
			case key == "src" || key == "style" || key == "action" || strings.HasPrefix(key, "on"):
				t.Errorf("%s: %s has the attribute %s", name, start.Name.Local, key)
			}
		}
	}
	for l := range links {
		if !strings.HasPrefix(l, "#") || !ids[l[1:]] {
			t.Errorf("%s: the link %q leads nowhere", name, l)
		}
	}
	if len(links) < 5 {
		t.Errorf("%s: %d links", name, len(links))
	}
}

// TestPageShows looks for what a reader needs.
func TestPageShows(t *testing.T) {
	got := strings.ReplaceAll(render(t, example(), FormHTML), "&#43;", "+")
	for what, want := range map[string]string{
		"the sentence":         `<h1>Since “audit: listen in all network namespaces”, a container test fails.</h1>`,
		"first line to differ": `<span class="first">OKAY`,
		"what is not there":    `<i class="first">nothing more`,
		"a report's link":      `<a href="#bad-report-1">WARNING in audit_log</a>`,
		"the report":           `<span class="report begins" id="bad-report-1">[    0.200000] ------------[ cut here ]`,
		"a line of it":         `<span class="report">[    0.200003]  [&lt;ffffffff8100cafe&gt;] audit_log+0x12/0x34`,
		"a line behind it":     `<span>[    0.300000] reboot: Power down`,
		"an added line":        `<span class="add">+	return 0 &lt; 1 &amp;&amp; &#34;a&#34;;`,
		"a step's link":        `<a href="#step-6"><text class="title"`,
		"the runs":             `<td class="n">2 of 2</td>`,
		"the rerun":            `<pre>lab reproduce bundle.tar</pre>`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s: there is no %s", what, want)
		}
	}
}

// TestContrast computes it for every text on its ground, in both themes: WCAG 2.1
// (1.4.3) asks for 4.5.
func TestContrast(t *testing.T) {
	themes := strings.SplitN(pageStyle, "prefers-color-scheme: dark", 2)
	if len(themes) != 2 {
		t.Fatal("there is no dark theme")
	}
	graph := strings.SplitN(graphStyle, "@media", 2)
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{3,6})`)
	for name, sheet := range map[string]string{"light": themes[0], "dark": themes[1], "light graph": graph[0], "dark graph": graph[1]} {
		colors := map[string]float64{}
		for _, m := range variable.FindAllStringSubmatch(sheet, -1) {
			if _, ok := colors[m[1]]; !ok {
				colors[m[1]] = luminance(t, m[2])
			}
		}
		grounds := []string{"page", "card", "code"}
		texts := []string{"ink", "soft", "link"}
		if strings.HasSuffix(name, "graph") {
			grounds, texts = []string{"ground"}, []string{"ink", "soft"}
		}
		check := func(text, ground string) {
			a, ok := colors[text]
			b, also := colors[ground]
			if !ok || !also {
				t.Fatalf("%s: there is no %s or %s", name, text, ground)
			}
			if c := (max(a, b) + .05) / (min(a, b) + .05); c < 4.5 {
				t.Errorf("%s: %s on %s has a contrast of %.2f", name, text, ground, c)
			}
		}
		for _, g := range grounds {
			for _, text := range texts {
				check(text, g)
			}
		}
		for _, tone := range []string{"good", "bad", "skip"} {
			check(tone, tone+"-tint")
		}
		check("soft", "out-tint")
		check("ink", "skip-tint")
	}
}

// luminance is WCAG's relative luminance.
func luminance(t *testing.T, color string) float64 {
	t.Helper()
	if color = color[1:]; len(color) == 3 {
		color = string([]byte{color[0], color[0], color[1], color[1], color[2], color[2]})
	}
	n, err := strconv.ParseUint(color, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	channel := func(v uint64) float64 {
		c := float64(v&0xff) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*channel(n>>16) + .7152*channel(n>>8) + .0722*channel(n)
}

// TestJUnit reads it as programs do.
func TestJUnit(t *testing.T) {
	for _, d := range []Document{example(), hostile("")} {
		type result struct {
			Message string `xml:"message,attr"`
		}
		var got struct {
			XMLName xml.Name `xml:"testsuites"`
			Suites  []struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Skipped  int `xml:"skipped,attr"`
				Cases    []struct {
					Class   string  `xml:"classname,attr"`
					Name    string  `xml:"name,attr"`
					Time    float64 `xml:"time,attr"`
					Failure *result `xml:"failure"`
					Skipped *result `xml:"skipped"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		if err := xml.Unmarshal([]byte(render(t, d, FormJUnit)), &got); err != nil {
			t.Fatal(err)
		}
		s := got.Suites[0]
		names := map[string]bool{}
		failed, skipped := 0, 0
		for i, c := range s.Cases {
			names[c.Class+" "+c.Name] = true
			if c.Failure != nil {
				failed++
			}
			if c.Skipped != nil {
				skipped++
			}
			if (c.Failure != nil) != (d.Steps[i].Verdict == "bad") || c.Time < 0 {
				t.Errorf("case %d: %+v", i, c)
			}
		}
		if len(names) != len(d.Steps) || s.Tests != len(d.Steps) || s.Failures != failed || s.Skipped != skipped || failed != 3 {
			t.Errorf("%d names of %d steps; %d tests, %d failed (%d), %d skipped (%d)", len(names), len(d.Steps), s.Tests, s.Failures, failed, s.Skipped, skipped)
		}
	}
}

// TestKTAP reads it by the grammar of Documentation/dev-tools/ktap.rst.
func TestKTAP(t *testing.T) {
	result := regexp.MustCompile(`^(not )?ok (\d+) [^#]+?( # SKIP .*)?$`)
	for _, d := range []Document{example(), hostile("")} {
		text := render(t, d, FormKTAP)
		if !strings.HasSuffix(text, "\n") {
			t.Error("the last line does not end")
		}
		list := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if list[0] != "KTAP version 1" || list[1] != fmt.Sprintf("1..%d", len(d.Steps)) {
			t.Fatalf("begins %q", list[:2])
		}
		n := 0
		for _, line := range list[2:] {
			if strings.HasPrefix(line, "# ") {
				continue
			}
			m := result.FindStringSubmatch(line)
			if n++; m == nil || m[2] != strconv.Itoa(n) {
				t.Fatalf("%q is not result %d", line, n)
			}
			want := d.Steps[n-1].Verdict
			if (m[1] != "") != (want == "bad") || (m[3] != "") != (want != "bad" && want != "good") {
				t.Errorf("%q is said of a %.20q one", line, want)
			}
		}
		if n != len(d.Steps) {
			t.Errorf("%d results of %d", n, len(d.Steps))
		}
	}
}

// TestJSON reads it back.
func TestJSON(t *testing.T) {
	for _, d := range []Document{example(), hostile("")} {
		data := []byte(render(t, d, FormJSON))
		var back Document
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(back, back.Plain()); d != "" {
			t.Errorf("it is not plain text: %.2000s", d)
		}
	}
}

// TestMail sends a mail to nobody: git send-email must take it, and mean by it whom
// lab means.
func TestMail(t *testing.T) {
	if _, err := exec.Command("git", "send-email", "-h").CombinedOutput(); err != nil && strings.Contains(err.Error(), "not found") {
		t.Fatal("git is not installed: run lab doctor --install")
	}
	d := example()
	d.Manifest.Culprit.Author = "Ünï Çödé <unicode@example.org>"
	d.Manifest.Culprit.Title = "audit: hören, a title that is rather long so that it must be folded somewhere"
	d.Patch += "Reported-by: not a header <not@example.org>\n"
	d.Bad.Stdout = "Cc: output@example.org\nFrom nobody\n.\n#regzbot introduced: deadbeef\n"
	evil := hostile("")
	for name, d := range map[string]Document{"example": d, "hostile": evil} {
		t.Run(name, func(t *testing.T) {
			text := render(t, d, FormEmail)
			m, err := mail.ReadMessage(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, key := range []string{"To", "Cc"} {
				if m.Header.Get(key) == "" {
					continue
				}
				list, err := m.Header.AddressList(key)
				if err != nil {
					t.Fatalf("%s: %v", key, err)
				}
				for _, a := range list {
					want = append(want, a.Address)
				}
			}
			if len(m.Header) > 6 || m.Header.Get("Bcc") != "" || !slices.Contains(want, regressions) {
				t.Errorf("headers: %v", m.Header)
			}
			for i, line := range strings.Split(text, "\n") {
				if len(line) > 990 {
					t.Errorf("line %d has %d bytes: RFC 5322 allows 998", i+1, len(line))
				}
			}
			if n := strings.Count(text, "\n#regzbot"); n != 1 {
				t.Errorf("%d commands for regzbot", n)
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "mail")
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("git", "send-email", "--dry-run", "--confirm=never", "--no-thread", "--suppress-cc=self", "--from=reporter@example.org", file)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "EMAIL=reporter@example.org")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("git send-email: %v\n%s\nIs it installed? Run lab doctor --install", err, out)
			}
			var got []string
			for _, m := range regexp.MustCompile(`(?m)^RCPT TO:<(.*)>$`).FindAllSubmatch(out, -1) {
				got = append(got, string(m[1]))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("git send-email writes to %v, the mail says %v\n%s", got, want, out)
			}
			if !bytes.Contains(out, []byte("\nSubject: ")) || name == "example" && !slices.Contains(got, "unicode@example.org") {
				t.Errorf("%s", out)
			}
		})
	}
}

// TestAddress refuses what is no address, and keeps the name a name.
func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"A U Thor <author@example.org>":             `"A U Thor" <author@example.org>`,
		"author@example.org":                        `<author@example.org>`,
		`"Committer, C O" <c@example.org>`:          `"Committer, C O" <c@example.org>`,
		"Ünï <u@example.org>":                       `=?utf-8?q?=C3=9Cn=C3=AF?= <u@example.org>`,
		"x\r\nBcc: b@example.org <a@example.org>":   `"x Bcc: b@example.org" <a@example.org>`,
		"A <a@example.org>, B <b@example.org>":      `"A" <a@example.org>`,
		"A <a@example.org> <b@example.org>":         `"A" <a@example.org>`,
		"A <a@example.org\r\nBcc: b@example.org>":   "",
		"A <a@example.org,b@example.org>":           "",
		"A <a>":                                     "",
		"":                                          "",
		"A <-oProxyCommand@example.org -bs>":        "",
		"A <\"quoted local\"@example.org>":          "",
		"\u202eA <a@example.org>":                   `"A" <a@example.org>`,
		"A <a@" + strings.Repeat("x", 300) + ".org": "",
	} {
		a, err := ParseAddress(in)
		if got := a.String(); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
}
