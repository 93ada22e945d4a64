"""The README's example, on the debug job or on the run that --workdir names."""

import doctest
import pathlib

README = pathlib.Path(__file__).parents[2] / "README.md"
WORKDIR = "/tmp/prior_phantom"
FENCE = "```"


def examples(workdir):
    """The README's Python blocks, in which the run is another."""
    blocks = README.read_text().split(f"{FENCE}python\n")[1:]
    text = "\n".join(block.split(FENCE)[0] for block in blocks)
    assert WORKDIR in text
    return text.replace(WORKDIR, str(workdir))


def test_the_example_in_python_holds(trained):
    test = doctest.DocTestParser().get_doctest(
        examples(trained), globs={}, name=README.name, filename=str(README), lineno=0
    )
    assert len(test.examples) > 10
    lines = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=lines.append)
    assert not runner.failures, "".join(lines)
