package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
)

func TestWhyAnAddressCannotBeHad(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ address, says string }{
		{"tcp:" + taken.Addr().String(), fmt.Sprintf("is in use by pid %d, ", os.Getpid())},
		{"tcp:192.0.2.1:4000", "no interface of this machine has that address"},
		{"tcp:no-such-host.invalid:4000", "no-such-host.invalid"},
		{"tcp:[fe80::1%nothing]:4000", "there is no interface nothing"},
		{"unix:" + file, "which is no socket"},
		{"unix:" + dir + "/missing/socket", "no such file or directory"},
	} {
		if fd, err := listenOn(t, tt.address); err == nil {
			unix.Close(fd)
			t.Errorf("%s can be had", tt.address)
		} else if !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "cannot listen on ") {
			t.Errorf("%s: %v, want %q", tt.address, err, tt.says)
		}
	}
}

func TestPortsOfRootAreRefusedToOthers(t *testing.T) {
	var first int
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(string(text), &first)
	fd, err := listenOn(t, "tcp:127.0.0.1:1")
	switch {
	case err == nil:
		unix.Close(fd)
		if os.Geteuid() != 0 && first > 1 {
			t.Error("an ordinary user has port 1")
		}
	case os.Geteuid() == 0 || first <= 1:
		t.Error(err)
	case !strings.Contains(err.Error(), "are for root"):
		t.Errorf("got %v", err)
	}
}

func listenOn(t *testing.T, address string) (int, error) {
	a, err := spec.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	return openListener(t.Context(), a, &spec.Proxy{SocketMode: 0o600})
}
