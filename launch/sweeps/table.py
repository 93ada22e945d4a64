"""Collects the results of a sweep's trials into one table."""

import csv
import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.sweeps.config import Sweep
from launch.sweeps.queue import Outcome
from launch.sweeps.trials import Measured, Trials, paired
from launch.sweeps.variants import Variant
from prior_jax.data.schema import write_atomically
from prior_jax.evaluate import compare, over_seeds
from prior_jax.evaluate.bootstrap import Interval

_MOST_LISTED = 10
"""Most trials that wait and are named one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one variant.

    Attributes:
      variant: name of the variant.
      metric: "<results>.<metric>".
      reference: name of the variant that it is compared with; its own name if with none.
      seeds: seeds that have a value, in the sweep's order.
      values: value of each seed.
      untrained: mean before the first step over the seeds that measured it; NaN if none did.
      mean: mean with its interval over the seeds; see `over_seeds.mean_over_seeds`.
      difference: difference to the reference over their common seeds; None for the reference
        itself and if there is no common seed.
      adjusted_p: p value of the difference, adjusted for the number of variants that are compared
        with the same reference; NaN if there is none.
      verdict: verdict on the difference; "" if there is none.
    """

    variant: str
    metric: str
    reference: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    untrained: float
    mean: Interval
    difference: compare.Difference | None
    adjusted_p: float
    verdict: str


def collect(sweep: Sweep, found: Sequence[Variant], trials: Trials) -> list[Row]:
    """Compares the variants by the results of the trials that are done.

    Args:
      sweep: sweep whose results to read.
      found: variants of the sweep.
      trials: results of each trial that is done.

    Returns:
      A row for each metric and variant, grouped by metric.
    """
    references = _references(sweep, found)
    rows = []
    for metric in sweep.metrics:
        part = [
            _row(sweep, name, metric, trials, reference=reference)
            for name, reference in references.items()
        ]
        for row, adjusted in zip(part, _adjusted(part), strict=True):
            said = ""
            if row.difference is not None:
                said = compare.verdict(
                    row.difference, adjusted_p=adjusted, confidence=sweep.confidence
                )
            rows.append(dataclasses.replace(row, adjusted_p=adjusted, verdict=said))
    return rows


def _references(sweep: Sweep, found: Sequence[Variant]) -> dict[str, str]:
    """Returns variant -> the variant that it is compared with: its reference's first point."""
    first: dict[str, str] = {}
    for variant in found:
        first.setdefault(variant.arm, variant.name)
    arms = {arm.name: first[arm.reference or sweep.reference] for arm in sweep.arms}
    return {variant.name: arms[variant.arm] for variant in found}


def _adjusted(rows: Sequence[Row]) -> list[float]:
    """Returns the adjusted p of each row of a metric; a family has one reference in common."""
    ps = [math.nan if row.difference is None else row.difference.p for row in rows]
    adjusted = [math.nan] * len(rows)
    for reference in {row.reference for row in rows}:
        family = [index for index, row in enumerate(rows) if row.reference == reference]
        for index, p in zip(family, compare.holm([ps[i] for i in family]), strict=True):
            adjusted[index] = p
    return adjusted


def _row(sweep: Sweep, name: str, metric: str, trials: Trials, *, reference: str) -> Row:
    ours = _measured(sweep, name, metric, trials)
    before = [one.untrained for one in ours.values() if not math.isnan(one.untrained)]
    difference = None
    theirs = _measured(sweep, reference, metric, trials)
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    if name != reference and pairs:
        same = all(paired(a, b) for a, b in pairs)
        difference = compare.difference(
            [a.value for a, _ in pairs],
            [b.value for _, b in pairs],
            our_draws=[a.draws for a, _ in pairs] if same else None,
            their_draws=[b.draws for _, b in pairs] if same else None,
            confidence=sweep.confidence,
        )
    values = {seed: one.value for seed, one in ours.items()}
    return Row(
        variant=name,
        metric=metric,
        reference=reference,
        seeds=tuple(values),
        values=tuple(values.values()),
        untrained=float(np.mean(before)) if before else math.nan,
        mean=over_seeds.mean_over_seeds(
            [*values.values()], metric=metric.partition(".")[2], confidence=sweep.confidence
        ),
        difference=difference,
        adjusted_p=math.nan,
        verdict="",
    )


def _measured(sweep: Sweep, name: str, metric: str, trials: Trials) -> dict[int, Measured]:
    """Returns seed -> result, in the sweep's order, for the seeds that have a value."""
    found = {seed: trials[name, seed] for seed in sweep.seeds if (name, seed) in trials}
    return {seed: trial[metric] for seed, trial in found.items() if metric in trial}


