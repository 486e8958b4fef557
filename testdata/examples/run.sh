#!/usr/bin/env bash
# Starts a supervisor with the sample services in the background and says what
# to type next: run.sh BIN SERVICES
set -euo pipefail
bin=$(realpath "$1")
services=$(realpath "$2")

if "$bin/zinit" status >/dev/null 2>&1; then
	echo "A zinit-server is running already:"
	"$bin/zinit" status
	echo "bin/zinit shutdown ends it."
	exit 1
fi

mkdir -p "$bin/run"
cd "$bin/run"
# setsid: the supervisor is to outlive this script and its terminal.
setsid "$bin/zinit-server" --config-dir "$services" >zinit.log 2>&1 </dev/null &

for _ in $(seq 100); do # it needs some milliseconds to open its socket
	"$bin/zinit" status >/dev/null 2>&1 && break
	sleep 0.05
done
if ! "$bin/zinit" wait --timeout 10s site 2>wait.err; then
	{
		cat wait.err zinit.log
		echo
		"$bin/zinit" why site || true
		echo
		echo "It goes on trying: bin/zinit list shows what runs, bin/zinit shutdown ends it all."
	} >&2
	exit 1
fi

zinit=bin/zinit
server=$("$bin/zinit" status --json | grep -oE '"pid": *[0-9]+' | grep -oE '[0-9]+')
echo
"$bin/zinit" list
cat <<EOF

A small stack runs under zinit: \`site\` is a target that requires \`web\`, a web
server, which requires \`clock\` and the oneshot \`prepare\`. \`flaky\` crashes every
few seconds and comes back. Type next:

  $zinit list               what runs, and since when
  $zinit logs -f            what they print (Ctrl-C ends it)
  curl http://127.0.0.1:8484/  the page that web serves
  $zinit stop clock         stops web and site first, and says so
  $zinit why site           why it does not run, down to the cause
  $zinit start clock        brings all of them back
  $(printf '%-27s' "kill -9 $server")  the supervisor; no service minds
  $zinit shutdown           the end

The service files are in testdata/examples, the log of the supervisor in
bin/run/zinit.log.
EOF
