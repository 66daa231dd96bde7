// Lab finds the kernel change that broke a container, and hands over a file
// with which anyone can see it break again.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"lab/kernel"
	"lab/lab/cli"
	"lab/lab/demo"
	"lab/probe/agent"
)

func main() {
	agent.Dispatch()  // in the guest this program is PID 1, and does not return
	kernel.Dispatch() // and as the first process in a toolchain's image, neither
	if filepath.Base(os.Args[0]) == demo.ProbeName {
		os.Exit(demo.AuditProbe())
	}
	os.Exit(run())
}

// run keeps a bug of ours from being read as a verdict: a Go panic would end
// with status 2, which git bisect run takes for a bad commit.
func run() (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "lab: bug: %v\n%s", p, debug.Stack())
			code = cli.ExitFailure
		}
	}()
	return cli.Main(os.Args)
}
