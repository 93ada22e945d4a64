# shellcheck shell=bash
# Functions that the job files share; they source this file from the folder of submission.

preempted=75 # prior_jax.processes.preemption.EXIT_CODE: stopped on request after saving

# run_step LOG COMMAND [ARGUMENT ...]: runs one process for each task, each with its own log, and
# ends the job. A job that was stopped on request after saving is requeued.
#
# LOG may contain Slurm's patterns (%t: the task).
run_step() {
  local log=$1 asked=0 interrupted=1 code=127 found step job=$SLURM_JOB_ID
  shift
  # One trial of an array has the id of the whole array as its own, which names all of its trials.
  [[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  # With --signal=B:TERM@... Slurm signals the job file alone; its only step is number 0.
  trap 'asked=1; interrupted=1; echo "Slurm has asked the job to stop."; scancel --signal=TERM "$job.0"' TERM
  # Since Slurm 22.05 srun does not inherit this variable from the job.
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
  # Processes that have saved end one by one, and the first must not end the others. A process
  # that does not end is killed ten minutes after the first has ended.
  srun --kill-on-bad-exit=0 --wait=600 --open-mode=append --output="$log" "$@" &
  step=$!
  # A signal ends `wait` before the step has ended, with a code that is not the step's; so does one
  # that comes when the step has just ended, whose code the next `wait` gives. 127: it was given.
  while ((interrupted)); do
    interrupted=0
    wait "$step"
    found=$?
    ((found == 127)) || code=$found
  done
  # A code above 128 means that processes were killed before they had saved; they continue from
  # the last checkpoint. A job that its user cancels saves too, but its state is no longer RUNNING,
  # so it stays cancelled.
  if ((code == preempted || (asked && code > 128))) &&
    [[ $(squeue --noheader --jobs="$job" --format=%T) == RUNNING ]]; then
    echo "Exit code $code: start ${SLURM_RESTART_COUNT:-0} has ended, and the job is requeued."
    scontrol requeue "$job" || exit "$code"
  fi
  exit "$code"
}
