package cli

import "github.com/urfave/cli/v2"

func kernelCommand() *cli.Command {
	return &cli.Command{
		Name:  "kernel",
		Usage: "configure, build, check and keep kernels",
		Subcommands: []*cli.Command{
			kernelConfigCommand(), kernelBuildCommand(), kernelCheckCommand(), kernelLsCommand(), kernelGCCommand(),
		},
	}
}
