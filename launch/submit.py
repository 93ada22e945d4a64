r"""Starts a run on a cluster: Slurm, Cloud TPU slices, or Kubernetes with JobSet.

    python -m launch.submit --cluster=configs/clusters/slurm_gpu.py --cluster.nodes=4 \
        --config=configs/prior/paper.py --pairs_per_chip=18 --config.data.path=/shared/set \
        --workdir=/shared/runs/prior

`--dry_run` prints the commands that would run, and makes nothing. See docs/pods.md, "Launching".
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from launch.clusters.command import Command
from launch.clusters.gke import job as gke
from launch.clusters.slurm import job as slurm
from launch.clusters.tpu import job as tpu
from launch.clusters.work import Work, default_name
from launch.evaluation.tasks import load_task
from launch.start import machines, program
from launch.start import workdir as workdir_lib
from launch.start.run import check_fits_absent
from prior_jax.config import read_config
from prior_jax.errors import ConfigError
from prior_jax.strict import build

FLAGS = flags.FLAGS
Cluster = slurm.Slurm | tpu.Tpu | gke.Gke
KINDS: Mapping[str, type[Cluster]] = types.MappingProxyType(
    {"slurm": slurm.Slurm, "tpu": tpu.Tpu, "gke": gke.Gke}
)


def define_flags() -> None:
    """Defines the program's flags."""
    program.define_config_flag("config", "File of the run's config, e.g. configs/prior/paper.py.")
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, visible to every process.", required=True
    )
    machines.define_flags()
    program.define_cluster_flags()
    flags.mark_flag_as_required("cluster")
    flags.adopt_module_key_flags(machines)
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> int:
    """Starts the run, or prints the commands that would; returns the exit code."""
    machine = machines.from_flags()
    cluster = cluster_of(FLAGS.cluster)
    devices = cluster.devices or (None if machine is None else machine.chips)
    workdir = workdir_lib.from_flag()
    given = machines.configure(FLAGS.config, machine, devices=devices or 1)
    config = read_config(given, workdir=workdir)
    if devices is not None:
        check_fits_absent(config, devices=devices)
    config.check_data()
    for path in config.after:
        load_task(path)
    work = Work(
        name=FLAGS.name or default_name(workdir),
        workdir=workdir,
        module="launch.train",
        arguments=(
            *program.config_arguments("config"),
            *machines.arguments(),
            f"--workdir={workdir}",
        ),
    )
    return start(cluster, work, dry_run=FLAGS.dry_run)


def cluster_of(section: Any) -> Cluster:
    """Checks a cluster's settings.

    Raises:
      ConfigError: if a setting is unknown, missing or does not fit; the message names it.
    """
    kind = section.get("kind")
    if kind not in KINDS:
        raise ConfigError.of_value("cluster.kind", kind, f"one of {', '.join(KINDS)}")
    return build(KINDS[kind], section, name="cluster")


def start(cluster: Cluster, work: Work, *, dry_run: bool) -> int:
    """Starts a run.

    Args:
      cluster: cluster to start the run on.
      work: run to start.
      dry_run: whether to only print the commands that would run.

    Returns:
      The exit code of the commands; for a TPU, which is supervised to the end, that of the run.
    """
    if isinstance(cluster, tpu.Tpu):
        if dry_run:
            print(tpu.describe(cluster, work))
            return 0
        return tpu.supervise(cluster, work)
    make: Callable[..., list[Command]] = slurm.train if cluster.kind == "slurm" else gke.train
    return run_all(make(cluster, work), dry_run=dry_run)


def run_all(commands: Sequence[Command], *, dry_run: bool) -> int:
    """Runs or prints commands in order; stops at the first failure and returns its exit code."""
    for command in commands:
        if dry_run:
            print(command)
        elif (code := command.run()) != 0:
            return code
    return 0


if __name__ == "__main__":
    program.run(main, define_flags)
