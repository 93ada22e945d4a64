"""Writes trained or imported weights in other programs' formats, each with a model card.

    python -m launch.export --workdir=RUN --out=DIR
    python -m launch.export --workdir=RUN --out=DIR --format=hf_bert --step=1000
    python -m launch.export --workdir=WEIGHTS --out=DIR --format=release

A single format is written into DIR itself; with several formats, or all, each is written into a
folder of its name in DIR.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from absl import flags

from launch import export_examples
from launch.export_source import Source, open_source
from launch.start import jax_settings, program
from launch.start import workdir as workdir_lib
from prior_jax import storage_errors
from prior_jax.errors import ConfigError, WeightsError, first_line
from prior_jax.folder_names import check_folder_name, temporary_beside
from prior_jax.interface.image_model import ImageModel
from prior_jax.interface.imported import LOADERS
from prior_jax.interop.export import stablehlo
from prior_jax.interop.export.finetuned_files import finetuned_files
from prior_jax.interop.export.image_files import image_files
from prior_jax.interop.export.image_program import image_program, program_notes
from prior_jax.interop.export.model_card import TRAINING_CONFIG, model_card
from prior_jax.interop.export.parts import Exported, origin_of, safetensors_bytes, sha256
from prior_jax.interop.export.text_files import text_files
from prior_jax.interop.export.towers import Tower
from prior_jax.interop.onnx import graph as onnx_graph
from prior_jax.interop.sources.imports import release_state_dict
from prior_jax.interop.weights_folder import Part, Weights, save_weights

FLAGS = flags.FLAGS
ALL = "all"
_CARD = "README.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """A format that weights can be written in.

    Attributes:
      write: function that returns the files; it may write into the folder itself, which does not
        exist yet.
      parts: parts of weights that the format can hold.
      imported: whether the format can hold only weights that were imported from elsewhere.
      models: models that the format can hold: "any", those that read "reports", or those of
        "images" alone, which were fine-tuned.
    """

    write: Callable[[Source, pathlib.Path], Exported]
    parts: tuple[Part, ...]
    imported: bool = False
    models: Literal["any", "reports", "images"] = "any"

    def fits(self, source: Source) -> bool:
        """Tells whether a source can be written in this format."""
        known = "layout" in source.weights.origin or not self.imported
        reads = {"any": True, "reports": source.reads_reports, "images": not source.reads_reports}
        return known and source.weights.part in self.parts and reads[self.models]


def _image(source: Source, folder: pathlib.Path) -> Exported:
    del folder
    return image_files(source.weights)


def _text(source: Source, folder: pathlib.Path) -> Exported:
    del folder
    return text_files(source.weights, source.tokenizer, source.tokenizer_config)


def _finetuned(source: Source, folder: pathlib.Path) -> Exported:
    del folder
    objective: Any = source.model.objective
    weights = source.weights
    return finetuned_files(
        weights.arrays,
        objective.config,
        image=weights.data["image"],
        origin=origin_of(weights),
    )


def _stablehlo(source: Source, folder: pathlib.Path) -> Exported:
    del folder
    if isinstance(source.model, ImageModel):
        program, example, notes = _image_program(source, export_examples.STABLEHLO_IMAGE)
        return Exported(
            files={"model.stablehlo": stablehlo.export_tower(program)},
            example=example,
            notes=(
                "The model is one program with its weights, for cpu, cuda and tpu and any "
                "batch; jax alone runs it.",
                *notes,
            ),
        )
    found = stablehlo.export_towers(source.model.objective, source.model.module, **_sizes(source))
    return Exported(
        files={f"{name}.stablehlo": content for name, content in found.items()},
        example=export_examples.STABLEHLO_TOWERS.format(shape=(2, *_sizes(source)["image_shape"])),
        notes=(
            "Each tower is one program with its weights, for cpu, cuda and tpu and any batch; "
            f"jax alone runs it. {_INPUTS}",
        ),
    )


def _onnx(source: Source, folder: pathlib.Path) -> Exported:
    del folder
    if isinstance(source.model, ImageModel):
        program, example, notes = _image_program(source, export_examples.ONNX_IMAGE)
        graph = onnx_graph.export_onnx(program.function, program.inputs, program.outputs)
        return Exported(
            files={"model.onnx": graph.SerializeToString()},
            example=example,
            notes=("The model is one graph with its weights, for any batch.", *notes),
        )
    found = onnx_graph.export_towers(source.model.objective, source.model.module, **_sizes(source))
    return Exported(
        files={f"{name}.onnx": graph.SerializeToString() for name, graph in found.items()},
        example=export_examples.ONNX_TOWERS.format(shape=(2, *_sizes(source)["image_shape"])),
        notes=(f"Each tower is one graph with its weights, for any batch. {_INPUTS}",),
    )


def _image_program(source: Source, example: str) -> tuple[Tower, str, tuple[str, ...]]:
    """Returns a fine-tuned model as a function, the example that runs it, and its description."""
    objective: Any = source.model.objective
    shape = _image_shape(source)
    program = image_program(objective, source.model.module, image_shape=shape)
    filled = example.format(shape=(1, *shape), outputs=list(program.outputs))
    return program, filled, program_notes(objective)


def _image_shape(source: Source) -> tuple[int, int, int]:
    image = source.model.image
    return image.size, image.size, image.channels


def _sizes(source: Source) -> dict[str, Any]:
    model: Any = source.model
    text = model.text
    return {
        "image_shape": _image_shape(source),
        "max_tokens": text.max_tokens,
        "max_sentences": text.max_sentences,
    }


def _nnx(source: Source, folder: pathlib.Path) -> Exported:
    config = source.tokenizer_config
    save_weights(folder, source.weights, None if config is None else pathlib.Path(config.path))
    whole = source.weights.part == "model" and source.tokenizer is not None
    loader = LOADERS.get(source.weights.objective or "")
    example = export_examples.WHOLE_MODEL if whole else export_examples.ARRAYS
    return Exported(
        files={},
        example=example if loader is None else export_examples.IMAGE_MODEL.format(loader=loader),
        notes=(
            "`arrays/` is an orbax checkpoint of nested dictionaries, the paths of the NNX "
            "module's parameters and batch statistics; `weights.json` says what they are.",
        ),
    )


def _release(source: Source, folder: pathlib.Path) -> Exported:
    del folder
    tensors = release_state_dict(source.weights)
    return Exported(
        files={"model.safetensors": safetensors_bytes(tensors)},
        example=export_examples.RELEASE,
        notes=(
            f"The state dict as `{source.weights.origin['source']}` spells it: every tensor that "
            "was imported or kept, bit for bit.",
        ),
    )


FORMATS: Mapping[str, Format] = {
    "image_safetensors": Format(write=_image, parts=("image", "model")),
    "model_safetensors": Format(write=_finetuned, parts=("model",), models="images"),
    "hf_bert": Format(write=_text, parts=("text", "model"), models="reports"),
    "stablehlo": Format(write=_stablehlo, parts=("model",)),
    "onnx": Format(write=_onnx, parts=("model",)),
    "nnx": Format(write=_nnx, parts=("image", "text", "model")),
    "release": Format(write=_release, parts=("image", "text", "model"), imported=True),
}
"""Formats by their names in `--format`."""


def export(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    formats: Sequence[str] = (ALL,),
    step: int | None = None,
) -> tuple[str, ...]:
    """Writes a folder completely or not at all: it is built under another name and renamed.

    Args:
      workdir: folder of a run of `launch.train`, or a folder of weights.
      out: folder to make; it must not exist.
      formats: names of FORMATS, or ("all",) for all that fit the source.
      step: step of the run's checkpoint; None for the newest, or the one that was measured, see
        `open_source`.

    Returns:
      The names of the formats that were written.

    Raises:
      ConfigError: if a format is unknown, or if `out` exists or cannot be made.
      DataError: if `workdir` is neither a run nor a folder of weights.
      CheckpointError: if the run has no sound checkpoint of that step.
      WeightsError: if the weights do not fit a format that was requested by name.
      ExportError: if an optional package is not installed, or a format cannot hold the model.
    """
    target = check_folder_name(out, field="--out")
    _check(formats, target)
    source = open_source(workdir, step=step)
    chosen = tuple(n for n, f in FORMATS.items() if f.fits(source)) if ALL in formats else formats
    for name in chosen:
        _check_fits(name, source)
    aside = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            single = len(chosen) == 1 and ALL not in formats
            _write(name, source, aside if single else aside / name)
        aside.rename(target)
    except (OSError, WeightsError) as error:
        if isinstance(error, WeightsError) and storage_errors.meaning(error) is None:
            raise
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return tuple(chosen)


def _cannot_write(target: pathlib.Path, error: Exception) -> ConfigError:
    """Returns the error of a folder that cannot be written, with what is known of the reason."""
    problem, remedy = storage_errors.meaning(error) or (
        f"The system reported an error ({first_line(error)}).",
        "Choose a folder that can be written to.",
    )
    return ConfigError(
        f"The export cannot be written to {target}. {problem}", remedy, where="--out"
    )


def _check(formats: Sequence[str], target: pathlib.Path) -> None:
    for name in formats:
        if name not in (ALL, *FORMATS):
            raise ConfigError(
                f"There is no format {name!r}.",
                f"Choose from {ALL}, {', '.join(FORMATS)}.",
                where="--format",
            )
    if not formats:
        raise ConfigError(
            "No format is given.", f"Choose from {ALL}, {', '.join(FORMATS)}.", where="--format"
        )
    if target.exists():
        raise ConfigError(
            f"{target} exists already.", "Give a folder that does not exist yet.", where="--out"
        )


def _check_fits(name: str, source: Source) -> None:
    wanted, weights = FORMATS[name], source.weights
    if not wanted.fits(source):
        origin = ", imported with launch.import_weights" if wanted.imported else ""
        raise WeightsError(
            f"The format cannot hold the weights in {source.path}, which are of part "
            f"{weights.part!r}{_whose(weights)} from {weights.origin.get('source')!r}.",
            f"Give weights of part {' or '.join(map(repr, wanted.parts))}{origin}"
            f"{_MODELS[wanted.models]}, or leave out "
            "--format to write all formats that can hold them.",
            where=f"--format={name}",
        )


def _whose(weights: Weights) -> str:
    return "" if weights.objective is None else f" of the objective {weights.objective!r}"


def _write(name: str, source: Source, folder: pathlib.Path) -> None:
    """Writes one format and its model card."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    exported = FORMATS[name].write(source, folder)
    folder.mkdir(exist_ok=True)
    for file, content in exported.files.items():
        (folder / file).write_bytes(content)
    if source.facts.config is not None:
        text = json.dumps(source.facts.config, indent=2)
        (folder / TRAINING_CONFIG).write_text(text + "\n")
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    card = model_card(
        kind=name,
        about=source.weights,
        exported=exported,
        facts=source.facts,
        files={str(path.relative_to(folder)): sha256(path.read_bytes()) for path in written},
    )
    (folder / _CARD).write_text(card)


