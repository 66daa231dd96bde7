//go:build linux

package agent

import (
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func auditMessage(kind uint16, text string) []byte {
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(text))
	binary.NativeEndian.PutUint16(m[4:], kind)
	return append(m, text...)
}

func TestAuditLine(t *testing.T) {
	for want, m := range map[string][]byte{
		"type=AVC msg=audit(1.234:5): avc:  denied":     auditMessage(1400, "audit(1.234:5): avc:  denied\x00"),
		"type=UNKNOWN[9999] msg=audit(1.234:6): a b":    auditMessage(9999, "audit(1.234:6): a\nb\n"),
		"type=USER_AUTH msg=audit(1.234:7): msg='op=x'": auditMessage(1100, "audit(1.234:7): msg='op=x'"),
		"": auditMessage(1400, ""),
	} {
		if got := auditLine(m); string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzAuditLine(f *testing.F) {
	f.Add(auditMessage(1400, "audit(1.234:5): avc:  denied\x00"))
	f.Fuzz(func(t *testing.T, m []byte) {
		if strings.Contains(string(auditLine(m)), "\n") {
			t.Error("a record has two lines")
		}
	})
}

// Records are kept, and a kernel that does not audit does not notice that somebody reads along.
func TestAuditRecords(t *testing.T) {
	g := bootable(t)
	if o := g.boot(t, machine{spec: sh("exit 3")}); o.Exit != 3 || len(o.Audit) > 0 || strings.Contains(o.console, "type=1335") {
		t.Errorf("without audit=1: exit %d, audit records: %s", o.Exit, o.Audit)
	}
	o := g.boot(t, machine{spec: sh("sh -c 'kill -SEGV $$'; exit 3"), cmdline: "audit=1"})
	if o.err != nil || o.Exit != 3 || o.Container == nil || !o.Container.Audit {
		t.Fatalf("exit %d, %v %s; %+v", o.Exit, o.err, o.Error, o.Container)
	}
	if got := string(o.Audit); !strings.Contains(got, "type=ANOM_ABEND msg=audit(") || !strings.Contains(got, " sig=11 ") {
		t.Errorf("audit records: %s", got)
	}
}
