//go:build !linux

package demo

import "fmt"

// ProbeName is the program name (the last element of argv[0]) under which lab's
// binary is AuditProbe.
const ProbeName = "auditprobe"

// AuditProbe works on Linux only: it asks the kernel it runs on.
func AuditProbe() int {
	fmt.Println("audit: this is not Linux")
	return 125
}
