package disk

import (
	"fmt"
	"io"
	"os"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

const (
	sectorSize = 512
	// partitionStart leaves the usual MiB for the table, and the backup gets one
	// at the end, so that everything is aligned to whole MiB.
	partitionStart = 1 << 20
	backupSize     = 1 << 20

	// Fixed, so that the same content gives the same bytes. They are random
	// otherwise and name nothing outside of the disk.
	diskGUID      = "6C616264-6973-4B00-8000-000000000001"
	partitionGUID = "6C616264-6973-4B00-8000-000000000002"
	espGUID       = "6C616264-6973-4B00-8000-000000000005"
)

// writeTable puts the partition table on a disk whose ext4 partition has the
// size root, and whose EFI system partition behind it has the size esp, or does
// not exist where that is 0. It returns the size of the disk.
func writeTable(f *os.File, root, esp int64) (int64, error) {
	size := partitionStart + root + esp + backupSize
	if err := f.Truncate(size); err != nil {
		return 0, err
	}
	table := &gpt.Table{
		GUID:               diskGUID,
		ProtectiveMBR:      true,
		LogicalSectorSize:  sectorSize,
		PhysicalSectorSize: sectorSize,
		Partitions: []*gpt.Partition{{
			Index: 1,
			Start: partitionStart / sectorSize,
			End:   uint64(partitionStart+root)/sectorSize - 1,
			Type:  gpt.LinuxFilesystem,
			Name:  PartitionName,
			GUID:  partitionGUID,
		}},
	}
	if esp > 0 {
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: 2,
			Start: uint64(partitionStart+root) / sectorSize,
			End:   uint64(partitionStart+root+esp)/sectorSize - 1,
			Type:  gpt.EFISystemPartition,
			Name:  BootPartitionName,
			GUID:  espGUID,
		})
	}
	out := &tableFile{WritableFile: f, file: f}
	if err := table.Write(out, size); err != nil {
		if out.err != nil { // the library keeps only its text
			err = out.err
		}
		return 0, fmt.Errorf("write partition table: %w", err)
	}
	return size, nil
}

// tableFile is a file that remembers the first error of a write, and has no Sync:
// the library would call it after each of its five writes.
type tableFile struct {
	backend.WritableFile
	file io.WriterAt
	err  error
}

func (t *tableFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := t.file.WriteAt(b, off)
	if t.err == nil {
		t.err = err
	}
	return n, err
}
