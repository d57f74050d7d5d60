"""Tables 2 to 5 of the paper, and three of our own, from what evaluation left on the disk.

Every cell that the paper has is there: with our value, or with the reason why there is none. The
paper's value stands in a column of its own, `published_<dataset>`, and only there; on a dataset
that the paper has not, all its columns stand beside, since none of them is comparable. What was
measured beyond the paper's cells follows below them. Nothing is computed here.

Our own: `correspondence` (CPR, Fig. 5), `verification` (face against voice) and
`by_direction_and_sex`, of every metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.evaluation.protocol_results import EVERYTHING
from xfavot.report import published
from xfavot.report.evaluation_rows import PREFERENCE, Evaluations, Row
from xfavot.report.published import ABLATIONS, BASELINES, SYSTEMS, Published
from xfavot.report.tidy import COLUMNS

PAPER = "paper"  # the mixture of all corpora; its tables have a dataset a column
WHOLE = (None, "", "mean", "both", "all")  # direction or sex of a row that is about all
ONE_VALUE = "published_{}"
STATUS, MISSING = "published_status", "missing"
DROPPED = ("tier", "guidance", "definition")  # told in the record, the task and the caption
OF_FACES = ("fid", "lpips", "frechet", "diversity", "pose", "contour", "face_found")  # beginnings

REAL_FACES = "faces"  # the task of real ones

Cell = tuple[str, str, str]  # system, task, metric; an empty task is any
Fits = Callable[[Row], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What belongs into a table.

    Args:
        caption: the sentences above it.
        fits: whether a measured row belongs here, beyond the paper's cells.
        asked: cells that the paper has not but this project asks for.
    """

    caption: str
    fits: Fits
    asked: tuple[Cell, ...] = ()


def _whole(row: Row) -> bool:
    return row.get("direction") in WHOLE and row.get("sex") in WHOLE


def _likeness(row: Row) -> bool:
    """Face against voice, or voice against voice, in numbers of their own."""
    metric = str(row["metric"])
    return "verification" in metric or "R@" in metric


def _cpr(row: Row) -> bool:
    return PREFERENCE in str(row["metric"])


def _led(output: str, *, ablations: bool) -> Fits:
    """Rows about one kind of output, of the ablations or of the others."""

    def fits(row: Row) -> bool:
        real = row["system"] == "ground_truth"
        faces = row["task"] == REAL_FACES or str(row["metric"]).startswith(OF_FACES)
        about = faces == (output == "2i") if real else str(row["task"]).endswith(output)
        ours = about and _whole(row) and not (_likeness(row) or _cpr(row))
        return ours and (row["system"] in ABLATIONS) == ablations

    return fits


BESIDE = "Columns `published` hold the paper's own values, measured by its authors on their data."
OURS = ("xfavot", "verification")
VERIFIED = tuple(f"verification {name}, {part}" for part in ("all pairs", "pairs of one sex")
                 for name in ("AUC", "EER"))  # fmt: skip
RETRIEVED = tuple(f"R@{k}{part}" for part in ("", " within one sex") for k in (1, 5))
LAYOUTS = {
    "table2": Layout(
        caption=f"Table 2: face image translation, FID (lower is better) and LPIPS. {BESIDE}",
        fits=_led("2i", ablations=False),
    ),
    "table3": Layout(
        caption=f"Table 3: voice conversion, NISQA, speaker similarity and word errors. {BESIDE}",
        fits=_led("2a", ablations=False),
    ),
    "table4": Layout(
        caption=f"Table 4: ablations, face image translation. {BESIDE}",
        fits=_led("2i", ablations=True),
    ),
    "table5": Layout(
        caption=f"Table 5: ablations, voice conversion. {BESIDE}",
        fits=_led("2a", ablations=True),
    ),
    "correspondence": Layout(
        caption="Correspondence preference ratio (paper: Sec. 4.3, Fig. 5); chance is 0.5. "
        "Rows named automatic were judged by a computer.",
        fits=_cpr,
    ),
    "verification": Layout(
        caption="Face against voice by their styles: verification and retrieval. Columns "
        "`published` hold what other works print about other data.",
        fits=_likeness,
        asked=tuple((*OURS, metric) for metric in (*VERIFIED, *RETRIEVED)),
    ),
}


def compared(item: str, found: Evaluations, *, dataset: str) -> list[Row]:
    """Make a table of what was measured, beside what is published.

    Args:
        item: one of :data:`LAYOUTS`.
        found: of :func:`xfavot.report.evaluation_rows.read`, with :func:`datasets_of`.
        dataset: the mixture asked for; "paper" gives every dataset of the paper's table.

    Returns:
        Rows for `report.write_table`: a row without a value says in the column ``missing`` why.

    Raises:
        DataError: there is no such table.
    """
    if item not in LAYOUTS:
        raise DataError(
            f"table {item!r} is not made from evaluations; expected one of: {', '.join(LAYOUTS)}"
        )
    layout, cells = LAYOUTS[item], published.of(item)
    printed = tuple(dict.fromkeys(cell.dataset for cell in cells))
    rows, used = [], set()
    for target in printed if dataset == PAPER and item != "verification" else (dataset,):
        near = [cell for cell in cells if cell.dataset == target or target not in printed]
        keys = [(cell.system, cell.task, cell.metric) for cell in near]
        for key in dict.fromkeys([*layout.asked, *keys]):
            measured = [row for row in found.rows if row["dataset"] == target and _is(row, key)]
            used |= {id(row) for row in measured}
            beside = _beside([c for c in near if (c.system, c.task, c.metric) == key])
            why = "" if measured else _reason(found, key, target)
            rows += [_row(one, beside) for one in measured] or [_empty(key, target, beside, why)]
    more = [row for row in found.rows if id(row) not in used and layout.fits(row)]
    return _pruned([*rows, *(_row(row, {}) for row in more)])


