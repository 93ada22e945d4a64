"""Where checkpoints may lie, and what a storage's errors say; nothing is stored."""

import pytest

from prior_jax.errors import CheckpointError, ConfigError
from prior_jax.train import checkpoint_s3
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train.checkpoint_read import list_steps
from tests import folder_names
from tests.train import toy


@pytest.mark.parametrize(
    "directory",
    [
        "",
        "memory://run",
        "az://bucket/run",
        "file:///run",
        "gs://bucket",
        "s3://bucket/",
        "gs:/b/c",
    ],
)
def test_a_place_of_an_unknown_kind_is_refused_by_name(directory):
    with pytest.raises(ConfigError, match=r"^directory: .*gs://BUCKET/FOLDER"):
        toy.replace(toy.CHECKPOINT, directory=directory)


def test_checkpoints_lie_where_the_config_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for directory, folder in {
        None: tmp_path / "runs" / "one" / "checkpoints",
        "elsewhere": tmp_path / "elsewhere",
        str(tmp_path / "else"): tmp_path / "else",
        "gs://bucket/a/b": "gs://bucket/a/b",
        "s3://bucket/a": "s3://bucket/a",
    }.items():
        found = toy.replace(toy.CHECKPOINT, directory=directory).folder("runs/one")
        assert str(found) == str(folder)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    storage._open_scheme.cache_clear()
    for scheme, extra in {"gs": "gcs", "s3": "s3"}.items():
        with pytest.raises(
            CheckpointError, match=rf"{extra}.* not installed.*prior_jax\[{extra}\]"
        ):
            list_steps(f"{scheme}://bucket/run")


def test_arrays_go_to_s3_and_elsewhere_as_before(monkeypatch):
    from orbax.checkpoint._src.serialization import tensorstore_utils as library

    others = ("/folder/4", "gs://bucket/folder/4")
    before = [library.build_kvstore_tspec(path, use_ocdbt=True) for path in others]
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):
        checkpoint_s3.enable("s3://bucket/folder")
        found = library.build_kvstore_tspec("s3://bucket/folder/4", use_ocdbt=True)["base"]
        assert found == {"driver": "s3", "bucket": "bucket", "path": "folder/4"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found = library.build_kvstore_tspec("s3://bucket/folder/4", use_ocdbt=True)["base"]
    assert found["endpoint"] == "http://127.0.0.1:1" and found["aws_region"] == "us-east-1"
    assert [library.build_kvstore_tspec(path, use_ocdbt=True) for path in others] == before


def test_a_library_made_otherwise_is_refused_by_version(monkeypatch):
    monkeypatch.setattr(checkpoint_s3, "_driver", lambda library: None)
    from orbax.checkpoint._src.serialization import tensorstore_utils as library

    monkeypatch.delattr(library, "_use_gcs_driver")
    with pytest.raises(CheckpointError, match=r"s3://b/f: orbax-checkpoint .*Install .*0\.12\.8"):
        checkpoint_s3.enable("s3://b/f")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "no space left on the device"),
        (OSError("An error occurred (XMinioStorageFull)"), "no space left on the device"),
        (FileNotFoundError("The specified bucket does not exist"), "The bucket does not exist ("),
        (RuntimeError("Unable to locate credentials"), "No credentials for the storage"),
        (PermissionError(13, "Forbidden"), "no permission"),
        (OSError(30, "Read-only file system"), "no permission"),
        (ConnectionRefusedError(111, "x"), "The storage does not answer"),
        (ValueError("what is not known\nsecond line"), "an error (ValueError: what is not known)"),
    ],
)
def test_an_error_of_a_storage_is_one_line_that_names_the_place(error, said):
    try:
        raise RuntimeError("in the background") from error
    except RuntimeError as wrapped:
        direct, behind = (storage.storage_error("s3://b/run/4", e) for e in (error, wrapped))
    assert str(direct).startswith("s3://b/run/4: ") and said in direct.problem
    assert direct.problem.endswith(".") and direct.remedy.endswith(".")
    assert "\n" not in str(direct)
    assert behind.remedy == direct.remedy


@pytest.mark.parametrize("name", folder_names.UNREADABLE)
def test_names_that_are_taken_for_patterns_are_refused_before_anything(tmp_path, name):
    """Written to, such a folder holds checkpoints that are never found again."""
    with pytest.raises(ConfigError, match="--workdir"):
        storage.folder_of(None, workdir=tmp_path / name)
    with pytest.raises(ConfigError, match=r"config\.checkpoint\.directory"):
        storage.folder_of(str(tmp_path / name), workdir=tmp_path)
