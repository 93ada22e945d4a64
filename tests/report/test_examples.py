"""Examples whose arrays do not fit together are refused."""

import numpy as np
import pytest

from prior_jax.report.examples import (
    AttentionExample,
    BankUsage,
    Prototype,
    ReconstructionExample,
    RetrievalExample,
)
from tests.report.pages import image


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AttentionExample(
                title="a",
                image=image(),
                attention=np.zeros((1, 5)),
                grid=(2, 2),
                spacing=8.0,
                texts=("x",),
            ),
            r"AttentionExample\.attention.*\(1, 4\)",
        ),
        (
            lambda: ReconstructionExample(
                title="a", image=image(), shown=None, reconstruction=image(8)
            ),
            r"ReconstructionExample\.reconstruction",
        ),
        (
            lambda: RetrievalExample(
                title="a", image=image()[..., None], report="", classes=(), retrieved=()
            ),
            r"RetrievalExample\.image",
        ),
        (
            lambda: BankUsage(counts=np.ones(2), prototypes=(Prototype(index=2, sentences=()),)),
            r"BankUsage\.prototypes",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
