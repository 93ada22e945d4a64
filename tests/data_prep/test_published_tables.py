"""Published sizes come out of tables and lists of ids of the published lengths."""

import pytest

from data_prep import object_cxr, rsna, siim, vindr
from data_prep.kit import cli, labelled
from data_prep.kit.published_splits import OFFICIAL, PUBLISHED
from prior_jax.data.schema import SPLITS
from tests.data_prep import odd_cases
from tests.data_prep.test_vindr import BOX_HEADER, LABELS

LISTED = [
    (data_set, split)
    for data_set, splits in PUBLISHED.items()
    for split, published in splits.items()
    if published.sizes and published.rule is None and split != OFFICIAL
]
MOST = {  # images of each set in all, some of which a list does not name
    "rsna": 29_684,  # with the 3,000 of the challenge's test set, which MRM tests on
    "siim": 12_047,
    "nih": 112_120,
    "covidx": 84_818,
    "covid_rural": 221,
    "object_cxr": 10_000,
    "vindr": 18_000,
    "tbx11k": 11_200,
}


def ids(count):
    return [f"i{place:06d}" for place in range(count)]


def write_lists(folder, names, sizes):
    folder.mkdir()
    begin = 0
    for name, size in zip(("train", "val", "test"), sizes, strict=True):
        lines = names[begin : begin + size][::-1]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        begin += size
    return folder


@pytest.mark.parametrize(("data_set", "split"), LISTED)
def test_lists_of_the_published_lengths_give_the_published_sizes(tmp_path, data_set, split):
    sizes = PUBLISHED[data_set][split].sizes
    names = ids(max(MOST[data_set], sum(sizes)))
    cases = [labelled.Case(id=name, path="", patient=name, labels=()) for name in names]
    assignment = labelled.assigned(
        cases,
        data_set=data_set,
        settings=labelled.LabelledSettings(split=split),
        lists=str(write_lists(tmp_path / "lists", names, sizes)),
    )
    assert tuple(len(assignment.members[part]) for part in SPLITS) == sizes
    assert not assignment.unknown
    (note,) = assignment.notes
    assert note.endswith("as published.") and not note.startswith("Warning")


def sizes_of(monkeypatch, folder, prepare):
    """The sizes of the splits of a set that is planned, and not written."""
    images, _ = odd_cases.planned(monkeypatch, folder, prepare)
    return tuple(sum(image.split == code for image in images) for code in range(3))


def options(folder):
    return cli.RunOptions(out=str(folder / "out"), workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["gloria", "mgca", "mgca_detection"])
def test_rsna_s_table_of_30227_rows(tmp_path, monkeypatch, split):
    names = ids(26_684)
    boxed = names[:6_012]  # the patients with boxes, most of which have two or more
    rows = [f"{name},1,2,3,4,1" for name in boxed]
    rows += [f"{name},5,6,7,8,1" for name in boxed[: 9_555 - len(boxed)]]
    rows += [f"{name},,,,,0" for name in names[len(boxed) :]]
    assert len(rows) == 30_227
    (tmp_path / "labels.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *rows]))
    paths = rsna.Paths(labels=str(tmp_path / "labels.csv"), images_dir=str(tmp_path))
    found = sizes_of(
        monkeypatch,
        tmp_path,
        lambda: rsna.prepare(paths, rsna.Settings(split=split), options(tmp_path)),
    )
    assert found == PUBLISHED["rsna"][split].sizes


@pytest.mark.slow
@pytest.mark.parametrize(("split", "sizes"), [("lovt", (7_229, 2_409, 2_409)), ("gloria", None)])
def test_siim_s_table_of_12954_rows(tmp_path, monkeypatch, split, sizes):
    names = ids(12_047)
    masked = names[:2_669]
    extra = 12_954 - len(names)  # masks beside the first of an image
    rows = [f"{name},{1 + place} 1" for place in (0, 2) for name in masked]
    rows = rows[: len(masked) + extra] + [f"{name},-1" for name in names[len(masked) :]]
    assert len(rows) == 12_954
    (tmp_path / "rle.csv").write_text("\n".join(["ImageId,EncodedPixels", *rows]))
    lists = str(write_lists(tmp_path / "lists", names, sizes)) if sizes else ""
    paths = siim.Paths(rle=str(tmp_path / "rle.csv"), images_dir=str(tmp_path), split_lists=lists)
    found = sizes_of(
        monkeypatch,
        tmp_path,
        lambda: siim.prepare(paths, siim.Settings(split=split), options(tmp_path)),
    )
    # 70, 15 and 15 % of 12,047, the parts that are held out rounded up as scikit-learn does.
    assert found == (sizes or (8_432, 1_808, 1_807))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        (OFFICIAL, (8_000, 1_000, 1_000)),
        ("mgca", (7_200, 800, 1_000)),
        ("lovt", (6_400, 1_600, 1_000)),
        ("benchx", (8_000, 1_000, 1_000)),
    ],
)
def test_object_cxr_s_tables(tmp_path, monkeypatch, split, sizes):
    names = ids(10_000)
    for table, members in (
        ("train", names[:8_000]),
        ("dev", names[8_000:9_000]),
        ("test", names[9_000:]),
    ):
        rows = [f"{name}.jpg," for name in members]
        (tmp_path / f"{table}.csv").write_text("\n".join(["image_name,annotation", *rows]))
    listed = split in ("lovt", "benchx")
    lists = str(write_lists(tmp_path / "lists", names, sizes)) if listed else ""
    paths = object_cxr.Paths(tables=str(tmp_path), images_dir=str(tmp_path), split_lists=lists)
    settings = object_cxr.Settings(split=split)
    found = sizes_of(
        monkeypatch, tmp_path, lambda: object_cxr.prepare(paths, settings, options(tmp_path))
    )
    assert found == sizes


@pytest.mark.slow
def test_vindr_s_tables_of_45000_and_3000_rows(tmp_path, monkeypatch):
    names = ids(18_000)
    cells = ",".join("1" if label == "No finding" else "0" for label in LABELS)
    header = ",".join(["image_id", "rad_id", *LABELS])
    rows = [f"{name},R{reader},{cells}" for name in names[:15_000] for reader in (1, 2, 3)]
    (tmp_path / "image_labels_train.csv").write_text("\n".join([header, *rows]))
    rows = [f"{name},,{cells}" for name in names[15_000:]]
    (tmp_path / "image_labels_test.csv").write_text("\n".join([header, *rows]))
    for part in ("train", "test"):
        (tmp_path / f"annotations_{part}.csv").write_text(f"{BOX_HEADER}\n")
    lists = write_lists(tmp_path / "lists", names, (12_000, 3_000, 3_000))
    paths = vindr.Paths(tables=str(tmp_path), images_dir=str(tmp_path), split_lists=str(lists))
    found = sizes_of(
        monkeypatch,
        tmp_path,
        lambda: vindr.prepare(paths, vindr.Settings(split="benchx"), options(tmp_path)),
    )
    assert found == (12_000, 3_000, 3_000)
