"""Classification: measures a run of the objective "classification" on a split.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/classification.py

GLoRIA, MGCA and BenchX (NIH, VinDr) report `macro_auroc`; BenchX reports F1 at the argmax, which
is `f1_above_half_<class>`, for RSNA and SIIM. GLoRIA reports its last weights, MGCA and BenchX the
best checkpoint: of a run of `launch.train` the newest is measured unless `--step=N` names another,
and the last line of the training says which is the best.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: every class of the model that is a label of the set."""
    return ConfigDict(
        dict(
            task="classification",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every class of the model that is a label of the set
            exclude=(),
            min_positives=1,
            classification=dict(
                bins=15,  # Guo et al., arXiv:1706.04599, sec. 4
                # Test labels are read by radiologists and are not uncertain; what is not mentioned
                # counts as absent (arXiv:1901.07031).
                policy=dict(uncertain="ignore", unmentioned="negative"),
                age_edges=(40, 60, 80),
                least_patients=20,
            ),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
