import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import bootstrap, finding_words, grounding, map_scores, prompts
from prior_jax.evaluate.attention_map import spread
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from prior_jax.evaluate.fine_regions import AttentionConfig
from prior_jax.types import ImageFeatures
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches

RESAMPLING = bootstrap.BootstrapConfig(resamples=50, confidence=0.95, seed=0)
CLASSES = ("Edema", "Lung Lesion")
SIZE = 8
LUNGS = {"right": (0.25, 0.25), "left": (0.25, 0.75)}


class Looks(FakeObjective):
    """Row t of a text looks at the cell that its token t names, on the 2 x 2 grid of an image.

    Images add their own four numbers, so that different images may be looked at differently.
    """

    text_unit = "word"
    patch_spacing = SIZE / 2

    def encode_report(self, model, tokens, token_mask, sentence_index, sentence_mask):
        found = super().encode_report(model, tokens, token_mask, sentence_index, sentence_mask)
        cells = jax.nn.one_hot(tokens, 4, dtype=jnp.float32)
        return found.replace(local=cells, local_mask=token_mask)

    def text_attention(self, model, images, reports):
        return model.scale[...] * (reports.local + images.local[:, :1])


def tokens_of(rows):
    tokens = np.asarray(rows, np.int32)
    return ReportTokens(
        tokens=tokens,
        token_mask=tokens < 4,
        sentence_index=np.zeros_like(tokens),
        sentence_mask=np.ones((len(tokens), 1), bool),
    )