def write(
    workdir: pathlib.Path,
    *,
    sweep: Sweep,
    found: Sequence[Variant],
    rows: Sequence[Row],
    outcomes: Sequence[Outcome],
) -> pathlib.Path:
    """Writes `table.md`, `table.csv` and `table.json`.

    Returns:
      The path of `table.md`.
    """
    content = {
        "name": sweep.name,
        "reference": sweep.reference,
        "confidence": sweep.confidence,
        "points": {variant.name: dict(variant.point) for variant in found},
        "rows": [_plain(row) for row in rows],
        "trials": [dataclasses.asdict(outcome) for outcome in outcomes],
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(workdir / "table.json", text.encode())
    write_atomically(workdir / "table.csv", _csv(content["rows"]).encode())
    path = workdir / "table.md"
    shown = markdown(sweep=sweep, found=found, rows=rows, outcomes=outcomes)
    write_atomically(path, shown.encode())
    return path


def _plain(row: Row) -> dict[str, Any]:
    """Returns a row as flat JSON values, with None for NaN."""
    seeds = row.difference.seeds if row.difference else None
    patients = row.difference.patients if row.difference else None

    def ends(prefix: str, interval: Interval | None) -> dict[str, float]:
        low, high = (interval.low, interval.high) if interval else (math.nan, math.nan)
        return {f"{prefix}_low": low, f"{prefix}_high": high}

    numbers = {
        "mean": row.mean.value,
        **ends("mean", row.mean),
        "untrained": row.untrained,
        "difference": seeds.value if seeds else math.nan,
        **ends("difference_over_seeds", seeds),
        "p": row.difference.p if row.difference else math.nan,
        "p_adjusted": row.adjusted_p,
        **ends("difference_over_patients", patients),
    }
    return {
        "variant": row.variant,
        "metric": row.metric,
        "seeds": list(row.seeds),
        "values": list(row.values),
        **{name: None if math.isnan(number) else number for name, number in numbers.items()},
        "reference": row.reference,
        "verdict": row.verdict,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        lists = {name: " ".join(map(str, row[name])) for name in ("seeds", "values")}
        writer.writerow({**row, **lists})
    return buffer.getvalue()


def markdown(
    *,
    sweep: Sweep,
    found: Sequence[Variant],
    rows: Sequence[Row],
    outcomes: Sequence[Outcome],
) -> str:
    """Returns the table in Markdown: means, differences to the reference, and their basis."""
    percent = f"{100 * sweep.confidence:g} %"
    by_place = {(row.variant, row.metric): row for row in rows}
    lines = [f"# {sweep.name}", "", f"| | seeds | {' | '.join(sweep.metrics)} |"]
    lines.append("| --- " * (2 + len(sweep.metrics)) + "|")
    for variant in found:
        cells = [by_place[variant.name, metric] for metric in sweep.metrics]
        counts = sorted({len(row.seeds) for row in cells})
        point = ", ".join(f"{key}={value}" for key, value in variant.point)
        label = variant.name + (f" ({point})" if point else "")
        shown = " | ".join(_interval(row.mean) for row in cells)
        lines.append(f"| {label} | {' to '.join(map(str, counts))} | {shown} |")
    lines.append(f"| *untrained* | | {' | '.join(_untrained(sweep, rows))} |")
    lines += ["", f"Means over seeds; brackets: {percent} t interval over seeds."]
    lines += _differences(rows, percent)
    return "\n".join(lines + _troubles(outcomes)) + "\n"


def _troubles(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns lines on the trials without a result; one on those that wait, if they are many."""
    without = [outcome for outcome in outcomes if outcome.status != "done"]
    if not without:
        return []
    listed = without
    waiting = sum(outcome.status == "waiting" for outcome in without)
    if waiting > _MOST_LISTED:
        listed = [outcome for outcome in without if outcome.status != "waiting"]
    lines = [f"- {one.name}: {one.status} {one.message}".rstrip() for one in listed]
    if len(listed) < len(without):
        lines.append(f"- {waiting} of {len(outcomes)} trials wait")
    return ["", "## Trials without a result", "", *lines]


def _differences(rows: Sequence[Row], percent: str) -> list[str]:
    compared = [(row, row.difference) for row in rows if row.difference is not None]
    if not compared:
        return []
    seen = {(row.variant, row.metric): set(row.seeds) for row in rows}
    seeds = min(len(seen[row.reference, row.metric] & set(row.seeds)) for row, _ in compared)
    lines = [
        "",
        "## Differences",
        "",
        "| metric | | compared with | difference over seeds | p, adjusted | over patients | |",
        "| --- " * 7 + "|",
    ]
    for row, found in compared:
        patients = found.patients
        spread = f"[{patients.low:+.3f}, {patients.high:+.3f}]" if patients else "-"
        p = "-" if math.isnan(row.adjusted_p) else f"{row.adjusted_p:.3f}"
        lines.append(
            f"| {row.metric} | {row.variant} | {row.reference} "
            f"| {_interval(found.seeds, signed=True)} | {p} | {spread} | {row.verdict} |"
        )
    lines += [
        "",
        f"Over seeds: paired t test and its {percent} interval, the pairs being runs of one seed; "
        "p adjusted after Holm for the variants compared with one reference within a metric. With "
        f"{seeds} seeds (degrees of freedom: {max(seeds - 1, 0)}) the test finds large "
        'differences only: "not told apart" is not "equal".',
        f"Over patients: {percent} percentile bootstrap of the difference of the means over "
        "seeds, the same resampled patients for both; not adjusted, and blind to what another "
        'seed would change. "higher" and "lower" need both, "leans" has one of the two.',
    ]
    return lines


def _untrained(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Returns lines with the range of the untrained models' means for each metric."""
    cells = []
    for metric in sweep.metrics:
        known = [row.untrained for row in rows if row.metric == metric]
        known = [value for value in known if not math.isnan(value)]
        ends = dict.fromkeys(f"{end(known):.3f}" for end in (min, max) if known)
        cells.append(" to ".join(ends) or "-")
    return cells


def _interval(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if math.isnan(interval.value):
        return "-"
    shown = f"{interval.value:{sign}.3f}"
    if math.isnan(interval.low):
        return shown
    return f"{shown} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
