"""Compiles a training step for hardware you do not have, and forecasts its memory and time.

    python -m launch.compile_check --config=configs/prior/paper.py \
        --machine=configs/machines/v5e_16.py
    python -m launch.compile_check --config=configs/gloria/paper.py \
        --machine=configs/machines/v5e_256.py --pairs_per_chip=128,64 --json=check.json

Neither data nor a TPU is needed: libtpu compiles for any slice (pip install 'prior_jax[tpu]').
--platform=cpu compiles for the same number of simulated CPU devices instead; their memory is only
a rough guide.
"""

import json
import pathlib
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags, logging

from launch.forecast import hlo_cost, hlo_text, roofline
from launch.start import jax_settings, machines, output_file, program
from launch.start.run import check_fits
from launch.start.without_data import BOXES, abstract_batch, program_of
from prior_jax import __version__
from prior_jax.config import read_config
from prior_jax.data.pipeline import DataConfig
from prior_jax.data.tokenizer import unknown_vocabulary
from prior_jax.errors import ConfigError
from prior_jax.objectives.kinds import KINDS, Kind
from prior_jax.run_config import RunConfig
from prior_jax.sharding.placement import placement
from prior_jax.train.program import Program
from prior_jax.types import Batch

FLAGS = flags.FLAGS
QUICK_TPU = {"xla_jf_convolution_performance_target": "0.1"}
"""Options that make libtpu take the first blocks of a product that are fast enough."""


def define_flags() -> None:
    """Defines the program's flags."""
    program.define_config_flag("config", "File of the run's config, e.g. configs/prior/paper.py.")
    machines.define_machine_flag(required=True)
    flags.DEFINE_list(
        "pairs_per_chip", None, "Pairs per chip to try, e.g. 256,128,64; by default the machine's."
    )
    flags.DEFINE_string("stage", None, "Name of the stage; by default the last.")
    flags.DEFINE_integer("vocab_size", 28996, "Vocabulary size of the tokenizer.", 1)
    flags.DEFINE_integer(
        "length", None, "Number of tokens of a report; by default the longest bucket.", 1
    )
    flags.DEFINE_integer(
        "boxes",
        None,
        "Number of boxes that an image of a detector's batch has room for: the most that an image "
        f"of the set has; by default {BOXES}.",
        1,
    )
    flags.DEFINE_enum("platform", None, ["tpu", "cpu"], "Platform; by default the machine's.")
    flags.DEFINE_enum(
        "effort",
        "quick",
        ["quick", "full"],
        "quick: XLA spends the least effort on execution time and on fitting memory, and compiles "
        "in minutes instead of tens of minutes; the forecast memory is within a few per cent, but "
        "the collectives differ. full: XLA compiles as in training.",
    )
    flags.DEFINE_string(
        "cache_dir", None, "Folder for compiled programs, which a later check reuses."
    )
    flags.DEFINE_string("json", None, "JSON file for the results.")
    flags.DEFINE_string("keep_hlo", None, "Folder for the HLO text of the compiled programs.")
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> int:
    """Compiles each batch and prints the results; returns 1 if no batch fits."""
    machine = machines.from_flags()
    if machine is None:
        raise ConfigError(
            "No machine is given.",
            "Name a file of configs/machines, e.g. --machine=configs/machines/v5e_16.py.",
            where="--machine",
        )
    if FLAGS.json is not None:
        output_file.check_file(pathlib.Path(FLAGS.json), where="--json")
    if FLAGS.keep_hlo is not None:
        output_file.check_folder(pathlib.Path(FLAGS.keep_hlo), where="--keep_hlo")
    devices = _start(machine)
    reports = []
    for pairs in _batches(machine):
        config = machines.merged(
            FLAGS.config,
            machine,
            batch_size=pairs * len(devices),
            given=machines.given("config"),
        )
        report = check(read_config(config, workdir=pathlib.Path()), machine, devices, pairs=pairs)
        print(roofline.table(report), flush=True)
        reports.append(report)
    print(roofline.verdict(reports))
    if FLAGS.json is not None:
        pathlib.Path(FLAGS.json).write_text(json.dumps(reports, indent=1) + "\n")
    return 0 if any(report["fits"] for report in reports) else 1


def _batches(machine: machines.MachineConfig) -> Iterator[int]:
    given = FLAGS.pairs_per_chip or [str(machine.pairs_per_chip)]
    for text in given:
        if not text.strip().isdigit() or int(text) < 1:
            raise ConfigError.of_value("--pairs_per_chip", text, "positive integers, e.g. 256,128")
    return (int(text) for text in given)


def _start(machine: machines.MachineConfig) -> Sequence[Any]:
    """Returns the devices to compile for; no accelerator is initialised."""
    machine.set_environment()
    kind = FLAGS.platform or ("cpu" if machine.platform == "cpu" else "tpu")
    jax_settings.use_cpu(machine.chips if kind == "cpu" else None)
    jax_settings.compile_for_memory(FLAGS.cache_dir, quick=FLAGS.effort == "quick")
    return jax.devices() if kind == "cpu" else machines.absent_devices(machine)


