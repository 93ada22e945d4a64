"""The table of supported checkpoints: how names are spelt, what they fill, and what is unused."""

import dataclasses
import re
from collections.abc import Callable, Mapping

from prior_jax.interop.sources.accounting import Unused
from prior_jax.interop.sources.gloria_names import CHECKPOINT_PREFIX
from prior_jax.interop.sources.infer import Layout, Shapes
from prior_jax.interop.sources.plans import (
    Known,
    Plan,
    Unseen,
    gloria_plan,
    image_plan,
    prior_plan,
    text_plan,
)
from prior_jax.interop.sources.wrapped_names import COUNTER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One part of a source's checkpoints.

    Attributes:
      probe: function from a layout to a regular expression that matches the beginning of the part's
        names after the layout's prefix.
      layouts: possible spellings; the one that matches most names is taken.
      reads: fields of `Unseen`, and "tokenizer", that have a meaning for this part.
      known: preprocessing of images and texts by the source's authors.
      plan: function that makes the plan from shapes.
      unused: rules for unused names besides those of `table.ignored`.
    """

    probe: Callable[[Layout], str]
    layouts: tuple[Layout, ...]
    reads: tuple[str, ...]
    known: Known
    plan: Callable[[Shapes, Layout, Unseen, Known], Plan]
    unused: tuple[Unused, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Origin of checkpoints.

    Attributes:
      recipes: part -> recipe of its import; the first part that a file has is taken unless
        another is requested.
      licence: terms of the authors for the use of the weights.
      folder: whether a Hugging Face directory is needed, whose config.json gives the sizes.
    """

    recipes: Mapping[str, Recipe]
    licence: str
    folder: bool = False


UNKNOWN_LICENCE = "that of whoever trained it"
"""What is said of the terms of weights that anyone may have trained."""

BUFFERS = (
    Unused(
        pattern=r".*\.num_batches_tracked",
        reason="batch norm's counter, which nothing reads as its momentum is fixed",
        shape=(),
    ),
    Unused(pattern=r".*embeddings\.position_ids", reason="0, 1, 2, ...: positions are counted"),
    Unused(
        pattern=r"(.*\.)?fc(\.\d+)?\.(weight|bias)",
        reason="the classifier, of no use to an encoder",
    ),
    Unused(
        pattern=r"global_text_projection\.weight",
        reason="the release never calls it",
        shape=("embed_dim", "hidden_size"),
    ),
    Unused(
        pattern=r"global_text_projection\.bias",
        reason="the release never calls it",
        shape=("embed_dim",),
    ),
    Unused(
        pattern=r"sentence_decoder\.embeddings\.word_embeddings\.weight",
        reason="the decoder reads queries, never words",
        shape=("vocab_size", "embed_dim"),
    ),
)
"""Rules for names that a table ignores, with the reason for each; all their tensors are kept."""

WRAPPED = (
    Unused(pattern=rf"(.*\.)?{COUNTER}", reason="how many models AveragedModel averaged", shape=()),
)
"""Rules for names that wrappers add beside a model's own."""


def _resnet(layout: Layout) -> str:
    names = layout.resnet_names
    return rf"({'|'.join(map(re.escape, (names['conv'], names['norm'], *names['stages'])))})\."


def _begins(pattern: str) -> Callable[[Layout], str]:
    return lambda layout: pattern


