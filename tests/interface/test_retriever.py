import json

import numpy as np
import pandas as pd
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.prompt_scores import normalised
from prior_jax.interface import Model, Retriever
from tests.interface.conftest import IMAGE, TEXT

REPORTS = [
    "The heart is normal in size.",
    "Small left effusion seen.",
    "Lungs are clear. No effusion.",
    "Right tube above carina.",
    "Stable opacity.",
]


@pytest.fixture(scope="module")
def corpus(whole):
    return Retriever(whole, reports=REPORTS, ids=["a", "b", "c", "d", "e"])


def test_the_best_reports_of_each_image_come_first(whole, corpus, paths):
    found = corpus.search(paths, k=3)
    assert found.columns.tolist() == ["query", "rank", "id", "score"]
    assert found["query"].tolist() == [str(path) for path in paths for _ in range(3)]
    assert found["rank"].tolist() == [1, 2, 3] * len(paths)
    scores = whole.similarity(paths, REPORTS)
    for row, path in enumerate(paths):
        part = found[found["query"] == str(path)]
        best = np.argsort(-scores[row])[:3]
        assert part["id"].tolist() == ["abcde"[i] for i in best]
        np.testing.assert_allclose(part["score"], scores[row, best], rtol=1e-6)


def test_images_are_found_by_text(whole, paths):
    found = Retriever(whole, images=paths).search(REPORTS[1], k=4)
    scores = whole.similarity(paths, REPORTS[1])[:, 0]
    assert found["id"].tolist() == [str(paths[i]) for i in np.argsort(-scores)]
    assert found["query"].tolist() == [0] * 4


def test_normalising_is_over_the_corpus_and_keeps_the_order(whole, corpus, paths):
    plain = corpus.search(paths, k=5)
    for how in ("softmax", "z-score"):
        found = corpus.search(paths, k=5, normalise=how)
        assert found["id"].tolist() == plain["id"].tolist()
        total = found.groupby("query", sort=False)["score"].sum()
        np.testing.assert_allclose(total, {"softmax": 1, "z-score": 0}[how], atol=1e-4)
    images = Retriever(whole, images=paths).search(REPORTS[:2], k=4, normalise="softmax")
    np.testing.assert_allclose(images.groupby("query")["score"].sum(), 1, rtol=1e-5)


def test_z_scores_of_two_parts_are_averaged(gloria, paths):
    found = Retriever(gloria, images=paths).search(REPORTS[:2], k=4, normalise="z-score")
    parts = [
        normalised(gloria.similarity(paths, REPORTS[:2], kind=kind).T, how="z-score", axis=1)
        for kind in ("global", "local")
    ]
    expected = np.sort(np.mean(parts, axis=0), axis=1)[:, ::-1].reshape(-1)
    np.testing.assert_allclose(found["score"], expected, rtol=1e-3, atol=1e-4)


def test_an_index_is_kept_and_read_again(whole, corpus, paths, tmp_path):
    for index, queries in ((corpus, paths), (Retriever(whole, images=paths), REPORTS)):
        index.save(tmp_path / "index.npz")
        again = Retriever.load(tmp_path / "index.npz", whole)
        assert again.search(queries, k=2).equals(index.search(queries, k=2))


@pytest.mark.parametrize("given", [np.array([7, 8, 9, 10, 11]), pd.Series(list("abcde"))])
def test_ids_of_arrays_and_columns_are_kept(whole, given, tmp_path):
    index = Retriever(whole, reports=REPORTS, ids=given)
    assert index.ids == given.tolist()
    index.save(tmp_path / "index.npz")
    assert Retriever.load(tmp_path / "index.npz", whole).ids == given.tolist()


@pytest.mark.parametrize(
    "ids, message",
    [
        (
            ["a", "b", 3.0, "d", "e"],
            r"ids\[2\]: The value is 3\.0\. It must be a text or an integer",
        ),
        ([True, 1, 2, 3, 4], r"ids\[0\]: The value is True"),
        (np.array([1.0, np.nan]), r"ids\[0\]: "),
        ({"a": 1}, r"ids: The value is of the type dict, .* list of ids\. Give a list of ids, one"),
        (7, r"ids: The value is of the type int, "),
        ("abcde", r"ids: The number of ids is 1, .* 5 entries"),
    ],
)
def test_ids_that_cannot_be_kept_are_refused(whole, ids, message):
    with pytest.raises(DataError, match=message):
        Retriever(whole, reports=REPORTS, ids=ids)


def test_ids_are_refused_before_anything_is_encoded(whole, tokenizer):
    asked = []
    model = Model(whole.objective, whole.module, tokenizer=tokenizer, image=IMAGE, text=TEXT)
    model.encode_text = asked.append
    with pytest.raises(DataError, match=r"ids\[0\]"):
        Retriever(model, reports=REPORTS, ids=[None] * 5)
    assert not asked


def test_reports_by_their_ids_are_refused(whole):
    with pytest.raises(DataError, match=r"texts: The value is of the type dict"):
        Retriever(whole, reports=dict(zip("abcde", REPORTS, strict=True)))


def test_another_model_s_index_is_refused(whole, corpus, tokenizer, tmp_path):
    corpus.save(tmp_path / "index.npz")
    other = Model(
        whole.objective, type(whole.module)(2.0), tokenizer=tokenizer, image=IMAGE, text=TEXT
    )
    with pytest.raises(
        DataError, match=r"index\.npz: .*encoded by the model .*but this is the model"
    ):
        Retriever.load(tmp_path / "index.npz", other)


def test_a_damaged_index_is_refused(whole, corpus, tmp_path):
    path = tmp_path / "index.npz"
    with pytest.raises(DataError, match=r"index\.npz: .*No such file"):
        Retriever.load(path, whole)
    corpus.save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(str(arrays.pop("about")))
    del about["ids"]
    np.savez(tmp_path / "no_ids_index.npz", about=json.dumps(about), **arrays)
    with pytest.raises(DataError, match=r"index\.npz: .*KeyError: 'ids'"):
        Retriever.load(tmp_path / "no_ids_index.npz", whole)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"index\.npz: .*a file that Retriever.save wrote"):
        Retriever.load(path, whole)


def test_bad_choices_are_refused_by_name(whole, corpus, paths):
    with pytest.raises(ConfigError, match="images, reports: Neither"):
        Retriever(whole)
    with pytest.raises(ConfigError, match="images, reports: Both"):
        Retriever(whole, images=paths, reports=REPORTS)
    with pytest.raises(DataError, match=r"ids: The number of ids is 1, .* 5 entries"):
        Retriever(whole, reports=REPORTS, ids=["a"])
    for k in (0, 6):
        with pytest.raises(ConfigError, match=f"k: The value is {k}. It must be from 1 to 5"):
            corpus.search(paths, k)
    with pytest.raises(ConfigError, match="normalise: The value is 'norm'"):
        corpus.search(paths, normalise="norm")
    with pytest.raises(ConfigError, match="kind: The value is 'word'"):
        corpus.search(paths, kind="word")
