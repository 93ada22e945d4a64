"""Marks of tests that read damaged checkpoints."""

import pytest

# When a part cannot be read, the library abandons its other reads: coroutines that nobody awaits
# and callbacks to a closed event loop. They are found when garbage is collected, which has to
# happen in the test that made them.
ABANDONED_READS = (
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
    pytest.mark.usefixtures("collect_garbage"),
)
