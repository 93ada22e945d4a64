"""The parts of a suite: which there are, what stands in their way, and which are the same."""

import dataclasses
import json

from configs.eval import zero_shot
from launch.evaluation import suite_parts
from launch.evaluation.task_base import USUALLY_EXCLUDED
from launch.evaluation.tasks import load_task, task_of
from prior_jax.data.manifest import load_manifest
from tests.launch.small_suites import task


def test_a_part_is_measured_anew_for_a_file_of_prompts_that_changed(reader, sets, tmp_path):
    file = tmp_path / "prompts.json"
    config = zero_shot.get_config()
    config.prompts.set = str(file)
    part = suite_parts.Part(set_name="boxes", name="zero_shot", task=task_of(config))
    manifest, found = load_manifest(sets["boxes"]), []
    for sentence in ("An effusion.", "Pleural fluid.", "An effusion."):
        file.write_text(json.dumps({"Effusion": [sentence]}))
        found.append(suite_parts.identity(part, reader, manifest))
    assert found[0] == found[2] != found[1]


def test_the_classes_of_a_suite_are_measured_whatever_a_task_excludes(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from configs.eval import retrieval\n\n\ndef get_config():\n"
        "    config = retrieval.get_config()\n    config.classes = ('Edema',)\n"
        "    return config\n"
    )
    protocol = "configs/eval/zero_shot/gloria.py"
    files = ("configs/eval/zero_shot.py", "configs/eval/grounding.py", str(file), protocol)

    def found(**given):
        parts = suite_parts.parts_of(task(tasks=files, **given), {"a": "/a"})
        return [(one.task.classes, one.task.exclude) for one in parts]

    usual = USUALLY_EXCLUDED
    five = load_task(protocol).classes
    asked = ("Fracture",)
    assert found(classes=asked) == [(asked, usual), (asked, ()), (asked, usual), (five, usual)]
    left = ("Edema",)
    assert found(exclude=left) == [((), left), ((), left), (left, usual), (five, usual)]


def test_masks_and_boxes_are_trained_where_the_set_has_them(reader, sets, tmp_path):
    given = task(
        tasks=("configs/eval/segmentation/any_set.py", "configs/eval/detection/any_set.py"),
        fractions=(0.5, 1.0),
        region_fractions=(0.01,),
        seeds=(0, 1, 2),
        max_steps=7,
        detector_max_steps=9,
    )
    parts = suite_parts.parts_of(given, {"boxes": sets["boxes"]})
    names = ("segmentation_any_set_1_percent", "detection_any_set_1_percent")
    assert [one.name for one in parts] == [
        f"{name}{end}" for name in names for end in ("", "_seed_1", "_seed_2")
    ]
    assert [one.task.finetune.max_steps for one in parts] == [7, 7, 7, 9, 9, 9]
    manifest = load_manifest(sets["boxes"])
    assert [suite_parts.obstacle(one, reader, manifest) for one in parts] == [None] * 6
    plain = load_manifest(sets["plain"])
    assert {suite_parts.obstacle(one, reader, plain) for one in parts} == {
        "the set has no boxes or masks"
    }


def test_a_set_of_boxes_alone_is_segmented_only_by_a_protocol(reader, sets):
    manifest = load_manifest(sets["boxes"])
    boxes = dataclasses.replace(
        manifest,
        regions={
            name: dataclasses.replace(one, boxes=one.regions, masks=0)
            for name, one in manifest.regions.items()
        },
    )

    def reason(file, found):
        part = suite_parts.Part(set_name="a", name="a", task=load_task(f"configs/eval/{file}"))
        return suite_parts.obstacle(part, reader, found)

    told = reason("segmentation/any_set.py", boxes)
    assert told is not None and told.startswith("the set has boxes alone")
    assert reason("segmentation/any_set.py", manifest) is None
    assert reason("segmentation/lovt.py:rsna_10_linear", boxes) is None
    assert reason("detection/any_set.py", boxes) is None
