"""Starts runs on Kubernetes by filling in a JobSet's manifest."""

import dataclasses
import math
import pathlib
from typing import Literal

import jinja2

from launch.clusters.command import Command
from launch.clusters.work import Work
from prior_jax.errors import ConfigError, check_field, check_least
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED

COORDINATOR_PORT = 8476
_TEMPLATE = pathlib.Path(__file__).with_name("jobset.yaml")
_JOB = "workers"
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
_LIMIT = {"tpu": "google.com/tpu", "gpu": "nvidia.com/gpu"}
_SELECTOR = {
    "tpu": "cloud.google.com/gke-tpu-accelerator",
    "gpu": "cloud.google.com/gke-accelerator",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gke:
    """A Kubernetes cluster with JobSet: the settings of a file in configs/clusters.

    Attributes:
      kind: "gke".
      namespace: namespace of the JobSet.
      device: "tpu" or "gpu".
      accelerator: accelerator type of the nodes, e.g. "tpu-v5-lite-podslice" or
        "nvidia-h100-80gb".
      topology: arrangement of the chips of a slice, e.g. "4x4"; None for GPUs.
      slices: number of slices; 1 for GPUs.
      hosts: number of pods in a slice; each pod runs one process on a node of its own.
      chips: number of devices on a host.
      spot: whether the nodes are cheaper spot nodes, which GKE may preempt.
      image: container image with this repository and its packages.
      code: folder of this repository in the image.
      python: path of the Python interpreter in the image.
      claim: name of the claim of the volume that all pods share.
      mount: path at which the volume is mounted; the workdir lies below it.
      grace_seconds: seconds in which to save before preemption; GKE caps them for spot nodes.
      max_restarts: number of restarts after faults; preemptions do not count.
    """

    kind: Literal["gke"]
    namespace: str
    device: Literal["tpu", "gpu"]
    accelerator: str
    topology: str | None
    slices: int
    hosts: int
    chips: int
    spot: bool
    image: str
    code: str
    python: str
    claim: str
    mount: str
    grace_seconds: int
    max_restarts: int

    def __post_init__(self):
        """Refuses empty settings, and numbers that do not fit together."""
        for name in ("namespace", "accelerator", "image", "code", "python", "claim", "mount"):
            if not getattr(self, name):
                raise ConfigError(
                    "The setting is empty.",
                    f"Give a value, e.g. by --cluster.{name}=VALUE.",
                    where=name,
                )
        check_least(self, slices=1, hosts=1, chips=1, grace_seconds=1, max_restarts=0)
        self._check_topology()

    @property
    def devices(self) -> int:
        """Returns the number of devices of a run."""
        return self.slices * self.hosts * self.chips

    def _check_topology(self) -> None:
        if self.device == "gpu":
            for name, needed in (("topology", None), ("slices", 1)):
                fits = getattr(self, name) == needed
                check_field(self, name, fits, f"{needed} with the device 'gpu'")
            return
        sides = (self.topology or "").split("x")
        chips = self.hosts * self.chips
        fits = all(side.isdigit() for side in sides) and math.prod(map(int, sides)) == chips
        must_be = f"an arrangement of hosts x chips = {chips} chips, written like '4x4' or '4x4x8'"
        check_field(self, "topology", fits, must_be)


def train(cluster: Gke, work: Work) -> list[Command]:
    """Returns the commands that start a run.

    Args:
      cluster: cluster to start the run on.
      work: run to start.

    Raises:
      ConfigError: if the workdir is not in the shared volume.
    """
    stdin = manifest(cluster, work)
    return [Command(arguments=("kubectl", "create", "--filename=-"), stdin=stdin)]


def manifest(cluster: Gke, work: Work) -> str:
    """Returns the JobSet as YAML.

    GKE tells TPU processes their index and coordinator (`--distributed=auto`). GPU processes get
    them from flags: the first pod of a JobSet has the host name <name>-<job>-0-0.<name>.

    Args:
      cluster: cluster to start the run on.
      work: run to start.

    Raises:
      ConfigError: if the workdir is not in the shared volume.
    """
    if not work.workdir.is_relative_to(cluster.mount):
        raise ConfigError(
            f"{work.workdir} is not in the volume that all pods share.",
            f"Choose a folder in {cluster.mount} (cluster.mount).",
            where="--workdir",
        )
    selector = {_SELECTOR[cluster.device]: cluster.accelerator}
    if cluster.topology is not None:
        selector["cloud.google.com/gke-tpu-topology"] = cluster.topology
    if cluster.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    template = jinja2.Template(_TEMPLATE.read_text(), undefined=jinja2.StrictUndefined)
    return template.render(
        **dataclasses.asdict(cluster),
        name=work.name,
        job=_JOB,
        # The job of a slice has a node pool to itself.
        annotations={_EXCLUSIVE: "cloud.google.com/gke-nodepool"}
        if cluster.device == "tpu"
        else {},
        preempted=EXIT_PREEMPTED,
        selector=selector,
        limits={_LIMIT[cluster.device]: cluster.chips},
        command=_command(cluster, work),
    )


def _command(cluster: Gke, work: Work) -> list[str]:
    """Returns the command of a pod, in which Kubernetes replaces $(SLICE) and $(PROCESS)."""
    program = (cluster.python, "-m", work.module, *work.arguments)
    joining = ["--distributed=auto"]
    if cluster.device == "gpu":
        joining = [
            "--distributed=explicit",
            f"--coordinator={work.name}-{_JOB}-0-0.{work.name}:{COORDINATOR_PORT}",
            f"--processes={cluster.hosts}",
            "--process=$(PROCESS)",
        ]
    return [
        "bash",
        "launch/clusters/one_process.sh",
        _literal(f"{work.logs}/process_") + "$(SLICE)_$(PROCESS).log",
        *map(_literal, program),
        *joining,
    ]


def _literal(text: str) -> str:
    """Escapes a text so that Kubernetes replaces nothing in it."""
    return text.replace("$(", "$$(")
