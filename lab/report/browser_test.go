package report

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestBrowser looks at pages in Chromium: that their own policy lets the style
// sheet apply and nothing else happens, that they are light or dark as the reader
// is, and that no page is wider than its window, be it a phone's.
func TestBrowser(t *testing.T) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: runs a real browser")
	}
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not installed: run lab doctor --install")
	}
	var svg strings.Builder
	if err := SVG(&svg, example().Graph, "commit", nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	chromium := func(args ...string) (stdout, stderr string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, browser, append([]string{
			"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
			"--user-data-dir=" + filepath.Join(dir, "profile"), "--enable-logging=stderr", "--allow-file-access-from-files",
		}, args...)...)
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("chromium: %v\n%s", err, errs.String())
		}
		return out.String(), errs.String()
	}
	pages := map[string]string{"example": render(t, example(), FormHTML), "hostile": render(t, hostile(""), FormHTML),
		"matrix": renderMatrix(t, exampleMatrix(), FormHTML), "hostilematrix": renderMatrix(t, hostileMatrix(), FormHTML)}
	for name, page := range pages {
		file := write(name+".html", page)
		if name != "example" {
			continue // they are measured below
		}
		for scheme, want := range map[string]color.RGBA{"0": {0x09, 0x0c, 0x10, 0xff}, "1": {0xf6, 0xf8, 0xfa, 0xff}} { // dark, light
			shot := filepath.Join(dir, "shot.png")
			_, stderr := chromium("--blink-settings=preferredColorScheme="+scheme, "--window-size=1000,700", "--screenshot="+shot, "file://"+file)
			if strings.Contains(stderr, "Content Security Policy") || strings.Contains(stderr, "CONSOLE") {
				t.Errorf("%s: %s", name, stderr)
			}
			img := readPNG(t, shot)
			if got := color.RGBAModel.Convert(img.At(3, 3)); got != want {
				t.Errorf("%s: the page's ground is %v, want %v", name, got, want)
			}
			if seen := colors(img); seen < 20 {
				t.Errorf("%s: there are %d colours on the page", name, seen)
			}
		}
	}
	// A page around them measures the pages in frames of several widths.
	frames := ""
	for name := range pages {
		for _, width := range []int{320, 390, 800, 1400} {
			frames += fmt.Sprintf("<iframe src=\"%s.html\" width=\"%d\" height=\"600\" title=\"%s\"></iframe>\n", name, width, name)
		}
	}
	outer := write("frames.html", "<!DOCTYPE html>"+frames+`<pre></pre><script>
onload = () => { for (const f of document.querySelectorAll("iframe")) {
  const d = f.contentDocument;
  for (const e of d.querySelectorAll("details")) e.open = true;
  document.querySelector("pre").textContent += "measured " + f.title + " " + f.width + " " + d.documentElement.scrollWidth + " " + d.scripts.length + " " + d.images.length + "\n";
} };
</script>`)
	dom, stderr := chromium("--dump-dom", "file://"+outer)
	found := regexp.MustCompile(`(?m)measured (\w+) (\d+) (\d+) (\d+) (\d+)$`).FindAllStringSubmatch(dom, -1)
	if strings.Contains(stderr, "Content Security Policy") {
		t.Error(stderr)
	}
	if len(found) != 4*len(pages) {
		t.Fatalf("%d pages were measured\n%s\n%.2000s", len(found), stderr, dom)
	}
	for _, m := range found {
		if m[2] != m[3] || m[4] != "0" || m[5] != "0" {
			t.Errorf("%s is %s pixels wide in a window of %s, with %s scripts and %s images", m[1], m[3], m[2], m[4], m[5])
		}
	}
	shot := filepath.Join(dir, "graph.png")
	chromium("--blink-settings=preferredColorScheme=0", "--window-size=700,300", "--screenshot="+shot, "file://"+write("graph.svg", svg.String()))
	if img := readPNG(t, shot); color.RGBAModel.Convert(img.At(1, 1)) != (color.RGBA{0x0d, 0x11, 0x17, 0xff}) || colors(img) < 10 {
		t.Errorf("the graph has %d colours, and its ground is %v", colors(img), img.At(1, 1))
	}
}

func readPNG(t *testing.T, name string) image.Image {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func colors(img image.Image) int {
	seen := map[color.Color]bool{}
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			seen[img.At(x, y)] = true
		}
	}
	return len(seen)
}
