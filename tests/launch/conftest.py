"""Fixtures that tests of several programs share."""

import pytest
from absl import logging


@pytest.fixture
def program_logging(monkeypatch):
    """Keeps what `program.guarded` sets of its process's log from the tests after this one."""
    monkeypatch.setattr(logging, "set_verbosity", lambda level: None)
    handler = logging.get_absl_handler()
    before = list(handler.filters)
    yield
    handler.filters[:] = before
