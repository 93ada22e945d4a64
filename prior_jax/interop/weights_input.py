"""The tokenizer that weights bring along."""

import os

from prior_jax.data.tokenizer import TokenizerConfig
from prior_jax.interop.weights_folder import DOCUMENT, read_document, tokenizer_file
from prior_jax.strict import build


def tokenizer_config(folder: str | os.PathLike[str]) -> TokenizerConfig | None:
    """The tokenizer in a folder of weights, ready to be opened; None if it holds none.

    Args:
      folder: written by `weights_folder.save_weights`.

    Raises:
      WeightsError: if the folder or the tokenizer's file is damaged.
      ConfigError: if `weights.json` does not say of which kind it is, and whether it lower-cases.
    """
    path = tokenizer_file(folder)
    if path is None:
        return None
    section = dict(read_document(folder).data.get("tokenizer", {}))
    name = f"{os.fspath(folder)}/{DOCUMENT}: data.tokenizer"
    return build(TokenizerConfig, {**section, "path": str(path)}, name=name)
