package kconfig

// firmware is what it takes to be started by UEFI firmware.
var firmware = []need{
	{"EFI", "", "UEFI firmware starts the kernel"},
	{"EFI_STUB", "", "UEFI firmware starts the kernel as an EFI program"},
}

// disks are the kinds of disk that machines and hypervisors have, and what a
// kernel needs to see one.
var disks = []struct {
	kind  string
	needs []need
}{
	{"virtio", virtio},
	{"virtio SCSI", []need{{"VIRTIO_PCI", "virtio_pci", ""}, {"SCSI_VIRTIO", "virtio_scsi", ""}, {"BLK_DEV_SD", "sd_mod", ""}}},
	{"NVMe", []need{{"BLK_DEV_NVME", "nvme", ""}}},
	{"SATA (AHCI)", []need{{"SATA_AHCI", "ahci", ""}, {"BLK_DEV_SD", "sd_mod", ""}}},
	{"IDE (PIIX)", []need{{"ATA_PIIX", "ata_piix", ""}, {"BLK_DEV_SD", "sd_mod", ""}}},
	{"Hyper-V", []need{{"HYPERV_STORAGE", "hv_storvsc", ""}, {"BLK_DEV_SD", "sd_mod", ""}}},
	{"VMware PVSCSI", []need{{"VMWARE_PVSCSI", "vmw_pvscsi", ""}, {"BLK_DEV_SD", "sd_mod", ""}}},
	{"Xen", []need{{"XEN_BLKDEV_FRONTEND", "xen_blkfront", ""}}},
	{"USB", []need{{"USB_XHCI_PCI", "xhci_pci", ""}, {"USB_STORAGE", "usb_storage", ""}, {"BLK_DEV_SD", "sd_mod", ""}}},
	{"SD and eMMC", []need{{"MMC_BLOCK", "mmc_block", ""}}},
}

// UEFI names, in plain words, what a kernel of this resolved configuration
// lacks to be started by UEFI firmware and to run lab's guest from whatever
// disk it was started from. Modules count as they do for Guest.
func UEFI(c Config, modules ...string) []string {
	lacks := lacking(c, modules, firmware, needs)
	if has, _ := Disks(c, modules...); len(has) == 0 {
		lacks = append(lacks, "there is no driver for any disk (CONFIG_VIRTIO_BLK, CONFIG_BLK_DEV_NVME, CONFIG_SATA_AHCI, …)")
	}
	return lacks
}

// Disks names the kinds of disk that the guest will see on another machine, and
// those that it will not.
func Disks(c Config, modules ...string) (has, lacks []string) {
	for _, d := range disks {
		if len(lacking(c, modules, d.needs)) == 0 {
			has = append(has, d.kind)
		} else {
			lacks = append(lacks, d.kind)
		}
	}
	return has, lacks
}
