package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Snapshot is a machine as it stood at a moment, all but its disks. It is a
// file without a name, so that nothing of it outlives this process.
type Snapshot struct {
	Size int64 // in bytes: of the guest's memory only what is not zero
	file *os.File
	args []string // of the machine that was saved
}

// devices is the room in a snapshot for what is not the guest's memory.
const devices = 64 << 20

// Close frees the file.
func (s *Snapshot) Close() error { return s.file.Close() }

// Save stops the guest, writes its state to a file without a name in dir, and
// ends it. The machine must have Snapshots set, and must not have written to
// its disks: a restored one has them as they are in the files.
//
// The state is QEMU's migration stream (docs/devel/migration), which ends in a
// pipe: QEMU since 9.1 warns of one that goes to a file by its descriptor, and
// before 8.2 it can be told of no file, for exec: and the like are forbidden by
// our -sandbox.
func (vm *VM) Save(ctx context.Context, dir string) (_ *Snapshot, err error) {
	defer func() { err = vm.end("save", err) }()
	if vm.control == nil {
		return nil, errors.New("it was started without Snapshots")
	}
	s := &Snapshot{args: vm.args}
	if s.file, err = unnamed(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.file.Close()
		}
	}()
	q, err := vm.monitor(ctx)
	if err != nil {
		return nil, err
	}
	defer q.stop()
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer from.Close()
	defer to.Close()
	if err := q.do(getfd, to); err != nil {
		return nil, err
	}
	to.Close() // the stream ends when QEMU closes its own
	if err := from.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	copied := make(chan error, 1)
	go func() {
		n, err := io.Copy(s.file, io.LimitReader(from, vm.memory+devices+1))
		if s.Size = n; err == nil && n > vm.memory+devices {
			err = fmt.Errorf("the state is larger than %d bytes", vm.memory+devices)
		}
		from.Close() // QEMU must not wait for a reader that has given up
		copied <- err
	}()
	for _, c := range []order{
		{"stop", nil}, events,
		{"migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}}, // bytes a second; the default is for networks
		{"migrate", map[string]any{"uri": "fd:lab"}},
	} {
		if err := q.do(c, nil); err != nil {
			return nil, err
		}
	}
	migrated := q.migrated()
	if migrated != nil {
		vm.Kill() // which ends the stream
	}
	if err := errors.Join(migrated, <-copied); err != nil {
		return nil, err
	}
	return s, nil
}

// Restore starts the machine where a snapshot of it was taken, and returns when
// it runs. But for its initramfs it must be the very machine that was saved, and
// on the same QEMU.
func (m Machine) Restore(ctx context.Context, s *Snapshot) (*VM, error) {
	if !m.Snapshots || !slices.Equal(m.saved(), s.args) {
		return nil, errors.New("restore machine: it is not the one that was saved")
	}
	m.incoming = true
	vm, err := m.Start(ctx)
	if err != nil {
		return nil, err
	}
	if err := vm.load(ctx, s); err != nil {
		return nil, vm.end("restore", err)
	}
	return vm, nil
}

// end ends the machine, and adds to an error what QEMU, if it has ended by itself,
// said of it: it is what closed the socket then.
func (vm *VM) end(what string, err error) error {
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		vm.Kill()
	}
	if err == nil {
		return nil
	}
	if ended := vm.Wait(); ended != nil {
		err = ended
	}
	return fmt.Errorf("%s machine: %w", what, err)
}

func (vm *VM) load(ctx context.Context, s *Snapshot) (err error) {
	q, err := vm.monitor(ctx)
	if err != nil {
		return err
	}
	defer q.stop()
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	copied := make(chan struct{})
	go func() {
		if n, err := io.Copy(to, io.NewSectionReader(s.file, 0, s.Size)); err == nil && n < s.Size {
			vm.Kill() // which for the rest would wait for ever
		}
		to.Close()
		close(copied)
	}()
	defer func() {
		from.Close()
		if err != nil {
			to.Close() // a QEMU that has the other end may not read it
		}
		<-copied // the file is the caller's again
	}()
	if err := q.do(getfd, from); err != nil {
		return err
	}
	from.Close()
	for _, c := range []order{events, {"migrate-incoming", map[string]any{"uri": "fd:lab"}}} {
		if err := q.do(c, nil); err != nil {
			return err
		}
	}
	if err := q.migrated(); err != nil {
		return err
	}
	return q.do(order{"cont", nil}, nil) // it is stopped, as it was when it was saved
}

