"""The end of a run: requests to stop that come with the last step, and errors after a save."""

import os
import signal

import pytest

from prior_jax.processes.preemption import Preempted
from prior_jax.train import checkpoint, loop
from prior_jax.train.boundaries import Boundaries
from prior_jax.train.checkpoint import Checkpoints
from tests.train import toy
from tests.train.test_processes import finish, pair, start

STAGES = (toy.stage("first", 1, warmup_steps=0),)


def run(workdir, data=None):
    return toy.run(workdir, stages=STAGES, data=data or toy.ToyData())


def ask_before(patch, where, name):
    """Sends a request to stop before each call of a function."""
    real = getattr(where, name)

    def asked(*values, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*values, **named)

    patch.setattr(where, name, asked)


@pytest.mark.parametrize(
    "where, name", [(loop, "_start_step"), (Boundaries, "cross"), (Checkpoints, "settle")]
)
def test_a_request_with_the_last_step_is_heeded_and_then_the_run_is_over(
    tmp_path, monkeypatch, where, name
):
    with monkeypatch.context() as patch, pytest.raises(Preempted) as stopped:
        ask_before(patch, where, name)
        run(tmp_path)
    assert stopped.value.step == 1
    data = toy.ToyData()
    assert run(tmp_path, data).step == 1
    assert data.opened == []
    assert [line["step"] for line in toy.lines(tmp_path)] == [1]


def test_a_request_while_a_finished_run_is_read_is_heeded(tmp_path, monkeypatch):
    run(tmp_path)
    ask_before(monkeypatch, Checkpoints, "restore_newest")
    with pytest.raises(Preempted) as stopped:
        run(tmp_path)
    assert stopped.value.step == 1


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_request_to_one_process_in_the_last_validation_stops_both(tmp_path, compilation_cache):
    processes = pair(tmp_path, compilation_cache, "--ask_in_validation", "1")
    results = [finish(process) for process in processes]
    assert [code for code, _ in results] == [75, 75], results
    assert "has saved its state after step 12" in results[0][1]
    code, errors = finish(start(tmp_path, compilation_cache))
    assert code == 0, errors


@pytest.mark.parametrize("error, waited", [(toy.Died, [1]), (KeyboardInterrupt, [])])
def test_an_error_waits_for_the_save_alone_and_a_second_interrupt_for_nothing(
    tmp_path, monkeypatch, error, waited
):
    """What reads a checkpoint needs the other processes, which may not have the error."""
    found = []

    class Save:
        def result(self):
            found.append(1)

    class Failing(toy.ToyData):
        def batch(self, step):
            if step == 2:  # while step 1 runs, after the save of step 1
                raise error
            return super().batch(step)

    monkeypatch.setattr(checkpoint.ocp, "save_checkpointables_async", lambda *values: Save())
    monkeypatch.setattr(checkpoint, "read_document", lambda path: found.append("read"))
    every = toy.replace(toy.CHECKPOINT, every_steps=1)
    with pytest.raises(error):
        toy.run(tmp_path, data=Failing(), options=toy.options(checkpoint=every))
    assert found == waited
