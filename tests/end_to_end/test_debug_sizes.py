"""Every objective trains, evaluates and reports at the size of the debug job."""

import sys

import pytest

from configs.baselines.objectives import OBJECTIVES
from configs.baselines.phantom import IMPROVED
from tests.end_to_end import runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gloria", *OBJECTIVES, *IMPROVED])
def test_the_debug_job_of_an_objective_ends_with_a_report(name, finished, tmp_path):
    workdir = tmp_path / "run"
    data = [option for option in finished.data if "config.after" not in option]
    command = [sys.executable, "-m", "launch.train", f"--config=configs/debug.py:{name}"]
    code, output = runs.finish(runs.Running([*command, f"--workdir={workdir}", *data]))
    assert code == 0, output
    assert [line["step"] for line in runs.lines(workdir)] == list(range(1, 9))
    assert (workdir / "report" / "index.html").is_file()
    assert (workdir / "eval" / "retrieval.json").is_file()
