package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ctl/script"
	"github.com/threefoldtech/zinit/ipc/client"
)

// A shell asks zinit itself what a word can be: its script only hands over the
// words so far (completeWord and those of the command line, the last one being
// the one to complete) and shows what comes back. So there is one completer for
// all shells, which reads the table of commands and is never older than it.

// completeWord is the hidden command behind the scripts.
const completeWord = "__complete"

// completeTimeout bounds the question for names: who presses a key waits.
const completeTimeout = time.Second

// The first line of an answer says what the word is: one of the lines that
// follow, or a path, which the shell completes by itself.
const (
	ofWords = "words"
	ofFiles = "files"
	ofDirs  = "dirs"
)

// completion is what a word can be.
type completion struct {
	kind  string
	words [][2]string // each with a description, which may be empty
}

func completionCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		script := completionScript(args[0])
		if script == "" {
			return usagef("completion: %q is none of bash, zsh, fish", args[0])
		}
		fmt.Fprint(a.out, script)
		return nil
	}
}

// completionScript is what that shell has to be told, "" for an unknown one.
func completionScript(shell string) string {
	switch shell {
	case "bash":
		return bashScript
	case "zsh":
		return zshScript
	case "fish":
		return fishScript
	}
	return ""
}

// complete prints what the last of the words can be. It never complains: the
// user is in the middle of a line.
func (a *app) complete(words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	c := a.completionOf(words[:len(words)-1], last)
	fmt.Fprintln(a.out, c.kind)
	for _, w := range c.words {
		if strings.HasPrefix(w[0], last) {
			fmt.Fprintf(a.out, "%s\t%s\n", w[0], w[1])
		}
	}
	return nil
}

// completionOf reads the words before, as dispatch does.
func (a *app) completionOf(words []string, last string) completion {
	flags := newFlagSet()
	a.globals(flags)
	var cmd *command
	var args []string // those of the command, or its first word so far
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case strings.HasPrefix(word, "-") && len(word) > 1:
			if f := valueFlag(flags, word); f != nil {
				if i++; i == len(words) {
					return a.flagValue(f, "")
				}
				word += "=" + words[i]
			}
			// Only --socket matters here; a mistake is told when it is run.
			_ = flags.Parse([]string{word})
		case cmd != nil || len(args) == 0 && word == "ctl":
			if cmd != nil {
				args = append(args, word)
			}
		default:
			args = append(args, word)
			if c, n, err := find(args); err == nil && n == len(args) {
				cmd, args = &c, nil
				c.setup(flags)
			}
		}
	}
	name, _, assigned := strings.Cut(last, "=")
	switch {
	case assigned && strings.HasPrefix(name, "--"):
		if f := flags.Lookup(name[2:]); f != nil {
			return a.flagValue(f, name+"=")
		}
		return completion{kind: ofWords}
	case strings.HasPrefix(last, "-"):
		return completion{ofWords, flagWords(flags)}
	case cmd == nil:
		return completion{ofWords, commandWords(args)}
	}
	return a.argument(*cmd, args, last)
}

// valueFlag is the flag that a word names and whose value is the next word.
func valueFlag(flags *pflag.FlagSet, word string) *pflag.Flag {
	var f *pflag.Flag
	if name, long := strings.CutPrefix(word, "--"); long {
		f = flags.Lookup(name)
	} else {
		f = flags.ShorthandLookup(word[len(word)-1:])
	}
	if f != nil && f.Value.Type() == "bool" {
		return nil
	}
	return f
}

// flagWords are the flags themselves, each by its long name.
func flagWords(flags *pflag.FlagSet) (words [][2]string) {
	flags.VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		words = append(words, [2]string{"--" + f.Name, usage})
	})
	return words
}

// commandWords are the commands, or what follows the first word of some.
func commandWords(before []string) (words [][2]string) {
	for _, c := range commands() {
		group, rest, two := strings.Cut(c.name, " ")
		switch {
		case len(before) == 0 && !two:
			words = append(words, [2]string{c.name, c.summary})
		case len(before) == 0 && !slices.ContainsFunc(words, func(w [2]string) bool { return w[0] == group }):
			words = append(words, [2]string{group, ""})
		case len(before) == 1 && two && group == before[0]:
			words = append(words, [2]string{rest, c.summary})
		}
	}
	return words
}

// flagValue is what a flag takes, whichever command it is of, with a prefix.
func (a *app) flagValue(f *pflag.Flag, prefix string) completion {
	var words [][2]string
	switch f.Name {
	case "class":
		words = wordsOf([]string{"user", "system"})
	case "for":
		words = wordsOf(goals)
	case "mode":
		words = wordsOf([]string{"proxy", "pass"})
	case "restart":
		words = wordsOf([]string{"always", "on-failure", "never"})
	case "state":
		for _, s := range allStates {
			words = append(words, [2]string{string(s), ""})
		}
	case "after", "requires", "wants", "conflicts", "service":
		words = a.serviceWords()
	case "socket", "svg":
		return completion{kind: ofFiles}
	case "dir":
		return completion{kind: ofDirs}
	}
	for i := range words {
		words[i][0] = prefix + words[i][0]
	}
	return completion{ofWords, words}
}

