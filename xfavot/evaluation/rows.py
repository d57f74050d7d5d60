"""Rows of results: one measure each, intervals over people, tables in CSV and in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xfavot import presets
from xfavot.errors import DataError, refusing
from xfavot.files import write_whole

COLUMNS = ("task", "guidance", "metric", "value", "n", "chance", "judge", "goal", "met")
_FILE = Path(__file__).with_name("definitions.yaml")
DEFINITIONS: dict[str, dict[str, str]] = presets.parse(_FILE.read_text("utf-8"), _FILE.name)
AT_LEAST, AT_MOST = ">=", "<="
LEVEL = 0.95  # of an interval
DRAWS = 1000
FEWEST = 2  # people, below which there is no interval

Row = dict[str, Any]
Array = NDArray[np.float64]


def row(task: str, guidance: str, metric: str, value: float, n: int, **known: Any) -> Row:
    """Make one row of what was learnt.

    Args:
        task: "a2i" and so on, or what else is measured.
        guidance: what gave the style, "" if nothing did.
        metric: name of the measure.
        value: the figure.
        n: samples, pairs or queries behind it.
        known: where it applies, `chance`, what blind guessing gives; `judge`, the classifier's own
            figure on real samples not trained on; `goal`, what is asked, and `sense`, ">=" or "<=",
            how value and goal are compared.

    Raises:
        DataError: the value is not finite.
    """
    if not math.isfinite(value):
        raise DataError(
            f"evaluation: {metric} of {task} is {value} over {n} samples; expected a finite "
            "number; check that the checkpoint's outputs are finite"
        )
    goal, sense = known.get("goal"), known.pop("sense", AT_LEAST)
    met = None if goal is None else (value >= goal if sense == AT_LEAST else value <= goal)
    known["goal"] = None if goal is None else f"{sense} {goal:g}"
    measured = {"task": task, "guidance": guidance, "metric": metric, "value": value, "n": n}
    return {**dict.fromkeys(COLUMNS), **measured, **known, "met": met}


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write some columns as a Markdown table: floats with three digits, nothing for ``None``."""
    frame = pd.DataFrame(rows, columns=list(columns), dtype=object).map(cell)
    return str(frame.to_markdown(index=False, disable_numparse=True))


def cell(value: Any) -> str:
    """Write one value into a table of Markdown."""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if value is None or value != value:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "/")


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as CSV in full precision, an empty cell for ``None``."""
    return pd.DataFrame(rows, columns=list(columns), dtype=object).to_csv(
        index=False, lineterminator="\n"
    )


def writing(folder: Path | str) -> AbstractContextManager[None]:
    """Say what to do where files of a folder cannot be written.

    Raises:
        DataError: they cannot.
    """
    advice = "expected a writable folder with room; free some space or name another folder"
    return refusing(OSError, DataError, f"{folder} cannot be written", advice)


def write_tables(folder: Path | str, texts: Mapping[str, str]) -> None:
    """Write files by their names, each whole or not at all.

    Raises:
        DataError: they cannot be written.
    """
    with writing(folder):
        for name, text in texts.items():
            write_whole(Path(folder, name), text)


# Bootstrap over people: intervals that do not take the samples of one person for independent


def draws_of(people: int, *, seed: int) -> Array:
    """(:data:`DRAWS`, people): how often each person is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1 / people), size=DRAWS).astype(np.float64)


def interval(value: float, drawn: Iterable[float]) -> dict[str, float | None]:
    """Make the cells of a value and its interval, from bootstrapped values that are finite.

    The interval holds the value, which a bootstrap can miss; without draws it is ``None``.
    """
    found = np.array(list(drawn), dtype=np.float64)
    found = found[np.isfinite(found)]
    if not found.size:
        return {"value": value, "ci_low": None, "ci_high": None}
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": value, "ci_low": min(float(low), value), "ci_high": max(float(high), value)}


def ratio(
    samples: Sequence[tuple[float, float, str]], *, seed: int
) -> dict[str, float | int | None]:
    """Measure a ratio of two sums over samples, such as errors over words; see also the mean.

    Args:
        samples: above, below and the person to whom it belongs; for a mean, below is 1.
        seed: of the draws.

    Returns:
        Value, interval (``None`` with fewer than two people), count and seed.
    """
    above, below, people = zip(*samples, strict=True)
    values: Iterable[float] = ()
    names, code = np.unique(people, return_inverse=True)
    if len(names) >= FEWEST:
        drawn = draws_of(len(names), seed=seed)  # (draws, K)
        top, bottom = (
            drawn @ np.bincount(code, weights=side, minlength=len(names)) for side in (above, below)
        )
        values = top[bottom > 0] / bottom[bottom > 0]
    return {**interval(sum(above) / sum(below), values), "n": len(samples), "seed": seed}


def with_means(found: Mapping[str, list[Row]]) -> list[Row]:
    """Rows of every metric, and their mean if there are several directions.

    Half-widths of intervals add as squares.
    """
    rows = []
    for own in found.values():
        rows += own
        good = [row for row in own if "value" in row]
        if len(good) < 2:
            continue
        value = statistics.fmean(row["value"] for row in good)
        mean: Row = {**good[0], "direction": "mean", "sex": "", "value": value}
        mean |= {name: sum(row[name] for row in good) for name in ("n", "n_real") if name in mean}
        if all(row.get("chance") is not None for row in good):
            mean["chance"] = statistics.fmean(row["chance"] for row in good)
        if all(row.get("ci_high") is not None for row in good):
            wide = math.hypot(*(row["ci_high"] - row["value"] for row in good)) / len(good)
            mean |= {"ci_low": value - wide, "ci_high": value + wide}
        rows.append(mean)
    return rows
