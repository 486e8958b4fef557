package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// TestCompletion asks what the last word of a line can be.
func TestCompletion(t *testing.T) {
	s := ipctest.Serve(t, answer)
	gone := ipctest.Serve(t, nil)
	gone.End()
	for _, test := range []struct{ line, want string }{
		{"zinit st", "words start start-all stats status stop stop-all"},
		{"zinit ctl xi", "words xinet"},
		{"zinit xinet ", "words delete list set status"},
		{"zinit xinet s", "words set status"},
		{"zinit frobnicate ", "words"},
		{"zinit why ", "words api cache db logger migrate multi-user scratch web"},
		{"zinit why db ", "words"},
		{"zinit stop db m", "words migrate multi-user"},
		{"zinit stop --no-wait d", "words db"},
		{"zinit stop --timeout 5 d", "words db"},
		{"zinit --timeout 5 stop d", "words db"},
		{"zinit kill d", "words db"},
		{"zinit kill db T", "words TERM"},
		{"zinit kill db S", "words SIGCONT SIGHUP SIGINT SIGKILL SIGQUIT SIGSTOP SIGTERM SIGUSR1 SIGUSR2"},
		{"zinit kill db SIGT", "words SIGTERM"},
		{"zinit kill db ST", "words STOP"},
		{"zinit script rolling", "words rolling-restart"},
		{"zinit script ./", "files"},
		{"zinit script rolling-restart d", "words db"},
		{"zinit script ", "words failed retry-failed rolling-restart wait-all"},
		{"zinit script wait-all ", "words"},
		{"zinit script deploy.star d", "files"},
		{"zinit xinet status ", "words db mail old-web"},
		{"zinit xinet set x --service s", "words scratch"},
		{"zinit xinet set x --mode ", "words proxy pass"},
		{"zinit list --s", "words --socket --state"},
		{"zinit list --state r", "words running"},
		{"zinit list --state=r", "words --state=running"},
		{"zinit list --nothing=r", "words"},
		{"zinit list -q --class ", "words system user"},
		{"zinit add-service --name x --requires d", "words db"},
		{"zinit logs -n 5 d", "words db"},
		{"zinit logs -fn 5 d", "words db"},
		{"zinit wait db --for ", "words exited healthy inactive running"},
		{"zinit add-service ", "files"},
		{"zinit check a.toml ", "files"},
		{"zinit --socket ", "files"},
		{"zinit --socket=/r", "files"},
		{"zinit init --dir ", "dirs"},
		{"zinit init ", "words"},
		{"zinit completion ", "words bash fish zsh"},
		{"zinit help xinet d", "words delete"},
		{"zinit status --socket " + gone.Socket + " ", "words"},
		{"zinit status --socket", "words --socket"},
	} {
		words := strings.Split(test.line, " ")[1:]
		r := zinit(t, append([]string{"--socket", s.Socket, "__complete"}, words...), onTerminal(80))
		lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
		var got []string
		for _, line := range lines[1:] {
			word, _, _ := strings.Cut(line, "\t")
			got = append(got, word)
		}
		slices.Sort(got)
		want := strings.Fields(test.want)
		slices.Sort(want[1:])
		if got = append(lines[:1:1], got...); !slices.Equal(got, want) || r.code != 0 || r.stderr != "" {
			t.Errorf("%q: %q, want %q; exit code %d, %s", test.line, got, want, r.code, r.stderr)
		}
	}
}

// TestEveryFlagIsKnownToCompletion: a flag that takes a value either has words,
// or is one of those that take anything.
func TestEveryFlagIsKnownToCompletion(t *testing.T) {
	anything := []string{
		"timeout", "lines", "since", "grep", "name", "exec", "env", "restart-delay", "max-restarts", "listen",
		"backend", "connect-timeout", "idle-timeout", "socket-mode", "socket-user", "socket-group",
	}
	s := ipctest.Serve(t, answer)
	for _, c := range commands() {
		flags := newFlagSet()
		c.setup(flags)
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" || slices.Contains(anything, f.Name) {
				return
			}
			args := append([]string{"--socket", s.Socket, "__complete"}, strings.Fields(c.name)...)
			if r := zinit(t, append(args, "--"+f.Name, ""), onTerminal(80)); r.stdout == ofWords+"\n" {
				t.Errorf("%s --%s: what does it take?", c.name, f.Name)
			}
		})
	}
}

// shells says how each is made to complete a line that ends where the key is
// pressed: bash and fish print what there is to choose from, zsh the line as it
// is then.
var shells = map[string]string{
	// As readline does: words end at = and :, too.
	"bash": `
		source script
		compopt() { COMPREPLY+=("<$2>"); }
		complete_line() {
			COMP_WORDS=() COMPREPLY=()
			local part
			for part in ${1//=/ = }; do COMP_WORDS+=("$part"); done
			[[ $1 != *' ' ]] || COMP_WORDS+=("")
			COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			_zinit zinit
			echo "${COMPREPLY[@]}"
		}`,
	// Its line editor needs a terminal.
	"zsh": `
		zmodload zsh/zpty
		complete_line() {
			zpty shell zsh -f -i
			zpty -w shell 'autoload -Uz compinit; compinit -u -D; source script
				show() { zle complete-word; print -r -- "<""<$BUFFER>>"; exit }
				zle -N show; bindkey "^I" show; print rea""dy'
			local out
			zpty -r shell out "*ready*"
			zpty -w -n shell "$1"$'\t'
			zpty -r shell out '*<<*>>*'
			out=${out#*<<}
			print -r -- ${out%%>>*}
		}`,
	"fish": `
		source script
		function complete_line; echo (complete -C $argv[1] | string replace -r '\t.*' ''); end`,
}

// TestCompletionInShells has the shells themselves complete: bash always, the
// others where they are installed, as .ci/test does.
func TestCompletionInShells(t *testing.T) {
	s := ipctest.Serve(t, answer)
	dir := t.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\nZINIT_TEST_MAIN=1 exec %s --socket %s \"$@\"\n", os.Args[0], s.Socket)
	if err := os.WriteFile(filepath.Join(dir, "zinit"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web.toml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for shell, program := range shells {
		path, err := exec.LookPath(shell)
		if err != nil && shell != "bash" {
			t.Logf("%s is not installed", shell)
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "script"), []byte(completionScript(shell)), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct{ line, bash, zsh, fish string }{
			{"zinit stat", "status stats", "zinit stat", "stats status"},
			{"zinit xinet de", "delete", "zinit xinet delete", "delete"},
			{"zinit why mi", "migrate", "zinit why migrate", "migrate"},
			{"zinit xinet status o", "old-web", "zinit xinet status old-web", "old-web"},
			{"zinit list --state=ru", "running", "zinit list --state=running", "--state=running"},
			{"zinit add-service we", "<default>", "zinit add-service web.toml", "web.toml"},
		} {
			cmd := exec.Command(path, "-c", program+"\ncomplete_line '"+test.line+"'")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "GOCOVERDIR=")
			out, err := cmd.CombinedOutput()
			want := map[string]string{"bash": test.bash, "zsh": test.zsh, "fish": test.fish}[shell]
			if got := strings.TrimSpace(string(out)); got != want {
				t.Errorf("%s: %q: %q, want %q, %v", shell, test.line, got, want, err)
			}
		}
	}
}
