"""Draws manifests as people save them, damaged or not, beside what they say."""

import csv
import dataclasses
import gzip
import io
import json
import random

SPLITS = ("train", "validate", "test")
SPLIT_WORDS = {
    "train": ("train", "Train", "training", " train "),
    "validate": ("validate", "val", "VALID", "dev"),
    "test": ("test", "testing", "Test"),
}
BLANKS = ("", " ", "NaN", "nan", "null", "None", "NaT", "NULL", "N/A", "<NA>")
TEXTS = (
    "The lungs are clear.",
    'He said "ah", then left.',
    "FINDINGS: Heart large, aorta tortuous.\n\nIMPRESSION:\nEdema; mild, or so.",
    "Line one,\r\nline two, three\nline, four, five, six, seven.",
    'A 6" tube | wire; no pneumothorax.',
    "Épanchement pleural à gauche. 37\u00b0C",
    '"Quoted" at the start, and the "end"',
    "Nothing\tnew.",
    "1,2\n3,4",
    "Normal = nan of the findings",
)
LABELS = ("Edema", "Pleural Effusion", "COVID-19", "No Finding")
STYLES = {
    "letters": lambda n: f"p{n}",
    "numbers": lambda n: str(10_000_000 + n * 10),
    "zeros": lambda n: f"{n:05d}",
    "hexadecimal": lambda n: f"{n}e{n}f",
    "umlauts": lambda n: f"pätient {n}",
    "slashes": lambda n: f"site/{n}#'{n}",
}
COLUMNS = ("image", "text", "split", "patient_id", "study_id", "id", "labels")


@dataclasses.dataclass
class Truth:
    """What one row says, whatever its spelling."""

    image: str
    text: str
    split: str
    patient: str
    study: str
    labels: dict


@dataclasses.dataclass
class Drawn:
    """A manifest.

    Attributes:
      name: name of its file.
      content: its bytes.
      settings: what the program is told of it.
      rows: what its rows say, in order.
      damaged: what was done to it, "" for nothing.
      lists: whether labels stand in it as lists of what is positive.
    """

    name: str
    content: bytes
    settings: dict
    rows: list
    damaged: str
    lists: bool