_MODELS = {
    "any": "",
    "reports": " that reads reports",
    "images": " of an objective that reads images alone",
}

_INPUTS = (
    "Images are normalised as below, tokens are those of the tokenizer below; this project's "
    "docs/weights.md describes every input and output."
)


def define_flags() -> None:
    """Defines the program's flags."""
    flags.DEFINE_string(
        "workdir", None, "Folder of a run that launch.train made, or of weights.", required=True
    )
    flags.DEFINE_string("out", None, "Folder to make.", required=True)
    flags.DEFINE_list("format", [ALL], f"Formats to write: {ALL}, or some of {', '.join(FORMATS)}.")
    flags.DEFINE_integer(
        "step",
        None,
        "Step of the run's checkpoint; by default the newest, of a fine-tuning the measured one.",
    )


def main() -> None:
    """Exports the weights that the flags name."""
    jax_settings.leave_out_absent_tpu()
    workdir, out = workdir_lib.from_flag(), workdir_lib.from_flag("out")
    for name in export(workdir, out, formats=FLAGS.format, step=FLAGS.step):
        print(f"{name}: written")
    single = len(FLAGS.format) == 1 and ALL not in FLAGS.format
    print(f"{FLAGS.out}: see {_CARD}{'' if single else ' in each of its folders'}")


if __name__ == "__main__":
    program.run(main, define_flags)
