"""Checkpoints of others at their real size: names and shapes of the releases, random numbers."""

import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np
from safetensors.numpy import save_file

from tests.golden.reader import load_json

_WORDS = (
    "the heart is normal enlarged in size lungs are clear no pleural effusion pneumothorax left "
    "right small large moderate new stable opacity opacities consolidation edema atelectasis mass "
    "nodule cardiomegaly seen there of and at base lower upper lobe findings suggesting mild with "
    "without evidence pneumonia"
).split()
_LETTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
WORDS = 28996
"""Number of words of Bio_ClinicalBERT, the text encoder of PRIOR and GLoRIA."""


def prior_shapes(golden_dir: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of the released PRIOR, whole."""
    recorded = load_json(golden_dir, "prior", "real_state_dict_shapes")["state_dict"]
    return {name: tuple(shape) for name, (shape, _) in recorded.items()}


def gloria_shapes(golden_dir: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of the released GLoRIA with a ResNet-50, whole."""
    recorded = load_json(golden_dir, "gloria", "state_dict_keys_gloria_resnet50")["keys"]
    return {name: tuple(shape) for name, (shape, _) in recorded.items()}


def torchvision_shapes(golden_dir: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of torchvision's resnet50, which is the one within GLoRIA, and `fc`."""
    prefix = "gloria.img_encoder.model."
    inner = {
        name.removeprefix(prefix): shape
        for name, shape in gloria_shapes(golden_dir).items()
        if name.startswith(prefix)
    }
    return {**inner, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


SHAPES: Mapping[str, Callable[[pathlib.Path], dict[str, tuple[int, ...]]]] = {
    "torchvision": torchvision_shapes,
    "prior": prior_shapes,
    "gloria": gloria_shapes,
}


def tensors(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random tensors, of the sizes that keep what runs through fifty layers near 1."""
    random = np.random.default_rng(seed)
    return {name: _tensor(random, name, shape) for name, shape in shapes.items()}


def _tensor(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.asarray(1000, np.int64)
    if name.endswith("position_ids"):
        return np.arange(shape[1], dtype=np.int64)[None]
    if name.endswith("logit_scale"):
        return np.asarray(np.log(1 / 0.07), np.float32)
    normal = random.standard_normal(shape, np.float32)
    if name.endswith("running_var"):
        return np.float32(1) + np.float32(0.3) * np.tanh(normal)
    if "embedding" in name and len(shape) > 1:
        return np.float32(0.05) * normal
    if len(shape) == 1:  # scales of norms are the only weights of one axis
        last = re.search(r"\.bn3\.weight$", name) is not None
        scale = np.float32((0.5 if last else 1.0) * name.endswith("weight"))
        return scale + np.float32(0.1) * normal
    inputs = int(np.prod(shape[1:]))
    return normal * np.float32(np.sqrt((2 if len(shape) == 4 else 1) / inputs))


def write_vocabulary(path: pathlib.Path) -> pathlib.Path:
    """Writes a `vocab.txt` of Bio_ClinicalBERT's length, which spells every English text."""
    special = ["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]"]
    named = [*special, "[MASK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    named += [word for word in dict.fromkeys(_WORDS) if word not in named]
    named += [word for word in (w.capitalize() for w in _WORDS) if word not in named]
    named = list(dict.fromkeys(named))
    filled = [*named, *(f"word{n}" for n in range(WORDS - len(named)))]
    path.write_text("\n".join(filled) + "\n")
    return path


def write_checkpoint(source: str, golden_dir: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Writes a safetensors file as large as the source's own, and returns its path."""
    save_file(tensors(SHAPES[source](golden_dir)), path)
    return path
