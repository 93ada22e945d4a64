"""A small PRIOR for any prepared set: --config.data.path=DIR. Trains on a laptop."""

from ml_collections import ConfigDict

from configs.prior import base


def get_config() -> ConfigDict:
    """Returns PRIOR with narrow encoders, at 96 pixels and 128 tokens."""
    config = base.get_config("paper")
    config.name = "small"
    config.seed = 0
    model = config.model
    model.dtype = "float32"
    model.image.resnet = ConfigDict(
        dict(depths=(1, 1, 1), width=32, block="basic", stem_pool=True, remat="none")
    )
    model.image.pool = "mean"
    model.text.update(
        dict(hidden_size=96, layers=2, heads=4, intermediate_size=192, max_positions=128)
    )
    model.embed_dim = 96
    model.temperature = 0.07
    model.local_temperature = 0.07
    model.bank.num_prototypes = 128
    model.sentence_decoder.update(
        dict(layers=2, heads=4, intermediate_size=192, max_positions=32, dropout=0.0)
    )
    model.text.dropout = 0.0
    config.data.update(
        dict(
            text_sources=("report", "labels"),
            max_tokens=128,
            max_sentences=16,
            buckets=(64, 128),
            batch_size=64,
            workers=0,
            threads=2,
        )
    )
    config.data.image.size = 96
    config.prepare.vocab_size = 1000
    config.stages = ConfigDict(
        dict(
            stage1=base.stage(length=12, warmup=1, peak=1e-3, start=1e-5),
            stage2=base.stage(length=8, warmup=1, peak=5e-4, start=1e-5),
            stage3=base.stage(length=12, warmup=1, peak=5e-4, start=1e-5),
        )
    )
    config.checkpoint.every_steps = 100
    config.log.every_steps = 10
    config.validate_every = 100
    config.after = ("configs/eval/zero_shot.py", "configs/eval/retrieval.py")
    return config
