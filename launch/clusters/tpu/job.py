"""Runs on Cloud TPU slices: asked for, used, asked for again when they are taken away."""

import dataclasses
import shlex
import time
from collections.abc import Callable
from typing import Literal

from absl import logging

from launch.clusters.command import Command
from launch.clusters.work import Work
from prior_jax.errors import ConfigError
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED

# States of a queued resource, see `gcloud compute tpus queued-resources describe`.
READY = "ACTIVE"
LOST = ("FAILED", "SUSPENDING", "SUSPENDED")
_SSH_FAILED = 255
_ATTRIBUTES = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tpu:
    """Slices of Cloud TPU; the section of a file in configs/clusters.

    Attributes:
      kind: "tpu".
      project: of Google Cloud.
      zone: of the slices.
      accelerator: type of a slice, e.g. "v5litepod-16".
      runtime: version of the machines' image, e.g. "v2-alpha-tpuv5-lite".
      slices: how many, joined by the data centre's network.
      spot: whether they may be taken away, for a lower price.
      options: more of `queued-resources create`'s, e.g. ("--internal-ips",).
      setup: shell command that every host runs before the program: puts this repository into
        `code` with its packages and mounts the workdir; has to do no harm when run again.
      code: folder of this repository on the hosts, seen from the home folder.
      python: interpreter on the hosts.
      poll_seconds: between two looks at the queue.
      retries: how often the program is started again after its connection was lost.
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
        """Refuses what is left empty, and numbers that ask for nothing."""
        for name in ("project", "zone", "accelerator", "runtime", "setup", "code", "python"):
            if not getattr(self, name):
                accepted = f"a value, e.g. by --cluster.{name}=..."
                raise ConfigError(f"cluster.{name}", received="", accepted=accepted)
        for name, least in (("slices", 1), ("poll_seconds", 1), ("retries", 0)):
            if getattr(self, name) < least:
                accepted = f"at least {least}"
                raise ConfigError(
                    f"cluster.{name}", received=getattr(self, name), accepted=accepted
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """The commands of a run; each may be needed several times.

    Attributes:
      create: asks for the slices.
      describe: prints their state.
      setup: makes every host ready.
      run: runs the program on every host.
      delete: gives the slices back.
    """

    create: Command
    describe: Command
    setup: Command
    run: Command
    delete: Command


def steps(cluster: Tpu, work: Work) -> Steps:
    """The commands; JAX finds the processes by the machines' metadata (`--distributed=auto`).

    Args:
      cluster: where.
      work: what.
    """

    def gcloud(verb: str, *options: str) -> Command:
        place = (f"--project={cluster.project}", f"--zone={cluster.zone}")
        tool = ("gcloud", "compute", "tpus", "queued-resources", verb)
        return Command(arguments=(*tool, work.name, *place, *options))

    def everywhere(command: str) -> Command:
        # In batches, gcloud's default, the first would wait for processes of the second for ever.
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
    """What a host's shell runs: the program with its log, named after slice and host."""
    program = (cluster.python, "-m", work.module, *work.arguments, "--distributed=auto")
    # A host alone knows which it is; MEGASCALE_SLICE_ID is there with several slices.
    read = f"curl -sf -H 'Metadata-Flavor: Google' {_ATTRIBUTES}"
    return (
        f"cd {shlex.quote(cluster.code)} && "
        f"host=$({read}/agent-worker-number) && "
        f"slice=$({read}/tpu-env | sed -n \"s/^MEGASCALE_SLICE_ID: *'\\(.*\\)'$/\\1/p\") && "
        f"exec bash launch/clusters/one_process.sh "
        f'{shlex.quote(str(work.logs))}/process_"${{slice:-0}}"_"$host".log {shlex.join(program)}'
    )


def describe(cluster: Tpu, work: Work) -> str:
    """What a run would do, as a script's lines."""
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
    """Runs the program to its end, on new slices when they are taken away.

    The slices are given back when the program has ended well. After a fault of the program they
    are kept, to be looked at; delete them then. Stopped and started again, it goes on with the
    slices that are there.

    Args:
      cluster: where.
      work: what.
      sleep: waits for so many seconds.

    Returns:
      The program's exit code.

    Raises:
      ConfigError: if the slices cannot be asked for.
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
            # The state of slices that were taken away follows some time later.
            if retries == 0:
                return code
            retries -= 1
            sleep(cluster.poll_seconds)
        elif code != EXIT_PREEMPTED and state == READY:
            return code


def _make_ready(cluster: Tpu, found: Steps, *, sleep: Callable[[float], None]) -> None:
    """Waits for the slices, asking for them where there are none or lost ones."""
    while (state := _state(found)) != READY:
        logging.info("the slices are %s", state)
        if state in LOST and found.delete.run() != 0:
            logging.warning("they could not be deleted yet")
        elif state is None or state in LOST:
            if found.create.run() != 0:
                accepted = "settings that the call above does not refuse"
                raise ConfigError("cluster", received=str(found.create), accepted=accepted)
        sleep(cluster.poll_seconds)


def _state(found: Steps) -> str | None:
    """The slices' state; None where nothing of the name is there."""
    said = found.describe.read()
    return None if said is None else said.strip()
