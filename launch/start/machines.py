"""The machine of a run, `--machine=configs/machines/v5e_256.py`, and its effect on the config.

A machine states the layout of the devices and what is rematerialised to save memory. It changes
neither losses nor batches, so a run may continue on another machine.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from absl import flags
from jax.experimental import topologies
from ml_collections import ConfigDict, config_flags

from launch.start import jax_settings, program
from prior_jax.errors import ConfigError
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.strict import build

FLAGS = flags.FLAGS

# The value of a config's mesh if the config leaves the mesh to the machine.
_OPEN_MESH = {"axes": {"data": -1}, "data_axes": ("data",), "bank_axis": None, "rules": ()}
# The machine's rematerialisation setting, of the two, for each part that a model may have.
_REMAT = {
    "model.image.resnet.remat": "image",
    "model.text.remat": "text",
    "model.sentence_decoder.remat": "text",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """Figures of one chip; see configs/machines/base.py for their sources.

    Attributes:
      kind: name of the chip.
      hbm_bytes: size of the memory, in bytes.
      peak_flops: bfloat16 operations per second.
      hbm_bandwidth: bytes per second to and from the memory.
      link_bandwidth: bytes per second that the chip sends over the fast network.
      dcn_bandwidth: bytes per second that the chip sends over the data centre's network.
    """

    kind: str
    hbm_bytes: int
    peak_flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    dcn_bandwidth: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineRemat:
    """What is rematerialised in the backward pass.

    Attributes:
      image: setting of the image encoder; see `nn.resnet.ResNetConfig`.
      text: setting of every stack of transformer layers; see `nn.transformer.StackConfig`.
    """

    image: Literal["none", "elementwise", "block"]
    text: Literal["none", "elementwise", "layer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """A machine: the settings of a file of configs/machines.

    Attributes:
      name: name of the machine.
      platform: JAX platform.
      topology: libtpu's name of the topology; None for other platforms.
      slices: number of groups of chips that have a fast network of their own.
      processes: number of processes of a run.
      local_devices: number of devices of each process.
      chip: figures of one chip.
      mesh: layout of the devices.
      pairs_per_chip: recommended number of pairs on each chip.
      remat: rematerialisation in the backward pass.
      environment: environment variables to set if they are not set, and flags to add to those that
        list flags; see `jax_settings.set_environment`.
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
        """Returns the number of devices of all processes."""
        return self.processes * self.local_devices

    def set_environment(self) -> None:
        """Sets the environment variables of the machine, before a device is initialised."""
        jax_settings.set_environment(self.environment)


def define_flags() -> None:
    """Defines `--machine` and `--pairs_per_chip` of a run."""
    define_machine_flag(required=False)
    flags.DEFINE_integer(
        "pairs_per_chip",
        None,
        "Sets config.data.batch_size to this number times the device count.",
        1,
    )


def define_machine_flag(*, required: bool) -> None:
    """Defines `--machine`."""
    program.define_config_flag(
        "machine", "File of the machine, e.g. configs/machines/v5e_256.py.", required=required
    )


def from_flags() -> MachineConfig | None:
    """Returns the machine that `--machine` names, or None.

    Raises:
      ConfigError: if the machine has an unknown setting, or lacks one.
    """
    section = FLAGS.machine
    return None if section is None else build(MachineConfig, section, name="machine")


def given(name: str) -> Collection[str]:
    """Returns the dotted names of the settings of `--name` that the command line overrides."""
    return config_flags.get_override_values(FLAGS[name])


def arguments() -> tuple[str, ...]:
    """Returns the arguments that repeat `--machine` and `--pairs_per_chip` as they were given."""
    found = () if FLAGS.machine is None else program.config_arguments("machine")
    pairs = FLAGS.pairs_per_chip
    return found if pairs is None else (*found, f"--pairs_per_chip={pairs}")


def start() -> MachineConfig | None:
    """Sets the environment of `--machine` and returns the machine; call before devices start."""
    machine = from_flags()
    if machine is not None:
        machine.set_environment()
    return machine


def configure(config: Any, machine: MachineConfig | None, *, devices: int) -> Any:
    """Returns the config of `--config`, adapted to `--machine` and `--pairs_per_chip`.

    Args:
      config: config of the run; it is not changed.
      machine: machine from `start`.
      devices: number of devices that the run has, or will have.

    Raises:
      ConfigError: if two flags give the same setting, or if devices are missing; the message
        names the setting or the devices.
    """
    check_chips(machine, devices=devices)
    pairs = FLAGS.pairs_per_chip
    size = None if pairs is None else pairs * devices
    return merged(config, machine, batch_size=size, given=given("config"))


def check_chips(machine: MachineConfig | None, *, devices: int) -> None:
    """Refuses a machine whose number of chips differs from the number of devices."""
    if machine is not None and machine.chips != devices:
        raise ConfigError(
            f"The machine {machine.name} has {machine.chips} chips, and this run has {devices} "
            "devices.",
            "Name a machine with as many chips as the run has devices.",
            where="--machine",
        )


def merged(
    config: Any,
    machine: MachineConfig | None,
    *,
    batch_size: int | None,
    given: Collection[str] = (),
    replace: bool = False,
) -> Any:
    """Returns a copy of the config with a machine's mesh and remat, and a batch size.

    Args:
      config: config of a run.
      machine: machine, or None to leave mesh and remat as they are.
      batch_size: number of pairs of the global batch; None leaves it as it is.
      given: dotted names of the settings that the command line overrides.
      replace: whether the config's own mesh may be replaced, as when a run has saved the config.

    Raises:
      ConfigError: if two places give the same setting, which the message names.
    """
    config = config.copy_and_resolve_references()
    for name in ("data", "mesh", "model"):
        if not isinstance(config.get(name), ConfigDict):
            raise ConfigError.of_value(f"config.{name}", config.get(name), "a section")
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
                f"The setting is given twice, because {flag} sets it too.",
                "Leave out one of the two flags.",
                where=f"--config.{key}",
            )


def _refuse_own_mesh(config: Any) -> None:
    for name, value in _OPEN_MESH.items():
        found = config.mesh[name]
        found = found.to_dict() if isinstance(found, ConfigDict) else found
        if found != value:
            raise ConfigError(
                f"The config sets a mesh of its own ({found!r}), which --machine would replace.",
                f"Leave out --machine, or leave the mesh to the machine by {value!r}.",
                where=f"config.mesh.{name}",
            )


def _set_where_it_is(section: Any, path: Sequence[str], value: str) -> None:
    for key in path[:-1]:
        if key not in section:
            return
        section = section[key]
    if path[-1] in section:
        section[path[-1]] = value


def absent_devices(machine: MachineConfig) -> Sequence[Any]:
    """Returns TPU devices to compile for without having the machine.

    Raises:
      ConfigError: if the machine has no TPU, or if libtpu is not installed or does not know the
        machine's topology.
    """
    if machine.topology is None:
        raise ConfigError(
            f"The machine {machine.name} has no TPU topology to compile for.",
            "Name a machine with TPUs, or compile for simulated devices with --platform=cpu.",
            where="--machine",
        )
    # Otherwise libtpu would look for a TPU's metadata server, and refuse a second process.
    jax_settings.set_environment(
        {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
    )
    options = {"num_slices": machine.slices} if machine.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=machine.topology, **options
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"libtpu cannot describe the topology {machine.topology} "
            f"({str(error).splitlines()[0]}).",
            "Run pip install 'prior_jax[tpu]', or set --machine.topology to one that libtpu knows.",
            where="--machine",
        ) from error
    return found.devices