def draw(seed: int) -> Drawn:
    """Draws a manifest; one half of them are damaged."""
    rng = random.Random(seed)
    rows = _rows(rng)
    kind = rng.choice(("csv", "csv", "csv", "tsv", "jsonl", "jsonl"))
    table, settings = _table(rng, rows, text=kind != "jsonl")
    lists = kind != "jsonl" and "label_columns" not in settings
    damage = rng.choice(DAMAGES) if rng.random() < 0.5 else None
    if kind == "jsonl":
        content = _jsonl(rng, table)
    else:
        content = _csv(rng, table, tab=kind == "tsv")
    damaged = ""
    if damage is not None:
        content, damaged = damage(rng, content), damage.__name__
    name = f"rows.{kind}"
    if rng.random() < 0.15:
        content, name = gzip.compress(content, mtime=0), f"{name}.gz"
        if rng.random() < 0.1:
            content, damaged = content[: len(content) // 2], "cut"
    return Drawn(
        name=name, content=content, settings=settings, rows=rows, damaged=damaged, lists=lists
    )


def _rows(rng):
    style = STYLES[rng.choice(list(STYLES))]
    patients = [(style(n + 1), rng.choice(SPLITS)) for n in range(rng.randint(1, 5))]
    rows = []
    for number in range(rng.randint(1, 10)):
        patient, split = rng.choice(patients)
        if rng.random() < 0.05:
            split = rng.choice(SPLITS)  # a patient who may stand in two
        image = f"{number:02d}.png"
        values = {name: rng.choice((1, 0, -1, None)) for name in LABELS}
        rows.append(Truth(image, rng.choice(TEXTS), split, patient, f"s-{image}", values))
    return rows


def _table(rng, rows, *, text):
    """Returns (rows as mappings, settings): columns renamed, moved, added, saved again."""
    names = {column: column for column in COLUMNS}
    settings = {}
    for column in ("image", "text", "split", "patient_id", "study_id"):
        if rng.random() < 0.2:
            names[column] = rng.choice((f"{column} (new)", f"My{column}", f"x_{column}"))
            settings[f"{column.removesuffix('_id')}_column"] = names[column]
    as_floats = text and all(row.patient.isdigit() for row in rows) and rng.random() < 0.5
    as_floats = as_floats and not any(row.patient.startswith("0") for row in rows)
    as_columns = rng.random() < 0.4
    truths = rng.random() < 0.3
    if as_columns:
        settings["label_columns"] = LABELS
    extra = rng.random() < 0.3
    table = []
    for row in rows:
        cells = {
            names["image"]: row.image,
            names["text"]: row.text,
            names["split"]: rng.choice(SPLIT_WORDS[row.split]),
            names["patient_id"]: row.patient + (".0" if as_floats else ""),
            names["study_id"]: row.study,
        }
        if as_columns:
            for name, value in row.labels.items():
                cells[name] = _label(rng, value, text=text, truths=truths)
        elif text:
            cells["labels"] = "|".join(name for name in LABELS if row.labels[name] == 1)
        else:
            cells["labels"] = {n: _label(rng, v, text=False, truths=truths)
                               for n, v in row.labels.items()}  # fmt: skip
        if extra:
            cells["note"] = rng.choice(("x", "", 'a "b"'))
        table.append(cells)
    order = list(table[0])
    rng.shuffle(order)
    return [{name: cells[name] for name in order} for cells in table], settings


def _label(rng, value, *, text, truths):
    if value is None:
        return rng.choice(BLANKS) if text else rng.choice((None, float("nan"), "", "NaN"))
    if truths and value >= 0:
        return str(bool(value)) if text else bool(value)
    return rng.choice((f"{value}", f"{value}.0", f" {value} ")) if text else value


def _jsonl(rng, table):
    lines = []
    for cells in table:
        cells = {name if rng.random() > 0.02 else f" {name} ": v for name, v in cells.items()}
        lines.append(json.dumps(cells, ensure_ascii=rng.random() < 0.5))
    mark = "\ufeff" if rng.random() < 0.2 else ""
    end = rng.choice(("\n", "\r\n", "\n\n"))
    return (mark + end.join(lines) + rng.choice(("", end))).encode()


def _csv(rng, table, *, tab):
    delimiter = "\t" if tab else rng.choice((",", ",", ",", ";", "|"))
    out, end = io.StringIO(), rng.choice(("\n", "\r\n", "\r"))
    writer = csv.writer(
        out,
        delimiter=delimiter,
        lineterminator=end,
        quoting=csv.QUOTE_ALL if end == "\r" else rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    )
    index = rng.choice((None, None, "", "Unnamed: 0"))
    pad = rng.random() < 0.15
    header = [f" {name} " if pad else name for name in table[0]]
    writer.writerow([*([index] if index is not None else []), *header])
    for number, cells in enumerate(table):
        writer.writerow([*([number] if index is not None else []), *cells.values()])
    return (("\ufeff" if rng.random() < 0.2 else "") + out.getvalue()).encode()


def a_stray_quote_at_the_start_of_a_cell(rng, content):
    """Puts a quotation mark behind a delimiter."""
    places = [i for i, c in enumerate(content) if c in b",;\t|:\n"]
    place = rng.choice(places) + 1 if places else 0
    return content[:place] + b'"' + content[place:]


def a_quote_lost(rng, content):
    """Takes one quotation mark away."""
    places = [i for i, c in enumerate(content) if c == ord('"')]
    if not places:
        return content
    place = rng.choice(places)
    return content[:place] + content[place + 1 :]


def a_byte_changed(rng, content):
    """Writes any byte over another."""
    place = rng.randrange(len(content))
    return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]


def cells_lost(rng, content):
    """Cuts a line short."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = lines[place][: len(lines[place]) // 2]
    return b"\n".join(lines)


def cells_added(rng, content):
    """Adds delimiters to the end of a line."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = lines[place].rstrip(b"\r") + rng.choice((b",", b";;", b"\t", b",x,y"))
    return b"\n".join(lines)


def a_line_twice(rng, content):
    """Repeats a line."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


def another_encoding(rng, content):
    """Saves the text in another encoding."""
    text = content.decode("utf-8").removeprefix("\ufeff")
    kind = rng.choice(("latin-1", "utf-16", "utf-16-le", "cp1252", "utf-32"))
    return text.encode(kind, "replace")


def a_nul(rng, content):
    """Puts a NUL somewhere."""
    place = rng.randrange(len(content))
    return content[:place] + b"\0" + content[place:]


def blank_words(rng, content):
    """Writes a word for "missing" over a word."""
    words = [b"train", b"test", b"s-00.png", b"s-01.png", b"01.png"]
    return content.replace(rng.choice(words), rng.choice(BLANKS).encode(), rng.randint(1, 3))


def the_end_lost(rng, content):
    """Cuts the file off."""
    return content[: rng.randrange(len(content)) + 1]


def a_column_named_twice(rng, content):
    """Gives one column the name of another."""
    return content.replace(b"study_id", b"patient_id", 1)


DAMAGES = (
    a_stray_quote_at_the_start_of_a_cell,
    a_quote_lost,
    a_byte_changed,
    cells_lost,
    cells_added,
    a_line_twice,
    another_encoding,
    a_nul,
    blank_words,
    the_end_lost,
    a_column_named_twice,
)
