"""Runs the program `python -m data_prep.phantom`; see `data_prep/phantom/hospital.py`."""

from absl import app, flags

from data_prep.kit import cli
from data_prep.phantom import hospital

if __name__ == "__main__":
    hospital.define_flags()
    flags.adopt_module_key_flags(hospital)  # so that --help shows them
    app.run(lambda argv: cli.guarded(hospital.main, argv), flags_parser=cli.parse_flags)