def corner(row, column, *, side=SIZE // 2):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[row : row + side, column : column + side] = True
    return mask


def run(*, vectors=None, masks=None, asked=None, objective=Looks, block=4):
    """Six records; edema is top left in four, a lesion bottom right in three."""
    vectors = np.zeros((6, FEATURES)) if vectors is None else vectors
    if masks is None:
        masks = {
            "Edema": {record: corner(0, 0) for record in range(4)},
            "Lung Lesion": {record: corner(4, 4) for record in range(3, 6)},
        }
    if asked is None:
        asked = asking([[2, 0, 1], [0, 3, 9]], rows=((1,), (1,)))
    batches = make_batches(
        np.asarray(vectors), np.ones((6, FEATURES), np.int32), np.ones((6, 2), np.int8),
        batch_size=4,
    )  # fmt: skip
    return grounding.evaluate_grounding(
        Encoder(objective(), FakeModel(), place=jax.device_put),
        batches,
        asked=asked,
        located=grounding.Located(masks=masks, lungs=LUNGS),
        patients=[f"p{i // 2}" for i in range(6)],
        block=block,
        resampling=RESAMPLING,
    )


def asking(tokens, *, rows, owner=(0, 1), record=None):
    return grounding.Asked(
        classes=CLASSES,
        texts=tuple(f"prompt {index}" for index in range(len(tokens))),
        tokens=tokens_of(tokens),
        owner=np.asarray(owner, np.int32),
        rows=rows,
        record=None if record is None else np.asarray(record, np.int32),
    )


def values(found):
    return {name: metric.value for name, metric in found.metrics.items()}


def test_a_map_on_the_finding_hits_and_one_beside_it_misses():
    found = values(run())
    assert found["pointing_edema"] == found["pointing_lung_lesion"] == found["macro_pointing"] == 1
    # Word 0 of the first sentence looks elsewhere, and so does word 1 of the second.
    missed = values(run(asked=asking([[3, 0, 1], [3, 0, 9]], rows=((0,), (1,)))))
    assert missed["pointing_edema"] == missed["pointing_lung_lesion"] == 0
    assert missed["attention_ratio_edema"] < 1 < found["attention_ratio_edema"]
    assert missed["cnr_edema"] < 0 < found["cnr_edema"]


class LooksBeside(Looks):
    """A text looks at the bright cell of an image, and more at the cell to the right of it."""

    patch_spacing = SIZE / 4

    def encode_image(self, model, image):
        bright = image[:, :: SIZE // 4, :: SIZE // 4, 0]
        local = (2 * bright + 3 * jnp.roll(bright, 1, axis=2)).reshape(len(image), -1, 1)
        vector = local[:, :FEATURES, 0]
        return ImageFeatures(local=local, global_=vector, pooled=vector)

    def text_attention(self, model, images, reports):
        # A sentence whose token is 0 looks at the image, and any other one nowhere.
        return reports.local[:, :, :1] * images.local[:, None, :, 0]


def looked_beside(*, mirrored, exchanged=0):
    """Six bright squares of two pixels, of which both findings are the upper left cell."""
    pixels, mask = np.zeros((6, SIZE, SIZE, 1), np.float32), np.zeros((SIZE, SIZE), bool)
    pixels[:, 2:4, 2:4] = 1.0
    mask[2, 2] = True

    def batches():
        made = make_batches(
            np.zeros((6, FEATURES)), np.ones((6, FEATURES), np.int32), np.ones((6, 2), np.int8),
            batch_size=6,
        )  # fmt: skip
        return [batch.replace(image=pixels) for batch in made]

    other = asking([[exchanged, 9]] * 2, rows=((0,), (0,)))
    found = grounding.evaluate_grounding(
        Encoder(LooksBeside(), FakeModel(), place=jax.device_put),
        batches(),
        asked=asking([[0, 9], [0, 9]], rows=((0,), (0,))),
        located=grounding.Located(
            masks={name: dict.fromkeys(range(6), mask) for name in CLASSES}, lungs=LUNGS
        ),
        patients=[f"p{i}" for i in range(6)],
        block=4,
        resampling=RESAMPLING,
        attention=AttentionConfig(shifts=1, smoothing=0.0, mirrored=mirrored),
        mirror_images=grounding.MirrorImages(batches=batches(), asked=other) if mirrored else None,
    )
    return values(found)["macro_pointing"]


def test_the_mirror_image_corrects_attention_that_prefers_a_side():
    assert looked_beside(mirrored=False) == 0
    assert looked_beside(mirrored=True) == 1
    # The mirror image is asked for what the exchanged sentence says.
    assert looked_beside(mirrored=True, exchanged=1) == 0


def test_the_baselines_look_at_no_image():
    found = values(run())
    # The right lung's centre lies in the corner of the edema; no lung's does in the lesion's.
    assert found["lung_centre_edema"] == 1 and found["lung_centre_lung_lesion"] == 0
    assert found["gain_edema"] == 0 and found["gain_lung_lesion"] == 1
    assert found["middle_edema"] == 0
    assert found["random_edema"] == found["macro_random"] == 0.25
    assert found["macro_gain"] == pytest.approx(0.5)
    settings = run().settings
    assert settings["better_lung"]["edema"] == "right"
    assert settings["chance"]["pointing_edema"] == settings["chance"]["macro_pointing"] == 0.25


def test_each_image_is_judged_by_its_own_map():
    vectors = np.zeros((6, FEATURES))
    vectors[0, 3] = 5.0  # this one pulls every word to the bottom right
    found = run(vectors=vectors)
    assert found.metrics["pointing_edema"].value == pytest.approx(3 / 4)
    assert found.metrics["pointing_lung_lesion"].value == 1
    assert found.metrics["pointing_edema"].low < 3 / 4


class Bright(Looks):
    """Every text looks at the brightest of the pixels that lie `SIZE` / 2 apart."""

    def encode_image(self, model, image):
        local = image[:, :: SIZE // 2, :: SIZE // 2].reshape(len(image), -1, FEATURES)
        return ImageFeatures(local=local, global_=local[:, 0], pooled=local[:, 0])

    def text_attention(self, model, images, reports):
        bright = images.local[:, None, :, 0] * model.scale[...]
        return jnp.broadcast_to(bright, (*reports.local_mask.shape, bright.shape[-1]))


def test_finer_regions_see_what_lies_between_the_model_s_own():
    (batch,) = make_batches(
        np.zeros((4, FEATURES)), np.ones((4, FEATURES), np.int32), np.ones((4, 2), np.int8),
        batch_size=4,
    )  # fmt: skip
    image = np.zeros((4, SIZE, SIZE, FEATURES), np.float32)
    image[:, 0, 0], image[:, 2, 6] = 1.0, 2.0
    mask = corner(1, 5, side=3)

    def pointing(**attention):
        found = grounding.evaluate_grounding(
            Encoder(Bright(), FakeModel(), place=jax.device_put),
            [batch.replace(image=image)],
            asked=asking([[0, 9, 9], [0, 9, 9]], rows=((0,), (0,))),
            located=grounding.Located(
                masks={"Edema": {0: mask, 1: mask}, "Lung Lesion": {2: ~mask}}, lungs=LUNGS
            ),
            patients=["a", "b", "c", "d"],
            block=4,
            resampling=RESAMPLING,
            attention=AttentionConfig(**attention),
        )
        assert found.settings["attention"] == {**attention, "mirrored": False}
        return found.metrics["pointing_edema"].value, found.metrics["pointing_lung_lesion"].value

    assert pointing(shifts=1, smoothing=0.0) == (0, 1)
    assert pointing(shifts=2, smoothing=0.0) == (1, 0)
    assert pointing(shifts=2, smoothing=0.3) == (1, 0)
    with pytest.raises(ConfigError, match=r"task\.attention\.shifts"):
        pointing(shifts=3, smoothing=0.0)


def test_the_block_changes_nothing():
    vectors = np.random.default_rng(0).normal(size=(6, FEATURES))
    assert values(run(vectors=vectors, block=1)) == pytest.approx(
        values(run(vectors=vectors, block=5)), nan_ok=True
    )


def test_maps_of_several_sentences_and_words_are_averaged():
    # Two sentences for the edema: one is right twice over, one wrong; the mean is right.
    asked = asking([[0, 0, 9], [2, 9, 9], [3, 9, 9]], rows=((0, 1), (0,), (0,)), owner=(0, 0, 1))
    assert values(run(asked=asked))["pointing_edema"] == pytest.approx(0.5)
    asked = asking([[0, 0, 9], [0, 2, 9], [3, 9, 9]], rows=((0, 1), (0, 1), (0,)), owner=(0, 0, 1))
    assert values(run(asked=asked))["pointing_edema"] == 1


def test_a_study_s_own_sentence_looks_in_its_image_alone():
    # Record 0's sentence is right, record 1's wrong; 2 and 3 have none, 9 is not in the split.
    asked = asking(
        [[2, 0, 9], [2, 3, 9], [3, 9, 9], [0, 9, 9]],
        rows=((1,), (1,), (0,), (0,)), owner=(0, 0, 1, 0), record=(0, 1, 5, 9),
    )  # fmt: skip
    found = run(asked=asked)
    assert found.metrics["pointing_edema"].value == 0.5
    assert found.metrics["pointing_lung_lesion"].value == 1
    assert found.settings["positives"] == {"edema": 2, "lung_lesion": 1}
    # Sentences about one image are averaged: two are right, one is wrong.
    asked = asking(
        [[0, 9], [0, 9], [3, 9], [3, 9]],
        rows=((0,),) * 4, owner=(0, 0, 0, 1), record=(1, 1, 1, 4),
    )  # fmt: skip
    assert run(asked=asked).metrics["pointing_edema"].value == 1


def test_only_records_with_the_finding_count():
    found = run().settings
    assert found["positives"] == {"edema": 4, "lung_lesion": 3}
    assert found["records"] == 6 and found["patients"] == 3
    json.dumps(found, allow_nan=False)


def test_a_finding_without_a_record_is_null_and_not_in_the_mean():
    found = run(masks={"Edema": {0: corner(0, 0)}, "Lung Lesion": {}})
    assert np.isnan(found.metrics["pointing_lung_lesion"].value)
    assert "pointing_lung_lesion" in found.settings["undefined"]
    assert found.metrics["macro_pointing"].value == 1
    with pytest.raises(DataError, match="has a mask of one"):
        run(masks={name: {} for name in CLASSES})


def test_rows_that_are_no_text_are_refused_by_name():
    with pytest.raises(DataError, match="rows of 'prompt 1'"):
        run(asked=asking([[2, 0, 1], [0, 3, 9]], rows=((1,), (2,))))
    with pytest.raises(DataError, match="rows of 'prompt 0'"):
        run(asked=asking([[2, 0, 1], [0, 3, 9]], rows=((), (1,))))


def test_a_map_that_is_no_square_is_refused():
    class Five(Looks):
        def text_attention(self, model, images, reports):
            found = super().text_attention(model, images, reports)
            return jnp.concatenate([found, found[..., :1]], axis=-1)

    with pytest.raises(DataError, match="5 cells"):
        run(objective=Five)


def test_an_objective_without_attention_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"config\.objective.*FakeObjective"):
        run(objective=FakeObjective, asked=asking([[2, 0], [0, 3]], rows=((0,), (0,))))


def test_a_map_that_is_the_same_everywhere_scores_as_chance():
    flat = spread(np.full((3, 3), np.float32(0.3)), shape=(SIZE, SIZE), spacing=SIZE / 3)
    mask = corner(0, 0, side=3)
    assert map_scores.pointing_hit(flat, mask) == pytest.approx(mask.mean())
    assert map_scores.attention_ratio(flat, mask) == pytest.approx(1)
    assert map_scores.contrast_to_noise(flat, mask) == 0
    assert np.isnan(map_scores.attention_ratio(np.zeros((SIZE, SIZE)), mask))
    assert map_scores.pointing_hit(np.zeros((SIZE, SIZE)), mask) == pytest.approx(mask.mean())


def test_contrast_to_noise_is_that_of_its_formula():
    attention = np.array([[1.0, 3.0], [0.0, 4.0]])
    mask = np.array([[True, True], [False, False]])
    assert map_scores.contrast_to_noise(attention, mask) == 0
    mask = np.array([[False, True], [False, True]])
    # Inside 3 and 4: mean 3.5, variance 1/4. Outside 1 and 0: mean 1/2, variance 1/4.
    assert map_scores.contrast_to_noise(attention, mask) == pytest.approx(3 / np.sqrt(0.5))
    assert map_scores.contrast_to_noise(attention, ~mask) == pytest.approx(-3 / np.sqrt(0.5))
    assert map_scores.attention_ratio(attention, mask) == pytest.approx(7 / 8 / 0.5)


def test_mentions_are_whole_words_whatever_their_case():
    assert finding_words.mentions("Pleural Effusion.", ("effusion",)) == [(8, 16)]
    assert finding_words.mentions("Effusions and massive edema.", ("effusion", "mass")) == []
    assert len(finding_words.mentions("A nodule or mass, a nodule.", ("nodule", "mass"))) == 3


@pytest.mark.parametrize("name", ["Pleural_Effusion", "effusion"])
def test_a_finding_is_named_by_its_words(name):
    assert prompts.finding_words(name) == ("effusion",)
    assert prompts.finding_words("Lung Lesion") == ("nodule", "mass")
    with pytest.raises(ConfigError, match="No Finding"):
        prompts.finding_words("No Finding")


class Pieces:
    """Cuts words into pieces of three letters; a point clings to the word before it."""

    def encode(self, text):
        spans, ids = [], []
        for start in range(len(text)):
            begins = start == 0 or text[start - 1] == " "
            since = start - (text.rfind(" ", 0, start + 1) + 1)
            if text[start] != " " and (begins or since % 3 == 0):
                end = min([start + 3, *(i for i in [text.find(" ", start)] if i > 0), len(text)])
                spans.append((start, end))
                ids.append(int(begins))
        return type("Encoding", (), {"ids": np.array(ids), "spans": np.array(spans, np.int32)})

    def starts_word(self, token_id):
        return token_id == 1


def test_rows_are_words_counted_from_cls():
    rows = finding_words.rows_of_words
    assert rows("No pleural effusion.", ("effusion",), tokenizer=Pieces()) == (3,)
    assert rows("edema or pulmonary edema", ("edema",), tokenizer=Pieces()) == (1, 4)
    assert rows("clear lungs", ("edema",), tokenizer=Pieces()) == ()