// saved is what a restored machine shares with the saved one: the arguments, and
// QEMU's file. The initramfs is in the guest's memory by now, whatever it is called.
func (m Machine) saved() []string {
	m.incoming, m.Initrd = false, ""
	binary := "?"
	if path, err := lookPath(m.Binary); err == nil {
		if info, err := os.Stat(path); err == nil {
			binary = fmt.Sprintf("%s, %d bytes of %s", path, info.Size(), info.ModTime())
		}
	}
	return append([]string{binary}, m.Args()...)
}

// unnamed makes a file without a name.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "snapshot-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A monitor speaks QMP, QEMU's machine protocol: JSON objects, commands that
// are answered in their order, and events in between (docs/interop/qmp-spec).
type monitor struct {
	f      *os.File
	in     *json.Decoder
	events []message
	stop   func() bool
}

// An order is a command of QMP. Those that both ends of a migration begin with: the next
// descriptor gets a name, and what comes of the migration is told by events.
type order struct {
	Execute   string         `json:"execute"`
	Arguments map[string]any `json:"arguments,omitempty"`
}

var (
	getfd  = order{"getfd", map[string]any{"fdname": "lab"}}
	events = order{"migrate-set-capabilities", map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}}
)

// A message is a greeting, an answer or an event.
type message struct {
	QMP    json.RawMessage
	Return json.RawMessage
	Error  *struct{ Desc string }
	Event  string
	Data   struct{ Status string }
}

const (
	// maxQMP bounds what a QEMU may say in a conversation, in bytes.
	maxQMP = 1 << 20
	// patience is how long a conversation may take: QEMU writes, and reads, about
	// a GiB a second.
	patience = time.Minute
)

// monitor begins the conversation.
func (vm *VM) monitor(ctx context.Context) (*monitor, error) {
	q := &monitor{f: vm.control, in: json.NewDecoder(bufio.NewReader(io.LimitReader(vm.control, maxQMP)))}
	if err := q.f.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	q.stop = context.AfterFunc(ctx, func() { _ = q.f.SetDeadline(time.Unix(1, 0)) })
	m, err := q.read()
	if err == nil && m.QMP == nil {
		err = errors.New("QEMU does not speak QMP")
	}
	if err == nil {
		err = q.do(order{"qmp_capabilities", nil}, nil)
	}
	if err != nil {
		q.stop()
		return nil, err
	}
	return q, nil
}

// do has a command done. A file goes along with it.
func (q *monitor) do(c order, file *os.File) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := q.send(line, file); err != nil {
		return fmt.Errorf("tell QEMU to %s: %w", c.Execute, err)
	}
	for {
		m, err := q.read()
		switch {
		case err != nil:
			return fmt.Errorf("tell QEMU to %s: %w", c.Execute, err)
		case m.Error != nil:
			return fmt.Errorf("tell QEMU to %s: %s", c.Execute, m.Error.Desc)
		case m.Return != nil:
			return nil
		case m.Event != "":
			q.events = append(q.events, m)
		}
	}
}

// send writes one line, and with it the descriptor of a file (unix(7),
// SCM_RIGHTS). It is the first that is asked of a socket whose buffer is empty:
// it takes a line at once.
func (q *monitor) send(line []byte, file *os.File) error {
	if file == nil {
		_, err := q.f.Write(line)
		return err
	}
	raw, err := q.f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), line, unix.UnixRights(int(file.Fd())), nil, 0)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

// migrated waits until the state is written, or read.
func (q *monitor) migrated() error {
	for {
		var m message
		var err error
		if len(q.events) > 0 {
			m, q.events = q.events[0], q.events[1:]
		} else if m, err = q.read(); err != nil {
			return fmt.Errorf("wait for QEMU's migration: %w", err)
		}
		switch {
		case m.Event != "MIGRATION":
		case m.Data.Status == "completed":
			return nil
		case m.Data.Status == "failed" || m.Data.Status == "cancelled":
			return fmt.Errorf("QEMU's migration %s", m.Data.Status)
		}
	}
}

func (q *monitor) read() (message, error) {
	var m message
	err := q.in.Decode(&m)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}
