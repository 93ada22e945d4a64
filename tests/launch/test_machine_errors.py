"""Machines, meshes, clusters and sweeps that do not fit a run are refused in one line."""

import pytest

from tests.launch import mistakes
from tests.launch.mistakes import (
    DEBUG,
    EVALUATE,
    OBJECTIVES,
    RETRIEVAL,
    SLURM,
    SUBMIT,
    SWEEP,
    TRAIN,
    WORKDIR,
)

TPU = "--cluster=configs/clusters/tpu_v5e.py"

# Name of the case -> program, arguments, pattern that the line matches.
CASES = {
    "mesh that does not divide": (
        TRAIN,
        [DEBUG, WORKDIR, "--cpu_devices=2", "--config.mesh.axes.data=3"],
        r"config\.mesh\.axes: The axes \{'data': 3\} do not fit the 2 devices",
    ),
    "batch that does not divide": (
        TRAIN,
        [DEBUG, WORKDIR, "--cpu_devices=3"],
        r"config\.data\.batch_size: The value is 16\. It must be a positive multiple of 3",
    ),
    "machine of other devices": (
        TRAIN,
        [DEBUG, WORKDIR, "--cpu_devices=2", "--machine=configs/machines/v5e_16.py"],
        r"--machine: The machine v5e_16 has 16 chips, and this run has 2 devices",
    ),
    "machine and mesh": (
        TRAIN,
        [DEBUG, WORKDIR, "--machine=configs/machines/cpu.py", "--config.mesh.axes.data=1"],
        r"--config\.mesh\.axes\.data: .*--machine sets it too",
    ),
    "batch given twice": (
        SUBMIT,
        [DEBUG, WORKDIR, SLURM, "--pairs_per_chip=4", "--config.data.batch_size=8", "--dry_run"],
        r"--config\.data\.batch_size: .*--pairs_per_chip sets it too",
    ),
    "batch that the cluster's devices cannot share": (
        SUBMIT,
        [DEBUG, WORKDIR, SLURM, "--cluster.nodes=3", "--dry_run"],
        r"config\.data\.batch_size: The value is 16\. It must be a positive multiple of 24",
    ),
    "accumulation that the cluster's devices cannot do": (
        SUBMIT,
        [DEBUG, WORKDIR, SLURM, "--config.optimizer.accumulate_steps=4", "--dry_run"],
        r"config\.optimizer\.accumulate_steps: A batch of 16 has 2 rows on one device",
    ),
    "mesh that the cluster's devices do not fill": (
        SUBMIT,
        [DEBUG, WORKDIR, SLURM, "--config.mesh.axes.data=16", "--dry_run"],
        r"config\.mesh\.axes: The axes \{'data': 16\} do not fit the 8 devices",
    ),
    "machine that is not the cluster": (
        SUBMIT,
        [DEBUG, WORKDIR, TPU, "--machine=configs/machines/v5e_64.py", "--dry_run"],
        r"--machine: The machine v5e_64 has 64 chips, and this run has 16 devices",
    ),
    "machine that evaluation lacks": (
        EVALUATE,
        [WORKDIR, RETRIEVAL, "--machine=configs/machines/cpu.py", "--machine.local_devices=3"],
        r"--machine: The machine cpu has 3 chips",
    ),
    "bank on an axis that is not there": (
        TRAIN,
        [DEBUG, WORKDIR, "--config.mesh.bank_axis=bank"],
        r"config\.mesh\.bank_axis: The value is 'bank'",
    ),
    "half an address": (
        TRAIN,
        [DEBUG, WORKDIR, "--distributed=explicit"],
        r"^--coordinator: .*given with the mode 'explicit'",
    ),
    "no cluster": (SUBMIT, [DEBUG, WORKDIR], "--cluster"),
    "an unknown key of a cluster": (SUBMIT, [SLURM, DEBUG, WORKDIR, "--cluster.node=2"], "'nodes'"),
    "a cluster that lacks something": (
        SUBMIT,
        [TPU, DEBUG, WORKDIR, "--cluster.zone="],
        r"cluster\.zone: The setting is empty\. .*--cluster\.zone=VALUE",
    ),
    "a run that no cluster would begin": (
        SUBMIT,
        [SLURM, DEBUG, WORKDIR, "--config.optimizer.beta1=2.0"],
        r"config\.optimizer\.beta1: The value is 2\.0",
    ),
    "a sweep for another cluster": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--queue=slurm", TPU],
        r"cluster\.kind: The cluster is of kind 'tpu'",
    ),
    "no such cluster": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--queue=slurm", "--cluster=configs/none.py"],
        r"configs/none\.py",
    ),
    "a sweep for no cluster": (SWEEP, [OBJECTIVES, WORKDIR, "--queue=slurm"], "--cluster"),
    "device sets of another queue": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--queue=print", "--device_sets=gpu:0;1"],
        r"--device_sets: The value 'gpu:0;1'",
    ),
    "two numbers of trials at a time": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--parallel=2", "--device_sets=gpu:0"],
        r"--device_sets: .*--parallel",
    ),
    "devices of a trial whose queue has assigned them": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--trial=0", "--device_sets=gpu:0"],
        r"^--device_sets: The flag is not read beside --trial",
    ),
    "one trial, four at a time": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--trial=0", "--parallel=4"],
        r"^--parallel: .* beside --trial",
    ),
    "one trial of a queue": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--trial=0", "--queue=print"],
        r"^--queue: .* beside --trial",
    ),
    "a table of one trial": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--trial=0", "--collect"],
        r"^--collect: .* beside --trial",
    ),
    # Every case without --trial is a dry run.
    "a table that is not made": (
        SWEEP,
        [OBJECTIVES, WORKDIR, "--collect"],
        r"^--dry_run: .* beside --collect",
    ),
    "a name without a job": (SWEEP, [OBJECTIVES, WORKDIR, "--name=mine"], r"^--name: .*=local"),
    "a trial of no sweep": (SWEEP, [OBJECTIVES, WORKDIR, "--trial=0"], r"\{tmp\}/run"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(said, case):
    mistakes.assert_one_line(said[case], CASES[case][2])
