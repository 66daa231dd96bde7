package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lab/kernel"
	"lab/kernel/qemu"
	"lab/oci"
)

// readyMade gets the Spec's kernel, one that somebody else built, with the
// modules that the Spec asks for and those offered that it has. An image is
// the pinned one, where there is a pin.
func (l *Lab) readyMade(ctx context.Context, s Spec, pin string, offered ...string) (kernel.Kernel, error) {
	m := kernel.Modules{Offered: offered, Needed: s.Kernel.Modules}
	if s.Machine.Exact {
		m.Offered = slices.Concat(m.Offered, qemu.ExactModules)
	}
	if slices.Contains(oci.Engines, s.Test.Runtime) {
		m.Offered = append(slices.Clone(m.Offered), "overlay") // of what is in their stores
	}
	file := s.Kernel.File
	if oci.HasTransport(file) {
		k, _, err := l.imageKernel(ctx, s, pin, m)
		return k, err
	}
	if info, err := os.Stat(file); kernel.IsPackage(file) || err == nil && info.IsDir() {
		l.Progress.Show("unpacking %s", filepath.Base(file))
		defer l.Progress.Show("")
		return kernel.FromPackage(ctx, l.Cache, file, m)
	}
	k, err := kernel.FromFile(file)
	if err == nil && len(m.Needed) > 0 {
		err = fmt.Errorf("kernel %s comes without modules: for module %s give the package that it is in", file, m.Needed[0])
	}
	return k, err
}

// imageKernel gets the kernel in an image.
func (l *Lab) imageKernel(ctx context.Context, s Spec, pin string, m kernel.Modules) (kernel.Kernel, oci.Pin, error) {
	store, err := l.store()
	if err != nil {
		return kernel.Kernel{}, oci.Pin{}, err
	}
	img, err := l.image(ctx, store, s, Load{Reference: s.Kernel.File}, pin)
	if err != nil {
		return kernel.Kernel{}, oci.Pin{}, err
	}
	l.Progress.Show("unpacking the kernel of %s", img.Pin.Reference)
	defer l.Progress.Show("")
	k, err := kernel.FromTar(ctx, l.Cache, publicReference(img.Pin.Reference), img.Pin.Digest, m, flatten(img, s.Limits))
	return k, img.Pin, err
}

// checkModules ends the trial where a module that was asked for did not load:
// what the test says then is not of the kernel but of the module's absence. The
// agent's note says why.
func checkModules(names []string, t *Trial) {
	if t.End != EndTest {
		return
	}
	for _, note := range t.Result.Notes {
		for _, name := range names {
			if strings.HasPrefix(note, "load module /lib/modules/"+strings.ReplaceAll(name, "-", "_")+".ko: ") {
				t.End, t.Detail = EndSetup, oneLine(note)
			}
		}
	}
}
