# shellcheck shell=bash
# What the job files share; they source it from the folder that they were submitted in.

preempted=75 # prior_jax.processes.preemption.EXIT_CODE: stopped on request, everything saved

# run_step LOG COMMAND [ARGUMENT ...]: one process a task, each with a log of its own; then ends
# the job. A job that was stopped after it had saved goes back into the queue.
#
# LOG may have Slurm's patterns (%t: the task).
run_step() {
  local log=$1 asked=0 code step
  shift
  # Slurm warns the job file alone, --signal=B:TERM@..., whose only step is number 0.
  trap 'asked=1; echo "asked to stop"; scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM
  # Not inherited from the job since Slurm 22.05.
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
  # Processes that have saved end one by one: the first must not take the others with it. One that
  # never ends is ended after ten minutes.
  srun --kill-on-bad-exit=0 --wait=600 --open-mode=append --output="$log" "$@" &
  step=$!
  # A signal ends a wait before its time.
  wait "$step"
  code=$?
  while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    code=$?
  done
  # Above 128: processes that did not save in time were killed; they go on from what is saved. A
  # job that its user cancels saves too, but is not running any more, and stays cancelled.
  if ((code == preempted || (asked && code > 128))) &&
    [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
    echo "exit code $code: back into the queue, start ${SLURM_RESTART_COUNT:-0} ended"
    scontrol requeue "$SLURM_JOB_ID" || exit "$code"
  fi
  exit "$code"
}
