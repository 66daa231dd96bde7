// The smallest binary that is a guest's /init.
package main

import (
	"os"

	"lab/probe/agent"
)

func main() {
	agent.Dispatch()
	os.Exit(1)
}
