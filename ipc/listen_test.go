package ipc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shortDir is like t.TempDir with a path that leaves room for sockets.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Who waits until the file of a socket is there can connect to it.
func TestNobodyIsRefusedAtASocketThatIsThere(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	for range 200 {
		came := make(chan error)
		go func() {
			for {
				conn, err := Dial(path, time.Minute)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err == nil {
					conn.Close()
				}
				came <- err
				return
			}
		}()
		fd, err := Listen(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if got := ListensOn(fd); got != path {
			t.Fatalf("it listens on %q, expected %q", got, path)
		}
		if err := <-came; err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		os.Remove(path)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestListenTakesNoPlaceOfAnother(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	// Half a socket, of somebody who was killed, is in nobody's way.
	if err := os.WriteFile(path+unready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		fd, err := Listen(path, 0o600)
		if (err == nil) != (i == 0) {
			t.Fatalf("round %d: %v", i, err)
		}
		if err == nil {
			defer unix.Close(fd)
		}
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", MaxSocketPath)), 0o600); err == nil || !strings.Contains(err.Error(), "choose a shorter one") {
		t.Error(err)
	}
}
