"""The Python interface for users of trained models; `import prior_jax` exports it lazily."""

from prior_jax.interface.classifier import Classifier, load_classifier
from prior_jax.interface.detector import Detector, FoundBoxes, load_detector
from prior_jax.interface.inputs import ProcessedImages, TextSettings
from prior_jax.interface.model import Attention, Model
from prior_jax.interface.prompts import generate_class_prompts
from prior_jax.interface.retriever import Retriever
from prior_jax.interface.segmenter import Segmenter, load_segmenter
from prior_jax.interface.trained import load

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
