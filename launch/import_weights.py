"""Imports weights that others trained into a folder that runs can start from.

    python -m launch.import_weights --source=prior --checkpoint=prior_resnet50.pt --out=DIR
    python -m launch.import_weights --source=prior --checkpoint=FULL.ckpt --tokenizer=vocab.txt ...
    python -m launch.import_weights --source=hf_bert --checkpoint=Bio_ClinicalBERT/ --out=DIR
    python -m launch.import_weights --source=resnet --checkpoint=dino.pth --out=DIR
    ... --entry=teacher --prefix=backbone.    # one of several models in a file

Prints where every tensor went. Nothing is written unless every tensor is accounted for.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from launch.start import jax_settings, program
from launch.start import workdir as workdir_lib
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.folder_names import check_folder_name
from prior_jax.interop.sources import accounting
from prior_jax.interop.sources.imports import open_checkpoint
from prior_jax.interop.sources.plans import Unseen
from prior_jax.interop.sources.table import SOURCES
from prior_jax.interop.torch.misfits import MisfitError
from prior_jax.interop.weights_folder import save_weights

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the program's flags."""
    flags.DEFINE_enum("source", None, list(SOURCES), "Origin of the checkpoint.", required=True)
    flags.DEFINE_string(
        "checkpoint",
        None,
        "A .pt, .pth, .ckpt, .bin or .safetensors file; for hf_bert the model's directory.",
        required=True,
    )
    flags.DEFINE_string("out", None, "Folder to write; must not exist.", required=True)
    parts = sorted({part for source in SOURCES.values() for part in source.recipes})
    flags.DEFINE_enum(
        "part",
        None,
        parts,
        "Part to import; by default the whole model where the file holds it, else one encoder.",
    )
    flags.DEFINE_string(
        "entry",
        None,
        "Key of the state dict in a file that holds several models (teacher, model_ema/module).",
    )
    flags.DEFINE_string(
        "prefix",
        None,
        "Prefix of the model's names in the file, if the model is part of a larger one "
        "(model., module.encoder_q.); names with another prefix are left out.",
    )
    flags.DEFINE_string(
        "tokenizer", None, "A vocab.txt or tokenizer.json to store with BERT's weights."
    )
    flags.DEFINE_integer(
        "heads", None, "Attention heads of BERT; by default one for every 64 features."
    )
    flags.DEFINE_integer(
        "decoder_heads",
        None,
        "Attention heads of PRIOR's sentence decoder; by default one for every 64 features.",
    )
    flags.DEFINE_integer("pool_heads", None, "Heads of PRIOR's attention pool; by default 8.")
    flags.DEFINE_integer(
        "image_size", None, "Side of the images, in pixels; by default the source's."
    )
    for name, what in (("mean", "Mean"), ("std", "Standard deviation")):
        flags.DEFINE_list(
            name,
            None,
            f"{what} that images are normalised by, of pixels from 0 to 1, one number a channel "
            "with commas between; by default the source's, where it has one.",
        )


def main() -> None:
    """Reads the checkpoint, accounts for every tensor, and writes the weights."""
    jax_settings.leave_out_absent_tpu()
    out = check_folder_name(workdir_lib.from_flag("out"), field="--out")
    if out.exists():
        raise WeightsError(
            f"{out} exists already.", "Give a folder that does not exist yet.", where="--out"
        )
    try:
        imported = open_checkpoint(
            FLAGS.source,
            FLAGS.checkpoint,
            part=FLAGS.part,
            unseen=_unseen(),
            tokenizer=None if FLAGS.tokenizer is None else pathlib.Path(FLAGS.tokenizer),
            entry=FLAGS.entry,
            prefix=FLAGS.prefix,
        )
    except MisfitError as error:
        raise _summarised(error) from error
    print(accounting.render(imported.rows))
    for note in imported.weights.origin["notes"]:
        print(f"note: {note}")
    print(f"licence: {imported.weights.origin['licence']}")
    save_weights(out, imported.weights, imported.tokenizer)
    print(f"part {imported.weights.part!r} written to {out}", flush=True)


def _unseen() -> Unseen:
    """Returns the settings that no array's shape shows, as the flags give them."""
    given = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Unseen)}
    return Unseen(**{**given, "mean": _numbers("mean"), "std": _numbers("std")})


def _numbers(name: str) -> tuple[float, ...] | None:
    """Returns the numbers of a flag, or None if it is not given."""
    given: list[str] | None = FLAGS[name].value
    try:
        return None if given is None else tuple(map(float, given))
    except ValueError:
        raise ConfigError.of_value(
            f"--{name}", given, "numbers with commas between, one for each channel"
        ) from None


def _summarised(error: MisfitError) -> WeightsError:
    """Prints each wrong name on its own line and summarises them in a one-line error."""
    for kind, names in error.problems.items():
        for name in names:
            print(f"{kind}: {name}", file=sys.stderr)
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in error.problems.items())
    return WeightsError(
        f"The names or shapes of the tensors are not those of the model ({counts}; each is listed "
        "above).",
        error.remedy,
        where=error.where,
    )


if __name__ == "__main__":
    program.run(main, define_flags)
