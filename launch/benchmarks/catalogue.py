"""Every benchmark by its name."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from configs.baselines import clip, convirt, lovt, mgca, siglip
from configs.gloria import base as gloria
from configs.prior import base as prior
from configs.prior import improved
from launch.benchmarks import (
    encoding,
    machine_peak,
    preparing,
    reading,
    saving,
    starting,
    steps,
    word_region_loss,
)
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import StepConfig, Text
from prior_jax.errors import ConfigError
from prior_jax.near_names import meant

Opens = Callable[[Request, pathlib.Path], contextlib.AbstractContextManager[Repeated]]
_COMPUTES = ("dtype", "cache_dir")
_LOSS = ("batch", "trace", *_COMPUTES)
_STEP = ("data", *_LOSS)
CHOICES = ("batch", "dtype", "data", "trace", "cache_dir")
"""Attributes of a request that benchmarks may leave unread; all read the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark.

    Attributes:
      about: description of what is timed, one line.
      opens: prepares the work, for a request and a folder that is deleted afterwards.
      reads: those of `CHOICES` that it reads.
    """

    about: str
    opens: Opens
    reads: tuple[str, ...]


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the benchmarks to run: those given, in order, or all.

    Raises:
      ConfigError: for an unknown name; the message has the nearest.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ConfigError(
                f"There is no benchmark {name!r}.{meant(name, tuple(BENCHMARKS))}",
                "--list prints all names.",
                where="--only",
            )
    return tuple(dict.fromkeys(names)) or tuple(BENCHMARKS)


def listed() -> str:
    """Returns all names, each with a line."""
    width = max(map(len, BENCHMARKS))
    return "\n".join(f"{name:{width}}  {one.about}" for name, one in BENCHMARKS.items())


def _prior(stage: str, fidelity: str, text: Text) -> StepConfig:
    config = functools.partial(prior.get_config, fidelity)
    return StepConfig(config=config, stage=stage, batch=98, text=text)


def _gloria(fidelity: str, text: Text) -> StepConfig:
    config = functools.partial(gloria.get_config, fidelity)
    return StepConfig(config=config, stage="pretrain", batch=48, text=text)


def _baseline(config: Callable[[], Any], batch: int) -> StepConfig:
    return StepConfig(config=config, stage="pretrain", batch=batch, text="lengths")


_TEXTS: Mapping[Text, str] = {
    "lengths": "reports as long as real ones",
    "full": "every token real",
}


def _steps() -> Iterator[tuple[str, str, StepConfig]]:
    """Yields the training steps: name, description and config."""
    for number in (1, 2, 3):
        stage = f"stage{number}"
        for text, words in _TEXTS.items():
            about = f"PRIOR, stage {number}, {words}"
            yield f"prior_{stage}_{text}", about, _prior(stage, "paper", text)
        about = f"PRIOR as released, stage {number}, every token real"
        yield f"prior_{stage}_release_full", about, _prior(stage, "release", "full")
    for stage in ("stage1", "stage3"):
        # Of one image in four a copy is encoded: the nearest batch below 98 that 4 divides.
        step = StepConfig(config=improved.get_config, stage=stage, batch=96, text="lengths")
        about = f"PRIOR in its improved form, stage {stage[-1]}, {_TEXTS['lengths']}"
        yield f"prior_improved_{stage}", about, step
    for text, words in _TEXTS.items():
        yield f"gloria_{text}", f"GLoRIA, {words}", _gloria("paper", text)
    yield "gloria_release_full", "GLoRIA as released, every token real", _gloria("release", "full")
    # Pairs of one card: of the papers' batches, those that are not spread over many cards.
    yield "convirt", "ConVIRT", _baseline(convirt.get_config, 32)
    yield "clip", "CLIP", _baseline(clip.get_config, 98)
    yield "siglip", "SigLIP", _baseline(siglip.get_config, 98)
    yield "lovt", "LoVT", _baseline(lovt.get_config, 32)
    yield "mgca", "MGCA", _baseline(mgca.get_config, 72)
    lovt_improved = functools.partial(lovt.get_config, "improved")
    yield "lovt_improved", "LoVT in its improved form", _baseline(lovt_improved, 32)
    mgca_improved = functools.partial(mgca.get_config, "improved")
    yield "mgca_improved", "MGCA in its improved form", _baseline(mgca_improved, 72)


def _all() -> Iterator[tuple[str, str, Opens, tuple[str, ...]]]:
    """Yields all benchmarks: name and the attributes of `Benchmark`."""
    about = "a matrix product, and a copy: the peak of the machine"
    yield "machine", about, machine_peak.machine, _COMPUTES
    for name, about, step in _steps():
        yield name, f"training step of {about}", functools.partial(steps.train_step, step), _STEP
    for fidelity in ("release", "paper"):
        about = f"GLoRIA's word-region contrast and its gradient, {fidelity}"
        opens = functools.partial(word_region_loss.word_region, release=fidelity == "release")
        yield f"word_region_{fidelity}", about, opens, _LOSS
    full = _prior("stage1", "paper", "full")
    about = "zero-shot evaluation by PRIOR: images encoded and compared with prompts"
    yield "zero_shot", about, functools.partial(encoding.zero_shot, full), _LOSS
    about = "reading batches of PRIOR"
    yield "input", about, functools.partial(reading.batches, full), ("batch", "data")
    released = _prior("stage1", "release", "full")
    about = "reading batches of PRIOR as released, one padded length"
    yield "input_release", about, functools.partial(reading.batches, released), ("batch", "data")
    about = "preparing a hospital in the layout of MIMIC-CXR"
    yield "prepare", about, preparing.preparation, ("batch",)
    about = "saving the state of PRIOR, and steps beside a save"
    saves = functools.partial(saving.checkpoint, full)
    yield "checkpoint", about, saves, ("batch", "data", *_COMPUTES)
    for warm, what in ((False, "nothing compiled before"), (True, "with compiled programs")):
        about = f"launch.train up to its first step, {what}"
        opens = functools.partial(starting.start, warm=warm)
        yield f"start_{'warm' if warm else 'cold'}", about, opens, ("batch", "dtype", "data")


BENCHMARKS: Mapping[str, Benchmark] = {
    name: Benchmark(about=about, opens=opens, reads=reads) for name, about, opens, reads in _all()
}
"""Name -> benchmark, in the order in which they run."""
