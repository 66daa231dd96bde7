package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// wanted are the modules that lab's guest cannot do without when they are not
// built in.
var wanted = []string{"virtio_pci", "virtio_blk", "ext4", "virtio_console"}

// DiskDrivers names the modules that find a disk on machines and hypervisors
// other than lab's own, for FromPackage.
func DiskDrivers() []string {
	return []string{
		"virtio_mmio", "virtio_scsi",
		"vmd", "pci_hyperv", "nvme", // the first two hide NVMe disks behind a bus of their own
		"ahci", "ata_piix", "ata_generic",
		"hv_storvsc", "vmw_pvscsi", "mptspi", "mptsas", "megaraid_sas", "sym53c8xx",
		"sd_mod",
		"xen_blkfront",
		"xhci_pci", "ehci_pci", "uhci_hcd", "uas", "usb_storage",
		"sdhci_pci", "sdhci_acpi", "mmc_block",
	}
}

const (
	maxModule  = 256 << 20 // bytes of one module, unpacked
	maxModinfo = 1 << 20   // bytes of its .modinfo section
)

// moduleSet is the modules of one kernel.
type moduleSet struct {
	owner   string            // the package, as it is spoken of
	absent  []string          // packages that may have more
	files   map[string]string // file by module name, maybe compressed (.ko.xz)
	builtin map[string]bool   // names that modules.builtin lists
}

// extract puts the named modules and all they depend on, unpacked, into dir
// and returns their files in the order to load them. The packages carry no
// modules.dep, which depmod makes at installation, so the dependencies are
// read from the modules themselves. Of names, a module that is not there is left
// out: whether that matters, the kernel's configuration tells. Of needed, all
// must be there or be part of the kernel.
func (s moduleSet) extract(dir string, names, needed []string) ([]string, error) {
	var order []string
	state := map[string]int{} // 1: on the way, 2: done
	var load func(name string) error
	load = func(name string) error {
		switch state[name] {
		case 1:
			return fmt.Errorf("module %s depends on itself", name)
		case 2:
			return nil
		}
		state[name] = 1
		file := filepath.Join(dir, name+".ko")
		if err := unpackModule(s.files[name], file); err != nil {
			return fmt.Errorf("unpack module %s: %w", name, err)
		}
		depends, soft, err := readModinfo(file)
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		for _, d := range soft {
			// A soft dependency may be absent, and may name an algorithm, "crc32c"
			// or by its alias "crypto-crc32c", whose plain implementation is the
			// module crc32c_generic.
			algorithm := strings.TrimPrefix(d, "crypto_")
			for _, d := range []string{d, algorithm, algorithm + "_generic"} {
				if s.files[d] != "" && !slices.Contains(depends, d) {
					depends = append(depends, d)
				}
			}
		}
		for _, d := range depends {
			switch {
			case s.files[d] != "":
				if err := load(d); err != nil {
					return err
				}
			case !s.builtin[d]:
				return fmt.Errorf("module %s needs %s, which is not in the package", name, d)
			}
		}
		state[name] = 2
		order = append(order, file)
		return nil
	}
	for _, name := range needed {
		if name = moduleName(name); s.files[name] == "" && !s.builtin[name] {
			err := fmt.Errorf("%s has no module %s: the kernel was built without it, or another package has it", s.owner, printable([]byte(name)))
			if len(s.absent) > 0 {
				err = fmt.Errorf("%w; %s of the same version, put beside it, is looked at too", err, strings.Join(s.absent, " or "))
			}
			return nil, err
		}
	}
	for _, name := range slices.Concat(names, needed) {
		if name = moduleName(name); s.files[name] != "" && !s.builtin[name] {
			if err := load(name); err != nil {
				return nil, err
			}
		}
	}
	return order, nil
}

func unpackModule(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	plain, err := decompress(from, in)
	if err != nil {
		return err
	}
	defer plain.Close()
	return writeFile(to, plain, maxModule)
}

// writeFile writes what r holds to a new file, unless it is more than limit.
func writeFile(path string, r io.Reader, limit int64) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("larger than %d MiB", limit>>20)
	}
	return errors.Join(err, out.Close())
}

// readModinfo returns what a module says in its .modinfo section, a series of
// "key=value" strings (include/linux/moduleinfo.h): the modules it depends on
// and those that its author wants loaded before it.
func readModinfo(path string) (depends, soft []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return parseModinfo(f)
}

func parseModinfo(r io.ReaderAt) (depends, soft []string, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, nil, err
	}
	section := f.Section(".modinfo")
	if section == nil || f.Type != elf.ET_REL {
		return nil, nil, errors.New("not a kernel module")
	}
	// A compressed section, which a module never has, has no ReaderAt.
	if section.Type == elf.SHT_NOBITS || section.ReaderAt == nil || section.FileSize > maxModinfo {
		return nil, nil, errors.New("damaged kernel module: no sensible .modinfo")
	}
	data, err := io.ReadAll(io.NewSectionReader(section.ReaderAt, 0, int64(section.FileSize)))
	if err != nil {
		return nil, nil, err
	}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" && !isModuleFile(name+".ko") {
					return nil, nil, fmt.Errorf("damaged kernel module: depends on %.80q", name)
				}
				if name != "" {
					depends = append(depends, moduleName(name))
				}
			}
		case "softdep":
			// "pre: a b post: c"
			before := false
			for word := range strings.FieldsSeq(value) {
				if strings.HasSuffix(word, ":") {
					before = word == "pre:"
				} else if before && isModuleFile(word+".ko") {
					soft = append(soft, moduleName(word))
				}
			}
		}
	}
	return depends, soft, nil
}
