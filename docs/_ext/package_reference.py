"""The directive `package-reference`: a section for every module of a package, from docstrings.

    ```{package-reference} prior_jax.losses
    ```

A module that is added to the package is described without a change of the documentation.
"""

import importlib
import pkgutil

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_MODULE = """\
## `{name}`

```{{eval-rst}}
.. automodule:: {name}
```
"""


class PackageReference(SphinxDirective):
    """Describes the modules of the package that is its argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns a section a module, in alphabetical order."""
        package = importlib.import_module(self.arguments[0])
        names = sorted(
            found.name
            for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
            if not found.name.rpartition(".")[2].startswith("_")
        )
        lines = "\n".join(_MODULE.format(name=name) for name in names).splitlines()
        container = nodes.section()
        container.document = self.state.document
        self.state.nested_parse(
            StringList(lines, source=self.arguments[0]), 0, container, match_titles=True
        )
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Tells Sphinx of the directive."""
    app.add_directive("package-reference", PackageReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
