"""The wheel holds every file that the modules read."""

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
