"""A complete set that is prepared again, and unfinished work that is lost or left behind."""

import fcntl

import pytest

from data_prep.kit import finish, writer
from prior_jax.data import manifest as manifest_lib
from tests.data_prep import hospital
from tests.data_prep.mimic_runs import files_of, prepare


@pytest.fixture
def drawn(tmp_path):
    """A hospital, a complete set of it, and then another image in the place of the first."""
    root, out = tmp_path / "raw", tmp_path / "out"
    (subject, study), *_ = hospital.draw(root, studies=24)
    prepare(root, out)
    hospital.paths_of(root, subject, study)[1].write_bytes(hospital.jpeg(99))
    return root, out


def stop(monkeypatch, owner, name, *, after):
    """Makes a function end the program, before or after its work."""
    original = getattr(owner, name)

    def stopped(*args, **kwargs):
        if after:
            original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, stopped)


def killed(monkeypatch, owner, name, *, after, **arguments):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, owner, name, after=after)
        prepare(**arguments)


def test_a_complete_set_is_prepared_again_on_demand_alone(drawn, tmp_path):
    root, out = drawn
    before = files_of(out)
    prepare(root, out)
    assert files_of(out) == before  # images are not compared
    prepare(root, out, overwrite=True)
    prepare(root, tmp_path / "fresh")
    assert files_of(out) == files_of(tmp_path / "fresh")
    shards = [name for name in before if ".array_record-" in name]
    assert sum(files_of(out)[name] != before[name] for name in shards) == 1


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        (finish, "_join_lists", False),
        (finish, "_place_shards", True),
        (finish.manifest_lib, "save_manifest", False),
        (finish.manifest_lib, "save_manifest", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_set_whose_making_anew_was_killed_is_that_of_a_fresh_run(
    drawn, tmp_path, monkeypatch, owner, name, after
):
    root, out = drawn
    killed(monkeypatch, owner, name, after=after, root=root, out=out, overwrite=True)
    prepare(root, out, overwrite=True)
    prepare(root, tmp_path / "fresh")
    assert files_of(out) == files_of(tmp_path / "fresh")


def test_a_killed_run_that_overwrites_goes_on(drawn, monkeypatch):
    root, out = drawn
    before = (out / manifest_lib.MANIFEST_NAME).read_bytes()
    killed(monkeypatch, writer, "_do_job", after=True, root=root, out=out, overwrite=True)
    (part,) = (out / ".parts").glob("t*-*.json")
    written = part.stat().st_mtime_ns
    killed(monkeypatch, writer, "_do_job", after=True, root=root, out=out, overwrite=True)
    assert len(list((out / ".parts").glob("t*-*.json"))) == 2
    assert part.stat().st_mtime_ns == written
    assert (out / manifest_lib.MANIFEST_NAME).read_bytes() == before


@pytest.mark.parametrize("placed", [False, True])
def test_a_shard_of_unfinished_work_that_was_lost_is_made_again(
    drawn, tmp_path, monkeypatch, placed
):
    root, out = drawn[0], tmp_path / "begun"
    owner, name = (finish, "_join_lists")
    if placed:
        owner, name = (finish.manifest_lib, "save_manifest")
    killed(monkeypatch, owner, name, after=False, root=root, out=out)
    lost = sorted(out.glob("*.array_record-*" if placed else ".parts/*.array_record"))
    lost[0].unlink()
    prepare(root, out)
    prepare(root, tmp_path / "fresh")
    assert files_of(out) == files_of(tmp_path / "fresh")


def test_the_unfinished_work_of_another_process_is_left_to_it(drawn):
    root, out = drawn
    work = out / ".parts" / "train-0000000.json"
    work.parent.mkdir()
    work.write_text("{}")
    with open(work.with_name("lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(root, out)
        assert work.exists()
    prepare(root, out)
    assert not work.parent.exists()
