"""COVIDx: radiographs of COVID-19, pneumonia and neither -> a prepared set.

    python -m data_prep.covidx --train_list=train.txt --validation_list=val.txt \
        --test_list=test.txt --classes=binary --images_dir=covidx-cxr4 --out=prepared

A list has no header, and "patient filename class source" in each line. Versions 1 to 5, 7A, 8A and
9A have three classes; 6, 7B, 8B, 9B and CXR-4 have "positive" and "negative" for COVID-19. Lines of
versions 1 and 2, and some of the test lists up to 7A, have no source; the patients of 7A to 8B's
source sirm have a blank in their name, "COVID 1".

Source: COVID-Net, arXiv:2003.09871, and COVIDx CXR-4, arXiv:2311.17677, with their lists; MGCA's
release, mgca/preprocess/covidx.py; BenchX's, preprocess/datasets/COVIDx/preprocess_covidx.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from data_prep.kit import cli, labelled, preparer, published_splits, split_tables
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, TableUse
from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import ConfigError, DataError

PROGRAM = "data_prep.covidx"
THREE, BINARY = "three", "binary"
COVID = "COVID-19"
# 943 lines of list 9A, those of the source sirm, say "positive" for COVID-19, by mistake
# (lindawangg/COVID-Net, issue 209).
CLASSES: Mapping[str, Mapping[str, str]] = {
    THREE: {
        "normal": "Normal",
        "pneumonia": "Pneumonia",
        "covid-19": COVID,
        "positive": COVID,
    },
    BINARY: {"negative": "", "positive": COVID},
}
_WORDS = frozenset(word for words in CLASSES.values() for word in words)
LABELS: Mapping[str, tuple[str, ...]] = {
    THREE: ("Normal", "Pneumonia", COVID),
    BINARY: (COVID,),
}
CXR4_SIZES = (67_863, 8_473, 8_482)  # 84,818 images, arXiv:2311.17677
FOLDERS = {"train": "train", "validate": "val", "test": "test"}
MALFORMED = "malformed_row"
_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    train_list: str = cli.setting("List of the images to train on, e.g. train_COVIDx9A.txt.")
    test_list: str = cli.setting("List of the images to test on, e.g. test_COVIDx9A.txt.")
    images_dir: str = cli.setting("Folder of the folders train, test and, if there is one, val.")
    validation_list: str = cli.setting(
        "List of the images to validate on, which CXR-4 has, or nothing.", default=""
    )

    def lists(self) -> dict[str, pathlib.Path]:
        """Returns split -> path of its list."""
        given = {
            "train": self.train_list,
            "validate": self.validation_list,
            "test": self.test_list,
        }
        return {split: pathlib.Path(path) for split, path in given.items() if path}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    classes: str = cli.setting(
        "Classes of the lists: 'three', which are normal, pneumonia and COVID-19, or 'binary', "
        "which are negative and positive.",
        default=THREE,
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.refuse_encoding()
        if self.classes not in CLASSES:
            raise ConfigError.of_value("--classes", self.classes, f"one of {', '.join(CLASSES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a list.

    Attributes:
      number: number of the line, from 1.
      named: patient and file, in either of which there may be blanks.
      word: name of the class.
      problem: reason for which the line cannot be read, in words; "" if it can be read.
    """

    number: int
    named: str = ""
    word: str = ""
    problem: str = ""

    def readings(self) -> Iterator[tuple[str, str]]:
        """Yields patient and file by each blank that may part them, the first one first."""
        words = self.named.split()
        file = self.named
        for place, word in enumerate(words[:-1], 1):
            file = file[len(word) :].lstrip()
            yield " ".join(words[:place]), file


