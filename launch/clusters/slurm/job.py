"""Starts runs and sweeps on Slurm: the arguments of `sbatch` for jobs and job arrays."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Literal

from launch.clusters.command import Command
from launch.clusters.work import Work
from prior_jax.errors import ConfigError, check_least

_ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """A Slurm cluster: the settings of a file in configs/clusters.

    Attributes:
      kind: "slurm".
      nodes: number of nodes.
      gpus: number of GPUs on each node; a run has one process for each GPU, or one process for
        each node if the nodes have no GPU.
      cpus: number of cores for each process.
      time: time limit in Slurm's notation, e.g. "1-00:00:00"; the run is asked to stop two
        minutes before the limit and continues in the next job.
      partition: partition, or None for the cluster's default.
      account: account, or None for the user's default.
      options: further options of sbatch, e.g. ("--mem=0", "--constraint=h100").
    """

    kind: Literal["slurm"]
    nodes: int
    gpus: int
    cpus: int
    time: str
    partition: str | None
    account: str | None
    options: tuple[str, ...]

    def __post_init__(self):
        """Refuses numbers that are too small."""
        check_least(self, nodes=1, gpus=0, cpus=1)

    @property
    def devices(self) -> int:
        """Returns the number of devices of a run: all GPUs, or else one CPU device of each node."""
        return self.nodes * (self.gpus or 1)


def train(cluster: Slurm, work: Work) -> list[Command]:
    """Returns the commands that submit a run.

    JAX reads SLURM_JOB_ID, SLURM_STEP_NODELIST, SLURM_NTASKS, SLURM_PROCID and SLURM_LOCALID
    (`--distributed=auto`) and gives each process the GPU of its SLURM_LOCALID. Every process of
    a node therefore sees all GPUs of the node, and a node has as many processes as GPUs.

    Args:
      cluster: cluster to submit to.
      work: run to submit.
    """
    options = [f"--nodes={cluster.nodes}", f"--ntasks-per-node={cluster.gpus or 1}"]
    return _submit(cluster, work, options, file="train.sbatch", more=("--distributed=auto",))


def array(
    cluster: Slurm, work: Work, *, indices: Sequence[int], parallel: int | None
) -> list[Command]:
    """Returns the commands that submit a sweep as a job array, one task for each trial.

    Args:
      cluster: cluster to submit to; a trial is one process that has all GPUs of its node.
      work: sweep to submit; its program takes `--trial=INDEX`.
      indices: indices of the trials to run, ascending.
      parallel: number of trials that may run at a time; None for no limit.

    Raises:
      ConfigError: if the cluster has more than one node.
    """
    if cluster.nodes != 1:
        raise ConfigError(
            f"The cluster has {cluster.nodes} nodes, but each trial of a sweep is one process.",
            "Set --cluster.nodes=1.",
            where="cluster.nodes",
        )
    if not indices:
        return []
    limit = "" if parallel is None else f"%{parallel}"
    options = ["--nodes=1", "--ntasks=1", f"--array={','.join(map(str, indices))}{limit}"]
    return _submit(cluster, work, options, file="sweep.sbatch", more=())


def _submit(
    cluster: Slurm, work: Work, options: Sequence[str], *, file: str, more: Sequence[str]
) -> list[Command]:
    # Slurm replaces patterns that begin with %.
    logs = str(work.logs).replace("%", "%%")
    found = [
        f"--job-name={work.name}",
        f"--chdir={_ROOT}",
        f"--output={logs}/job_{'%A_%a' if file == 'sweep.sbatch' else '%j'}.log",
        f"--time={cluster.time}",
        *options,
        f"--cpus-per-task={cluster.cpus}",
    ]
    if cluster.gpus:
        found.append(f"--gpus-per-node={cluster.gpus}")
    found += [
        f"--{name}={value}"
        for name in ("partition", "account")
        if (value := getattr(cluster, name)) is not None
    ]
    program = (sys.executable, "-m", work.module, *work.arguments, *more)
    script = str(_ROOT / "launch" / "clusters" / "slurm" / file)
    return [
        # Slurm opens the job's log before it runs the job, so the folder has to exist.
        Command(arguments=("mkdir", "-p", "--", str(work.logs))),
        Command(
            arguments=("sbatch", *found, *cluster.options, script, str(work.workdir), *program)
        ),
    ]
