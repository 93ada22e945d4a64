"""Ctrl-C while a checkpoint is read or written is an interrupt, and never damage."""

import os
import signal
import threading
import time

import jax
import pytest
from orbax.checkpoint import v1 as ocp

from prior_jax.interop import weights_folder
from prior_jax.train import checkpoint_read
from prior_jax.train.checkpoint import Checkpoints
from tests.train import toy
from tests.train.test_checkpoint import at, program_of, save

pytestmark = pytest.mark.usefixtures("handled_interrupts")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_a_loop():
    """What comes of an interrupt that reaches an event loop of orbax."""
    try:
        interrupt()
    except KeyboardInterrupt:
        raise RuntimeError("Event loop is closed") from None


@pytest.fixture(scope="module")
def state():
    return program_of().initial(seed=1, values=None)


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    """Two checkpoints, so that there is an older one to fall back to."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder, state, 3, 6)
    return folder


@pytest.fixture
def read(folder, state):
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        {"params": state.params, "rest": state.rest},
    )
    return lambda: checkpoint_read.restore_model(folder, **abstract, step=None)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("calls", [1, 2])  # the description, and the arrays
def test_an_interrupt_of_a_read_ends_it(read, monkeypatch, caplog, fails, calls):
    count, real = 0, ocp.load_checkpointables

    def load(*arguments):
        nonlocal count
        count += 1
        if count == calls:
            interrupt_a_loop()
            if fails:
                raise OSError("the read failed as well")
        return real(*arguments)

    monkeypatch.setattr(ocp, "load_checkpointables", load)
    with pytest.raises(KeyboardInterrupt):
        read()
    assert count == calls  # no older checkpoint is tried
    assert "damaged" not in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_at_any_moment_it_is_the_newest_or_an_interrupt(read, caplog):
    start = time.monotonic()
    assert read()[2] == 6
    took, ended = time.monotonic() - start, 0
    for part in range(12):
        timer = threading.Timer(took * part / 12, interrupt)
        try:
            timer.start()
            assert read()[2] == 6
            timer.join()
            time.sleep(0.01)  # the signal is handled in this thread
        except KeyboardInterrupt:
            ended += 1
        timer.join()
    assert ended == 12
    assert "damaged" not in caplog.text


def test_an_interrupt_of_a_save_ends_it_once_the_copy_is_made(state, tmp_path, monkeypatch):
    real = ocp.save_checkpointables_async

    def begin(*arguments):
        interrupt_a_loop()
        return real(*arguments)

    monkeypatch.setattr(ocp, "save_checkpointables_async", begin)
    checkpoints = Checkpoints(tmp_path, toy.CHECKPOINT)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(at(state, 3), host={}, score=None)
    checkpoints.wait()
    assert checkpoint_read.list_steps(tmp_path) == [3]


def test_an_interrupt_of_reading_weights_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_folder.ocp, "load", lambda path: interrupt_a_loop())
    with pytest.raises(KeyboardInterrupt):
        weights_folder._read(tmp_path)


def test_an_interrupt_of_writing_weights_is_no_error_of_the_storage(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_folder.ocp, "save", lambda path, tree: interrupt_a_loop())
    with pytest.raises(KeyboardInterrupt):
        weights_folder._write(tmp_path / "arrays", {}, target=tmp_path)
