"""Which records and images are trained and tested on, by their findings."""

import itertools

import numpy as np
import pytest

from prior_jax.data import fractions, pipeline
from prior_jax.errors import ConfigError
from tests.data.batches import evaluated
from tests.data.region_sets import TURNED, config_of, studies, targets, write


def test_training_images_are_chosen_by_their_findings(open_regions):
    def trained(train_images, classes=("A", "B"), **changes):
        chosen = targets("boxes", classes, train_images=train_images)
        return open_regions(regions=chosen, **changes).trained.tolist()

    assert trained("all") == list(range(12))
    assert trained("with_regions") == [0, 1, 2, 3, 4, 5]
    assert trained("with_regions", ("B",)) == [2, 3, 4]
    balanced = trained("balanced", ("B",))
    assert len(balanced) == 6 and {2, 3, 4} < set(balanced) and balanced == sorted(balanced)
    assert balanced == trained("balanced", ("B",))
    draws = {tuple(trained("balanced", ("B",), seed=seed)) for seed in range(8)}
    assert len(draws) > 4
    # There are no more than six without a finding.
    assert trained("balanced") == list(range(12))
    halved = trained("all", fraction=fraction(0.5))
    assert len(halved) == 6
    both = trained("balanced", ("B",), fraction=fraction(0.5))
    positive = [number for number in halved if number in (2, 3, 4)]
    assert set(both) <= set(halved) and len(both) == 2 * len(positive)


def fraction(share):
    return fractions.FractionConfig(
        share=share, rule="patients", seed=1, draws=1, ids=None, absent="refuse"
    )


def test_no_training_image_with_a_finding_is_an_error_by_name(tmp_path):
    none, some = studies()[6:], studies()[:1]
    path = write(tmp_path / "none", none, validate=some, test=none)
    for train_images in ("with_regions", "all", "balanced"):
        for kind, what in (("boxes", "box"), ("masks", "mask")):
            chosen = targets(kind, ("A",), train_images=train_images)
            config = config_of(path, regions=chosen)
            with pytest.raises(ConfigError, match=f"None of the 6 .* has a {what}") as error:
                pipeline.open_split(config, "train", cache_dir=tmp_path)
            assert error.value.where == "config.data.regions"
            # Only what is trained on has to have findings.
            for split in ("validate", "test"):
                pipeline.open_split(config, split, cache_dir=tmp_path)


def test_tested_images_are_all_or_those_with_findings(open_regions):
    every = evaluated(open_regions("validate", regions=targets("boxes", ("A", "B"))))
    assert sorted(every) == [-1, 0, 1, 2, 3, 4, 5, 6]
    chosen = targets("boxes", ("B",), test_images="with_regions")
    assert sorted(evaluated(open_regions("validate", regions=chosen), batch_size=3)) == [2, 3, 4]
    with open_regions("validate", regions=chosen).eval_batches(
        batch_size=2, require_text=False, records=np.array([0, 3, 6])
    ) as batches:
        assert [batch.record.tolist() for _, batch in batches] == [[3, -1]]


def test_of_several_images_one_with_findings_is_shown(open_regions):
    """The pixels tell which of the three images of study 5 a row shows."""
    for chosen, levels in ((targets("boxes", ("A",)), {50}), (targets("boxes", ("B",)), None)):
        split = open_regions(regions=chosen, augment=TURNED, batch_size=2)
        seen = set()
        with split.train_batches() as batches:
            for _, batch in itertools.islice(batches, 60):
                for row, number in enumerate(batch.record.tolist()):
                    if number == 5:
                        seen.add(int(np.rint(batch.image[row].max() * 255)))
        # Study 5 has nothing of B: then all of its images are drawn.
        assert seen == (levels or {0, 50, 99})
