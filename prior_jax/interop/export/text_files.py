"""Exports text encoders as BERT directories of Hugging Face's transformers."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from prior_jax.data.tokenizer import Tokenizer, TokenizerConfig
from prior_jax.errors import WeightsError
from prior_jax.interop.export.image_files import projections
from prior_jax.interop.export.parts import (
    Exported,
    part_of,
    renamed,
    safetensors_bytes,
    section,
)
from prior_jax.interop.huggingface.tokenizer_files import tokenizer_files
from prior_jax.interop.torch.module_tables import bert_table
from prior_jax.interop.torch.names import Table
from prior_jax.interop.weights_folder import Weights
from prior_jax.nn.bert import BertConfig
from prior_jax.nn.transformer import LAYER_NORM_EPSILON

PREFIX = {"text": "", "model": "text_encoder/"}
"""Part of the weights -> prefix of BERT's paths."""

# The value of BERT, arXiv:1810.04805, appendix A; transformers does not read it with weights.
_INITIALIZER_RANGE = 0.02


def text_files(
    weights: Weights, tokenizer: Tokenizer | None, config: TokenizerConfig | None
) -> Exported:
    """Exports BERT with its tokenizer, for `AutoModel` and `AutoTokenizer`.

    `projection.safetensors`, for objectives that have any, holds the layers that follow BERT:
    PRIOR's under its release's names, the baselines' under ours.

    Args:
      weights: weights of a text encoder or a whole model.
      tokenizer: tokenizer of the text encoder; None for weights without one.
      config: config that the tokenizer was opened with.

    Raises:
      WeightsError: if the weights have no text encoder, or the tokenizer is of another vocabulary
        or would give other ids in transformers.
      DataError: if a sentencepiece model is of a kind that cannot be written.
    """
    arrays = part_of(weights, PREFIX, wanted="text encoder")
    bert, pooler = bert_config(weights, arrays), "pooler/kernel" in arrays
    if tokenizer is not None:  # a folder of weights does not tell what its texts are padded with
        bert = dataclasses.replace(bert, pad_token=tokenizer.pad_id)
    table = bert_table(bert)
    if not pooler:
        table = Table(entries=tuple(e for e in table.entries if e.path[0] != "pooler"))
    files = {
        "config.json": _json(_settings(bert)),
        "model.safetensors": safetensors_bytes(renamed(arrays, table)),
    }
    notes = ["`model.safetensors` and `config.json` are a `BertModel`; no key is left over."]
    if not pooler:
        notes = ["A `BertModel` without its pooler, which the weights came without."]
    if tokenizer is None or config is None:
        notes.append("The weights came without a tokenizer; none is here.")
    else:
        _check_vocabulary(tokenizer, bert)
        files |= tokenizer_files(tokenizer, config, max_length=bert.max_positions)
        notes.append(_TOKENIZER_NOTES[config.kind])
    behind = projections(weights, "text")
    if behind:
        files["projection.safetensors"] = safetensors_bytes(behind)
        notes.append(
            f"`projection.safetensors` holds what follows BERT in {weights.objective}: "
            f"{', '.join(f'`{name}`' for name in behind)}."
        )
    example = _example(tokenizer, pooler=pooler)
    return Exported(files=files, example=example, notes=tuple(notes))


def bert_config(weights: Weights, arrays: Mapping[str, np.ndarray]) -> BertConfig:
    """Returns the config of a BERT from its arrays, except heads and dropout, which have no array.

    Args:
      weights: weights that hold the BERT.
      arrays: arrays of the encoder, keyed by their paths within it.
    """
    sizes = weights.model if weights.part == "text" else section(weights.model, "text")
    vocab_size, hidden_size = arrays["word_embedding"].shape
    inner = arrays["layers/feed_forward/inner/kernel"]
    return BertConfig(
        hidden_size=hidden_size,
        layers=inner.shape[0],
        heads=sizes["heads"],
        intermediate_size=inner.shape[2],
        dropout=sizes.get("dropout", 0.0),
        scan_layers=False,
        remat="none",
        vocab_size=vocab_size,
        max_positions=len(arrays["position_embedding"]),
        token_types=len(arrays["token_type_embedding"]),
        pad_token=sizes.get("pad_token", 0),
    )


def _check_vocabulary(tokenizer: Tokenizer, bert: BertConfig) -> None:
    """Refuses a tokenizer with ids for which the BERT has no embedding."""
    if tokenizer.vocab_size > bert.vocab_size:
        raise WeightsError(
            f"The tokenizer has {tokenizer.vocab_size} tokens, more than the "
            f"{bert.vocab_size} rows of the word embedding.",
            "Give the tokenizer that the weights were trained with.",
            where=tokenizer.name,
        )


def _settings(bert: BertConfig) -> dict[str, Any]:
    """Returns the content of `config.json` for transformers' BertModel."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": bert.dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": bert.dropout,
        "hidden_size": bert.hidden_size,
        "initializer_range": _INITIALIZER_RANGE,
        "intermediate_size": bert.intermediate_size,
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "max_position_embeddings": bert.max_positions,
        "model_type": "bert",
        "num_attention_heads": bert.heads,
        "num_hidden_layers": bert.layers,
        "pad_token_id": bert.pad_token,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": bert.token_types,
        "vocab_size": bert.vocab_size,
    }


def _example(tokenizer: Tokenizer | None, *, pooler: bool) -> str:
    if tokenizer is None:
        tokens = ["tokens = {'input_ids': torch.zeros((1, 4), dtype=torch.long)}"]
    else:
        tokens = [
            'tokenizer = AutoTokenizer.from_pretrained(".")',
            'tokens = tokenizer("No pleural effusion.", return_tensors="pt")',
        ]
    without = "" if pooler else ", add_pooling_layer=False"
    lines = (
        "import torch",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f'model = AutoModel.from_pretrained("."{without}).eval()',
        *tokens,
        "with torch.no_grad():",
        "    hidden = model(**tokens).last_hidden_state  # float32[1, tokens, hidden_size]",
        "print(tokens['input_ids'].tolist(), tuple(hidden.shape))",
    )
    return "\n".join(lines)


_TOKENIZER_NOTES = {
    "wordpiece": "The tokenizer gives the ids of training, between [CLS] and [SEP]; it was tried "
    "on the whole vocabulary.",
    "sentencepiece": "The tokenizer gives the ids of training, between [CLS] and [SEP]; it was "
    "tried on the whole vocabulary. Where two ways to cut a text are exactly as likely (a run of "
    "one letter), sentencepiece decides by the rounding of float32 sums and `tokenizers` does "
    "not: `tokenizer.model` beside it is the model itself. Several combining marks on one letter "
    "may differ too.",
}


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