// argument is what the usage line of a command has in the place of its next
// argument, last so far.
func (a *app) argument(c command, before []string, last string) completion {
	placeholder, _, _ := strings.Cut(c.args, " ")
	if c.max >= 0 && len(before) >= c.max {
		return completion{kind: ofWords}
	}
	switch placeholder = strings.Trim(placeholder, "[]."); {
	case c.name == "kill" && len(before) == 1:
		return completion{ofWords, signalWords(last)}
	case c.name == "init":
		return completion{kind: ofWords} // the name of one that is yet to be
	case c.name == "help":
		return completion{ofWords, commandWords(before)}
	case c.name == "completion":
		return completion{ofWords, wordsOf(strings.Split(placeholder, "|"))}
	case c.passes && len(before) == 0:
		return scriptWords(last)
	case c.passes:
		i := slices.IndexFunc(script.Builtins(), func(b script.Builtin) bool { return b.Name == before[0] })
		if i < 0 {
			return completion{kind: ofFiles}
		}
		if !strings.Contains(script.Builtins()[i].Usage, "NAME") {
			return completion{kind: ofWords}
		}
	case placeholder == "FILE|-", placeholder == "PATH":
		return completion{kind: ofFiles}
	case placeholder != "NAME":
		return completion{kind: ofWords}
	}
	names := a.serviceWords
	if strings.HasPrefix(c.name, "xinet ") {
		names = a.proxyWords
	}
	return completion{ofWords, slices.DeleteFunc(names(), func(w [2]string) bool { return slices.Contains(before, w[0]) })}
}

// scriptWords are the scripts that are built in and begin like that, else files.
func scriptWords(last string) completion {
	c := completion{kind: ofWords}
	for _, b := range script.Builtins() {
		if strings.HasPrefix(b.Name, last) {
			c.words = append(c.words, [2]string{b.Name, b.Summary})
		}
	}
	if len(c.words) == 0 {
		c.kind = ofFiles
	}
	return c
}

// signalWords are signals, with SIG where the word has that.
func signalWords(last string) [][2]string {
	names := []string{"CONT", "HUP", "INT", "KILL", "QUIT", "STOP", "TERM", "USR1", "USR2"}
	if strings.HasPrefix(last, "SIG") || strings.HasPrefix("SIG", last) && last != "" {
		for i, n := range names {
			names[i] = "SIG" + n
		}
	}
	return wordsOf(names)
}

func wordsOf(names []string) (words [][2]string) {
	for _, name := range names {
		words = append(words, [2]string{name, ""})
	}
	return words
}

// serviceWords are the services; none where the server cannot be asked.
func (a *app) serviceWords() (words [][2]string) {
	a.timeout = seconds(completeTimeout)
	_ = a.ask(func(ctx context.Context, c *client.Client) error {
		services, err := c.List(ctx, client.Filter{})
		for _, s := range services {
			words = append(words, [2]string{s.Name, string(s.State)})
		}
		return err
	})
	return words
}

// proxyWords are the proxies.
func (a *app) proxyWords() (words [][2]string) {
	a.timeout = seconds(completeTimeout)
	_ = a.ask(func(ctx context.Context, c *client.Client) error {
		proxies, err := c.Proxies(ctx)
		for _, p := range proxies {
			words = append(words, [2]string{p.Name, strings.Join(p.Listen, " ")})
		}
		return err
	})
	return words
}

// What a shell has to be told.
const (
	bashScript = `# Completion of zinit for bash: source <(zinit completion bash)
_zinit() {
	# bash ends words at : and = as well, which names of services may contain.
	local words=() word glue= i
	for ((i = 1; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ -n $glue || $word == [:=]* ]] && ((${#words[@]})); then
			words[${#words[@]} - 1]+=$word
		else
			words+=("$word")
		fi
		if [[ $word == [:=]* ]]; then glue=1; else glue=; fi
	done
	local current=${words[${#words[@]} - 1]} kind line
	local head=${current%"${current##*[:=]}"}
	COMPREPLY=()
	{
		read -r kind
		while IFS=$'\t' read -r line _; do
			COMPREPLY+=("${line#"$head"}")
		done
	} < <("$1" __complete "${words[@]}" 2>/dev/null)
	case $kind in
	files) compopt -o default ;;
	dirs) compopt -o dirnames ;;
	esac
}
complete -F _zinit zinit
`
	zshScript = `#compdef zinit
# Completion of zinit for zsh: source <(zinit completion zsh), or as the file
# _zinit in a directory of $fpath.
_zinit() {
	local -a lines found
	local line
	lines=("${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
	[[ $PREFIX == --*=* ]] && compset -P '*='
	case $lines[1] in
	files) _files ;;
	dirs) _files -/ ;;
	*)
		for line in "${(@)lines[2,-1]}"; do
			line=${line#"$IPREFIX"}
			found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
		done
		_describe -V zinit found
		;;
	esac
}
if [[ $funcstack[1] == _zinit ]]; then _zinit "$@"; else compdef _zinit zinit; fi
`
	fishScript = `# Completion of zinit for fish: zinit completion fish | source, or as the file
# zinit.fish in ~/.config/fish/completions.
function __zinit_complete
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	set -l lines ($before[1] __complete $before[2..-1] "$current" 2>/dev/null)
	switch "$lines[1]"
		case files
			__fish_complete_path $current
		case dirs
			__fish_complete_directories $current
		case '*'
			string join \n -- $lines[2..-1]
	end
end
complete -c zinit -f -a '(__zinit_complete)'
`
)
