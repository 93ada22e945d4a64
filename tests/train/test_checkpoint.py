"""Checkpoints: what is kept, what is restored, and what is refused."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.errors import CheckpointError, ConfigError
from prior_jax.train import checkpoint as checkpoint_lib
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.checkpoint_read import list_steps, newest_host, restore_model
from prior_jax.train.program import Program
from tests import folder_names
from tests.train import toy
from tests.train.marks import ABANDONED_READS

pytestmark = list(ABANDONED_READS)


def program_of(*, devices=1, width=toy.WIDTH):
    return Program(
        objective=toy.ToyObjective(width=width),
        stages=toy.STAGES,
        optimizer=toy.OPTIMIZER,
        mesh=toy.mesh_of(devices),
        rules=toy.RULES,
        data_axes=("data",),
    )


@pytest.fixture(scope="module")
def program():
    return program_of()


@pytest.fixture(scope="module")
def state(program):
    return program.initial(seed=1, values=None)


def at(state, step):
    return toy.replace(state, step=jnp.int32(step))


def save(directory, state, *steps, config=toy.CHECKPOINT, scores=None):
    checkpoints = Checkpoints(directory, config)
    for step in steps:
        score = None if scores is None else scores[step]
        checkpoints.save(at(state, step), host={"step": step, "note": "é"}, score=score)
    checkpoints.wait()
    return checkpoints


def restore(directory, program, config=toy.CHECKPOINT):
    checkpoints = Checkpoints(directory, config)
    return checkpoints.restore_newest(program.abstract_after, check=lambda host: None)


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def data_files(path):
    """The files that hold array bytes, largest first."""
    found = [file for file in pathlib.Path(path, "model").rglob("d/*") if file.is_file()]
    return sorted(found, key=lambda file: -file.stat().st_size)


def test_everything_comes_back_bit_for_bit(tmp_path, program, state):
    save(tmp_path, state, 3)
    restored, host = restore(tmp_path, program)
    same(restored, at(state, 3))
    assert host == {"step": 3, "note": "é"}


def test_an_empty_folder_restores_nothing(tmp_path, program):
    assert restore(tmp_path, program) is None


def test_a_donated_state_is_saved_as_it_was(tmp_path, program, state):
    """The save goes on in the background while the next step overwrites the arrays."""
    # Large enough that the save cannot be over before the arrays are overwritten.
    params = {"big": jnp.arange(1 << 22, dtype=jnp.float32)}
    mine = toy.replace(at(state, 1), params={**state.params, **params})
    want = np.asarray(params["big"]).copy()
    checkpoints = Checkpoints(tmp_path, toy.CHECKPOINT)
    checkpoints.save(mine, host={}, score=None)
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    overwrite(mine.params["big"]).block_until_ready()
    checkpoints.wait()
    shapes = {
        name: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=state.step.sharding)
        for name, v in {**state.params, "big": want}.items()
    }
    rest = program.abstract(toy.STAGES[0]).rest
    params, _, _ = restore_model(tmp_path, params=shapes, rest=rest, step=None)
    np.testing.assert_array_equal(params["big"], want)


def test_a_flipped_byte_is_found_and_the_one_before_is_used(tmp_path, program, state, caplog):
    rng = np.random.default_rng(0)
    for trial in range(6):
        folder = tmp_path / str(trial)
        save(folder, state, 1, 2)
        file = data_files(folder / "2")[0]
        raw = bytearray(file.read_bytes())
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        file.write_bytes(raw)
        with caplog.at_level("ERROR"):
            restored, host = restore(folder, program)
        same(restored, at(state, host["step"]))
        if host["step"] == 1:
            assert f"{folder / '2'} is damaged" in caplog.text
            assert (folder / "2" / storage.DAMAGED).read_text().strip()
        caplog.clear()


def test_changed_parameters_never_load_silently(tmp_path, program, state, monkeypatch):
    """Whatever the storage lets through, the checksum does not."""
    save(tmp_path, state, 1, 2)
    real = checkpoint_lib.ocp.load_checkpointables

    def flipping(path, wanted):
        parts = real(path, wanted)
        if pathlib.Path(path).name == "2" and "model" in parts:
            params = parts["model"]["params"]
            bits = jax.lax.bitcast_convert_type(params["bank"], jnp.uint32)
            bits = bits.at[3, 5].set(bits[3, 5] ^ jnp.uint32(1))
            params["bank"] = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return parts

    monkeypatch.setattr(checkpoint_lib.ocp, "load_checkpointables", flipping)
    _, host = restore(tmp_path, program)
    assert host["step"] == 1
    assert "checksum differs in model:params:bank" in (tmp_path / "2" / "DAMAGED").read_text()


@pytest.mark.parametrize(
    "how", ["truncated", "emptied", "no host", "no model", "no optimizer", "no metadata", "no data"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, program, state, caplog, how
):
    save(tmp_path, state, 1, 2)
    newest = tmp_path / "2"
    if how == "truncated":
        for file in data_files(newest):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "emptied":
        for file in newest.rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    elif how == "no metadata":
        (newest / "model" / "_METADATA").unlink()
    elif how == "no data":
        data_files(newest)[0].unlink()
    else:
        shutil.rmtree(newest / how.removeprefix("no "))
    with caplog.at_level("ERROR"):
        restored, host = restore(tmp_path, program)
    assert host["step"] == 1
    same(restored, at(state, 1))
    assert f"{newest} is damaged" in caplog.text


def test_only_damaged_checkpoints_are_an_error_not_a_new_start(tmp_path, program, state):
    save(tmp_path, state, 1)
    for file in (tmp_path / "1").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    for _ in range(2):  # not even when it is known
        with pytest.raises(CheckpointError, match=r"checkpoints at steps \[1\] are damaged"):
            restore(tmp_path, program)


def test_a_damaged_checkpoint_stays_until_its_step_is_saved_again(tmp_path, program, state, caplog):
    save(tmp_path, state, 1, 2)
    data_files(tmp_path / "2")[0].write_bytes(b"")
    restore(tmp_path, program)
    assert list_steps(tmp_path) == [1] and (tmp_path / "2").is_dir()
    with caplog.at_level("WARNING"):
        restore(tmp_path, program)
    assert f"passing over {tmp_path / '2'}, marked as damaged" in caplog.text
    save(tmp_path, state, 2)
    assert list_steps(tmp_path) == [1, 2]
    restored, _ = restore(tmp_path, program)
    same(restored, at(state, 2))


def test_what_interrupted_saves_and_deletions_left_is_removed_by_name(
    tmp_path, program, state, caplog
):
    save(tmp_path, state, 1, 2, 3)
    # A save that was killed before its end, and a deletion after its beginning.
    for step in ("2", "3"):
        (tmp_path / step / storage.COMMITTED).unlink()
    (tmp_path / "4").mkdir()  # not even begun
    old = ["5.orbax-checkpoint-tmp", "0.deleting"]
    for name in old:
        (tmp_path / name / "model").mkdir(parents=True)
    kept = ["1", "7", "notes"]
    (tmp_path / "7").write_text("a file of the user's")
    (tmp_path / "notes").mkdir()
    assert list_steps(tmp_path) == [1]
    with caplog.at_level("INFO"):
        restored, _ = restore(tmp_path, program)
    same(restored, at(state, 1))
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    for name in ["2", "3", "4", *old]:
        assert f"removing {tmp_path / name}, left by" in caplog.text


def test_a_deletion_that_is_interrupted_leaves_nothing_that_looks_whole(
    tmp_path, state, monkeypatch
):
    save(tmp_path, state, 1, 2)

    def killed(self, missing_ok=False):
        raise KeyboardInterrupt

    config = toy.replace(toy.CHECKPOINT, keep_last=1)
    with monkeypatch.context() as patch:
        patch.setattr(type(checkpoint_lib.epath.Path(tmp_path)), "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, state, 3, config=config)
    assert (tmp_path / "1" / "model").is_dir()
    assert 1 not in list_steps(tmp_path) and 3 in list_steps(tmp_path)


def test_storage_that_cannot_be_reached_is_not_damage(tmp_path, program, state, monkeypatch):
    save(tmp_path, state, 1)

    def refused(*args):
        raise ValueError('PERMISSION_DENIED: Error reading "s3://b/1"\nmore')

    monkeypatch.setattr(checkpoint_lib.ocp, "load_checkpointables", refused)
    with pytest.raises(CheckpointError, match=r"no permission .*Allow .* or choose") as error:
        restore(tmp_path, program)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "1" / storage.DAMAGED).exists()


def test_another_model_is_refused_by_name_and_shape(tmp_path, state):
    save(tmp_path, state, 1)
    with pytest.raises(CheckpointError) as error:
        restore(tmp_path, program_of(width=4))
    message = str(error.value)
    assert "params:bank float32[16, 8]" in message
    assert "params:bank float32[16, 4]" in message
    assert "\n" not in message
    assert list_steps(tmp_path) == [1]


def test_evaluation_restores_the_model_alone(tmp_path, program, state):
    save(tmp_path, state, 1, 2)
    shapes = program.abstract(toy.STAGES[0])
    # The optimizer's part may even be gone.
    shutil.rmtree(tmp_path / "2" / "optimizer")
    params, rest, step = restore_model(tmp_path, params=shapes.params, rest=shapes.rest, step=None)
    assert step == 2
    same((params, rest), (state.params, state.rest))
    assert restore_model(tmp_path, params=shapes.params, rest=shapes.rest, step=1)[2] == 1
    with pytest.raises(CheckpointError, match=r"step 7.*\[1, 2\]"):
        restore_model(tmp_path, params=shapes.params, rest=shapes.rest, step=7)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        restore_model(tmp_path / "none", params=shapes.params, rest=shapes.rest, step=None)


@pytest.mark.multidevice
def test_a_state_moves_between_one_and_eight_devices(tmp_path, program, state):
    many = program_of(devices=8)
    save(tmp_path / "a", state, 1)
    spread, _ = restore(tmp_path / "a", many)
    assert spread.params["bank"].addressable_shards[0].data.shape == (2, 8)
    same(spread, at(state, 1))
    save(tmp_path / "b", spread, 1)
    back, _ = restore(tmp_path / "b", program)
    same(back, at(state, 1))


def test_a_full_disk_is_one_clear_line(tmp_path, state, monkeypatch):
    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: [OS error: No space left on device]\nmore")

    monkeypatch.setattr(checkpoint_lib.ocp, "save_checkpointables_async", full)
    with pytest.raises(CheckpointError, match="no space left on the device") as error:
        save(tmp_path, state, 1)
    assert "\n" not in str(error.value)


def test_a_full_disk_in_the_background_is_one_clear_line(tmp_path, state, monkeypatch):
    class Failing:
        def result(self):
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise RuntimeError("background save failed") from error

    monkeypatch.setattr(checkpoint_lib.ocp, "save_checkpointables_async", lambda *a, **k: Failing())
    with pytest.raises(CheckpointError, match="no space left on the device"):
        save(tmp_path, state, 1)


@pytest.mark.parametrize(
    "changes", [{"every_steps": 0}, {"keep_last": 0}, {"keep_best": -1}, {"best_is": "good"}]
)
def test_bad_settings_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))}: "):
        toy.replace(toy.CHECKPOINT, **changes)


def test_keeping_the_best_needs_a_metric():
    with pytest.raises(ConfigError, match="best_metric"):
        toy.replace(toy.CHECKPOINT, keep_best=1)


@pytest.mark.parametrize("name", folder_names.GOOD)
def test_what_is_saved_in_a_folder_of_any_name_can_be_read(tmp_path, program, state, name):
    folder = storage.folder_of(None, workdir=tmp_path / name)
    save(folder, state, 3)
    assert list_steps(folder) == [3]
    assert newest_host(folder) == {"step": 3, "note": "é"}
    wanted = program.abstract(program.schedule.stages[0])
    params, _, step = restore_model(folder, params=wanted.params, rest=wanted.rest, step=None)
    assert step == 3
    for path, value in state.params.items():
        np.testing.assert_array_equal(params[path], value)


def test_a_checkpoint_that_cannot_be_read_again_is_not_called_saved(tmp_path, state, monkeypatch):
    """As epath does in a folder whose name is a pattern: it writes there, and lists elsewhere."""
    checkpoints = Checkpoints(tmp_path, toy.CHECKPOINT)
    checkpoints.save(at(state, 1), host={}, score=None)

    def unreadable(path):
        raise checkpoint_lib.DamagedCheckpoint("no handler fits")

    monkeypatch.setattr(checkpoint_lib, "read_document", unreadable)
    with pytest.raises(CheckpointError, match="cannot be read again: no handler fits"):
        checkpoints.wait()
