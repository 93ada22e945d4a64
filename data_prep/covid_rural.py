"""COVID Rural: radiographs of COVID-19 with masks of their opacities -> a prepared set.

    python -m data_prep.covid_rural --root=covid_rural_annot --out=prepared

The data set has no table: each file jpgs/COVID-19-AR-<patient>_<date>-XR.jpg is an image, and the
file of the same name in pngs_masks is its mask. The patient is what stands before the "_".

Source: Opacity-Segmentation-COVID (opacity_segmentation_covid_chest_X_ray); LoVT's release,
src/data/datasets/COVID_rural/covid_rural_dataset.py.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence

from data_prep.kit import cli, labelled, mask_files, preparer
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.plan import Plan, Reject, TableUse
from prior_jax.data import manifest as manifest_lib
from prior_jax.data.decode import ImageProblem
from prior_jax.errors import DataError

PROGRAM = "data_prep.covid_rural"
LABELS = ("Lung Opacity",)
IMAGES, MASKS = "jpgs", "pngs_masks"
IMAGE_SUFFIXES = (".jpg", ".jpeg")
MASK_SUFFIXES = (".png", ".gif")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    root: str = cli.setting(f"Folder covid_rural_annot, with the folders {IMAGES} and {MASKS}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.refuse_encoding()


def regions_of(masks: Sequence[str], *, folder: pathlib.Path) -> list[ImageRegion]:
    """Returns the regions of an image from the paths of its masks below `folder`."""
    return [mask_files.region_of(folder / path, label=LABELS[0]) for path in masks]


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    root = preparer.folder(paths.root, flag="--root")
    for name in (IMAGES, MASKS):
        preparer.folder(str(root / name), flag="--root")
    lists = labelled.inputs([], lists=paths.split_lists, settings=settings)
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs={"names of the files": _names_hash(root), **lists},
    )


def _files(root: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
    """Returns name without suffix -> path below the root, of images and of masks."""
    images = labelled.found_images(root / IMAGES, suffixes=IMAGE_SUFFIXES, flag="--root")
    masks = labelled.found_images(root / MASKS, suffixes=MASK_SUFFIXES, flag="--root")
    return (
        {name: f"{IMAGES}/{images[name]}" for name in sorted(images)},
        {name: f"{MASKS}/{masks[name]}" for name in sorted(masks)},
    )


def _names_hash(root: pathlib.Path) -> str:
    """Returns a sha256 of the names, which are this data set's table."""
    names = [path for found in _files(root) for path in found.values()]
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    root = pathlib.Path(paths.root)
    images, masks = _files(root)
    if not images:
        raise DataError(
            f"{root / IMAGES} holds no image that ends with {' or '.join(IMAGE_SUFFIXES)}.",
            "Name the folder covid_rural_annot of the data set.",
            where="--root",
        )
    cases = [_case(name, path, masks.get(name), root) for name, path in images.items()]
    idle = sorted(masks.keys() - images.keys())
    notes = [f"{len(idle)} masks have no image, such as {masks[idle[0]]}."] if idle else []
    return labelled.labelled_plan(
        cases,
        labelled.assigned(
            cases, data_set="covid_rural", settings=settings, lists=paths.split_lists
        ),
        directory=directory,
        reject=reject,
        images_dir=root,
        images_flag="--root",
        settings=settings,
        label_names=LABELS,
        table=TableUse(name=IMAGES, read=len(cases)),
        regions_of=functools.partial(regions_of, folder=root),
        notes=notes,
    )


def _case(name: str, path: str, mask: str | None, root: pathlib.Path) -> labelled.Case:
    """Returns the case of an image; a mask without a pixel says that there is no opacity."""
    place = {"id": name, "path": path, "patient": name.partition("_")[0]}
    try:
        if mask is None:
            raise ImageProblem(mask_files.MISSING_MASK, f"{MASKS} has no file of this name")
        there = bool(mask_files.read_mask(root / mask).any())
    except ImageProblem as problem:
        return labelled.Case(**place, labels=(0,), problem=(problem.reason, problem.detail))
    return labelled.Case(**place, labels=(int(there),), regions=[mask])


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
