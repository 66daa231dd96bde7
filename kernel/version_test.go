package kernel

import "testing"

func TestCompareVersions(t *testing.T) {
	debian := func(a, b string) int { return CompareReleases(a, b, true) }
	rpm := func(a, b string) int { return CompareReleases(a, b, false) }
	for _, test := range []struct {
		how     string
		compare func(a, b string) int
		a, b    string
		want    int
	}{
		{"dpkg", CompareDebian, "6.1.192-2", "6.1.192-2", 0},
		{"dpkg", CompareDebian, "6.1.99-1", "6.1.192-1", -1},
		{"dpkg", CompareDebian, "6.1.192-1~bpo12+1", "6.1.192-1", -1},
		{"dpkg", CompareDebian, "6.1.192-1", "6.1.192-1+b1", -1},
		{"dpkg", CompareDebian, "6.10~rc3-1", "6.10-1", -1},
		{"dpkg", CompareDebian, "1:1.0-1", "6.1-1", 1},
		{"dpkg", CompareDebian, "1.0a", "1.0+", -1},
		{"dpkg", CompareDebian, "1.0a", "1.0", 1},
		{"dpkg", CompareDebian, "1.007", "1.7", 0},
		{"dpkg", CompareDebian, "6.1", "6.1-0", 0},
		{"dpkg", CompareDebian, "6.1-2", "6.1+x-1", -1},
		{"dpkg", CompareDebian, "5.15.0-91.101", "5.15.0-101.9", -1},
		{"dpkg", CompareDebian, "99999999999999999999999", "100000000000000000000000", -1},
		{"rpm", CompareRPM, "5.14.0-362.el9", "5.14.0-362.8.1.el9_3", -1},
		{"rpm", CompareRPM, "5.14.0-362.13.1.el9_3", "5.14.0-362.8.1.el9_3", 1},
		{"rpm", CompareRPM, "2:1-1", "10:0-1", -1},
		{"rpm", CompareRPM, "1.0~rc1-1", "1.0-1", -1},
		{"rpm", CompareRPM, "1.0^git1", "1.0", 1},
		{"rpm", CompareRPM, "1.0^git1", "1.0.1", -1},
		{"rpm", CompareRPM, "1.0^", "1.0^a", -1},
		{"rpm", CompareRPM, "1_0", "1.0", 0},
		{"rpm", CompareRPM, "1.a", "1.1", -1},
		{"rpm", CompareRPM, "6.8.0", "6.8.0.1", -1},
		{"Debian's releases", debian, "6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", -1},
		{"Debian's releases", debian, "6.1.0-56-cloud-amd64", "6.12.100+deb12-cloud-amd64", -1},
		{"Debian's releases", debian, "6.10-rc3-amd64", "6.10-amd64", -1},
		{"Debian's releases", debian, "6.1.0-0.deb11.7-amd64", "6.1.0-7-amd64", -1},
		{"rpm's releases", rpm, "5.14.0-362.el9.x86_64", "5.14.0-362.8.1.el9_3.x86_64", -1},
		{"rpm's releases", rpm, "6.2.0-rc1", "6.2.0-rc10", -1},
		{"rpm's releases", rpm, "6.2.0-rc10", "6.2.0", -1},
		{"rpm's releases", rpm, "6.2.0", "6.2.0-1.fc38", -1},
		{"rpm's releases", rpm, "6.1.0", "6.1.0", 0},
	} {
		if got := test.compare(test.a, test.b); got != test.want {
			t.Errorf("%s: %s against %s: %d, want %d", test.how, test.a, test.b, got, test.want)
		}
		if got := test.compare(test.b, test.a); got != -test.want {
			t.Errorf("%s: %s against %s: %d, want %d", test.how, test.b, test.a, got, -test.want)
		}
	}
}

// Whatever the versions, there is an order, and it does not depend on who is
// asked first.
func FuzzCompareVersions(f *testing.F) {
	f.Add("1:6.1.192-2~bpo", "6.1-rc1", "6.1.0^git")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for name, compare := range map[string]func(a, b string) int{
			"dpkg": CompareDebian, "rpm": CompareRPM,
			"releases": func(a, b string) int { return CompareReleases(a, b, true) },
		} {
			if compare(a, a) != 0 || compare(a, b) != -compare(b, a) {
				t.Errorf("%s: %q, %q: %d and %d", name, a, b, compare(a, b), compare(b, a))
			}
			if compare(a, b) <= 0 && compare(b, c) <= 0 && compare(a, c) > 0 {
				t.Errorf("%s: %q, %q, %q are in no order", name, a, b, c)
			}
		}
	})
}
