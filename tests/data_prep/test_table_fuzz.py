"""Tables as people save them, drawn at random: no row is lost and no patient leaks."""

import collections
import csv
import gzip
import io
import json
import random

import numpy as np
import pytest

from data_prep import manifest, verify
from data_prep.kit import cli, values
from data_prep.kit.plan import read_image
from prior_jax.errors import PriorJaxError
from tests.data_prep import hospital

WORDS = (
    "Clear.",
    "No edema, no mass.",
    'He said "ah".',
    "A;B|C",
    "Zeile\nzwei, mit Komma",
    "ü\u2028",
)
NOTHING = ("", " ", "nan", "NaN", "null", "None", "NaT", "N/A")
COLUMNS = ("image", "text", "patient_id", "study_id", "split", "view", "labels")
SPLIT_NAMES = {
    "train": ("train", "Training", " train "),
    "validate": ("val", "valid"),
    "test": ("test",),
}


def drawn_rows(rng):
    """Rows as lists of cells, and image -> (patient, split as given); some patients leak."""
    rows, truth = [], {}
    decimals = rng.random() < 0.3
    for patient in range(rng.randint(1, 6)):
        split = rng.choice(list(SPLIT_NAMES))
        leaks = rng.random() < 0.15
        for study in range(rng.randint(1, 3)):
            place = rng.choice(list(SPLIT_NAMES)) if leaks else split
            image = f"{patient}_{study}.png"
            identity = str(1000 + patient)
            if decimals and rng.random() < 0.7:
                identity += ".0"
            if rng.random() < 0.1:
                identity = f" {identity} "
            truth[image] = (patient, place)
            rows.append(
                [
                    image,
                    rng.choice(WORDS),
                    identity,
                    f"s{patient}_{study}",
                    rng.choice(SPLIT_NAMES[place]),
                    rng.choice(("PA", "AP", "")),
                    rng.choice(("A", "A|B", "")),
                ]
            )
    rng.shuffle(rows)
    return rows, truth


def damaged(rng, header, rows):
    """Makes a few changes of the kind that spreadsheets, data frames and people make."""
    for _ in range(rng.randint(0, 3)):
        row = rng.choice(rows)
        change = rng.randrange(9)
        if change == 0:
            row[rng.randrange(1, len(row))] = rng.choice(NOTHING)
        elif change == 1:
            rows.append(list(row))  # a row twice
        elif change == 2:
            row.pop()
        elif change == 3:
            row.append("stray")
        elif change == 4:
            row[0] = rng.choice(NOTHING)
        elif change == 5:
            header[:] = [f" {name} " for name in header]
        elif change == 6:
            for place, other in enumerate([header, *rows]):
                other.insert(0, "" if place == 0 else str(place - 1))
        elif change == 7:
            order = rng.sample(range(len(header)), len(header))
            if all(len(other) == len(header) for other in rows):
                for other in (header, *rows):
                    other[:] = [other[place] for place in order]
        else:
            row[-1] = "\0"
    if rng.random() < 0.1:
        header[rng.randrange(len(header))] = rng.choice(("Text", "renamed", header[0]))


def written(rng, header, rows, path):
    """Writes the table in one of many ways; returns its path."""
    if rng.random() < 0.3:
        lines = [json.dumps(dict(zip(header, row, strict=False))) for row in rows]
        if rng.random() < 0.3:
            place = rng.randrange(len(lines))
            lines[place] = rng.choice((lines[place][:-2], "[]", "null", lines[place] * 2))
        content, suffix = "\n".join(lines).encode(), ".jsonl"
    else:
        delimiter, suffix = rng.choice(((",", ".csv"), ("\t", ".tsv"), (";", ".csv")))
        text = io.StringIO()
        csv.writer(
            text,
            delimiter=delimiter,
            quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
            lineterminator=rng.choice(("\n", "\r\n")),
        ).writerows([header, *rows])
        content = text.getvalue().encode(rng.choice(("utf-8", "utf-8", "utf-8-sig")))
    chance = rng.random()
    if chance < 0.1:  # a mark, a byte or a line end too many, or a file cut off
        place = rng.randrange(len(content))
        content = content[:place] + rng.choice((b'"', b"\xff", b"\n", b",")) + content[place:]
    elif chance < 0.13:
        content = content[: rng.randrange(len(content))]
    elif chance < 0.15:
        content = content.decode("utf-8", "ignore").encode("utf-16")
    path = path.with_suffix(suffix)
    if rng.random() < 0.1:
        content, path = gzip.compress(content), path.with_suffix(f"{suffix}.gz")
    path.write_bytes(content)
    return path


def check_plan(folder, seed):
    """Plans a drawn table and checks where each of its rows went; returns whether it was read."""
    rng = random.Random(seed)
    header = list(COLUMNS)
    rows, truth = drawn_rows(rng)
    damaged(rng, header, rows)
    path = written(rng, header, rows, folder / f"t{seed}")
    rejections, index = [], folder / "index"
    try:
        plan = manifest._plan(
            path,
            images=folder,
            settings=manifest.Settings(),
            given=frozenset(),
            directory=index,
            reject=rejections.append,
        )
    except PriorJaxError as error:
        assert str(path) in str(error) or path.name in str(error)
        return False
    offsets = np.load(index / "offsets.npy")
    kept = [read_image(index, int(offset)) for offset in offsets]
    assert sum(job.end - job.begin for job in plan.jobs) == len({image.study for image in kept})
    (table,) = plan.tables
    assert table.read == len(kept) + sum(rejection.rows for rejection in rejections)
    splits = collections.defaultdict(set)
    for image in kept:
        splits[values.comparable_id(image.patient)].add(image.split)
        name = image.data["image"]
        if name in truth and image.patient.isdigit():
            assert int(image.patient) - 1000 == truth[name][0]  # no cell came from another row
    assert all(len(found) == 1 for found in splits.values())
    return True


def test_a_hundred_drawn_tables_lose_no_row(tmp_path):
    assert sum(check_plan(tmp_path, seed) for seed in range(150)) > 60


@pytest.mark.slow
def test_ten_thousand_drawn_tables_lose_no_row(tmp_path):
    read = sum(check_plan(tmp_path, seed) for seed in range(10_000))
    print(f"{read} of 10,000 tables were read, the others refused by name")
    assert 5_000 < read < 10_000


def check_set(folder, seed):
    """Prepares a drawn table whole, and verifies the set."""
    rng = random.Random(seed)
    header = list(COLUMNS)
    rows, truth = drawn_rows(rng)
    damaged(rng, header, rows)
    for place, image in enumerate(truth):
        (folder / image).write_bytes(hospital.jpeg(place))
    path = written(rng, header, rows, folder / "t")
    out = folder / f"out{seed}"
    try:
        found = manifest.prepare(
            manifest.Paths(manifest=str(path)),
            manifest.Settings(short_side=48),
            cli.RunOptions(out=str(out), workers=1),
        )
    except PriorJaxError:
        assert not out.exists()
        return
    assert verify.verify(verify.Settings(path=str(out), sample=1.0)) == []
    (rows,) = found.tables.values()
    assert rows.kept == sum(counts.images for counts in found.splits.values())


def test_drawn_sets_are_sound(tmp_path):
    for seed in range(25):
        check_set(tmp_path, seed)


@pytest.mark.slow
def test_five_hundred_drawn_sets_are_sound(tmp_path):
    for seed in range(500):
        check_set(tmp_path, seed)
