// Package version holds the version of this build, which all programs of a
// release share.
package version

// Version is set by the linker:
//
//	go build -ldflags "-X github.com/threefoldtech/zinit/common/version.Version=1.2.3"
var Version = "0.1.0-dev"
