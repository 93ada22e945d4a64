"""PRIOR's and GLoRIA's towers and scores in torch, by the layers of their releases.

Written from the papers, the names of the checkpoints and what the quirks of docs/fidelity.md say of
the releases; torchvision's ResNet and transformers' BERT do the most of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.interop import torch_resnet

Tensors = Mapping[str, Any]
HEADS, POOL_HEADS = 12, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """int64 and bool tensors: ids and their mask [B, L], and the sentence of each token or -1."""

    ids: Any
    mask: Any
    sentence: Any


def under(tensors: Tensors, prefix: str) -> dict[str, Any]:
    """Returns the tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}


def resnet_maps(tensors: Tensors, image):
    """Returns the maps of the last two stages of a ResNet-50 for images [B, C, H, W]."""
    import torch

    model = torch_resnet.import_torchvision().models.resnet50()
    channels = tensors["conv1.weight"].shape[1]
    model.conv1 = torch.nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    model.fc = torch.nn.Identity()
    model.load_state_dict({n: x for n, x in tensors.items() if not n.startswith("fc.")})
    model.eval()
    x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
    third = model.layer3(model.layer2(model.layer1(x)))
    return third, model.layer4(third)


def bert_states(tensors: Tensors, tokens: Tokens):
    """Returns the hidden states of a BERT, a tuple of [B, L, D], the embeddings first."""
    import transformers

    words = tensors["embeddings.word_embeddings.weight"]
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(words)))
    known = {n: x for n, x in tensors.items() if not n.endswith("position_ids")}
    model.load_state_dict(known)
    model.eval()
    found = model(tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True)
    return found.hidden_states


def linear(tensors: Tensors, name: str, x):
    """Applies a linear layer, with a bias or without."""
    import torch

    return torch.nn.functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def unit(x):
    """Returns rows of length 1."""
    import torch

    return torch.nn.functional.normalize(x, dim=-1)


