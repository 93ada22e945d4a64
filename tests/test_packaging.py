"""The wheel holds every file that modules read; an editable install puts them on the path."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).parents[1]


def test_every_file_beside_the_modules_is_packaged():
    """setuptools puts modules into a wheel by itself, and other files only where it is told to."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = (path for path in (ROOT / "prior_jax").rglob("*") if path.is_file())
    beside = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert beside == listed and ROOT / "prior_jax" / "report" / "page.html" in listed


def test_an_editable_install_is_found_from_the_folder_above_a_clone():
    """Only with this setting does setuptools put the root on the path, in place of a finder."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == {"": "."}
