"""Several benchmarks, one after the other, alone or in turns with a peer."""

import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence

from absl import logging

from launch.benchmarks.alone import command_of, measure_alone
from launch.benchmarks.child import ChildFailed
from launch.benchmarks.request import Request
from launch.benchmarks.result import HEAD, Report, joined
from launch.benchmarks.turns import STEPS, TURNS, Turns, beside

RELEASED = ("prior_stage1_release_full", "prior_stage3_release_full", "gloria_release_full")
"""The released methods, as the authors' programs compute them."""
LONGEST_SECONDS = 7200.0
"""Seconds after which a benchmark is ended."""


def each(names: Sequence[str], request: Request, *, save: Callable[[Report], None]) -> Report:
    """Measures benchmarks, each in a process of its own; one that fails does not stop the others.

    Args:
      names: keys of `catalogue.BENCHMARKS`.
      request: size, batch, dtype and repetitions of the runs.
      save: called with the report so far after each.
    """
    return _one_by_one(
        names, lambda name: measure_alone(name, request, seconds=LONGEST_SECONDS), save=save
    )


def beside_each(
    names: Sequence[str], request: Request, *, peer: str, save: Callable[[Report], None]
) -> Report:
    """Measures benchmarks in turns with a peer's program; see `turns`.

    Args:
      names: keys of `catalogue.BENCHMARKS`.
      request: size, batch and dtype of our runs; its `steps` are the steps of a turn, and its
        `blocks` the number of turns.
      peer: command of the peer.
      save: called with the report so far after each.
    """
    turns = Turns(steps=request.steps or STEPS, count=request.blocks or TURNS)

    def measure(name: str) -> Report:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "report.json"
            ours = command_of(name, request, mode="turns", out=out)
            return beside(ours, peer, name=name, out=out, turns=turns)

    return _one_by_one(names, measure, save=save)


def _one_by_one(
    names: Sequence[str], measure: Callable[[str], Report], *, save: Callable[[Report], None]
) -> Report:
    reports: list[Report] = []
    left_out: dict[str, str] = {}
    for index, name in enumerate(names):
        logging.info("measuring %s, %d of %d", name, index + 1, len(names))
        try:
            report = measure(name)
        except ChildFailed as error:
            left_out[name] = error.problem
            print(f"{name}: {error.problem}\n{error.tail}", file=sys.stderr, flush=True)
        else:
            if not reports:
                print(HEAD)
            reports.append(report)
            print("\n".join(result.row() for result in report.results), flush=True)
        save(joined(reports, left_out=left_out))
    return joined(reports, left_out=left_out)
