"""A folder belongs to one run at a time."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from prior_jax.errors import ConfigError
from prior_jax.processes.lock import RUN_LOCK_NAME, only_run, take


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path):
    with (
        only_run(tmp_path),
        pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on "),
        only_run(tmp_path),
    ):
        pass
    with only_run(tmp_path):  # the first has gone
        pass


def test_an_error_lets_go(tmp_path):
    with pytest.raises(KeyError), only_run(tmp_path):
        raise KeyError
    with only_run(tmp_path):
        pass


def test_a_killed_holder_holds_no_more(tmp_path):
    path = tmp_path / RUN_LOCK_NAME
    program = f"import fcntl; f = open({str(path)!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX)"
    program += "; print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert take(path) is None
        holder.kill()
    file = take(path)
    assert file is not None
    file.close()


def test_without_locks_the_user_is_warned_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_run(tmp_path):
        pass
    assert "has no locks" in caplog.text


def test_another_fault_of_the_file_system_is_not_hidden(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="input/output"), only_run(tmp_path):
        pass
