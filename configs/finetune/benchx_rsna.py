r"""BenchX's fine-tuning on RSNA Pneumonia: two classes by cross-entropy, at 1, 10 or 100 %.

    python -m launch.train --config=configs/finetune/benchx_rsna.py:1 --workdir=DIR \
        --config.data.path=SET --config.data.fraction.ids=train_1.txt \
        --config.init.image.path=GLORIA "--config.init.image.adapt=('drop_embedders',)"

Names, the checkpoint to measure and most of what differs are those of `benchx_nih.py`.

Sources: [yml] release, configs/classification/RSNA/<method>.yml. Differs also: the release stops by
the F1 of Pneumonia at the argmax (unifier/blocks/scorers/scores.py, multiclass_f1), and takes its
best checkpoint by it; here both go by the area under the ROC curve.
"""

from ml_collections import ConfigDict

from configs.finetune import benchx_nih
from configs.finetune.benchx_nih import Method

COUNTS = {"1": 186, "10": 1867, "100": 18678}
"""Training images of each percentage: release, preprocess/datasets/RSNA."""

METHODS = {
    "gloria": Method(rate=1e-4, batch=32, encoder_rate=0.1),
    "convirt": Method(rate=5e-5, batch=64, encoder_rate=0.1, warmup=60, planned=1200),
    "medclip": Method(rate=1e-5, batch=32, head="linear"),
    "mflag": Method(rate=1e-4, batch=64),
    "mgca": Method(rate=1e-5, batch=32),
}
"""Methods whose encoder is a ResNet-50 [yml]."""


def get_config(name: str = "1") -> ConfigDict:
    """Returns the config for a percentage and a method, see `benchx_nih.get_config`."""
    config = benchx_nih.of_set("rsna", name, classes=("Pneumonia",), counts=COUNTS, methods=METHODS)
    config.model.loss = "exclusive"  # [yml], CrossEntropyLoss over two classes
    return config
