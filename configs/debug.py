"""The main job in about a minute: every part runs, but nothing is learnt."""

from ml_collections import ConfigDict

from configs import phantom


def get_config() -> ConfigDict:
    """Returns the phantom config with few studies, few steps and a tiny model."""
    config = phantom.get_config()
    config.name = "debug"
    config.prepare.phantom.update(dict(studies=120, size=64, validate=0.2, test=0.4))
    config.prepare.vocab_size = 300
    config.data.update(dict(batch_size=16, buckets=(128,), max_tokens=128))
    config.data.image.size = 32
    config.model.image.resnet.update(dict(depths=(1, 1), width=8))
    config.model.text.update(dict(hidden_size=32, layers=1, intermediate_size=64))
    config.model.embed_dim = 32
    config.model.sentence_decoder.update(dict(layers=1, intermediate_size=64))
    config.model.bank.num_prototypes = 16
    for layers in (config.model.text, config.model.sentence_decoder):
        layers.scan_layers = False  # a loop over a single layer would only add compile time
    config.stage_unit = "steps"
    for stage in config.stages.values():
        stage.update(dict(length=8, warmup=2))
    config.checkpoint.every_steps = 4
    config.log.every_steps = 1
    config.validate_every = 24
    config.quick_compile = True
    return config