def check(
    config: RunConfig, machine: machines.MachineConfig, devices: Sequence[Any], *, pairs: int
) -> dict[str, Any]:
    """Compiles one batch.

    Args:
      config: config of the run, with the machine's mesh and the batch size.
      machine: machine to compile for.
      devices: devices of the machine, one for each chip.
      pairs: number of pairs on each chip.

    Returns:
      The results as JSON values. "fits" tells whether the step fits into a chip's memory; if the
      compiler ran out of memory, the only other result is "refused", the compiler's message.
    """
    kind = KINDS[config.objective]
    _check_flags(kind, config.objective)
    place = placement(config.mesh, devices=devices)
    check_fits(config, place)
    builder = program_of(config, place, vocabulary=unknown_vocabulary(FLAGS.vocab_size))
    stage = _stage(builder, FLAGS.stage)
    state, batch = builder.abstract(stage), _sharded_batch(config.data, builder)
    report: dict[str, Any] = {
        "config": config.name,
        "stage": stage.name,
        "machine": machine.name,
        "chip": machine.chip.kind,
        "chips": len(devices),
        "compiled_for": devices[0].platform,
        "mesh": {name: int(size) for name, size in place.mesh.shape.items()},
        "pairs_per_chip": pairs,
        "tokens": batch.tokens.shape[1] if kind.reads_reports else None,
        "dtype": config.model.dtype,
        "remat": {"image": machine.remat.image, "text": machine.remat.text},
        "effort": FLAGS.effort,
        "versions": versions(),
    }
    arguments = state, batch, jax.ShapeDtypeStruct((), jnp.float32)
    with jax.set_mesh(place.mesh):
        compiled, spent = _compile(builder.step(stage), arguments, options=_options(devices))
    report |= spent
    if isinstance(compiled, str):
        return report | {"fits": False, "refused": compiled}
    text = compiled.as_text()
    if FLAGS.keep_hlo is not None:
        name = f"{config.name}_{stage.name}_{machine.name}_{pairs}.hlo.txt"
        folder = pathlib.Path(FLAGS.keep_hlo)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    memory = _memory(state, batch, compiled)
    return report | _forecast(text, machine, memory, chips=len(devices), pairs=pairs)


def _check_flags(kind: Kind, name: str) -> None:
    """Refuses flags on what the objective does not read."""
    unread = {
        "length": (kind.reads_reports, "reports"),
        "boxes": (kind.regions == "boxes", "boxes"),
    }
    for flag, (reads, what) in unread.items():
        if getattr(FLAGS, flag) is not None and not reads:
            raise ConfigError(
                f"The objective {name!r} reads no {what}.", "Leave out the flag.", where=f"--{flag}"
            )


def _stage(builder: Program, name: str | None) -> Any:
    stages = {stage.name: stage for stage in builder.schedule.stages}
    if name is not None and name not in stages:
        raise ConfigError(
            f"The config has no stage {name!r}.",
            f"Choose one of {', '.join(stages)}.",
            where="--stage",
        )
    return stages[name] if name is not None else builder.schedule.stages[-1]


def _sharded_batch(data: DataConfig, builder: Program) -> Batch:
    """Returns the shapes and dtypes of a batch, sharded as in training."""
    length, boxes = FLAGS.length or data.buckets[-1], FLAGS.boxes or BOXES
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=builder.batch_sharding),
        abstract_batch(data, length=length, boxes=boxes),
    )


def _options(devices: Sequence[Any]) -> Mapping[str, str]:
    """Returns the compiler's options, by which --effort=quick saves time on a TPU."""
    quick = FLAGS.effort == "quick" and devices[0].platform == "tpu"
    return QUICK_TPU if quick else {}


def _compile(
    step: Any, arguments: tuple, *, options: Mapping[str, str]
) -> tuple[Any, Mapping[str, float]]:
    """Returns the program, or the compiler's message if it is out of memory, and the seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    lowered = step.lower(*arguments)
    traced = time.process_time() - cpu
    logging.info("traced in %.0f CPU-seconds; compiling", traced)
    try:
        found = lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found = next(line for line in str(error).splitlines() if "RESOURCE_EXHAUSTED" in line)
    return found, {
        "trace_cpu_seconds": round(traced, 1),
        "compile_cpu_seconds": round(time.process_time() - cpu - traced, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
    }


def _memory(state: Any, batch: Batch, compiled: Any) -> dict[str, int]:
    """Returns the bytes of a chip's memory, by what they hold."""
    parts = {
        "parameters": state.params,
        "optimizer": state.optimizer,
        "batch statistics": state.rest,
        "batch": batch,
    }
    return roofline.memory({k: roofline.bytes_on_chip(v) for k, v in parts.items()}, compiled)


def _forecast(
    text: str, machine: machines.MachineConfig, memory: Mapping[str, int], *, chips: int, pairs: int
) -> dict[str, Any]:
    """Returns what a compiled step costs, from its HLO text, its memory and the pairs of a chip."""
    hlo = hlo_text.read(text)
    cost = hlo_cost.cost_of(hlo, devices=chips)
    found = roofline.summary(machine, memory=memory, cost=cost, pairs=pairs * chips)
    return found | {"loops_counted_once": list(hlo.unknown_loops)}


def versions() -> dict[str, str]:
    """Returns the versions of the packages that the program's cost depends on."""
    found = {"prior_jax": __version__, "python": platform.python_version(), "jax": jax.__version__}
    try:
        import libtpu  # type: ignore[import-not-found]
    except ImportError:
        return found
    return found | {"libtpu": libtpu.__version__}


if __name__ == "__main__":
    program.run(main, define_flags)