def attention_pool(tensors: Tensors, rows, *, mask=None, heads: int = POOL_HEADS):
    """CLIP's AttentionPool2d on rows [B, N, D]: the mean asks the mean and the rows: [B, D].

    Args:
      tensors: q_proj, k_proj, v_proj, c_proj and, where there is one, positional_embedding.
      rows: patches or sentences.
      mask: mask of the real rows, bool[B, N].
      heads: number of heads.
    """
    import torch

    mask = torch.ones(rows.shape[:2], dtype=torch.bool) if mask is None else mask
    count = mask.sum(1).clamp(min=1)[:, None]
    mean = (rows * mask[..., None]).sum(1) / count
    rows = torch.cat([mean[:, None], rows], dim=1)
    if "positional_embedding" in tensors:
        rows = rows + tensors["positional_embedding"]
    width, rows = rows.shape[-1], rows.transpose(0, 1)
    names = ("q_proj", "k_proj", "v_proj")
    found, _ = torch.nn.functional.multi_head_attention_forward(
        query=rows[:1], key=rows, value=rows, embed_dim_to_check=width, num_heads=heads,
        in_proj_weight=None, in_proj_bias=torch.cat([tensors[f"{n}.bias"] for n in names]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0, training=False,
        out_proj_weight=tensors["c_proj.weight"], out_proj_bias=tensors["c_proj.bias"],
        use_separate_proj_weight=True, q_proj_weight=tensors["q_proj.weight"],
        k_proj_weight=tensors["k_proj.weight"], v_proj_weight=tensors["v_proj.weight"],
        key_padding_mask=torch.cat([torch.zeros_like(mask[:, :1]), ~mask], dim=1),
        need_weights=False,
    )  # fmt: skip
    return found[0]


def prior_similarity(tensors: Tensors, image, tokens: Tokens, *, noise):
    """Scores of PRIOR's zero-shot classification: the global logit and half the local score.

    Args:
      tensors: the whole checkpoint.
      image: images [Bi, 1, 224, 224].
      tokens: reports of one sentence each, Br of them.
      noise: the Gumbel noise of the bank, [Br, 1, K], which the release draws (quirk P8).
    """
    import torch

    _, last = resnet_maps(under(tensors, "image_encoder.encoder."), image)
    flat = last.flatten(2).transpose(1, 2)
    pool = under(tensors, "image_encoder.atten_pool.")
    whole = linear(tensors, "global_image_projection", attention_pool(pool, flat))
    # The view of the release, quirk P1.
    patches = linear(tensors, "local_image_projection", last.reshape(len(last), -1, 2048))

    words = bert_states(under(tensors, "text_encoder.encoder."), tokens)[-1]
    inside = (tokens.sentence == 0)[..., None]
    means = ((words * inside).sum(1) / inside.sum(1))[:, None]
    sentences = linear(tensors, "local_text_projection", means)
    bank = tensors["sentence_bank.embed.weight"]
    chosen = torch.softmax((sentences @ bank.T + noise) / 0.9, dim=-1) @ bank
    report = attention_pool(under(tensors, "global_text_attention."), chosen)

    cosine = unit(whole) @ unit(report).T
    cross = under(tensors, "local_cross_attention.")

    def attended(queries, keys):
        return torch.sigmoid(queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5)

    flat_sentences = chosen[:, 0]  # [Br, D]
    of_patches = attended(linear(cross, "query1", patches), linear(cross, "key2", flat_sentences))
    of_sentences = attended(linear(cross, "query2", flat_sentences), linear(cross, "key1", patches))
    # The release's program has batches of one image, so that its mean is of that image (quirk P27).
    local = (of_patches.mean(1) + of_sentences.mean(2)) / 2
    return tensors["logit_scale"] * cosine + 0.5 * local  # quirk P26


def gloria_words(tensors: Tensors, tokens: Tokens, starts):
    """Returns the sums of the pieces of each word over the last four layers, [B, L, D].

    Args:
      tensors: the text encoder's, with the release's names.
      tokens: prompts, whose words are compared.
      starts: whether each id begins a word, bool[vocabulary].
    """
    import torch

    layers = torch.stack(bert_states(tensors, tokens)[-4:]).sum(0) * tokens.mask[..., None]
    place = starts[tokens.ids].long().cumsum(1) - 1
    place = torch.where(tokens.mask, place, torch.full_like(place, place.shape[1] - 1))
    words = torch.zeros_like(layers)
    return words.scatter_add_(1, place[..., None].expand_as(layers), layers)


def gloria_similarity(tensors: Tensors, image, tokens: Tokens, *, starts):
    """The mean of GLoRIA's global and local similarity, `get_similarities` of its release.

    Args:
      tensors: the whole checkpoint, without "gloria.".
      image: images [Bi, 3, 224, 224].
      tokens: prompts, Br of them.
      starts: whether each id begins a word, bool[vocabulary].
    """
    import torch

    image = torch.nn.functional.interpolate(image, 299, mode="bilinear", align_corners=True)
    third, last = resnet_maps(under(tensors, "img_encoder.model."), image)
    whole = linear(tensors, "img_encoder.global_embedder", last.mean((2, 3)))
    kernel = tensors["img_encoder.local_embedder.weight"]
    regions = torch.nn.functional.conv2d(third, kernel).flatten(2).transpose(1, 2)
    words = gloria_words(under(tensors, "text_encoder.model."), tokens, starts)
    cosine = unit(whole) @ unit(words.sum(1)).T

    local = torch.empty_like(cosine)
    for column, row in enumerate(words):
        # The real words behind [CLS], up to [SEP]: quirk G18.
        count = int((starts[tokens.ids[column]] & tokens.mask[column]).sum()) - 2
        own = row[1 : count + 1]
        weight = torch.softmax(regions @ own.T, dim=2)  # over the words
        weight = torch.softmax(4.0 * weight.transpose(1, 2), dim=2)  # over the regions
        context = weight @ regions
        local[:, column] = (5.0 * (unit(context) * unit(own)).sum(-1)).max(1).values  # quirk G22
    return (cosine + local) / 2


def to_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns tensors that share the arrays' memory."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
