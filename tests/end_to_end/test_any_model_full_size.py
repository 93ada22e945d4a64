"""Checkpoints of others, as large as they are, measured on sets that they were not trained on."""

import dataclasses
import hashlib
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from launch.evaluation import models
from launch.evaluation.prompt_tokens import tokens_of
from prior_jax.evaluate import prompts as prompts_lib
from prior_jax.interop.weights_folder import read_document
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from tests.end_to_end import measured, releases, torch_releases
from tests.interop import torch_resnet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

GIGABYTES = 8
CLASSES = {"nih": ("Atelectasis", "Cardiomegaly"), "mimic": ("Cardiomegaly", "Edema")}
FEW = (
    "--task.min_positives=1",
    "--task.batch_size=8",
    "--task.bootstrap.resamples=100",
)
ADAPT = {
    "torchvision": "()",
    "prior": "('repeat_gray','drop_pool')",
    "gloria": "('drop_embedders',)",
}
TWO_STEPS = (
    "--config.stage_unit=steps",
    "--config.stages.frozen.length=1",
    "--config.stages.finetune.length=1",
    "--config.data.batch_size=4",
    "--config.validate_every=0",
    "--config.validate_unit=steps",
    "--config.checkpoint.keep_best=0",
    "--config.quick_compile=True",
)
# task, set, and what is asked for beyond the file of the task
OF_TEXT = (
    ("zero_shot", "nih", ()),
    ("retrieval", "mimic", ()),
    ("retrieval/benchx", "mimic", ("--task.gallery.gallery=8",)),
    ("grounding", "mimic", ("--task.masks={drawn}",)),
    ("phrase_grounding", "nih", ()),
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Checkpoints and folders of weights by source, and prepared sets by name."""

    folder: pathlib.Path
    checkpoints: dict[str, pathlib.Path]
    weights: dict[str, pathlib.Path]
    sets: dict[str, pathlib.Path]


def program(name, *flags):
    code, output, seconds, memory = measured.launched(name, *flags)
    print(f"{seconds:.1f} s, {memory / 1e9:.2f} GB: {name} {' '.join(flags)}")
    assert code == 0, output
    assert memory < GIGABYTES * 1e9
    return output


def draw(folder, *, layout, seed):
    """A small phantom in the layout of a data set: some twenty images to test on."""
    drawn = folder / f"{layout} as it is downloaded"
    shares = ("--train=0.4", "--validate=0.25", "--test=0.35")
    program(
        "data_prep.phantom", f"--out={drawn}", f"--layout={layout}", "--studies=60",
        "--size=256", f"--seed={seed}", *shares, "--workers=1",
    )  # fmt: skip
    return drawn


@pytest.fixture(scope="module")
def prepared(golden_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full size")
    vocabulary = releases.write_vocabulary(folder / "vocab.txt")
    checkpoints, weights = {}, {}
    for source in releases.SHAPES:
        file = releases.write_checkpoint(source, golden_dir, folder / f"{source}.safetensors")
        reads = () if source == "torchvision" else (f"--tokenizer={vocabulary}",)
        program(
            "launch.import_weights", f"--source={source}", f"--checkpoint={file}",
            f"--out={folder / 'weights' / source}", *reads,
        )  # fmt: skip
        checkpoints[source], weights[source] = file, folder / "weights" / source
    nih, mimic = draw(folder, layout="nih", seed=8), draw(folder, layout="mimic", seed=7)
    sets = {"nih": folder / "nih", "mimic": folder / "mimic"}
    program(
        "data_prep.nih", f"--labels={nih / 'Data_Entry_2017_v2020.csv'}",
        f"--boxes={nih / 'BBox_List_2017.csv'}", f"--images_dir={nih}", f"--split_lists={nih}",
        "--split=official", f"--out={sets['nih']}", "--boxes_drawn_on=0", "--workers=1",
    )  # fmt: skip
    program(
        "data_prep.mimic_cxr", f"--images_dir={mimic}", f"--reports={mimic / 'reports'}",
        f"--out={sets['mimic']}", "--workers=1",
    )  # fmt: skip
    return Prepared(folder, checkpoints, weights, sets)


def evaluate(prepared, source, task, set_name, *flags):
    """Evaluates weights as docs/evaluation.md says, and returns the content of the results."""
    out = results_of(prepared, source, set_name)
    drawn = prepared.folder / "mimic as it is downloaded"
    output = program(
        "launch.evaluate", f"--weights={prepared.weights[source]}",
        f"--task=configs/eval/{task}.py", f"--task.data.path={prepared.sets[set_name]}",
        f"--out={out}", f"--cache_dir={prepared.folder / 'cache'}",
        f"--task.classes={CLASSES[set_name]!r}", *FEW,
        *(flag.format(drawn=drawn) for flag in flags),
    )  # fmt: skip
    return output, json.loads((out / "eval" / f"{task.replace('/', '_')}.json").read_text())


def results_of(prepared, source, set_name):
    return prepared.folder / "results" / f"{source} on {set_name}"


def check(content):
    """Every number is finite, within its interval, or undefined for a reason that is told."""
    assert content["metrics"] != content["untrained"]
    undefined = content["settings"].get("undefined", {})
    found = {n: metric for n, metric in content["metrics"].items() if n not in undefined}
    assert any(name.startswith(("macro", "mean", "precision")) for name in found)
    for name, metric in found.items():
        numbers = [metric[key] for key in ("low", "value", "high")]
        assert all(math.isfinite(number) for number in numbers), (name, metric)
        assert metric["low"] <= metric["high"], (name, metric)
        assert math.isfinite(content["untrained"][name]["value"]), name


def check_origin(content, prepared, source):
    """The results are of the weights that were imported, and say so."""
    imported = read_document(prepared.weights[source])
    assert content["settings"]["weights"] == imported.fingerprint
    checkpoint = prepared.checkpoints[source].read_bytes()
    assert content["settings"]["origin"]["sha256"] == hashlib.sha256(checkpoint).hexdigest()


@pytest.mark.parametrize("source", list(releases.SHAPES))
def test_frozen_features_are_probed(prepared, source):
    _, content = evaluate(prepared, source, "probe", "nih")
    check(content)
    check_origin(content, prepared, source)


@pytest.mark.parametrize("source", list(releases.SHAPES))
def test_the_encoder_is_fine_tuned_and_the_classifier_measured(prepared, source, tmp_path):
    run = tmp_path / "a classifier"
    output = program(
        "launch.train", "--config=configs/finetune/classification.py", f"--workdir={run}",
        f"--config.data.path={prepared.sets['nih']}", f"--config.model.classes={CLASSES['nih']!r}",
        f"--config.init.image.path={prepared.weights[source]}",
        f"--config.init.image.adapt={ADAPT[source]}", *TWO_STEPS,
    )  # fmt: skip
    program(
        "launch.evaluate", f"--workdir={run}", "--task=configs/eval/classification.py", *FEW,
    )  # fmt: skip
    content = json.loads((run / "eval" / "classification.json").read_text())
    assert content["settings"]["step"] == 2, output
    check(content)


@pytest.mark.parametrize(("task", "set_name", "flags"), OF_TEXT)
@pytest.mark.parametrize("source", ["prior", "gloria"])
def test_images_meet_texts(prepared, source, task, set_name, flags):
    output, content = evaluate(prepared, source, task, set_name, *flags)
    check(content)
    check_origin(content, prepared, source)
    # The released PRIOR has no places: its maps are measured, with a warning beside them.
    warned = "(quirk P1)" in output
    assert warned == (source == "prior" and "grounding" in task)
    assert warned == any("P1" in one for one in content["settings"].get("remarks", ()))


@pytest.fixture(scope="module")
def torch():
    torch_resnet.import_torchvision()
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


def opened(prepared, source, set_name):
    """The subject that the program evaluates, its test split and its images, [N, H, W, C]."""
    place = placement(MeshConfig(axes={"data": 1}, data_axes=("data",)), devices=jax.devices()[:1])
    with jax.set_mesh(place.mesh):
        subject = models.of_weights(
            prepared.weights[source],
            path=str(prepared.sets[set_name]),
            place=place,
            cache_dir=prepared.folder / "cache",
        )
        data = subject.open("test")
        batches = list(subject.batches(data, batch_size=8, require_text=False))
    images = np.concatenate([np.asarray(b.image)[np.asarray(b.weight) > 0] for b in batches])
    return subject, data, images


def tensors_of(prepared, source):
    return torch_releases.to_torch(load_file(prepared.checkpoints[source]))


def channels_first(torch, images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def tokens_in(torch, tokens):
    return torch_releases.Tokens(
        ids=torch.from_numpy(tokens.tokens).long(),
        mask=torch.from_numpy(tokens.token_mask),
        sentence=torch.from_numpy(tokens.sentence_index),
    )


def assert_close(ours, theirs):
    """Within a thousandth of the spread, which is smaller than the numbers themselves."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * float(np.std(theirs)))


@pytest.mark.parity
def test_probed_features_are_those_of_torchvision(prepared, torch):
    subject, data, images = opened(prepared, "torchvision", "nih")
    ours = subject.trained.pooled(subject.batches(data, batch_size=8, require_text=False)).features
    with torch.no_grad():
        _, last = torch_releases.resnet_maps(
            tensors_of(prepared, "torchvision"), channels_first(torch, images)
        )
    assert_close(ours, last.mean((2, 3)).numpy())


def prior_scores(torch, tensors, images, tokens):
    noise = [
        jax.random.gumbel(jax.random.fold_in(jax.random.key(114514), n), (1, 512))
        for n in range(len(tokens.tokens))
    ]
    return torch_releases.prior_similarity(
        tensors, images, tokens_in(torch, tokens), noise=torch.from_numpy(np.stack(noise))
    )


def gloria_scores(torch, tensors, images, tokens, *, words):
    starts = torch.tensor([not word.startswith("##") for word in words])
    whole = torch_releases.under(tensors, "gloria.")
    return torch_releases.gloria_similarity(whole, images, tokens_in(torch, tokens), starts=starts)


@pytest.mark.parity
@pytest.mark.parametrize("source", ["prior", "gloria"])
def test_zero_shot_scores_are_those_of_the_releases_layers(prepared, torch, source):
    """From the images and the prompts to the AUROC in the results file."""
    file = results_of(prepared, source, "nih") / "eval" / "zero_shot.json"
    if not file.exists():  # where this test is run alone
        evaluate(prepared, source, "zero_shot", "nih")
    content = json.loads(file.read_text())
    subject, data, images = opened(prepared, source, "nih")
    prompts = content["settings"]["prompts"]
    texts = [text for one in prompts.values() for text in (*one["affirm"], *one["deny"])]
    assert len(texts) <= 128  # one block, within which the noise of PRIOR's bank is drawn
    tokens = tokens_of(subject, data, texts)
    studies = subject.trained.studies(
        subject.batches(data, batch_size=8, require_text=False), reports=False
    )
    ours = subject.trained.similarity(
        studies.images, subject.trained.prompts(tokens, block=128), block=128
    )
    tensors, pixels = tensors_of(prepared, source), channels_first(torch, images)
    with torch.no_grad():
        if source == "prior":
            theirs = prior_scores(torch, tensors, pixels, tokens)
        else:
            words = (prepared.folder / "vocab.txt").read_text().split("\n")[:-1]
            theirs = gloria_scores(torch, tensors, pixels, tokens, words=words)
    theirs = theirs.numpy()
    assert_close(ours, theirs)
    start = 0
    for name, one in prompts.items():
        middle = start + len(one["affirm"])
        end = middle + len(one["deny"])
        score = theirs[:, start:middle].mean(1) - theirs[:, middle:end].mean(1)
        start = end
        labels = [prompts_lib.canonical(label) for label in data.split.label_names]
        truth = data.labels[:, labels.index(prompts_lib.canonical(name))] == 1
        found = content["metrics"][f"auroc_{name.lower().replace(' ', '_')}"]["value"]
        assert roc_auc_score(truth, score) == pytest.approx(found, abs=1e-3), name
