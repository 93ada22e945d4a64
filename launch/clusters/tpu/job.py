"""Runs a program on Cloud TPU slices, and requests new slices after a preemption."""

import dataclasses
import shlex
import time
from collections.abc import Callable
from typing import Literal

from absl import logging

from launch.clusters.command import Command
from launch.clusters.work import Work
from prior_jax.errors import ConfigError, check_least
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED

# States of a queued resource; see `gcloud compute tpus queued-resources describe`.
READY = "ACTIVE"
LOST = ("FAILED", "SUSPENDING", "SUSPENDED")
_SSH_FAILED = 255
# The number in the name of a type counts cores, and JAX sees both cores of a v4 or v5p chip as one
# device (cloud.google.com/tpu/docs/v4, .../v5p); the chips of v5e and v6e have one core.
_CORES_OF_A_DEVICE = {"v2": 1, "v3": 1, "v4": 2, "v5litepod": 1, "v5p": 2, "v6e": 1}
_ATTRIBUTES = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tpu:
    """Slices of Cloud TPU: the settings of a file in configs/clusters.

    Attributes:
      kind: "tpu".
      project: project of Google Cloud.
      zone: zone of the slices.
      accelerator: type of a slice, e.g. "v5litepod-16".
      runtime: version of the hosts' image, e.g. "v2-alpha-tpuv5-lite".
      slices: number of slices, which the data centre's network connects.
      spot: whether the slices are cheaper spot slices, which Google may preempt.
      options: further options of `queued-resources create`, e.g. ("--internal-ips",).
      setup: shell command that every host runs before the program. It installs this repository
        and its packages in `code` and mounts the workdir; it must be harmless to run again.
      code: folder of this repository on the hosts, relative to the home folder.
      python: path of the Python interpreter on the hosts.
      poll_seconds: seconds between two queries of the queue.
      retries: number of times that the program is started again after a lost connection.
    """

    kind: Literal["tpu"]
    project: str
    zone: str
    accelerator: str
    runtime: str
    slices: int
    spot: bool
    options: tuple[str, ...]
    setup: str
    code: str
    python: str
    poll_seconds: float
    retries: int

    def __post_init__(self):
        """Refuses empty settings, and numbers that are too small."""
        for name in ("project", "zone", "accelerator", "runtime", "setup", "code", "python"):
            if not getattr(self, name):
                raise ConfigError(
                    "The setting is empty.",
                    f"Give a value, e.g. by --cluster.{name}=VALUE.",
                    where=name,
                )
        check_least(self, slices=1, poll_seconds=1, retries=0)

    @property
    def devices(self) -> int | None:
        """Returns the number of devices of a run, or None for a type that this does not know."""
        family, _, count = self.accelerator.rpartition("-")
        if family not in _CORES_OF_A_DEVICE or not count.isdigit():
            return None
        return self.slices * int(count) // _CORES_OF_A_DEVICE[family]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """The commands of a run; each may be run several times.

    Attributes:
      create: command that requests the slices.
      describe: command that prints the state of the slices.
      setup: command that prepares every host.
      run: command that runs the program on every host.
      delete: command that releases the slices.
    """

    create: Command
    describe: Command
    setup: Command
    run: Command
    delete: Command


def steps(cluster: Tpu, work: Work) -> Steps:
    """Returns the commands of a run.

    JAX finds the processes through the metadata of the hosts (`--distributed=auto`).

    Args:
      cluster: slices to run on.
      work: run to start.
    """

    def gcloud(verb: str, *options: str) -> Command:
        place = (f"--project={cluster.project}", f"--zone={cluster.zone}")
        tool = ("gcloud", "compute", "tpus", "queued-resources", verb)
        return Command(arguments=(*tool, work.name, *place, *options))

    def everywhere(command: str) -> Command:
        # gcloud starts hosts in batches by default; the first batch would then wait for the
        # processes of the second for ever.
        options = ("--node=all", "--worker=all", "--batch-size=all")
        return gcloud("ssh", *options, f"--command={command}")

    nodes = (f"--node-id={work.name}",)
    if cluster.slices > 1:
        nodes = (f"--node-count={cluster.slices}", f"--node-prefix={work.name}")
    return Steps(
        create=gcloud(
            "create",
            *nodes,
            f"--accelerator-type={cluster.accelerator}",
            f"--runtime-version={cluster.runtime}",
            *(("--spot",) if cluster.spot else ()),
            *cluster.options,
        ),
        describe=gcloud("describe", "--format=value(state.state)"),
        setup=everywhere(cluster.setup),
        run=everywhere(_on_host(cluster, work)),
        delete=gcloud("delete", "--force", "--quiet"),
    )


def _on_host(cluster: Tpu, work: Work) -> str:
    """Returns the shell line that runs the program on a host, with a log for slice and host."""
    program = (cluster.python, "-m", work.module, *work.arguments, "--distributed=auto")
    # Only the host itself knows its index; MEGASCALE_SLICE_ID is set if there are several slices.
    read = f"curl -sf -H 'Metadata-Flavor: Google' {_ATTRIBUTES}"
    return (
        f"cd {shlex.quote(cluster.code)} && "
        f"host=$({read}/agent-worker-number) && "
        f"slice=$({read}/tpu-env | sed -n \"s/^MEGASCALE_SLICE_ID: *'\\(.*\\)'$/\\1/p\") && "
        f"exec bash launch/clusters/one_process.sh "
        f'{shlex.quote(str(work.logs))}/process_"${{slice:-0}}"_"$host".log {shlex.join(program)}'
    )


def describe(cluster: Tpu, work: Work) -> str:
    """Returns the commands that a run would execute, as the lines of a script."""
    found = steps(cluster, work)
    return "\n".join(
        (
            "# ask for the slices:",
            str(found.create),
            f"# until they are {READY}; {', '.join(LOST)}: delete and ask again:",
            str(found.describe),
            "# on every host:",
            str(found.setup),
            str(found.run),
            f"# exit code {EXIT_PREEMPTED}, or the slices are lost: from the beginning; after 0:",
            str(found.delete),
        )
    )


def supervise(cluster: Tpu, work: Work, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Runs the program to its end, and moves it to new slices when its slices are preempted.

    The slices are released when the program has succeeded. After a fault of the program they are
    kept for inspection, and the user has to delete them. When this supervisor is stopped and
    started again, it continues with the existing slices.

    Args:
      cluster: slices to run on.
      work: run to start.
      sleep: function that waits for the given number of seconds.

    Returns:
      The exit code of the program.

    Raises:
      ConfigError: if the slices cannot be requested.
    """
    found, retries = steps(cluster, work), cluster.retries
    while True:
        _make_ready(cluster, found, sleep=sleep)
        code = found.setup.run()
        if code == 0:
            code = found.run.run()
        if code == 0:
            found.delete.run()
            return 0
        state = _state(found)
        logging.warning("%s: exit code %d, the slices are %s", work.name, code, state)
        if code == _SSH_FAILED and state == READY:
            # The state of preempted slices is updated with a delay.
            if retries == 0:
                return code
            retries -= 1
            sleep(cluster.poll_seconds)
        elif code != EXIT_PREEMPTED and state == READY:
            return code


def _make_ready(cluster: Tpu, found: Steps, *, sleep: Callable[[float], None]) -> None:
    """Waits for the slices, and requests them if they are absent or lost."""
    while (state := _state(found)) != READY:
        logging.info("the slices are %s", state)
        if state in LOST and found.delete.run() != 0:
            logging.warning("the lost slices could not be deleted yet")
        elif state is None or state in LOST:
            refused = found.create.run() != 0
            sleep(cluster.poll_seconds)
            # Slices that are there cannot be requested: then it was the description that failed.
            if refused and _state(found) is None:
                raise ConfigError(
                    f"The slices cannot be requested; this command failed: {found.create}",
                    "Correct the settings that the output of the command names.",
                    where="cluster",
                )
            continue
        sleep(cluster.poll_seconds)


def _state(found: Steps) -> str | None:
    """Returns the state of the slices, or None if they cannot be described or do not exist."""
    said = found.describe.read()
    return None if said is None else said.strip()
