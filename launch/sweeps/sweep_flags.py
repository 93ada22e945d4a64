"""The flags of launch.sweep that say where the trials run, and which of them go together."""

from absl import flags

from launch.clusters.slurm import job as slurm
from launch.submit import cluster_of
from launch.sweeps.device_sets import DeviceSet, device_sets, places
from prior_jax.errors import ConfigError

FLAGS = flags.FLAGS

_RUNNING = ("dry_run", "queue", "parallel", "device_sets", "cluster", "name")
# Flags that are not read beside another one.
_UNREAD = {"trial": ("collect", *_RUNNING), "collect": _RUNNING}


def check_flags() -> None:
    """Refuses flags that would have no effect.

    Raises:
      ConfigError: if a flag is not read beside another one; the message names both.
    """
    for flag, unread in _UNREAD.items():
        for other in unread:
            if _given(flag) and _given(other):
                raise ConfigError(
                    f"The flag is not read beside --{flag}.",
                    "Leave out one of the two.",
                    where=f"--{other}",
                )
    if FLAGS.name is not None and FLAGS.queue != "slurm":
        raise ConfigError(
            f"The name is that of a job array, and --queue={FLAGS.queue} submits none.",
            "Set --queue=slurm, or leave the name out.",
            where="--name",
        )


def _given(name: str) -> bool:
    return getattr(FLAGS, name) != FLAGS[name].default


def local_sets() -> tuple[DeviceSet, ...]:
    """Returns the devices of the local trials.

    Raises:
      ConfigError: if both --parallel and --device_sets are given, or a flag of another queue.
    """
    if FLAGS.parallel is not None and FLAGS.queue == "print":
        raise ConfigError(
            f"The value is {FLAGS.parallel}, but with --queue=print your own queue decides how "
            "many trials run at a time.",
            "Leave the flag out.",
            where="--parallel",
        )
    if FLAGS.device_sets is None:
        return places(FLAGS.parallel or 1)
    if FLAGS.parallel is not None or FLAGS.queue != "local":
        raise ConfigError(
            f"The value {FLAGS.device_sets!r} cannot be used with --parallel, or with another "
            "queue than --queue=local.",
            "Leave out one of the flags.",
            where="--device_sets",
        )
    return device_sets(FLAGS.device_sets)


def cluster_of_array() -> slurm.Slurm | None:
    """Returns the cluster of a job array.

    Raises:
      ConfigError: if the cluster is not needed, missing, or not a Slurm cluster.
    """
    if FLAGS.queue == "slurm" and FLAGS.cluster is not None:
        found = cluster_of(FLAGS.cluster)
        if isinstance(found, slurm.Slurm):
            return found
        raise ConfigError(
            f"The cluster is of kind {found.kind!r}, on which sweeps cannot run.",
            "Choose a cluster of kind 'slurm', e.g. --cluster=configs/clusters/slurm_gpu.py.",
            where="cluster.kind",
        )
    if FLAGS.queue == "slurm" or FLAGS.cluster is not None:
        if FLAGS.cluster is None:
            problem = "--queue=slurm needs a cluster."
            remedy = "Name a file of configs/clusters, e.g. configs/clusters/slurm_gpu.py."
        else:
            problem = f"A cluster cannot be used with --queue={FLAGS.queue}."
            remedy = "Set --queue=slurm, or leave the cluster out."
        raise ConfigError(problem, remedy, where="--cluster")
    return None
