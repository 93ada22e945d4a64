"""Runs MIMIC-CXR's preparer on a drawn hospital, and reads or edits its files."""

import gzip
import hashlib
import json
import pathlib
import sys

from data_prep import mimic_cxr
from data_prep.kit import cli
from prior_jax.data import schema

ROOT = pathlib.Path(__file__).parents[2]


def prepare(root, out, *, workers=1, overwrite=False, reports="", **settings):
    return mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(root), reports=str(reports)),
        mimic_cxr.Settings(**{"short_side": 64, "studies_per_shard": 8, **settings}),
        cli.RunOptions(out=str(out), workers=workers, overwrite=overwrite),
    )


def files_of(out):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(pathlib.Path(out).iterdir())
    }


def rejected_of(out):
    lines = (pathlib.Path(out) / schema.REJECTED_NAME).read_text().splitlines()
    return [json.loads(line) for line in lines]


def edit_table(root, kind, change):
    path = root / f"mimic-cxr-2.0.0-{kind}.csv.gz"
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    with gzip.open(path, "wt") as file:
        file.write("\n".join(change(lines)) + "\n")


def command(root, out, *flags):
    return [
        sys.executable,
        *("-m", "data_prep.mimic_cxr", f"--images_dir={root}", f"--out={out}"),
        *("--short_side=64", "--studies_per_shard=4", "--workers=2", *flags),
    ]


def cells(change):
    """Makes a change of lines of one that takes and gives the header and each row as cells."""
    return lambda lines: [",".join(row) for row in change([line.split(",") for line in lines])]
