package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestInstall installs below a directory with a blank in its name, for others too,
// whatever the umask, and takes everything away again.
func TestInstall(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	tree, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	work, dest := t.TempDir(), filepath.Join(t.TempDir(), "a place")
	for name, target := range map[string]string{"bin": livePrograms(t), "docs": filepath.Join(tree, "docs")} {
		if err := os.Symlink(target, filepath.Join(work, name)); err != nil {
			t.Fatal(err)
		}
	}
	do := func(what string) (files int) {
		t.Helper()
		// Without Go nothing is built.
		cmd := exec.Command("sh", "-c", `umask 077; exec make -f "$0/Makefile" "$1" GO=/none DESTDIR="$2"`, tree, what, dest)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", what, err, out)
		}
		filepath.WalkDir(dest, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			info, err := e.Info()
			if err != nil || info.Mode()&0o044 != 0o044 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
			if !e.IsDir() {
				files++
				if info.Size() == 0 {
					t.Errorf("%s is empty", path)
				}
			}
			return nil
		})
		return files
	}
	if n := do("install"); n < 5+6+3+1 {
		t.Errorf("only %d files are installed", n)
	}
	if n := do("uninstall"); n != 0 {
		t.Errorf("%d files are left", n)
	}
}
