"""Fixtures that tests of several programs share."""

import pytest
from absl import logging

from tests import fixtures
from tests.launch import mistakes, subjects


@pytest.fixture
def program_logging(monkeypatch):
    """Keeps what `program.guarded` sets of its process's log from the tests after this one."""
    monkeypatch.setattr(logging, "set_verbosity", lambda level: None)
    handler = logging.get_absl_handler()
    before = list(handler.filters)
    yield
    handler.filters[:] = before


@pytest.fixture(scope="module")
def mistake_folders(tmp_path_factory):
    """Folder of the sets and runs that the mistakes of a module are about."""
    tmp = tmp_path_factory.mktemp("mistakes")
    mistakes.write_folders(tmp)
    return tmp


@pytest.fixture(scope="module")
def said(request, mistake_folders):
    """What the programs say to the `CASES` of a module, by the name of the case."""
    return mistakes.answers(request.module.CASES, mistake_folders)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Paths of a set with regions and reports, `boxes`, and of one without regions, `plain`."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        "boxes": str(subjects.write_set(folder / "boxes", train=30, validate=20, test=30)),
        "plain": str(
            subjects.write_set(folder / "plain", train=30, validate=20, test=20, boxes=False)
        ),
    }


@pytest.fixture(scope="module")
def reader(tmp_path_factory, sets):
    """An untrained model that reads reports, on the set `boxes`."""
    folder = tmp_path_factory.mktemp("reader")
    tokenizer = fixtures.train_sentencepiece(folder / "tokenizer.model")
    return subjects.reader(sets["boxes"], folder, tokenizer=tokenizer)
