"""The debug job, run once for all tests of this folder."""

import fcntl
import os
import pathlib
import signal

import pytest

from tests.end_to_end import runs


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> runs.Finished:
    """The one run of all of pytest's workers: the first makes it, the others wait."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    workdir, printed = folder / "debug", folder / "debug.log"
    with (folder / "debug.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            printed.write_text(runs.go(workdir))
    return runs.Finished(workdir, printed.read_text())


@pytest.fixture(scope="session")
def single(finished, tmp_path_factory) -> pathlib.Path:
    """The undisturbed run on one device that those on other layouts are compared with."""
    workdir = runs.folder(tmp_path_factory.mktemp("single") / "run", finished)
    runs.go(workdir, *finished.data, *runs.GENTLE)
    return workdir


@pytest.fixture(scope="session")
def trained(request) -> pathlib.Path:
    """Folder of a trained run: that of --workdir, or the debug job's."""
    given = request.config.getoption("--workdir")
    return given or request.getfixturevalue("finished").workdir


@pytest.fixture(scope="session")
def interrupted(finished, tmp_path_factory) -> pathlib.Path:
    """A run like `single` that was asked to stop in its second stage; faults are put in copies."""
    workdir = runs.folder(tmp_path_factory.mktemp("interrupted") / "run", finished)
    process = runs.start(workdir, *finished.data, *runs.GENTLE)
    assert runs.wait_for(process, lambda: runs.logged(workdir) >= 10)
    process.send_signal(signal.SIGTERM)
    code, output = runs.finish(process)
    assert code == 75, output
    return workdir
