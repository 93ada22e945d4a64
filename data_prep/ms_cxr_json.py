"""MS-CXR's annotations as COCO's JSON: images, categories and annotations, joined into rows."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.errors import DataError


def rows_of(
    path: pathlib.Path, *, flag: str
) -> tuple[list[tuple[int, dict[str, Any]]], tuple[str, ...]]:
    """Reads the annotations.

    Args:
      path: path of the .json, an object with `images`, `categories` and `annotations`.
      flag: flag that names the path, for messages.

    Returns:
      (number, cells) of each annotation, with the columns that the .csv has, and sentences for the
      user.

    Raises:
      DataError: if it is no such object, or two images or categories have one id; the message names
        the flag.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        images = _by_id(content, "images")
        categories = {key: one["name"] for key, one in _by_id(content, "categories").items()}
        annotations = list(content["annotations"])
        if not all(isinstance(one, dict) for one in annotations):
            raise ValueError("an annotation is no object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is no JSON object of images, categories and annotations: "
            f"{type(error).__name__}: {error}.",
            "Give the file as MS-CXR has it, or the .csv.",
            where=flag,
        ) from error
    rows = [
        (number, _cells(annotation, images, categories))
        for number, annotation in enumerate(annotations, 1)
    ]
    named = {_key(annotation.get("image_id")) for annotation in annotations}
    idle = [image for key, image in images.items() if key not in named]
    if not idle:
        return rows, ()
    example = idle[0].get("path") or idle[0].get("file_name") or idle[0]["id"]
    return rows, (f"{path.name}: {len(idle)} images have no box and are not read: {example}, ...",)


def _by_id(content: Mapping[str, Any], name: str) -> dict[Any, Mapping[str, Any]]:
    """Returns id -> object of a list of objects, each of which has an id of its own."""
    found: dict[Any, Mapping[str, Any]] = {}
    for one in content[name]:
        if not isinstance(one, dict):
            raise ValueError(f"one of the {name} is no object")
        if found.setdefault(one["id"], one) != one:
            raise ValueError(f"two different {name} have the id {one['id']!r}")
    return found


def _cells(
    annotation: Mapping[str, Any], images: Mapping[Any, Any], categories: Mapping[Any, str]
) -> dict[str, Any]:
    image = images.get(_key(annotation.get("image_id")), {})
    box = annotation.get("bbox")
    sides = list(box) if isinstance(box, list) and len(box) == 4 else [None] * 4
    phrase = annotation.get("label_text")
    if isinstance(phrase, list):  # the .json has a list with one phrase
        phrase = phrase[0] if len(phrase) == 1 else None
    path = image.get("path") or image.get("file_name") or ""
    name = str(path).rpartition("/")[2].rpartition(".")[0]
    return {
        "dicom_id": image.get("dicom_id") or name,
        "category_name": categories.get(_key(annotation.get("category_id"))),
        "label_text": phrase,
        "path": path,
        **dict(zip("xywh", sides, strict=True)),
        "image_width": image.get("width"),
        "image_height": image.get("height"),
        "split": annotation.get("split") or image.get("split"),
    }


def _key(value: Any) -> Any:
    """Returns an id by which images or categories are looked up; None for a list or mapping."""
    return None if isinstance(value, list | dict) else value
