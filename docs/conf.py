"""How Sphinx builds the documentation: `sphinx-build -W -b html docs docs/_build/html`."""

import pathlib
import sys

_DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(_DOCS.parent), str(_DOCS / "_ext")]

import prior_jax  # noqa: E402  the checkout's own, found by the line above

project = "prior_jax"
author = "The authors of prior_jax"
release = version = prior_jax.__version__
html_title = "prior_jax"

# Everything is read from the checkout: no inventory, font or script is fetched.
extensions = [
    "config_reference",
    "package_reference",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_copy_source = False
html_show_copyright = False  # no name and year of a holder would follow the word
highlight_language = "none"  # of a block that names no language
nitpicky = False

# Links to a heading of another document, such as data.md#mimic-cxr, as GitHub makes them.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

# Docstrings are in Google's style, and what stands in single backticks is code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses, which are described once, in "Attributes"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88  # a longer one has a line for each argument
autodoc_preserve_defaults = True
autoclass_content = "both"  # the arguments are described with `__init__`
