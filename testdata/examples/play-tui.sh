#!/usr/bin/env bash
# Starts a supervisor with the sample services in a directory of its own, shows
# them on a full screen, and ends it afterwards: play-tui.sh BIN SERVICES
set -euo pipefail
bin=$(realpath "$1")
services=$(realpath "$2")

dir=$(mktemp -d)
export ZINIT_SOCKET=$dir/z.sock
finish() {
	"$bin/zinit" shutdown >/dev/null 2>&1 || cat "$dir/zinit.log" >&2
	rm -rf "$dir"
}
trap finish EXIT

cd "$dir"
# setsid: what is typed on the terminal is not for the supervisor.
setsid "$bin/zinit-server" --config-dir "$services" >zinit.log 2>&1 </dev/null &
for _ in $(seq 100); do # it needs some milliseconds to open its socket
	"$bin/zinit" status >/dev/null 2>&1 && break
	sleep 0.05
done
"$bin/zinit" tui
