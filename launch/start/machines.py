"""The machine of a run: `--machine=configs/machines/v5e_256.py`, and what follows from it.

A machine says how devices are laid out and what is computed again for want of memory. It changes
neither losses nor batches, so that a run may go on with another one.
"""

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from absl import flags
from jax.experimental import topologies
from ml_collections import ConfigDict, config_flags

from launch.start import program
from prior_jax.errors import ConfigError
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.strict import build

FLAGS = flags.FLAGS

# What a config says of itself where it leaves the mesh to the machine.
_OPEN_MESH = {"axes": {"data": -1}, "data_axes": ("data",), "bank_axis": None, "rules": ()}
# Which of the machine's two settings each part of a model follows, where it has that part.
_REMAT = {
    "model.image.resnet.remat": "image",
    "model.text.remat": "text",
    "model.sentence_decoder.remat": "text",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """Figures of one chip; see configs/machines/base.py for their sources.

    Attributes:
      kind: its name.
      hbm_bytes: of memory.
      peak_flops: of bfloat16, a second.
      hbm_bandwidth: bytes a second.
      link_bandwidth: bytes a second that it sends over the fast network.
      dcn_bandwidth: bytes a second that it sends over the data centre's network.
    """

    kind: str
    hbm_bytes: int
    peak_flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    dcn_bandwidth: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineRemat:
    """What is computed again in the backward pass.

    Attributes:
      image: of the image encoder; see `nn.resnet.ResNetConfig`.
      text: of every stack of transformer layers; see `nn.transformer.StackConfig`.
    """

    image: Literal["none", "block"]
    text: Literal["none", "layer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """A file of configs/machines.

    Attributes:
      name: of the machine.
      platform: of JAX.
      topology: as libtpu names it; None elsewhere.
      slices: groups of chips with a fast network of their own.
      processes: of a run.
      local_devices: of each process.
      chip: figures of one.
      mesh: how they are laid out.
      pairs_per_chip: advice.
      remat: what is computed again.
      environment: variables to set where they are not set.
    """

    name: str
    platform: Literal["tpu", "gpu", "cpu"]
    topology: str | None
    slices: int
    processes: int
    local_devices: int
    chip: ChipConfig
    mesh: MeshConfig
    pairs_per_chip: int
    remat: MachineRemat
    environment: Mapping[str, str]

    @property
    def chips(self) -> int:
        """Devices of all processes."""
        return self.processes * self.local_devices

    def set_environment(self) -> None:
        """Sets what the environment lacks, before a device is touched."""
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)


def define_flags() -> None:
    """Defines `--machine` and `--pairs_per_chip` of a run."""
    define_machine_flag(required=False)
    flags.DEFINE_integer(
        "pairs_per_chip", None, "Sets config.data.batch_size to this times the devices.", 1
    )


def define_machine_flag(*, required: bool) -> None:
    """Defines `--machine`."""
    program.define_config_flag(
        "machine", "Where, e.g. configs/machines/v5e_256.py.", required=required
    )


def from_flags() -> MachineConfig | None:
    """The machine that `--machine` names, or None.

    Raises:
      ConfigError: if it says something that nobody reads, or leaves something out.
    """
    section = FLAGS.machine
    return None if section is None else build(MachineConfig, section, name="machine")


def given(name: str) -> Collection[str]:
    """Dotted names of what the command line gives of the config in `--name`."""
    return config_flags.get_override_values(FLAGS[name])


def arguments() -> tuple[str, ...]:
    """The arguments that give `--machine` and `--pairs_per_chip` again as they were given."""
    found = () if FLAGS.machine is None else program.config_arguments("machine")
    pairs = FLAGS.pairs_per_chip
    return found if pairs is None else (*found, f"--pairs_per_chip={pairs}")


def start() -> MachineConfig | None:
    """The machine of `--machine`, its environment set; before the devices start."""
    machine = from_flags()
    if machine is not None:
        machine.set_environment()
    return machine


def configure(config: Any, machine: MachineConfig | None, *, devices: int) -> Any:
    """The config of `--config` with what `--machine` and `--pairs_per_chip` say.

    Args:
      config: of the run; left as it is.
      machine: from `start`.
      devices: that the run has, or will have.

    Raises:
      ConfigError: naming what two of the flags give, or the devices that are not there.
    """
    check_chips(machine, devices=devices)
    pairs = FLAGS.pairs_per_chip
    size = None if pairs is None else pairs * devices
    return merged(config, machine, batch_size=size, given=given("config"))


def check_chips(machine: MachineConfig | None, *, devices: int) -> None:
    """Refuses a machine of another number of chips, by name."""
    if machine is not None and machine.chips != devices:
        raise ConfigError(
            "--machine",
            received=f"{machine.name} with {machine.chips} chips",
            accepted=f"one with the {devices} devices of this run",
        )


def merged(
    config: Any,
    machine: MachineConfig | None,
    *,
    batch_size: int | None,
    given: Collection[str] = (),
    replace: bool = False,
) -> Any:
    """A copy of the config with a machine's mesh and remat, and a batch size.

    Args:
      config: of a run.
      machine: None to leave mesh and remat as they are.
      batch_size: pairs of the global batch; None to leave it.
      given: dotted names of what the command line gives of the config.
      replace: whether the config's own mesh may be replaced, as a run has kept it.

    Raises:
      ConfigError: naming what two places give.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if batch_size is not None:
            _refuse(given, ("data.batch_size",), "--pairs_per_chip")
            config.data.batch_size = batch_size
        if machine is not None:
            taken = (*(f"mesh.{name}" for name in (*_OPEN_MESH, "fsdp_axis")), *_REMAT)
            _refuse(given, taken, "--machine")
            if not replace:
                _refuse_own_mesh(config)
            config.mesh.update(dataclasses.asdict(machine.mesh))
            config.mesh.axes = ConfigDict(dict(machine.mesh.axes))
            for path, part in _REMAT.items():
                _set_where_it_is(config, path.split("."), getattr(machine.remat, part))
    return config


def _refuse(given: Collection[str], taken: Sequence[str], flag: str) -> None:
    for key in given:
        if any(key == name or key.startswith(f"{name}.") for name in taken):
            raise ConfigError(
                f"--config.{key}", received="a value", accepted=f"nothing: {flag} says so"
            )


def _refuse_own_mesh(config: Any) -> None:
    for name, value in _OPEN_MESH.items():
        found = config.mesh[name]
        found = found.to_dict() if isinstance(found, ConfigDict) else found
        if found != value:
            raise ConfigError(
                f"config.mesh.{name}", received=found, accepted=f"{value!r} with --machine"
            )


def _set_where_it_is(section: Any, path: Sequence[str], value: str) -> None:
    for key in path[:-1]:
        if key not in section:
            return
        section = section[key]
    if path[-1] in section:
        section[path[-1]] = value


def absent_devices(machine: MachineConfig) -> Sequence[Any]:
    """The TPU devices of a machine that is not there, to compile for.

    Raises:
      ConfigError: if the machine has no TPU, or libtpu is not installed or does not know it.
    """
    if machine.topology is None:
        raise ConfigError(
            "--machine",
            received=f"{machine.name}, whose topology is None",
            accepted="a TPU's, or --platform=cpu to compile for simulated devices",
        )
    # It would else look for a TPU's metadata server, and insist on being alone.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options = {"num_slices": machine.slices} if machine.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=machine.topology, **options
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ConfigError(
            "--machine",
            received=f"{machine.topology}: {str(error).splitlines()[0]}",
            accepted="a topology that libtpu knows; pip install 'prior_jax[tpu]'",
        ) from error
    return found.devices