_bert = _begins(r"(embeddings|encoder\.layer)\.")
_IMAGE_READS, _TEXT_READS = ("image_size", "mean", "std"), ("heads", "tokenizer")
_POOL_READS = (*_IMAGE_READS, "pool_heads")
_PRIOR_READS = (*_POOL_READS, *_TEXT_READS, "decoder_heads")
_HALF = (0.5, 0.5, 0.5)
_IMAGENET = Known(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_PRIOR_KNOWN = Known(in_channels=1, mean=(0.4755,), std=(0.3011,), lower_case=True, max_tokens=256)
_ENLARGED = (
    "the authors enlarge images to 299 pixels, corners aligned, before the ResNet, and so do "
    "probes of these weights and classifiers that are trained on them"
)
# Both releases shrink the longer side and add black margins: gloria/models/gloria_model.py and
# mgca/datasets/utils.py.
_GLORIA_KNOWN = Known(mean=_HALF, std=_HALF, fit="pad", lower_case=True, max_tokens=97)
_MGCA_KNOWN = Known(mean=_HALF, std=_HALF, fit="pad", upsample=299, notes=(_ENLARGED,))
_MGCA_TEXT = Known(lower_case=True, max_tokens=112)


def _bare(
    known: Known, *, layouts: tuple[Layout, ...] = (Layout(),), unused: tuple[Unused, ...] = ()
) -> Mapping[str, Recipe]:
    """Returns the recipe of a ResNet that has torchvision's names and nothing in front of them."""
    return {
        "image": Recipe(
            probe=_resnet, layouts=layouts, reads=_IMAGE_READS, known=known, plan=image_plan,
            unused=unused,
        )
    }  # fmt: skip


def _left(pattern: str, reason: str) -> Unused:
    return Unused(pattern=pattern, reason=reason, keep=False)


_PRIOR_HEADS = _left(
    r"(item_gather|global_text_attention|predictor|local_cross_attention|sentence_bank"
    r"|sentence_decoder|image_decoder|(global|local)_(image|text)_projection)\..*"
    r"|prototype_queries|(local_)?logit_scale",
    "PRIOR's heads, bank and decoders: --part=model",
)
_GLORIA_HEADS = _left(
    r"(gloria\.)?img_encoder\.(global|local)_embedder\..*", "GLoRIA's projections: --part=model"
)
_MGCA_HEADS = _left(
    r"(patch|word)_local_atten_layer\..*|prototype_layer\..*"
    r"|(img|text)_encoder(_q)?\.(global|local)_embed\..*",
    "MGCA's projections, attention and prototypes: an objective has its own",
)
_CONVIRT_HEADS = _left(
    r"(vis|lin)_proj\..*|(global|local)_embedder\..*|linguistic\.pooler\..*"
    r"|(img|text)_encoder\.(global|local)_embed\..*",
    "projections: an objective has its own",
)
_FINE_TUNED = _left(
    r"(head|atten_pool|bridge|up_blocks)\..*|out\.(weight|bias)",
    "the head or decoder of a fine-tuned model, of no use to an encoder",
)
_CROSS = Unused(
    pattern=r".*\.encoder\.layer\.\d+\.crossattention\..*",
    reason="cross-attention, which the release never runs",
)
_TEXT_TOWER, _IMAGE_TOWER = "the text tower: --part=text", "the image tower: --part=image"

SOURCES: Mapping[str, Source] = {
    "prior": Source(
        recipes={
            "model": Recipe(
                probe=_begins(r"text_encoder\.encoder\."),
                layouts=(Layout(),),
                reads=_PRIOR_READS,
                known=_PRIOR_KNOWN,
                plan=prior_plan,
            ),
            "image": Recipe(
                probe=_resnet,
                layouts=(
                    Layout(prefix="image_encoder.encoder.", pool="image_encoder.atten_pool."),
                    Layout(prefix="encoder.", pool="atten_pool."),
                    Layout(pool="atten_pool."),
                ),
                reads=_POOL_READS,
                known=_PRIOR_KNOWN,
                plan=image_plan,
                unused=(_PRIOR_HEADS, _left(r"text_encoder\..*", _TEXT_TOWER)),
            ),
            "text": Recipe(
                probe=_bert,
                layouts=(Layout(prefix="text_encoder.encoder."),),
                reads=_TEXT_READS,
                known=_PRIOR_KNOWN,
                plan=text_plan,
                unused=(_PRIOR_HEADS, _left(r"image_encoder\..*", _IMAGE_TOWER)),
            ),
        },
        licence="Apache-2.0 (QtacierP/PRIOR); trained on MIMIC-CXR, whose terms of use bind too",
    ),
    "gloria": Source(
        recipes={
            "model": Recipe(
                probe=_begins(r"text_encoder\.model\."),
                layouts=(Layout(prefix=CHECKPOINT_PREFIX), Layout()),
                reads=(*_IMAGE_READS, *_TEXT_READS),
                known=_GLORIA_KNOWN,
                plan=gloria_plan,
            ),
            "image": Recipe(
                probe=_resnet,
                layouts=(
                    Layout(prefix=f"{CHECKPOINT_PREFIX}img_encoder.model."),
                    Layout(prefix="img_encoder.model."),
                ),
                reads=_IMAGE_READS,
                known=dataclasses.replace(_GLORIA_KNOWN, upsample=299, notes=(_ENLARGED,)),
                plan=image_plan,
                unused=(_GLORIA_HEADS, _left(r"(gloria\.)?text_encoder\..*", _TEXT_TOWER)),
            ),
            "text": Recipe(
                probe=_bert,
                layouts=(
                    Layout(prefix=f"{CHECKPOINT_PREFIX}text_encoder.model."),
                    Layout(prefix="text_encoder.model."),
                ),
                reads=_TEXT_READS,
                known=_GLORIA_KNOWN,
                plan=text_plan,
                unused=(_left(r"(gloria\.)?img_encoder\..*", _IMAGE_TOWER),),
            ),
        },
        licence="Apache-2.0 (marshuang80/gloria); trained on CheXpert, whose terms of use bind too",
    ),
    "mgca": Source(
        recipes={
            "image": Recipe(
                probe=_resnet,
                layouts=(Layout(prefix="img_encoder_q.model."),),
                reads=_IMAGE_READS,
                known=_MGCA_KNOWN,
                plan=image_plan,
                unused=(_MGCA_HEADS, _left(r"text_encoder_q\.model\..*", _TEXT_TOWER)),
            ),
            "text": Recipe(
                probe=_bert,
                layouts=(Layout(prefix="text_encoder_q.model.", one_position=True),),
                reads=_TEXT_READS,
                known=_MGCA_TEXT,
                plan=text_plan,
                unused=(_CROSS, _MGCA_HEADS, _left(r"img_encoder_q\.model\..*", _IMAGE_TOWER)),
            ),
        },
        licence="none given (HKU-MedAI/MGCA has no licence file); trained on MIMIC-CXR, whose "
        "terms of use bind too",
    ),
    "convirt": Source(
        recipes={
            "image": Recipe(
                probe=_resnet,
                layouts=(
                    Layout(prefix="visual.model."),
                    Layout(prefix="visual.model.", numbered=True),
                    Layout(prefix="img_encoder.model."),
                ),
                reads=_IMAGE_READS,
                known=Known(),
                plan=image_plan,
                unused=(
                    _CONVIRT_HEADS,
                    _left(r"linguistic\.encoder\..*|text_encoder\.model\..*", _TEXT_TOWER),
                ),
            ),
            "text": Recipe(
                probe=_bert,
                layouts=(
                    Layout(prefix="linguistic.encoder."),
                    Layout(prefix="text_encoder.model.", one_position=True),
                ),
                reads=_TEXT_READS,
                known=Known(lower_case=True),
                plan=text_plan,
                unused=(
                    _CROSS,
                    _CONVIRT_HEADS,
                    _left(r"(visual|img_encoder)\.model\..*", _IMAGE_TOWER),
                ),
            ),
        },
        licence=f"{UNKNOWN_LICENCE} (BenchX is MIT, MGCA's ConVIRT has no licence file)",
    ),
    "resnet": Source(
        recipes=_bare(Known(), layouts=(Layout(), Layout(unet=True)), unused=(_FINE_TUNED,)),
        licence=UNKNOWN_LICENCE,
    ),
    "torchvision": Source(
        recipes=_bare(_IMAGENET),
        licence="BSD-3-Clause (torchvision); trained on ImageNet, whose terms of access are for "
        "research",
    ),
    "timm": Source(
        recipes=_bare(_IMAGENET),
        licence="that of the model's card (timm's own weights are Apache-2.0); trained on "
        "ImageNet, whose terms of access are for research",
    ),
    "hf_bert": Source(
        recipes={
            "text": Recipe(
                probe=_bert,
                layouts=(Layout(), Layout(prefix="bert.")),
                reads=_TEXT_READS,
                known=Known(),
                plan=text_plan,
                unused=(
                    Unused(
                        pattern=r"cls\..*",
                        reason="heads that guess masked words and the next sentence",
                    ),
                ),
            )
        },
        licence="that of the model's card",
        folder=True,
    ),
}
"""Value of `--source` -> source."""
