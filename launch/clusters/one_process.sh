#!/bin/bash
# Runs one of a run's processes where no scheduler keeps its log:
#
#   bash launch/clusters/one_process.sh LOG COMMAND [ARGUMENT ...]
#
# Appends what it says to LOG, hands SIGTERM on to it, and ends with its exit code. One at a time
# on a machine: a second call waits for the first, whose connection may have been lost.

set -u
log=$1
shift
mkdir -p -- "$(dirname -- "$log")"
exec 8>"${TMPDIR:-/tmp}/prior_jax_one_process.lock"
flock 8

# A machine that shuts down sends SIGTERM to all at once, and the last lines are still to come;
# -p: a reader that has gone away is no reason to stop.
exec 3> >(trap '' TERM; exec tee -a -p -- "$log" 8>&-)
tee=$!
printf '$ %s\n' "$*" >&3
"$@" >&3 2>&1 3>&- 8>&- &
process=$!
trap 'kill -TERM "$process"' TERM

# A signal ends a wait before its time.
wait "$process"
code=$?
while kill -0 "$process" 2>/dev/null; do
  wait "$process"
  code=$?
done
exec 3>&-
wait "$tee"
exit "$code"
