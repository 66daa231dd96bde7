package oci

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	host, _ := serve(t)
	img := linuxImage(t, "amd64")
	for _, tag := range []string{"1", "2", "10"} {
		push(t, host+"/app:"+tag, img)
	}
	tags, err := Tags(t.Context(), host+"/app:1", PullOptions{})
	slices.Sort(tags)
	if err != nil || !slices.Equal(tags, []string{"1", "10", "2"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	if _, err := Tags(t.Context(), "oci:layout:1", PullOptions{}); err == nil || !strings.Contains(err.Error(), "only a registry has tags") {
		t.Errorf("a layout's: %v", err)
	}
	if _, err := Tags(t.Context(), host+"/nosuch:1", PullOptions{}); err == nil || !strings.Contains(err.Error(), "list tags of docker://"+host+"/nosuch:1") {
		t.Errorf("of a repository that is not there: %v", err)
	}
}

// A registry whose list has no end is left.
func TestEndlessTags(t *testing.T) {
	pages := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return
		}
		pages++
		w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?page=%d>; rel="next"`, pages))
		fmt.Fprint(w, `{"name":"app","tags":[`+strings.Repeat(`"t",`, 9999)+`"t"]}`)
	}))
	t.Cleanup(s.Close)
	_, err := Tags(t.Context(), strings.TrimPrefix(s.URL, "http://")+"/app", PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "one that does not end") || pages > maxTags/10000+2 {
		t.Errorf("after %d pages: %v", pages, err)
	}
}

func TestFirstLayers(t *testing.T) {
	img := Image{Pin: Pin{Reference: "rootfs:x"}, Image: imageOf(t,
		tarOf(t, file{Name: "a", Body: "1"}), tarOf(t, file{Name: "b", Body: "2"}), tarOf(t, file{Name: ".wh.a"}))}
	for n, want := range []string{"", "a", "a b", "b"} {
		cut, err := FirstLayers(img, n)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := flat(t, cut)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			has := slices.ContainsFunc(lines, func(line string) bool {
				return strings.Contains(line, " "+name+" ") || strings.HasPrefix(line, name+" ")
			})
			if has != strings.Contains(want, name) {
				t.Errorf("%d layers have %s: %v, in %q", n, name, has, lines)
			}
		}
		if digest, err := cut.Digest(); err != nil || cut.Pin.Digest != digest.String() || cut.Pin.Reference != "rootfs:x" {
			t.Errorf("%d layers are pinned as %+v, %v", n, cut.Pin, err)
		}
	}
	for _, n := range []int{-1, 4} {
		if _, err := FirstLayers(img, n); err == nil || !strings.Contains(err.Error(), "has 3 layers, not") {
			t.Errorf("%d layers: %v", n, err)
		}
	}
}
