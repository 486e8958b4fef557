package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc/client"
)

// command is one row of the table.
type command struct {
	name    string
	args    string // as in its usage line
	summary string // one line, without a full stop
	// help is what else there is to know, with examples.
	help string
	// min and max are how many arguments it takes; max -1 = any number.
	min, max int
	// passes says that what follows its first argument is not zinit's: flags
	// are arguments there.
	passes bool
	// setup declares its flags and returns what it does.
	setup func(*pflag.FlagSet) func(*app, []string) error
}

// commands is the table, in the order of help. It is a function because help
// and completion are among the commands that it lists.
func commands() []command {
	return []command{
		{
			name: "list", summary: "show all services and targets", max: 0,
			args: "[--state S] [--class C] [-q]",
			help: `A table with the state of each, its main process, how long it has been up, how
often it was restarted, and a note on why it does not run.
Columns that do not fit the terminal are left out.

  [-] inactive   [?] blocked   [>] starting   [+] running
  [!] stopping   [.] exited    [X] failed

Examples:
  zinit list
  zinit list --state failed
  zinit list -q --class user | xargs zinit status`,
			setup: listCommand,
		},
		{
			name: "status", summary: "show everything on services, or a summary of the system", max: -1,
			args: "[NAME...]",
			help: `With names: the state and its reason, process, restarts, health, dependencies
and their states, where the configuration comes from, and for a failed service
its last log lines. Without a name: the server, how many services are in which
state, those that need attention, and errors in the configuration.

Examples:
  zinit status
  zinit status web db`,
			setup: statusCommand,
		},
		{
			name: "start", summary: "start services and what they require", min: 1, max: -1,
			args: "NAME... [--no-wait]",
			help: `Waits until all are up, and says what happened to each service on the way. What
is blocked is waited for, up to --timeout, while something is under way that
could unblock it. On a terminal a last line shows meanwhile which services are
under way. Ctrl-C stops waiting, not the work.

Examples:
  zinit start web
  zinit start web db --timeout 2m`,
			setup: moveCommand("start"),
		},
		{
			name: "stop", summary: "stop services and what requires them", min: 1, max: -1,
			args: "NAME... [--no-wait]",
			help: `Waits until no process of them is left, and says which others had to be stopped
for it. They stay down until they are started again. Ctrl-C stops waiting, not
the work.

Examples:
  zinit stop web
  zinit stop db --no-wait`,
			setup: moveCommand("stop"),
		},
		{
			name: "restart", summary: "stop services and start them again", min: 1, max: -1,
			args: "NAME... [--no-wait]",
			help: `Those that require them are stopped and started with them. Waits as start does.

Examples:
  zinit restart web`,
			setup: moveCommand("restart"),
		},
		{
			name: "kill", summary: "send a signal to the processes of a service", min: 1, max: 2,
			args: "NAME [SIGNAL]",
			help: `The signal goes to the process group; it is a name, with or without SIG, or a
number, by default SIGTERM. What the service makes of it is its own affair: if
it ends, it is restarted as its configuration says.

Examples:
  zinit kill web HUP
  zinit kill web 9`,
			setup: killCommand,
		},
		{
			name: "logs", summary: "show what services have printed", max: -1,
			args: "[NAME...] [-n N] [-f] [--since T] [--grep RE] [--stdout|--stderr] [--timestamps] [--previous]",
			help: `Several services, or all when none is named, are shown in the order of time with
their names in front. On a terminal control characters are shown as \x1b and the
like; elsewhere lines are as they were written.

Examples:
  zinit logs web
  zinit logs -f web db
  zinit logs --since 10m --grep 'error|panic'
  zinit logs web --previous -n all`,
			setup: logsCommand,
		},
		{
			name: "why", summary: "explain the state of a service", min: 1, max: 1,
			args: "NAME",
			help: `Shows the chain of causes down to the root: what it waits for, and what that in
turn waits for.

Examples:
  zinit why web`,
			setup: whyCommand,
		},
		{
			name: "tree", summary: "show what requires what", max: 1,
			args: "[NAME] [--reverse]",
			help: `Without a name: all services, beginning with those that nothing requires.

Examples:
  zinit tree
  zinit tree web
  zinit tree --reverse db`,
			setup: treeCommand,
		},
		{
			name: "graph", summary: "show all dependencies, as text or as a picture", max: 0,
			args: "[--dot|--svg FILE]",
			help: `The services by levels: those that start at once, those that wait for these, and
so on, each with what it requires, starts after, wants and conflicts with. The
picture has a column for each level, boxes in the colours of the states, and
arrows that point to what is needed.

Examples:
  zinit graph
  zinit graph --svg services.svg
  zinit graph --dot | dot -Tpng > services.png`,
			setup: graphCommand,
		},
		{
			name: "boot", summary: "show what started when, and what waited for what", max: 0,
			args: "[--svg FILE]",
			help: `How the services came up for the first time since zinit began: how long each
waited, when it was started, when it was ready (a oneshot: done), and the
critical path: those services that made the boot take as long as it did. What
was first wanted after that is left out, but for --json.

Examples:
  zinit boot
  zinit boot --svg boot.svg
  zinit boot --json | jq .critical_path`,
			setup: bootCommand,
		},
		{
			name: "get", summary: "show the configuration of a service", min: 1, max: 1,
			args: "NAME [--reveal]",
			help: `The configuration that is in effect, as a service file, with the defaults
marked. What is in secret files and in env_file is shown as *** unless --reveal
is given.

Examples:
  zinit get web
  zinit get web --json | jq .lifecycle.restart`,
			setup: getCommand,
		},
		{
			name: "wait", summary: "wait until services have reached a state", min: 1, max: -1,
			args: "NAME... [--for running|exited|healthy|inactive] [--timeout T]",
			help: `For scripts: prints nothing, and its exit code is 0 as soon as all are there, 6
when the time is over, 1 when one cannot get there any more.

Examples:
  zinit wait db && psql -f schema.sql
  zinit wait migrate --for exited --timeout 5m`,
			setup: waitCommand,
		},
		{
			name: "is-running", summary: "tell by the exit code whether a service is running", min: 1, max: 1,
			args: "NAME",
			help: `Prints nothing. The exit code is 0 if it is running, 1 if not, 4 if there is no
such service; any other is an error, and says nothing of the service.

Examples:
  zinit is-running web || zinit start web`,
			setup: isRunningCommand,
		},
		{
			name: "events", summary: "show what has changed its state", max: 0,
			args: "[-f]",
			help: `The last changes of states, oldest first, and with -f each one as it happens.
The supervisor keeps about a thousand, also when it is replaced.

Examples:
  zinit events
  zinit events -f --json`,
			setup: eventsCommand,
		},
		{
			name: "incidents", summary: "show the last failures", max: 1,
			args: "[NAME]",
			help: `For each: why it failed, what was decided then, and the last lines that it had
printed. The newest comes last.

Examples:
  zinit incidents
  zinit incidents web`,
			setup: incidentsCommand,
		},
		{
			name: "stats", summary: "show what services use", max: -1,
			args: "[NAME...]",
			help: `Processor, memory, processes and file descriptors, of all processes of a service
together; without names, of the services that have any. 100 % is one processor;
memory is what is resident. Descriptors of other users' processes are only shown
where the supervisor may see them.

Examples:
  zinit stats
  zinit stats web db --json`,
			setup: statsCommand,
		},
		{
			name: "metrics", summary: "print what monitoring wants to know", max: 0,
			help: `OpenMetrics text: states, restarts, uptime, processor and memory of services,
counters of proxies, how often the supervisor was replaced. With --json it is
one string, the field text. The textfile collector of node_exporter reads it
too, and counters without their type.

zinit-server --metrics 127.0.0.1:9090 serves the same over HTTP, to anybody who
can connect, at /metrics, in the older text format of Prometheus to those who do
not ask for OpenMetrics; /healthz is for a liveness probe (the supervisor
answers) and /readyz for a readiness probe (everything wanted is running or
done; else it says what is not).

Examples:
  zinit metrics
  zinit metrics | grep 'state="failed"} 1'`,
			setup: metricsCommand,
		},
		{
			name: "init", summary: "write a commented service file", min: 1, max: 1,
			args: "NAME [--dir DIR]",
			help: `NAME.toml, in which every key is explained. A file that exists is left as it is.
It needs no server.

Examples:
  zinit init web
  zinit init web --dir /etc/zinit/services`,
			setup: initCommand,
		},
		{
			name: "check", summary: "find mistakes in configuration files", max: -1,
			args: "[PATH...]",
			help: `Reads files or directories, by default the service directory and that of system
services, /etc/zinit/system, where it is there. It reads as the server would,
and needs no server. Each mistake is shown as file:line:column: message.
Warnings are about what is probably not meant: names that no service has, a port
twice, and programs, directories, files, users and variables that this machine
lacks. The exit code is 1 if there is any error; warnings do not count.

Examples:
  zinit check
  zinit check web.toml
  zinit check /etc/zinit/system /etc/zinit/services`,
			setup: checkCommand,
		},
		{
			name: "reload", summary: "read the service directory again", max: 0,
			args: "[--dry-run]",
			help: `All or nothing: an error in any file, and nothing changes. Prints what it does:
+ added, - removed, ~ changed, in place or by a restart, and which fields.

Examples:
  zinit reload --dry-run
  zinit reload`,
			setup: reloadCommand,
		},
		{
			name: "add-service", summary: "add a service while zinit runs", max: 1,
			args: "FILE|- | --name N --exec CMD [FLAGS] [--persist]",
			help: `The service is kept in memory, over a reload too, or with --persist in a file of
the service directory.

Examples:
  zinit add-service web.toml --persist
  zinit add-service --name sleeper --exec 'sleep 600' --after web`,
			setup: addCommand,
		},
		{
			name: "set", summary: "create or replace a service and its file", min: 1, max: 1,
			args: "FILE|-",
			help: `The file goes into the service directory, in place of the one that the service
had. It is restarted if that is needed for what has changed.

Examples:
  zinit set web.toml
  zinit get web | sed s/8080/8081/ | zinit set -`,
			setup: setCommand,
		},
		{
			name: "remove-service", summary: "stop a service and remove it, and its file", min: 1, max: 1,
			args: "NAME",
			help: `What requires it is stopped first, and has failed then for want of it.

Examples:
  zinit remove-service web`,
			setup: removeCommand,
		},
		{
			name: "start-all", summary: "start all services of the class user", max: 0,
			args: "[--no-wait]",
			help: `But for those with status = "ignore".

Examples:
  zinit start-all`,
			setup: bulkCommand((*client.Client).StartAll),
		},
		{
			name: "stop-all", summary: "stop all services of the class user", max: 0,
			args: "[--no-wait]",
			help: `Those of the class system go on.

Examples:
  zinit stop-all`,
			setup: bulkCommand((*client.Client).StopAll),
		},
		{
			name: "delete-all", summary: "remove all services of the class user, and their files", max: 0,
			args: "[--no-wait]",
			help: `Those of the class system stay.

Examples:
  zinit delete-all`,
			setup: bulkCommand((*client.Client).DeleteAll),
		},
		{
			name: "xinet list", summary: "show all proxies", max: 0,
			help: `A proxy starts its service at the first connection. It is idle, starting while
clients wait, or active.

Examples:
  zinit xinet list`,
			setup: xinetListCommand,
		},
		{
			name: "xinet status", summary: "show everything on proxies", max: -1,
			args: "[NAME...]",
			help: `Addresses, clients, bytes, and why a client was closed last.

Examples:
  zinit xinet status postgres`,
			setup: xinetStatusCommand,
		},
		{
			name: "xinet set", summary: "create or replace a proxy and its file", min: 1, max: 1,
			args: "NAME --listen ADDRESS... [--backend ADDRESS] --service NAME [FLAGS]",
			help: `The first connection starts the service, and waits until it is ready. It is kept
as NAME.xinet.toml in the service directory, or with --ephemeral in memory. What
stays the same of a proxy that there was goes on: listeners and connections.

Examples:
  zinit xinet set postgres --listen 127.0.0.1:5432 --service postgres \
      --backend unix:/run/postgresql/.s.PGSQL.5432 --idle-timeout 10m`,
			setup: xinetSetCommand,
		},
		{
			name: "xinet delete", summary: "close a proxy and remove its file", min: 1, max: 1,
			args: "NAME",
			help: `Its connections are closed; the service goes on.

Examples:
  zinit xinet delete postgres`,
			setup: xinetDeleteCommand,
		},
		{
			name: "shutdown", summary: "stop everything and end zinit", max: 0,
			help: `Stops all services in the order of their dependencies, and waits until zinit has
ended; on a terminal a line shows which are still there. Where zinit is the init
of a machine, use poweroff. Ctrl-C stops waiting, not the work.

Examples:
  zinit shutdown`,
			setup: endCommand((*client.Client).Shutdown),
		},
		{
			name: "poweroff", summary: "stop everything and power the machine off", max: 0,
			help: `Stops all services in the order of their dependencies, unmounts the file systems
and powers the machine off. Where zinit is not its init this is refused; in a
container it is the same as shutdown. Ctrl-C stops waiting, not the work.

Examples:
  zinit poweroff`,
			setup: endCommand((*client.Client).Poweroff),
		},
		{
			name: "reboot", summary: "stop everything and start the machine again", max: 0,
			help: `As poweroff, but the machine starts again.

Examples:
  zinit reboot`,
			setup: endCommand((*client.Client).Reboot),
		},
		{
			name: "upgrade", summary: "replace the supervisor by the program on the disk", max: 0,
			help: `Install the new zinit-server in the place of the old one first, by rename. It is
asked whether it can take over what the running one has saved, and what is said
with the running zinit-pid1; if not, the exit code is 1 and nothing changes. No
service is touched: each goes on with its process, its log and its timers. The
way back is the same, with the old file. Ctrl-C stops waiting, not the work.

Examples:
  zinit upgrade
  make install && zinit upgrade`,
			setup: upgradeCommand,
		},
		{
			name: "tui", summary: "look after services on a full screen", max: 0,
			help: `All services with their states as they change, those that need attention first;
for each its reason in words, its health, its log as it grows, and what it
requires. Services are started, stopped, restarted and signalled from there;
what would stop along is named before. It goes on when the supervisor is
replaced.

Keys: arrows and Enter, l logs, t tree, / filter or search, s start, x stop,
r restart, K kill, R reload, ? all the others, q quit. The mouse works, too.

Examples:
  zinit tui
  ssh -t machine zinit tui`,
			setup: tuiCommand,
		},
		{
			name: "script", summary: "run a script whose functions are these commands", max: -1, passes: true,
			args: "FILE|DIR|NAME|- [ARG...]",
			help: `The language is Starlark, which reads like Python. zinit start web is
zinit.start("web") there, and answers with the fields of --json; all functions
are in docs/scripting.md. An error ends the script, with file, line and column,
and with the exit code that the command would have had; exit(N) ends it with N.

Of a directory all *.star files are run in the order of their names, until one
fails. - is standard input. A bare NAME is a script that is built in; a file of
that name is ./NAME. What follows is the list args of the script.

Examples:
  zinit script deploy.star web 1.4
  zinit script --builtin
  zinit script rolling-restart web-1 web-2
  echo 'print([s.name for s in zinit.list()])' | zinit script -`,
			setup: scriptCommand,
		},
		{
			name: "debug-procs", summary: "show the processes of a service", min: 1, max: 1,
			args: "NAME",
			help: `As a tree: those of its sessions and all that descend from them.

Examples:
  zinit debug-procs web`,
			setup: debugProcsCommand,
		},
		{
			name: "debug-state", summary: "show all that the supervisor holds", max: 0,
			help: `For bug reports. What is in it may change with each release. There are no
secrets in it, but names and command lines of services.

Examples:
  zinit debug-state
  zinit debug-state --json`,
			setup: debugStateCommand,
		},
		{
			name: "completion", summary: "print what completes commands in a shell", min: 1, max: 1,
			args: "bash|zsh|fish",
			help: `The shell completes commands, flags and their values then, and the names of
services and proxies that the server has. What is printed is the same after an
upgrade: the shell asks zinit itself at each key.

Examples:
  zinit completion bash > /etc/bash_completion.d/zinit
  zinit completion zsh > /usr/local/share/zsh/site-functions/_zinit
  zinit completion fish > ~/.config/fish/completions/zinit.fish
  source <(zinit completion bash)`,
			setup: completionCommand,
		},
		{
			name: "help", summary: "explain a command", max: 2,
			args: "[COMMAND]",
			help: `Examples:
  zinit help logs`,
			setup: helpCommand,
		},
	}
}

func (c command) usage() string {
	return strings.TrimSpace("zinit " + c.name + " " + c.args)
}
