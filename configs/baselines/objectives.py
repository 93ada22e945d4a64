"""The settings of each objective in `config.model`, from its paper or its authors' release.

Sources: [convirt] arXiv:2010.00747, section 3; [clip] arXiv:2103.00020, section 2; [siglip]
arXiv:2303.15343, section 3.2; [lovt] the release github.com/philip-mueller/lovt,
configs/experiment/LoVT_100.yaml and configs/objective/; [mgca] the release
github.com/HKU-MedAI/MGCA, mgca/models/mgca/mgca_module.py.
"""

from ml_collections import ConfigDict

from configs.prior import improved


def convirt() -> dict:
    """Returns the settings of ConVIRT."""
    return dict(
        text_pool="max",  # [convirt]
        hidden_dim=2048,  # [lovt], d_hidden of its ConVIRT; the paper gives no value
        embed_dim=512,  # [convirt]
        temperature=0.1,  # [convirt], tau
        image_share=0.75,  # [convirt], lambda
    )


def clip() -> dict:
    """Returns the settings of CLIP."""
    return dict(
        text_pool="first",  # [clip] takes the last token; with BERT that is [CLS]
        hidden_dim=None,  # [clip], linear projections
        embed_dim=1024,  # [clip], RN50
        temperature=0.07,  # [clip], initial value
    )


def siglip() -> dict:
    """Returns the settings of SigLIP."""
    return dict(
        text_pool="first",
        hidden_dim=None,
        embed_dim=768,  # [siglip], width of its B/16 towers
        temperature=0.1,  # [siglip], initial value: t' = log 10
        bias=-10.0,  # [siglip], initial value
    )


def lovt() -> dict:
    """Returns the settings of LoVT."""
    return dict(
        hidden_dim=2048,  # [lovt], src/models/pretraining/pretraining_utils.py
        embed_dim=512,  # [lovt], the same
        pool_heads=8,  # [lovt], src/models/components/aggregation.py
        temperature=0.1,  # [lovt]
        local_temperature=0.3,  # [lovt]
        image_share=0.75,  # [lovt], global_a2b
        positive_distance=0.5,  # [lovt], distance_threshold
        positive_decay=1.0,  # [lovt], smooth_lambda
        # [lovt] weighs each direction of the local terms by 0.375.
        weights=dict(global_alignment=1.0, local_image=0.75, local_text=0.75),
    )


def mgca() -> dict:
    """Returns the settings of MGCA."""
    return dict(
        text_pool="first",  # [mgca], mgca/models/backbones/encoder.py
        hidden_dim=2048,  # [mgca], the same
        embed_dim=128,  # [mgca]
        temperature=0.07,  # [mgca]
        local_temperature=0.1,  # [mgca]
        num_prototypes=500,  # [mgca]
        prototype_temperature=0.2,  # [mgca]
        sinkhorn_epsilon=0.05,  # [mgca]
        sinkhorn_iterations=3,  # [mgca]
        # [mgca], its constructor's lambda 1, 0.7 and 0.5, where the flags of its program have 1
        # each; it sums both directions of the pairs' contrast.
        weights=dict(global_alignment=2.0, token_image=0.7, token_text=0.7, prototype=0.5),
    )


def improve(objective: str, model: ConfigDict | dict) -> dict:
    """Returns what differs with the contrast of texts and regions in place of the local terms.

    Args:
      objective: name in `LOCAL_TERMS`.
      model: settings of the objective, with its weights.
    """
    weights = {**dict(model["weights"].items()), **dict.fromkeys(LOCAL_TERMS[objective], 0.0)}
    weights["sentence_region"] = 1.0
    return dict(sentence_region=improved.sentence_region(), weights=weights)


OBJECTIVES = {"convirt": convirt, "clip": clip, "siglip": siglip, "lovt": lovt, "mgca": mgca}
"""Name of an objective in `config.objective` -> the objective's part of `config.model`."""

LOCAL_TERMS = {"lovt": ("local_image", "local_text"), "mgca": ("token_image", "token_text")}
"""Objective whose sentences or words attend to places of the image -> its local terms."""

ON_PHANTOM = {
    "mgca": dict(num_prototypes=64),  # each step assigns only 32 pairs to the prototypes
}
"""Name of an objective -> settings that differ at the size of `configs/phantom.py:paper`, if any.

`configs/baselines/phantom.py` sets the sizes of the heads, and replaces the pool "first".
"""
