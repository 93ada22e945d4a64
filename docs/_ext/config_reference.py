"""The directive `config-reference`: every field of a run's config, from the code that reads it.

    ```{config-reference}
    ```

The meaning of a field is what the docstring of its dataclass says, its default what
`configs/prior/base.py` gives, and its source the comment that stands beside it there. A field
without a meaning is a warning, so that a build with `-W` fails.
"""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_LOGGER = logging.getLogger(__name__)
_ABSENT = object()
# Fields that a config need not give -> their defaults.
_OPTIONAL: Mapping[tuple[str, ...], Any] = {
    ("mesh", "fsdp_axis"): None,
    ("data", "augment", "crop_from"): None,
    ("data", "augment", "resized_crop"): None,
    ("data", "augment", "jitter"): None,
    ("data", "augment", "grey_probability"): None,
    ("data", "augment", "blur"): None,
    ("data", "augment", "shift_scale_rotate"): None,
    ("data", "fraction"): None,
    ("init", "image", "step"): None,
    ("init", "text", "step"): None,
    ("stages", "schedule_steps"): None,
    ("validate_unit",): "steps",
}


class ConfigReference(SphinxDirective):
    """Describes every section of a run's config."""

    def run(self) -> list[nodes.Node]:
        """Returns a section for each section of the config."""
        from configs.prior import base
        from prior_jax import config as config_lib
        from prior_jax.objectives.prior_config import PriorConfig

        self.env.note_reread()  # any module of a section may have changed
        reference = Reference(
            paper=base.get_config("paper").to_dict(),
            release=base.get_config("release").to_dict(),
            sources=Sources(base).of_config(),
        )
        meanings = meanings_of(config_lib.TrainOptions) | meanings_of(config_lib.RunConfig)
        hints = {
            **typing.get_type_hints(config_lib._Sections),
            "model": PriorConfig,
            "data": config_lib.DataConfig,
            "stages": Mapping[str, config_lib.StageConfig],
        }
        lines = [*legend(base), *reference.section((), hints, meanings)]
        container = nodes.section()
        container.document = self.state.document
        content = StringList("\n".join(lines).splitlines(), source="configs/prior/base.py")
        self.state.nested_parse(content, 0, container, match_titles=True)
        return container.children


def legend(module: types.ModuleType) -> Iterator[str]:
    """What the names of sources in the comments stand for, from the module's docstring."""
    text = inspect.cleandoc(module.__doc__ or "")
    found = re.search(r"Sources: (.*?)\.\s", text, re.S)
    if found is None:
        _LOGGER.warning("%s lists no sources", module.__name__)
        return
    yield f"The sources are: {' '.join(found[1].split())}."
    yield ""


def meanings_of(kind: type) -> dict[str, str]:
    """Field -> what the docstrings of a dataclass, and of those it is made from, say of it."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        text = inspect.cleandoc(one.__dict__.get("__doc__") or "")
        _, _, attributes = text.partition("Attributes:\n")
        for name, meaning in re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.M):
            found[name] = " ".join(meaning.split())
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """Writes Markdown.

    Attributes:
      paper: the config that sections and defaults are taken from.
      release: the same in the release's fidelity.
      sources: dotted path -> the comment beside the value.
    """

    paper: Mapping[str, Any]
    release: Mapping[str, Any]
    sources: Mapping[tuple[str, ...], str]

    def section(
        self, path: tuple[str, ...], hints: Mapping[str, Any], meanings: Mapping[str, str]
    ) -> Iterator[str]:
        """Lines of a section and of those within it."""
        yield f"## `{_name(path)}`"
        yield ""
        if path in self.sources:
            yield f"Note: {self.sources[path]}."
            yield ""
        inner = []
        for name, hint in hints.items():
            at = (*path, name)
            if not self._given(at) and not self._optional(at, hints):
                continue
            if name not in meanings:
                _LOGGER.warning("no docstring says what config.%s means", ".".join(at))
            yield from self._entry(at, hint, meanings.get(name, ""))
            kind = _dataclass_of(hint)
            if kind is not None:
                inner.append((at, kind))
        for at, kind in inner:
            kept = typing.get_type_hints(kind)
            fields = {field.name: kept[field.name] for field in dataclasses.fields(kind)}
            yield from self.section(at, fields, meanings_of(kind))

    def _given(self, path: tuple[str, ...]) -> bool:
        """Whether a config gives the field, or the field's section is given by nobody."""
        above = _at(self.paper, path[:-1])
        return above in (None, _ABSENT) or _at(self.paper, path) is not _ABSENT

    def _optional(self, path: tuple[str, ...], hints: Mapping[str, Any]) -> bool:
        return path in _OPTIONAL and path[-1] in hints

    def _entry(self, path: tuple[str, ...], hint: Any, meaning: str) -> Iterator[str]:
        parts = [f"*{_words(hint)}*"]
        paper, release = _at(self.paper, path), _at(self.release, path)
        if path in _OPTIONAL:
            parts.append(f"default `{_OPTIONAL[path]!r}`")
        elif paper is _ABSENT:
            parts.append("to be given with its section")
        elif _dataclass_of(hint) is None or paper is None:
            parts.append(f"default {_shown(paper)}")
            if release != paper and path != ("name",):
                parts.append(f"in `configs/prior/release.py` {_shown(release)}")
        text = f"{meaning[:1].upper()}{meaning[1:]}".rstrip(".")
        source = self.sources.get(path)
        yield f"`{_name(path)}`"
        yield f": {', '.join(parts)}. {text}."
        if source and source != self.sources.get(path[:-1]) and _dataclass_of(hint) is None:
            yield f"  Note: {source.rstrip('.')}."
        yield ""


