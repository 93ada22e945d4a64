"""Pre-training of medical image-and-report encoders in JAX.

    model = prior_jax.load("/runs/small")

The names of `prior_jax.interface` are here too; they are imported when first asked for.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prior_jax.interface import (
        Attention,
        Classifier,
        Detector,
        FoundBoxes,
        Model,
        ProcessedImages,
        Retriever,
        Segmenter,
        TextSettings,
        generate_class_prompts,
        load,
        load_classifier,
        load_detector,
        load_segmenter,
    )

__all__ = [
    "Attention",
    "Classifier",
    "Detector",
    "FoundBoxes",
    "Model",
    "ProcessedImages",
    "Retriever",
    "Segmenter",
    "TextSettings",
    "generate_class_prompts",
    "load",
    "load_classifier",
    "load_detector",
    "load_segmenter",
]


def __getattr__(name: str) -> object:
    """Imports the interface when one of its names is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'prior_jax' has no attribute {name!r}")
    from prior_jax import interface

    return vars(interface)[name]


def __dir__() -> list[str]:
    """The interface's names beside the module's own."""
    return sorted({*globals(), *__all__})