def lines_of(path: pathlib.Path, *, flag: str) -> Iterator[Line]:
    """Yields the lines of a list that are not blank.

    Raises:
      DataError: if the file is no text in UTF-8, naming the flag.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: {error}.",
            "Give a list of lines with patient, file, class and source.",
            where=flag,
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        known = [word.casefold() in _WORDS for word in words]
        sources = 0 if known[-1] and not known[-2:-1] == [True] else 1
        named = line.strip()
        for word in words[: -2 - sources : -1]:  # the source, and the class in front of it
            named = named[: -len(word)].rstrip()
        if len(named.split()) < 2:
            problem = f"{line.strip()[:80]!r} is not a patient, a file, a class and a source"
            yield Line(number=number, problem=problem)
            continue
        yield Line(number=number, named=named, word=words[-1 - sources])


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    lists = [cli.required_file(path, flag=_flag(split)) for split, path in paths.lists().items()]
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs(lists, lists=paths.split_lists, settings=settings),
    )


def _flag(split: str) -> str:
    return {"validate": "--validation_list"}.get(split, f"--{split}_list")


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    images_dir = pathlib.Path(paths.images_dir)
    cases: list[labelled.Case] = []
    splits: list[str] = []
    read = 0
    for split, path in paths.lists().items():
        files = _Files(images_dir, split)
        seen: dict[str, int] = {}
        for line in lines_of(path, flag=_flag(split)):
            read += 1
            if line.problem:
                left_out = {"rows": 1, "table": split_tables.ROWS}
                name = f"{path.name}:{line.number}"
                reject(Rejection(id=name, reason=MALFORMED, detail=line.problem, **left_out))
                continue
            case = _case(line, files, classes=settings.classes)
            case = dataclasses.replace(case, line=line.number, table=path.name)
            if case.id in seen:
                cases[seen[case.id]], case = _repeated(cases[seen[case.id]], case)
            seen.setdefault(case.id, len(cases))
            cases.append(case)
            splits.append(split)
    return labelled.labelled_plan(
        cases,
        _assigned(cases, splits, paths=paths, settings=settings),
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS[settings.classes],
        table=TableUse(name=split_tables.ROWS, read=read),
    )


class _Files:
    """The images of a split, in the folder of its name or, without one, in the whole folder."""

    def __init__(self, images_dir: pathlib.Path, split: str):
        self.folder = FOLDERS[split]
        inside = images_dir / self.folder
        self._prefix = f"{self.folder}/" if inside.is_dir() else ""
        self._found = labelled.found_images(
            inside if self._prefix else images_dir, suffixes=_SUFFIXES
        )

    def has(self, file: str) -> bool:
        """Tells whether there is a file of this name, with whatever suffix."""
        return _parted(file)[0] in self._found

    def path(self, file: str) -> str:
        """Returns the path of a file relative to the folder of the images."""
        stem, suffix = _parted(file)
        found = self._found.get(stem, file)
        # Of a.png and a.jpg the one that is named counts.
        if suffix and not found.lower().endswith(suffix):
            found = f"{found.rpartition('.')[0]}{suffix}"
        return f"{self._prefix}{found}"


def _parted(file: str) -> tuple[str, str]:
    """Returns a file's name without folders and suffix, and the suffix of an image, or ""."""
    name = file.replace("\\", "/").rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    return (stem, f".{suffix}") if f".{suffix}".lower() in _SUFFIXES else (name, "")


def _case(line: Line, files: _Files, *, classes: str) -> labelled.Case:
    """Returns the case of a line.

    Which blank of a line parts the patient from the file is told by the files that are there.
    Without any the file is the last word, as in all lists of COVID-Net.
    """
    readings = list(line.readings())
    patient, file = next((one for one in readings if files.has(one[1])), readings[-1])
    labels = LABELS[classes]
    place = {"id": f"{files.folder}/{file}", "path": files.path(file), "patient": patient}
    label = CLASSES[classes].get(line.word.casefold())
    if label is None:
        known = ", ".join(CLASSES[classes])
        problem = ("unknown_label", f"{line.word!r} is none of {known}; see --classes")
        return labelled.Case(**place, labels=(0,) * len(labels), problem=problem)
    return labelled.Case(**place, labels=tuple(int(name == label) for name in labels))


def _repeated(earlier: labelled.Case, case: labelled.Case) -> tuple[labelled.Case, labelled.Case]:
    """Returns the earlier and the later case of an image, with what is wrong with them.

    The later one stays a case, so that a draw of lines counts it. Of lines that differ none is
    kept.
    """
    if (earlier.labels, earlier.patient) == (case.labels, case.patient):
        problem = ("duplicate_row", f"line {earlier.line} names it before")
        return earlier, dataclasses.replace(case, problem=problem)
    marked = (
        dataclasses.replace(one, problem=("conflicting_rows", f"line {other.line} says otherwise"))
        for one, other in ((earlier, case), (case, earlier))
    )
    return next(marked), next(marked)


def _assigned(
    cases: Sequence[labelled.Case],
    splits: Sequence[str],
    *,
    paths: Paths,
    settings: Settings,
) -> published_splits.Assignment:
    """Assigns the cases; MGCA divides the list for training, BenchX takes all as they are.

    BenchX reads the first line of each list as a header, so that its image is in no split, and its
    published lists cannot be followed: they have names that are cut at the first dot, of which some
    stand for several images (quirk B29).
    """
    if settings.split == published_splits.OFFICIAL:
        sizes = CXR4_SIZES if settings.classes == BINARY else None
        return labelled.described(
            split_tables.with_validation(splits, cases, settings),
            cases,
            settings=settings,
            published=published_splits.Published(sizes=sizes),
        )
    if settings.split == "mgca":
        published = published_splits.PUBLISHED["covidx"]["mgca"]
        of_list = split_tables.members_of(splits)
        members = split_tables.of_part(published, of_list["train"])
        members["test"] = of_list["test"]
        assignment = published_splits.Assignment(members=members)
        return labelled.described(assignment, cases, settings=settings, published=published)
    if settings.split == "benchx":
        published = published_splits.PUBLISHED["covidx"]["benchx"]
        members = {name: rows[1:] for name, rows in split_tables.members_of(splits).items()}
        assignment = published_splits.Assignment(members=members)
        return labelled.described(assignment, cases, settings=settings, published=published)
    return labelled.assigned(cases, data_set="covidx", settings=settings, lists=paths.split_lists)


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
