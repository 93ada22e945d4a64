#!/bin/bash
# Runs one process of a run on a host where no scheduler keeps its log:
#
#   bash launch/clusters/one_process.sh LOG COMMAND [ARGUMENT ...]
#
# Appends the process's output to LOG, forwards SIGTERM to the process, and ends with its exit
# code. Only one process runs on a host at a time: a second call waits for the first, whose
# connection may have been lost.

set -u
log=$1
shift
mkdir -p -- "$(dirname -- "$log")"
exec 8>"${TMPDIR:-/tmp}/prior_jax_one_process.lock"
flock 8

# A host that shuts down sends SIGTERM to all processes at once; tee ignores it, since the
# program's last lines are still to come. -p: tee goes on when the reader of its output is gone.
exec 3> >(trap '' TERM; exec tee -a -p -- "$log" 8>&-)
tee=$!
printf '$ %s\n' "$*" >&3
"$@" >&3 2>&1 3>&- 8>&- &
process=$!
trap 'kill -TERM "$process"' TERM

# A signal ends `wait` before the process has ended.
wait "$process"
code=$?
while kill -0 "$process" 2>/dev/null; do
  wait "$process"
  code=$?
done
exec 3>&-
wait "$tee"
exit "$code"
