// Package atomicfile replaces files so that others see the old content or the
// new one, and nothing in between, also after a crash of the machine.
package atomicfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces a file, or makes it with that mode. An existing file keeps
// its mode. What the file held before is still there after an error.
func Write(path string, data []byte, mode fs.FileMode) (err error) {
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
	}
	// A dot-file: not a service file for whoever reads the directory now.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
