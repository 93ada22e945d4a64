"""The tokenizer in a folder of weights."""

import os

from prior_jax.data.tokenizer import TokenizerConfig
from prior_jax.interop.weights_folder import DOCUMENT, read_document, tokenizer_file
from prior_jax.strict import build


def tokenizer_config(folder: str | os.PathLike[str]) -> TokenizerConfig | None:
    """Returns the configuration of the tokenizer in a folder of weights; None if it holds none.

    Args:
      folder: folder that `weights_folder.save_weights` wrote.

    Raises:
      WeightsError: if the folder or the tokenizer's file is damaged.
      ConfigError: if `weights.json` does not give the tokenizer's kind and whether it lower-cases.
    """
    path = tokenizer_file(folder)
    if path is None:
        return None
    section = dict(read_document(folder).data.get("tokenizer", {}))
    name = f"{os.fspath(folder)}/{DOCUMENT}: data.tokenizer"
    return build(TokenizerConfig, {**section, "path": str(path)}, name=name)
