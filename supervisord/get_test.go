package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
)

// TestSecretsAreOnlyReadWhenRevealed: what is in files is shown as *** unless
// it is asked for, as the next start of the service would see it.
func TestSecretsAreOnlyReadWhenRevealed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sp := spec.Default("web")
	sp.EnvFile = []string{write("env", "USER=app\nURL=db://${USER}:${PORT}\n"), "-" + dir + "/missing", dir + "/gone"}
	sp.Env = []spec.EnvVar{{Name: "PASSWORD", File: write("password", "geheim\n")}, {Name: "PLAIN", Value: "x"}}
	for _, s := range references(sp) {
		if s.Value != hidden {
			t.Errorf("shown without being revealed: %+v", s)
		}
	}
	got := secrets(sp, newEnviron([]string{"PORT=5"}))
	want := []ipc.Secret{
		{Name: "USER", File: dir + "/env", Value: "app"},
		{Name: "URL", File: dir + "/env", Value: "db://app:5"},
		{File: dir + "/gone"},
		{Name: "PASSWORD", File: dir + "/password", Value: "geheim"},
	}
	if len(got) != len(want) {
		t.Fatalf("secrets are %+v", got)
	}
	for i := range want {
		if want[i].Name == "" && strings.Contains(got[i].Error, "no such file") {
			got[i].Error = ""
		}
		if got[i] != want[i] {
			t.Errorf("secret %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}
