package bundle

// Script makes reproduce.sh, which shows a bundle's regression on a machine
// that has QEMU, a POSIX shell and gzip, without lab.
type Script struct {
	// Good and Bad are the arguments that QEMU is started with for either
	// kernel, without the program's name. Members are named as in the bundle
	// (kernels/good/bzImage); DiskPath stands for the expanded disk. The console
	// must be on standard output, and no file descriptor may be inherited.
	Good, Bad []string
}

// DiskPath is replaced by the path of the expanded disk in a script's arguments.
const DiskPath = "{disk}"

// Render writes the script for a bundle.
func (s Script) Render(m Manifest) ([]byte, error) { return nil, nil }
