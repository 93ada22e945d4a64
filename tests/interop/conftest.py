"""The check shared by all tests of files that must be refused."""

import builtins
import os
import runpy
import subprocess

import pytest

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.weight_files import read_weights


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Reads the bytes as a file and returns the one line that refuses it; nothing may run."""
    sentinel = tmp_path / "sentinel"

    def ran(*_args, **_kwargs):
        sentinel.touch()
        raise AssertionError("the checkpoint ran code")

    def refused(raw, name="bad.pt"):
        path = tmp_path / name
        path.write_bytes(raw)
        with monkeypatch.context() as patch:
            patch.setattr(os, "system", ran)
            patch.setattr(subprocess, "Popen", ran)
            patch.setattr(runpy, "run_path", ran)
            patch.setattr(builtins, "eval", ran)
            with pytest.raises(WeightsError) as caught:
                read_weights(path)
        line = str(caught.value)
        assert line.startswith(f"{path}: "), line
        assert caught.value.problem.endswith(".") and caught.value.remedy.endswith("."), line
        assert "\n" not in line and len(line) < 900, line
        assert not sentinel.exists()
        return line

    refused.sentinel = sentinel
    return refused
