package qemu

import "fmt"

// StandaloneArgs renders the command line for a shell, without anything that
// only lab can give: the console is QEMU's standard output, what the guest
// sends to the second serial port is dropped, and there are no other ports.
func (m Machine) StandaloneArgs() []string {
	m.Ports = nil
	args := m.Args()
	for i, a := range args {
		switch a {
		case fmt.Sprintf("socket,id=console,fd=%d", fdConsole):
			args[i] = "stdio,id=console,signal=off"
		case fmt.Sprintf("socket,id=spare,fd=%d", fdSpare):
			args[i] = "null,id=spare"
		}
	}
	return args
}
