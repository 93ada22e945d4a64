"""The main job: draws a phantom hospital in the workdir, trains on it, evaluates, reports.

`configs/phantom.py` is PRIOR with the contrast of sentences and regions of
`configs/prior/improved.py`; `configs/phantom.py:paper` is PRIOR as its paper describes it.
"""

from ml_collections import ConfigDict

from configs import small
from configs.prior import base, improved
from prior_jax.errors import ConfigError

FORMS = ("improved", "paper")


def get_config(form: str = "improved") -> ConfigDict:
    """Returns PRIOR, narrow enough for two cores, on 4,000 generated studies.

    Args:
      form: "improved", whose sentences find their place in the image, or "paper".

    Raises:
      ConfigError: if the form is unknown.
    """
    if form not in FORMS:
        raise ConfigError.of_value("form", form, f"one of {', '.join(FORMS)}")
    config = _paper()
    if form == "paper":
        config.name = "phantom_paper"
        return config
    improved.improve(config)
    refine(config)
    return config


def refine(config: ConfigDict) -> None:
    """Makes regions of 8 pixels in place of 16, as small findings are lost in larger ones."""
    config.model.image.resnet.update(dict(depths=(1, 2), width=48))
    config.model.sentence_region.stages_back = 0


def _paper() -> ConfigDict:
    config = small.get_config()
    config.name = "phantom"
    config.prepare.phantom = ConfigDict(
        dict(studies=4000, seed=0, size=128, validate=0.05, test=0.15)
    )
    config.prepare.vocab_size = 2000
    config.data.update(dict(batch_size=32, max_tokens=96, buckets=(96,)))
    # Most of the reading of such small images is Python, which a second thread only slows down.
    # All studies fit into 100 MiB.
    config.data.update(dict(threads=1, memory_cache=256))
    config.data.image.size = 96
    config.model.text.update(dict(hidden_size=64, layers=1, intermediate_size=128))
    config.model.embed_dim = 64
    config.model.bank.num_prototypes = 256
    config.model.sentence_decoder.update(dict(layers=1, intermediate_size=128))
    # Short runs need a short memory of squared gradients.
    config.optimizer.beta2 = 0.98
    config.stage_unit = "steps"
    config.stages = ConfigDict(
        dict(
            stage1=base.stage(length=1000, warmup=50, peak=3e-3, start=1e-5),
            stage2=base.stage(length=300, warmup=20, peak=1e-3, start=1e-5),
            stage3=base.stage(length=200, warmup=20, peak=1e-3, start=1e-5),
        )
    )
    config.checkpoint.every_steps = 200
    config.validate_every = 200
    config.after = (*config.after, "configs/eval/grounding.py", "configs/eval/grounding.py:fine")
    return config
