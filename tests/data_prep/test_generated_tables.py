"""Generated manifests: every row is kept or counted, and nothing is kept as what it is not."""

import collections

import numpy as np
import pytest
from PIL import Image

from data_prep import manifest, verify
from data_prep.kit import cli
from prior_jax.data import reader
from prior_jax.errors import PriorJaxError
from tests.data_prep import generated_tables

# Damage after which every row still stands in the file, whatever may be read of it.
ROWS_REMAIN = {
    "a_stray_quote_at_the_start_of_a_cell",
    "a_quote_lost",
    "cells_added",
    "a_line_twice",
    "a_nul",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    y, x = np.mgrid[:32, :32]
    for number in range(10):
        pixels = (x * (number + 1) + y * 3) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def prepare(folder, images, drawn):
    """Returns (manifest, None), or (None, error)."""
    (folder / drawn.name).write_bytes(drawn.content)
    try:
        found = manifest.prepare(
            manifest.Paths(manifest=str(folder / drawn.name), images_dir=str(images)),
            manifest.Settings(**{"short_side": 32, "min_sentences": 0, **drawn.settings}),
            cli.RunOptions(out=str(folder / "out"), workers=1),
        )
    except PriorJaxError as error:
        return None, error
    return found, None


def records_of(folder, found):
    """Returns (split, record) of every record of a set."""
    sources = {
        split: reader.RecordReader(folder / "out", split)
        for split, counts in found.splits.items()
        if counts.studies
    }
    return [(split, s.read(place)) for split, s in sources.items() for place in range(len(s))]


def given_apart(rows):
    """Returns the rows of the patients who stand in one split."""
    splits = collections.defaultdict(set)
    for row in rows:
        splits[row.patient].add(row.split)
    return [row for row in rows if len(splits[row.patient]) == 1]


def check(folder, images, seed):
    """Prepares a generated manifest and compares the set with what the manifest says."""
    drawn = generated_tables.draw(seed)
    found, error = prepare(folder, images, drawn)
    apart = given_apart(drawn.rows)
    if found is None:
        assert drawn.damaged or not apart, (seed, error)
        assert not (folder / "out").exists(), seed  # the next try finds an empty place
        return "refused"
    records = records_of(folder, found)
    (rows,) = found.tables.values()
    kept = [image for _, record in records for image in record.image_ids]
    assert rows.read == rows.kept + sum(rows.rejected.values()), seed
    assert rows.kept == len(kept) == len(set(kept)), seed
    if not drawn.damaged:
        assert rows.read == len(drawn.rows), seed
        assert sorted(kept) == sorted(row.image for row in apart), (seed, rows)
    if drawn.damaged in ROWS_REMAIN:
        lost = {row.image for row in drawn.rows} - set(kept)
        assert len(lost) <= sum(rows.rejected.values()), (seed, lost, rows)
    check_records(drawn, found, records, seed)
    return "prepared"


def check_records(drawn, found, records, seed):
    """Checks that records say what the rows say, and that no patient stands in two splits."""
    truth = {row.image: row for row in drawn.rows}
    names, where = {}, collections.defaultdict(set)
    for split, record in records:
        where[record.subject_id].add(split)
        if drawn.damaged:
            continue
        (image,) = record.image_ids
        row = truth[image]
        assert split == row.split, seed
        assert names.setdefault(row.patient, record.subject_id) == record.subject_id, seed
        assert record.study_id == row.study, seed
        written = f"{record.findings}\n{record.impression}".split()
        headers = {"FINDINGS:", "IMPRESSION:"}
        assert sorted(written) == sorted(w for w in row.text.split() if w not in headers), seed
        for name, value in zip(found.label_names, record.labels, strict=True):
            said = row.labels[name]
            if drawn.lists:  # what a list does not name is negative; an empty list says nothing
                positive = [n for n, v in row.labels.items() if v == 1]
                said = 1 if said == 1 else 0 if positive else None
            assert value == (-2 if said is None else said), (seed, name)
    assert all(len(splits) == 1 for splits in where.values()), seed
    assert len(set(names.values())) == len(names), seed


@pytest.mark.parametrize("seed", range(80))
def test_every_row_of_a_generated_table_is_kept_or_counted(tmp_path, images, seed):
    if check(tmp_path, images, seed) == "prepared" and seed % 5 == 0:
        assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_every_row_of_ten_thousand_generated_tables_is_kept_or_counted(
    tmp_path_factory, images, part
):
    for seed in range(1000 * part, 1000 * (part + 1)):
        check(tmp_path_factory.mktemp("table"), images, seed)
