"""What is each objective's own in `config.model`: values of its paper or its authors' release.

Sources: [convirt] arXiv:2010.00747, section 3; [clip] arXiv:2103.00020, section 2; [siglip]
arXiv:2303.15343, section 3.2; [lovt] the release github.com/philip-mueller/lovt,
configs/experiment/LoVT_100.yaml and configs/objective/; [mgca] the release
github.com/HKU-MedAI/MGCA, mgca/models/mgca/mgca_module.py.
"""


def convirt() -> dict:
    """ConVIRT."""
    return dict(
        text_pool="max",  # [convirt]
        hidden_dim=2048,  # [lovt], d_hidden of its ConVIRT; the paper gives none
        embed_dim=512,  # [convirt]
        temperature=0.1,  # [convirt], tau
        image_share=0.75,  # [convirt], lambda
    )


def clip() -> dict:
    """CLIP."""
    return dict(
        text_pool="first",  # [clip] takes the last token, which in BERT's stead is [CLS]
        hidden_dim=None,  # [clip], linear projections
        embed_dim=1024,  # [clip], RN50
        temperature=0.07,  # [clip], at the start
    )


def siglip() -> dict:
    """SigLIP."""
    return dict(
        text_pool="first",
        hidden_dim=None,
        embed_dim=768,  # [siglip], that of its B/16 towers
        temperature=0.1,  # [siglip], at the start: t' = log 10
        bias=-10.0,  # [siglip], at the start
    )


def lovt() -> dict:
    """LoVT."""
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
    """MGCA."""
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
        # [mgca], lambda 1, 0.7 and 0.5; it sums both directions of the contrast of pairs.
        weights=dict(global_alignment=2.0, token_image=0.7, token_text=0.7, prototype=0.5),
    )


OBJECTIVES = {"convirt": convirt, "clip": clip, "siglip": siglip, "lovt": lovt, "mgca": mgca}
"""Name of `config.objective` -> its own part of `config.model`."""