def _name(path: tuple[str, ...]) -> str:
    """The name of a field on the command line; the stages have their own names in it."""
    parts = ("config", *path)
    return ".".join((*parts[:2], "<stage>", *parts[2:]) if path[:1] == ("stages",) else parts)


def _at(config: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path; of all stages at once, by stage, where it lies in them."""
    if path[:1] == ("stages",) and len(path) > 1:
        values = {name: _at(stage, path[1:]) for name, stage in config["stages"].items()}
        first, *rest = values.values()
        return first if all(value == first for value in rest) else values
    value: Any = config
    for name in path:
        if not isinstance(value, Mapping):
            return _ABSENT
        if name not in value:
            return _ABSENT
        value = value[name]
    return value


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass of a section, also of one that may be None or of a mapping of them."""
    for choice in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(choice):
            return typing.cast(type, choice)
    return None


def _words(hint: Any) -> str:
    """A type as a reader of the config takes it."""
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'"{choice}"' for choice in choices)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(choice) for choice in choices)
    if hint is type(None):
        return "None"
    if _dataclass_of(hint) is not None:
        return "a section"
    origin = typing.get_origin(hint)
    if origin is tuple and len(choices) == 2 and choices[1] is Ellipsis:
        return f"tuple of {_words(choices[0])}"
    if origin is tuple:
        return f"tuple of ({', '.join(map(_words, choices))})"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of names to {_words(choices[1])}"
    return getattr(hint, "__name__", str(hint))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and value and all(name.startswith("stage") for name in value):
        return ", ".join(f"{name} `{one}`" for name, one in value.items())
    return f"`{value!r}`"


class Sources:
    """The comments beside the values of a module that makes a config of nested calls of dict."""

    def __init__(self, module: types.ModuleType):
        """Reads the module's source."""
        text = inspect.getsource(module)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self._comments = {
            token.start[0]: token.string.lstrip("# ").strip()
            for token in tokens
            if token.type == tokenize.COMMENT
        }
        self._lines = text.splitlines()
        self._functions = {
            node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
        }

    def of_config(self) -> dict[tuple[str, ...], str]:
        """Dotted path -> comment."""
        return dict(self._of(self._returned("get_config"), ()))

    def _returned(self, name: str) -> ast.expr:
        last = self._functions[name].body[-1]
        assert isinstance(last, ast.Return) and last.value is not None, name
        return last.value

    def _of(self, node: ast.expr, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return
        called = node.func.id
        if called in self._functions:
            yield from self._of(self._returned(called), path)
        elif called == "ConfigDict":
            yield from self._of(node.args[0], path)
        elif called == "dict":
            for keyword in node.keywords:
                at = (*path, str(keyword.arg))
                comment = self._comment(keyword)
                # Of all stages at once, as their fields are shown.
                at = (at[0], *at[2:]) if at[0] == "stages" else at
                if comment:
                    yield at, comment
                yield from self._of(keyword.value, at)

    def _comment(self, keyword: ast.keyword) -> str:
        """The comment behind a value, or on the lines above it."""
        end = keyword.value.lineno if _is_dict(keyword.value) else keyword.value.end_lineno
        beside = self._comments.get(end or 0)
        if beside and not self._lines[(end or 0) - 1].lstrip().startswith("#"):
            return beside
        above = []
        line = keyword.lineno - 1
        while line in self._comments and self._lines[line - 1].lstrip().startswith("#"):
            above.insert(0, self._comments[line])
            line -= 1
        return textwrap.dedent(" ".join(above))


def _is_dict(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict"


def setup(app: Sphinx) -> dict[str, bool]:
    """Tells Sphinx of the directive."""
    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
