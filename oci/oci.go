// Package oci turns a reference to a container image into a pinned digest, a
// local copy, one tar stream and a runtime configuration.
//
//	store, err := oci.Open(dir)                        // an OCI layout, safe for several processes
//	img, err := store.Pull(ctx, "debian:12", oci.PullOptions{})
//	stream := oci.Flatten(ctx, img)                    // the merged root file system, PAX tar
//	spec, err := oci.RuntimeSpec(img)                  // config.json for a container runtime
//
// What comes from a registry or a file is hostile until its digest has been
// checked, and stays hostile afterwards: a digest says that the bytes are the
// ones asked for, not that they mean well. Every size and count is bounded
// (see [Limits]).
//
// Formats: the OCI image specification 1.1 (layer.md, image-layout.md,
// manifest.md, image-index.md) and Docker's image manifest version 2, schema 2.
package oci

import (
	"context"
	"net"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Pin is what a reference meant when it was resolved.
type Pin struct {
	Reference string `json:"reference"` // with its transport: docker://docker.io/library/debian:12
	Digest    string `json:"digest"`    // sha256:… of the image manifest for the platform, never of an index
	Platform  string `json:"platform"`  // os/arch[/variant], as in linux/amd64
}

// Image is a pinned image. It is itself a v1.Image, so that it can be given
// to [Flatten] and [RuntimeSpec] as it is.
type Image struct {
	Pin Pin
	v1.Image
}

// PullOptions change how [Store.Pull] works; the zero value is right for most.
type PullOptions struct {
	Platform  string         // os/arch[/variant]; empty means linux/<the architecture of this program>
	Mirrors   []Mirror       // asked before the registries they mirror, in this order
	PlainHTTP []string       // HOST or HOST:PORT: whom to speak plain HTTP to; loopback addresses need no asking
	Progress  func(Progress) // how far the download is; called from one goroutine at a time
	Notice    func(string)   // told what the user should know though nothing failed: one sentence; from one goroutine at a time
	Limits    Limits         // how large an image may be

	wire wire
}

// Progress says how far a pull is. What the store has already does not count,
// not even the first half of a blob: Done and Total are what has to be fetched
// this time. Total may grow, when a download has to start over; Done never
// shrinks.
type Progress struct {
	Done, Total       int64 // bytes of blobs
	Layers, AllLayers int   // how many of the image's layers are in the store; both 0 where nobody knows
}

// wire is what tests change of the network: the names and the patience.
type wire struct {
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	stall time.Duration // without a byte; 0 is stallTimeout
	pause time.Duration // before the next attempt; 0 is retryPause
}