def caption(item: str, rows: Iterable[Row], found: Evaluations) -> str:
    """What stands above a table: its title and the definitions of what was measured in it.

    Args:
        item: one of :data:`LAYOUTS`, or the title itself.
        rows: of the table.
        found: what they were made from.
    """
    shown = {row["metric"] for row in rows if row["value"] is not None}
    defined: dict[str, dict[str, None]] = {}
    for row in found.rows:
        if row["metric"] in shown and row.get("definition"):
            defined.setdefault(str(row["definition"]), {})[str(row["metric"])] = None
    told = [f"{', '.join(metrics)}: {text}." for text, metrics in defined.items()]
    title = LAYOUTS[item].caption if item in LAYOUTS else item
    return " ".join([title, *told])


def by_direction_and_sex(found: Evaluations, *, dataset: str) -> list[Row]:
    """Make the table of every metric by direction and sex; the paper prints averages alone.

    Args:
        found: of :func:`xfavot.report.evaluation_rows.read`.
        dataset: the mixture asked for, named where nothing was measured.
    """
    rows = [row for row in found.rows if not (_whole(row) or _likeness(row) or _cpr(row))]
    if rows:
        return _pruned([_row(row, {}) for row in rows])
    metrics = (*published.IMAGES, *published.VOICES)
    keys = [("xfavot", "", metric) for metric in metrics]
    return _pruned([_empty(key, dataset, {}, _reason(found, key, dataset)) for key in keys])


def datasets_of(dataset: str) -> tuple[str, ...]:
    """Names of the mixtures whose rows belong into the tables of a dataset."""
    printed = dict.fromkeys(cell.dataset for cell in published.PUBLISHED)
    return (*printed, PAPER) if dataset == PAPER else (dataset,)


def stores_there(data_root: str, corpora: Iterable[str]) -> list[Store]:
    """Open those prepared stores that exist: tables are made on machines without data, too.

    Raises:
        DataError: a store is damaged.
    """
    folders = {corpus: Path(data_root, corpus) for corpus in corpora}
    there = {corpus: path for corpus, path in folders.items() if (path / "store.json").is_file()}
    return [Store.open(path, corpus=corpus) for corpus, path in there.items()]


def _is(row: Row, key: Cell) -> bool:
    system, task, metric = key
    same = str(row["metric"]).removeprefix("cross-modal ") == metric
    whole = _whole(row) or metric.startswith("R@")  # retrieval has directions and no mean
    return bool(row["system"] == system and task in ("", row["task"]) and same and whole)


def _beside(cells: Iterable[Published]) -> Row:
    """The published columns of one cell."""
    cells = list(cells)
    valued = [cell for cell in cells if cell.value is not None]
    statuses = dict.fromkeys(cell.status for cell in valued or cells)
    values = {ONE_VALUE.format(cell.dataset): cell.value for cell in cells}
    sources = dict.fromkeys(cell.source for cell in cells if cell.source != published.PAPER)
    return {**values, STATUS: "; ".join([*statuses, *sources])}


def _row(measured: Row, beside: Row) -> Row:
    """A measured value, with what is published of it."""
    system = SYSTEMS.get(str(measured["system"]), measured["system"])
    own = {name: measured[name] for name in COLUMNS}
    extra = {k: v for k, v in measured.items() if k not in own and k not in DROPPED}
    if extra.get("direction") in WHOLE:
        extra.pop("direction", None)
    return {**own, "system": system, **beside, MISSING: None, **extra}


def _empty(key: Cell, dataset: str, beside: Row, reason: str) -> Row:
    """A cell without a value of ours."""
    system, task, metric = key
    blank: dict[str, Any] = dict.fromkeys(COLUMNS)
    told = {"system": SYSTEMS.get(system, system), "task": task, "dataset": dataset,
            "metric": metric}  # fmt: skip
    return {**blank, **told, **beside, MISSING: reason}


def _reason(found: Evaluations, key: Cell, dataset: str) -> str:
    """Why a cell is empty: what the evaluation said, or what was not run."""
    system, task, metric = key
    said = {
        one.metric: one.reason
        for one in reversed(found.missing)
        if one.system == system
        and (task == one.task or (one.metric != EVERYTHING and "" in (task, one.task)))
    }
    if {metric, EVERYTHING} & said.keys():
        return said.get(metric) or said[EVERYTHING]
    own = [row for row in found.rows if (row["system"], row["dataset"]) == (system, dataset)]
    if metric == PREFERENCE:
        return "no study answered: cpr_study.ipynb"
    if any(row["metric"] == metric and task in ("", row["task"]) for row in own):
        return "measured for single directions or sexes only"
    if own:
        return "the evaluation has no such row"
    if system in BASELINES:
        return "baseline, not run: evaluate.ipynb -p manifest scores its outputs"
    if system == "ground_truth":
        return "no recordings scored: evaluate.ipynb"
    if system not in SYSTEMS:
        return f"another work, not measured on {dataset}"
    return f"not evaluated: train.ipynb -p configuration {system}, then evaluate.ipynb"


def _pruned(rows: Sequence[Row]) -> list[Row]:
    """Leave out further columns that no row fills, and put the same ones in the same order."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    first = [name for name in names if name.startswith("published_") and name != STATUS]
    last = [name for name in names if name not in (*first, STATUS, MISSING)]
    filled = [name for name in (*first, STATUS, MISSING, *last)
              if any(row.get(name) not in (None, "") for row in rows)]  # fmt: skip
    return [{name: row.get(name) for name in (*COLUMNS, *filled)} for row in rows]
