"""Zero-shot evaluation: images are encoded and compared with prompts."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import numpy as np

from launch.benchmarks import synthetic
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import StepConfig, dtype_of, on_accelerator, read
from launch.benchmarks.steps import VOCABULARY, drawn
from launch.start.without_data import LABELS, program_of
from prior_jax.data import tokenizer
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from prior_jax.sharding.placement import placement

PROMPTS = 70
"""Five prompts for each of CheXpert's 14 labels."""
_PROMPT_TOKENS = 20


@contextlib.contextmanager
def zero_shot(step: StepConfig, request: Request, folder: pathlib.Path) -> Iterator[Repeated]:
    """Opens the evaluation of one batch of images, which come from and go back to the host.

    Args:
      step: config whose model is evaluated, untrained.
      request: batch, dtype and size.
      folder: not written to.

    Yields:
      The encoding of a batch and its similarity to prompts that are encoded once.
    """
    config = read(step, request, folder)
    place = placement(config.mesh)
    vocabulary = tokenizer.unknown_vocabulary(VOCABULARY)
    rows, block = config.data.batch_size, PROMPTS
    data = dataclasses.replace(config.data, batch_size=block)
    lengths = np.full(block, min(_PROMPT_TOKENS, data.max_tokens))
    asked = synthetic.batch_of(
        data,
        synthetic.Lengths(tokens=lengths, padded=int(lengths[0])),
        vocabulary=vocabulary,
        labels=LABELS,
    )
    image = config.data.image
    drawn_images = np.random.default_rng(0).standard_normal(
        (rows, image.size, image.size, image.channels), np.float32
    )
    with jax.set_mesh(place.mesh):
        program = program_of(config, place, vocabulary=vocabulary)
        state = drawn(config, program, vocabulary=vocabulary)
        model = program.model.merge(state.params, state.rest)
        encoder = Encoder(program.objective, model, place=place.put)
        fields = [field.name for field in dataclasses.fields(ReportTokens)]
        tokens = ReportTokens(**{name: getattr(asked, name) for name in fields})
        prompts = encoder.prompts(tokens, block=block)

        def run(count: int) -> None:
            for _ in range(count):
                features = encoder.images(drawn_images, block=rows)
                encoder.similarity(features, prompts, block=rows, columns=block)

        fast = on_accelerator() or request.tiny
        yield Repeated(
            run=run,
            unit="images",
            count=rows,
            batch=rows,
            steps=request.steps or (10 if on_accelerator() else 1),
            blocks=request.blocks or (10 if fast else 8),
            dtype=dtype_of(request),
            facts={"prompts": block},
            trace=True,
        )
