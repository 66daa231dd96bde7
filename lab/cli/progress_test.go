package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestPlainProgressIsLines(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	p.show("5 %")
	p.line("pulled")
	p.show("10 %")
	p.show("")
	if out.String() != "pulled\n" {
		t.Errorf("printed %q", out.String())
	}
	p.last = p.last.Add(-plainEvery) // as if much time had passed
	p.show("50 %")
	p.show("51 %")
	if out.String() != "pulled\n  50 %\n" {
		t.Errorf("printed %q", out.String())
	}
}

func TestLiveProgressStaysBelowLines(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	p.width = 20
	p.show(strings.Repeat("x", 50))
	p.line("pulled")
	if want := strings.Repeat("x", 19) + "\r\x1b[Kpulled\n" + strings.Repeat("x", 19); out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	out.Reset()
	p.show("")
	if out.String() != "\r\x1b[K" {
		t.Errorf("clearing printed %q", out.String())
	}
}

func TestLogsGoThroughThePrinter(t *testing.T) {
	var out bytes.Buffer
	logTo(newPrinter(&out), false)
	logrus.WithField("a", 1).Error("torn")
	logrus.Warn("a library's warning is no news of ours")
	if out.String() != "error: torn a=1\n" {
		t.Errorf("printed %q", out.String())
	}
}
