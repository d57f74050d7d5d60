"""Progress as plain lines, which read well in JupyterLab and under papermill alike.

A progress bar would print 0 % and stop where output is logged, so there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from statistics import fmean
from typing import Any

MAIN_TERMS = (
    *("total", "loss", "rec_image", "rec_audio", "adv", "sty", "cyc", "ds", "xm", "f0", "sc"),
    "advcls",
)
BOOKKEEPING = ("step", "steps", "network", "seconds", "s_per_step", "eta_s", "message", "phase")
LONGEST = 7  # numbers a line


def line(record: Mapping[str, Any] | str) -> None:
    """Write one line about a record of training, pretraining or preparation.

    Args:
        record: a text, written as it is; or a mapping with ``step``, if known ``steps``,
            ``s_per_step`` and ``eta_s`` (seconds), and terms named ``pass/.../term``, of which the
            main ones are shown as means over the passes.
    """
    sys.stdout.write((record if isinstance(record, str) else _format(record)) + "\n")
    sys.stdout.flush()


def _format(record: Mapping[str, Any]) -> str:
    parts = [str(record[key]) for key in ("network", "phase") if record.get(key)]
    if "step" in record:
        steps = record.get("steps")
        width = len(str(steps)) if steps else 6
        parts.append(f"step {record['step']:>{width}}" + (f"/{steps}" if steps else ""))
    if "s_per_step" in record:
        parts.append(f"{_number(record['s_per_step'])} s/step")
    if "eta_s" in record:
        parts.append(f"{duration(record['eta_s'])} left")
    if any(key.startswith("val/") for key in record):
        parts.append("validation")
    parts += [f"{name} {_number(value)}" for name, value in _main_terms(record).items()]
    return "  ".join([*parts, *filter(None, [record.get("message")])])


def _main_terms(record: Mapping[str, Any]) -> dict[str, float]:
    """Means over the passes: the main terms in their order, then others while there is room."""
    terms: dict[str, list[float]] = {}
    for key, value in record.items():
        name = key.rsplit("/", 1)[-1]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and name not in BOOKKEEPING and not key.startswith("d/"):  # see metrics.jsonl
            terms.setdefault(name, []).append(float(value))
    main = [name for name in MAIN_TERMS if name in terms]
    # where the main terms are there, the rest is left to metrics.jsonl
    names = main if len(main) > 2 else [*main, *(name for name in terms if name not in main)]
    return {name: fmean(terms[name]) for name in names[:LONGEST]}


def _number(value: float) -> str:
    """Three digits, without an exponent where that is readable."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Write seconds as people say them: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
