"""Bars of the correspondence preference ratio, as in the paper's Fig. 5."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from xfavot.errors import DataError
from xfavot.evaluation.cpr import CHANCE
from xfavot.evaluation.triplets import TRUTH
from xfavot.viz.drawing import FAINT, INK, PALETTE, Drawing, styled

TASKS = {"a2i": "face led by a voice", "i2a": "voice led by a face"}
TRUTH_COLOUR = "#9aa3aa"
GROUP_IN, LEFT_IN, RIGHT_IN = 2.3, 0.62, 0.2
HEIGHT_IN, TITLE_IN, FOOT_IN = 2.75, 0.34, 0.55
LINE_IN, MARK_IN, LETTER_IN = 0.17, 0.42, 0.062  # of the legend: a line, beside a name, in it


@styled
def cpr(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Drawing:
    """Draw the CPR over all triplets, a group of bars a task and a bar a system.

    People's answers are drawn if there are any, else what the first automatic judge says.

    Args:
        rows: of :func:`xfavot.report.study_answers.result_rows`.
        title: text above.

    Raises:
        DataError: no row.
    """
    if not rows:
        raise DataError("CPR: got no row; expected at least one; read answers back first")
    metric = rows[0]["metric"]
    drawn = [row for row in rows if row["metric"] == metric]
    systems = list(dict.fromkeys(row["system"] for row in drawn))
    tasks = [task for task in TASKS if any(row["task"] == task for row in drawn)]
    width = LEFT_IN + RIGHT_IN + GROUP_IN * max(len(tasks), 2)
    beside = max(1, int(width / (MARK_IN + LETTER_IN * max(map(len, systems)))))
    lines = math.ceil(len(systems) / beside)
    height = HEIGHT_IN + LINE_IN * lines
    body = (height - TITLE_IN - LINE_IN * lines - FOOT_IN) / height
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (LEFT_IN / width, FOOT_IN / height, 1 - (LEFT_IN + RIGHT_IN) / width, body)
    )
    colours = dict(zip([s for s in systems if s != TRUTH], PALETTE * len(systems), strict=False))
    bar = 0.72 / len(systems)
    for row in drawn:
        place = tasks.index(row["task"]) + bar * (
            systems.index(row["system"]) - (len(systems) - 1) / 2
        )
        colour = colours.get(row["system"], TRUTH_COLOUR)
        label = row["system"] if row["task"] == tasks[0] else None
        axes.bar(place, row["value"], width=bar * 0.9, color=colour, label=label)
        spread = [[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]]
        axes.errorbar(place, row["value"], spread, color=INK, linewidth=1.0, capsize=2.5)
        axes.text(place, 0.02, f"{row['value']:.2f}", ha="center", va="bottom", fontsize=7.5,
                  color="white", weight="bold")  # fmt: skip
    axes.axhline(CHANCE, color=INK, linestyle="--", linewidth=0.8)
    axes.text(len(tasks) - 0.42, CHANCE + 0.012, "chance", ha="right", fontsize=6.5, color=FAINT)
    axes.set(ylim=(0, 1.02), xlim=(-0.5, len(tasks) - 0.4), ylabel="CPR")
    axes.set_xticks(range(len(tasks)), [TASKS[task] for task in tasks])
    axes.tick_params(axis="x", length=0, labelcolor=INK, labelsize=8)
    axes.grid(axis="x", visible=False)
    figure.legend(
        loc="upper left", ncols=min(beside, len(systems)), borderpad=0, borderaxespad=0,
        bbox_to_anchor=(0.1 / width, 1 - (TITLE_IN - 0.06) / height),
    )  # fmt: skip
    figure.text(
        0.1 / width, 1 - 0.2 / height, title or metric, fontsize=9, weight="bold", color=INK
    )
    counts = sorted({row["n"] for row in drawn})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = "answers" if metric == "CPR" else "triplets"
    note = f"{metric}; {span} {what} a bar, lines: 95 % ({drawn[0]['interval']})"
    figure.text(0.1 / width, 0.08 / height, note, fontsize=6.5, color=FAINT)
    return Drawing(figure)
