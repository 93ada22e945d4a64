"""Jobs and arrays of jobs on Slurm: what is asked of `sbatch`."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Literal

from launch.clusters.command import Command
from launch.clusters.work import Work
from prior_jax.errors import ConfigError

_ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """A cluster with Slurm; the section of a file in configs/clusters.

    Attributes:
      kind: "slurm".
      nodes: how many machines.
      gpus: on each; a run has a process for each of them, or one a node without.
      cpus: cores for a process.
      time: limit, as Slurm writes it, e.g. "1-00:00:00"; the run is asked to stop two minutes
        before and goes on in the next job.
      partition: or None for the cluster's default.
      account: or None for the user's default.
      options: more of sbatch's, e.g. ("--mem=0", "--constraint=h100").
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
        """Refuses numbers that ask for nothing."""
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1)):
            if getattr(self, name) < least:
                accepted = f"at least {least}"
                raise ConfigError(
                    f"cluster.{name}", received=getattr(self, name), accepted=accepted
                )


def train(cluster: Slurm, work: Work) -> list[Command]:
    """What submits a run.

    JAX reads SLURM_JOB_ID, SLURM_STEP_NODELIST, SLURM_NTASKS, SLURM_PROCID and SLURM_LOCALID
    (`--distributed=auto`) and gives each process the GPU of its SLURM_LOCALID. So all of a
    node's processes see all of its GPUs, and there are as many of one as of the other.

    Args:
      cluster: where.
      work: what.
    """
    options = [f"--nodes={cluster.nodes}", f"--ntasks-per-node={cluster.gpus or 1}"]
    return _submit(cluster, work, options, file="train.sbatch", more=("--distributed=auto",))


def array(
    cluster: Slurm, work: Work, *, indices: Sequence[int], parallel: int | None
) -> list[Command]:
    """What submits a sweep: a task for each trial.

    Args:
      cluster: where; a trial is one process that has all GPUs of its node.
      work: the sweep; its program takes `--trial=INDEX`.
      indices: of the trials to run, ascending.
      parallel: how many at a time; None for as many as there is room for.

    Raises:
      ConfigError: for more than one node.
    """
    if cluster.nodes != 1:
        accepted = "1 for a sweep: a trial is one process"
        raise ConfigError("cluster.nodes", received=cluster.nodes, accepted=accepted)
    if not indices:
        return []
    limit = "" if parallel is None else f"%{parallel}"
    options = ["--nodes=1", "--ntasks=1", f"--array={','.join(map(str, indices))}{limit}"]
    return _submit(cluster, work, options, file="sweep.sbatch", more=())


def _submit(
    cluster: Slurm, work: Work, options: Sequence[str], *, file: str, more: Sequence[str]
) -> list[Command]:
    # A % begins one of Slurm's patterns.
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
        # Slurm opens the job's log before it runs anything.
        Command(arguments=("mkdir", "-p", "--", str(work.logs))),
        Command(
            arguments=("sbatch", *found, *cluster.options, script, str(work.workdir), *program)
        ),
    ]
