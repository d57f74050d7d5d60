"""Tables 2 to 5 of the paper, and three of our own, from what evaluation left on the disk.

Tidy rows first: every cell that the paper has is there, with our value or the reason why there is
none. The paper's value stands in a column of its own, `published_<dataset>`, and only there; on a
dataset that the paper has not, all its columns stand beside, since none of them is comparable. What
was measured beyond the paper's cells follows below them. `notebooks/tables.ipynb` names and orders
them as the paper does. Nothing is computed here but the mean over seeds of a row.

Our own: `correspondence` (CPR, Fig. 5), `verification` (face against voice) and
`by_direction_and_sex`, of every metric.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from xfavot.config import RunConfig, to_dict
from xfavot.errors import DataError, refusing
from xfavot.evaluation.images import FID_STARGAN_V2 as FID
from xfavot.evaluation.images import LPIPS_STARGAN_V2 as LPIPS
from xfavot.evaluation.manifest import EVERYTHING
from xfavot.evaluation.voice_networks import NISQA
from xfavot.evaluation.voices import SIMILARITY as SPKSIM
from xfavot.evaluation.voices import WER
from xfavot.parameters import BASELINES as TRAINED
from xfavot.report import COLUMNS, MISSING, TIERS, from_csv, read_json, read_table, require_columns
from xfavot.strict import merge

Row = dict[str, Any]
Cell = tuple[str, str, str]  # system, task, metric; an empty task is any

# What others have printed: `published.csv`, the only place where published numbers stand


def _shipped(name: str) -> list[Row]:
    """The rows of a CSV file that lies beside this module."""
    return from_csv(resources.files("xfavot.report").joinpath(name).read_text("utf-8"))


_LISTED = _shipped("systems.csv")  # configurations and baselines, with their names in the tables
SYSTEMS: dict[str, str] = {row["system"]: row["name"] for row in _LISTED}
BASELINES, ABLATIONS = (
    [row["system"] for row in _LISTED if row["kind"] == kind] for kind in ("baseline", "ablation")
)
PAPER_NAME = "arXiv 2302.13838"


PUBLISHED: tuple[Row, ...] = tuple(
    {**row, "task": row["task"] or ""} for row in _shipped("published.csv")
)
"""The cells in the paper's order; ``value`` is ``None`` where it is lost or not printed.

Columns: ``table``; ``system``, a key of :data:`SYSTEMS` or the name of other work; ``task``,
guidance to output, "" for recordings and for faces and voices; ``dataset``, the mixture;
``metric``, as evaluation names it; ``value``; ``status``, STATED, INFERRED or UNKNOWN with the
reason; ``source``, the work.
"""


def key_of(system: str) -> str:
    """Bring a system's name to its key in :data:`SYSTEMS`; an unknown one stays as it is."""
    return {name.lower(): key for key, name in SYSTEMS.items()}.get(system.lower(), system)


# The evaluations that lie below a folder of runs

PAPER_STEPS = 20_000  # STATED, App. A
EVALUATION, STUDY = "evaluation.csv", "cpr.csv"
FILES = (f"*/evaluation/{EVALUATION}", "*/scores.csv", f"*/paper_tables/cpr/{STUDY}")
PREFERENCE = "CPR"  # in the metric of every row of the study
REASONS = "missing.csv"
DIGEST = 12  # hex digits of a file's sha256 that rows carry
FOLDER = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,;:'\"()]+[/\\])+")


@dataclass(slots=True, eq=False, kw_only=True)
class Evaluations:
    """What was measured on the datasets asked for.

    Args:
        tier: of all rows; "reduced" without any.
        rows: tidy, with the column ``evaluation`` (run, step, hash of the file) after their own;
            ``system`` is a key of :data:`SYSTEMS` where it is one.
        missing: why metrics are missing: ``system``, ``task`` ("" is any), ``metric``, ``reason``.
        left_out: files that are not used, and why.
        trained: of one file: its run and evaluation but for the seed of training, and that seed.
    """

    tier: str = "reduced"
    rows: list[Row] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    trained: tuple[str, int | None] = ("", None)


def read(run_root: Path | str, datasets: tuple[str, ...], *, study: bool = False) -> Evaluations:
    """Read all evaluations below a folder.

    Args:
        run_root: folder of runs; one that does not exist holds none.
        datasets: names of the mixtures wanted; rows of others are passed over.
        study: read the preferences (CPR), else everything but them.

    Raises:
        DataError: a file is damaged, lacks columns, or holds what is no number.
    """
    root, files = Path(run_root), list[tuple[str, Evaluations]]()
    paths = [path for pattern in FILES for path in root.glob(pattern)]
    places = [(path.stat().st_mtime, path.relative_to(root).parts[0], path) for path in paths]
    for _, run, path in sorted(places, key=lambda place: place[:2]):
        if study or path.name != STUDY:
            one = _file(path, root / run, datasets, study)
            files += [(f"{path.name} of {run}", one)] if one.rows or one.missing else []
    files = _joined(files)
    tier = max((one.tier for _, one in files), key=TIERS.index, default="reduced")
    result = Evaluations(tier=tier)
    # a system on a dataset has its rows from one file, recordings those of a task
    taken: set[tuple[str, ...]] = set()
    for name, one in reversed(files):  # the later ones first
        if one.tier != tier:
            result.left_out.append(f"{name} is of tier {one.tier}, another of tier {tier}")
            continue
        real = [str(r["task"]) * (r["system"] == REAL) for r in one.rows]
        of = [(r["system"], r["dataset"], t) for r, t in zip(one.rows, real, strict=True)]
        if older := sorted({system for system, *_ in taken.intersection(of)}):
            result.left_out.append(f"{', '.join(older)} in {name}: a later file has them")
        kept = [row for row, key in zip(one.rows, of, strict=True) if key not in taken]
        result.rows, result.missing = kept + result.rows, one.missing + result.missing
        taken.update(of)
    place = {system: n for n, system in enumerate(SYSTEMS)}
    result.rows.sort(key=lambda row: (place.get(row["system"], len(place)), row["system"]))
    return result


# not what a run is but for its seed; older ones of compared systems do not say "system"
ABOUT_RUN = ("config_id", "name", "seed", "data_root", "run_root", "system")
OF_ROW = ("system", "task", "dataset", "metric", "direction", "sex", "speakers", "guidance")
REAL = "ground_truth"


def _joined(files: Sequence[tuple[str, Evaluations]]) -> list[tuple[str, Evaluations]]:
    """Put the evaluations of runs that differ in their seed alone in the place of the last one.

    Values and bounds of intervals become means over the seeds: the interval is that of people, and
    too wide where the seeds' errors are independent; columns hold the seeds and their extremes.
    """
    seeds: dict[str, dict[int, int]] = {}  # the last file of each seed, by what they share
    for place, (_, one) in enumerate(files):
        run, seed = one.trained
        if seed is not None:
            own = seeds.setdefault(run, {})
            own.pop(seed, None)
            own[seed] = place
    result = []
    for place, (name, one) in enumerate(files):
        run, seed = one.trained
        own = seeds.get(run, {}) if seed is not None else {}
        if len(own) > 1 and place == max(own.values()):
            alike = {seed: files[n][1] for seed, n in sorted(own.items())}
            name = f"{name} and {len(own) - 1} of other seeds"
            result.append((name, replace(one, rows=_means(alike))))
        elif len(own) < 2:
            result.append((name, one))
    return result


def _means(seeds: Mapping[int, Evaluations]) -> list[Row]:
    """Average rows over seeds; those of recordings, in which nothing was trained, are the first."""
    rows: dict[tuple[Any, ...], dict[int, Row]] = {}
    for seed, one in seeds.items():
        for row in one.rows:
            rows.setdefault(tuple(row.get(name) for name in OF_ROW), {})[seed] = row
    result = []
    for own in rows.values():
        first, values = next(iter(own.values())), [row["value"] for row in own.values()]
        if first["system"] != REAL and len(own) > 1:
            bounds = {
                name: None if None in (held := [row[name] for row in own.values()]) else fmean(held)
                for name in ("ci_low", "ci_high")
            }
            known = {"seeds": ", ".join(map(str, own)), "least": min(values), "most": max(values)}
            origin = "; ".join(str(row["evaluation"]) for row in own.values())
            first = {**first, **bounds, "value": fmean(values), **known, "evaluation": origin}
        result.append(first)
    return result


def _file(path: Path, run: Path, datasets: tuple[str, ...], study: bool) -> Evaluations:
    """Read one file of rows and the reasons beside it."""
    config, reasons = _mapping(run / "config.json"), path.with_name(REASONS)
    how = _mapping(path.with_suffix(".json")) if path.name == EVALUATION else {}
    table = read_table(path.parent) if path.name == STUDY else None

    def system(name: Any) -> str:
        own = config and name in (run.name, config.get("name"))
        return key_of(str(config.get("configuration") if own else name))

    step = f", step {how['step']}" if "step" in how else ""
    origin = f"{run.name}{step}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST]}"
    rows = []
    for number, row in enumerate(table.rows if table else _rows(path), 1):
        require_columns(f"{path}, row {number}", row)
        if row["dataset"] in datasets and (PREFERENCE in str(row["metric"])) == study:
            rows.append({**row, "system": system(row["system"]), "evaluation": origin})
    ours = how.get("dataset") in (None, *datasets) and not study and reasons.is_file()
    missing = [
        {**row, "task": row.get("task") or "", "system": system(row["system"])}
        for row in (_rows(reasons) if ours else ())
        if row.get("dataset") in (None, *datasets)
    ]
    tier = str(table.record["tier"]) if table else _tier(config, how)
    trained: tuple[str, int | None] = ("", None)
    if config and how:
        run_as = {k: v for k, v in config.items() if k not in ABOUT_RUN}
        how = {k: v for k, v in how.items() if k not in ("checkpoint", "run", "version")}
        what, faults = f"{run / 'config.json'} is damaged", (TypeError, ValueError)
        with refusing(faults, DataError, what, "restore the file, or move the run away"):
            run_as = merge(to_dict(RunConfig()), run_as)  # older runs lack what came later
            run_as["train"]["device"] = ""
            seed = int(config["seed"]) if "seed" in config else None
            trained = json.dumps([run_as, how], sort_keys=True), seed
    return Evaluations(tier=tier, rows=rows, missing=missing, trained=trained)


def _rows(path: Path) -> list[Row]:
    """Read a CSV file whose every line is whole; reasons may be none, and all are said."""
    advice = (
        "expected a CSV file in UTF-8, with every column and cell; run notebooks/evaluate.ipynb "
        "again"
    )
    faults = (OSError, ValueError, TypeError, KeyError)
    with refusing(faults, DataError, f"{path} cannot be read", advice):
        rows, reasons = from_csv(path.read_text(encoding="utf-8")), path.name == REASONS
        whole = all(row[k] for row in rows for k in ("system", "metric", "reason")[: 3 * reasons])
        if not whole or not (rows or reasons):
            raise ValueError("it has an empty cell" if rows else "it has no row")
    return rows


def _mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file, {} where there is none."""
    expected = "the settings of a run or its evaluation; restore the file, or move the run away"
    return read_json(path, expected) if path.is_file() else {}


def _tier(config: Mapping[str, Any], how: Mapping[str, Any]) -> str:
    """Tier of a run: "paper" only at the paper's sizes, steps and numbers of conversions."""
    preset, step = config.get("preset"), how.get("step")
    trained = isinstance(step, int) and step >= PAPER_STEPS
    whole = preset == "paper" and trained and how.get("conversions") == 0
    return "smoke" if preset == "smoke" else "paper" if whole else "reduced"


def public(reason: str) -> str:
    """Say a reason in short: what is wrong and the first way out, no folders of the machine."""
    first, *rest = FOLDER.sub("", " ".join(reason.split())).split("; ")
    return "; ".join([first, *(part.split(", or ")[0] for part in rest[-1:])])


# Tidy rows of ours, each beside the published value

PAPER = "paper"  # the mixture of all corpora; its tables have a dataset a column
MEAN = (None, "", "mean", "both", "all")  # direction or sex of a row that is about all
STATUS = "published_status"
DROPPED = ("tier", "guidance", "definition")  # said by the record, the task and the notes
OF_FACES = ("fid", "lpips", "frechet", "diversity", "pose", "contour", "face_found")  # beginnings
REAL_FACES = "faces"  # the task of real ones
EVERY = "by_direction_and_sex"
ITEMS = ("table2", "table3", "table4", "table5", "correspondence", "verification", EVERY)
PAIRS = [
    f"verification {m}, {who}" for who in ("all pairs", "pairs of one sex") for m in ("AUC", "EER")
]
RANKS = [f"R@{rank}{within}" for within in ("", " within one sex") for rank in (1, 5)]
OWN_CELLS: dict[str, list[Cell]] = {  # that our own tables always have
    "verification": [("xfavot", "verification", metric) for metric in PAIRS + RANKS],
    EVERY: [("xfavot", "", metric) for metric in (FID, LPIPS, NISQA, SPKSIM, WER)],
}


PLACED = {(cell["table"], cell["system"]) for cell in PUBLISHED}


def _whole(row: Row) -> bool:
    return row.get("direction") in MEAN and row.get("sex") in MEAN


def _items(row: Row) -> tuple[str, ...]:
    """The tables that a measured row belongs to, if it is in none of the paper's cells."""
    metric, task = str(row["metric"]), str(row["task"])
    if PREFERENCE in metric:
        return ("correspondence",)
    if "verification" in metric or "R@" in metric:
        return ("verification",)
    if not _whole(row):
        return (EVERY,)
    faces, voices = task.endswith("2i"), task.endswith("2a")
    if row["system"] == REAL:
        faces = task == REAL_FACES or metric.startswith(OF_FACES)
        voices = not faces
    if not faces and not voices:
        return ()
    comparison, ablation = f"table{2 + voices}", f"table{4 + voices}"
    system = row["system"]
    named = tuple(item for item in (comparison, ablation) if (item, system) in PLACED)
    return named or (ablation if system in ABLATIONS else comparison,)


def compared(item: str, ours: Evaluations, *, dataset: str) -> list[Row]:
    """Make the tidy rows of a table: what was measured, beside what is published.

    Args:
        item: one of :data:`ITEMS`.
        ours: of :func:`read`, with :func:`datasets_of`.
        dataset: the mixture asked for; "paper" gives every dataset of the paper's table.

    Returns:
        Rows for `report.write_table`: a row without a value says in the column ``missing`` why.
    """
    cells = [cell for cell in PUBLISHED if cell["table"] == item]
    printed = tuple(dict.fromkeys(cell["dataset"] for cell in cells))
    own = OWN_CELLS.get(item, [])
    more = [row for row in ours.rows if item in _items(row)]
    if item == EVERY and more:
        own = []
    rows, used, blank = [], set(), dict.fromkeys(COLUMNS)
    for target in printed if dataset == PAPER and not own else (dataset,):
        near: dict[Cell, list[Row]] = {key: [] for key in own}
        for cell in cells:
            if cell["dataset"] == target or target not in printed:
                key = (cell["system"], cell["task"], cell["metric"])
                near.setdefault(key, []).append(cell)
        for key, beside in near.items():
            measured = [row for row in ours.rows if row["dataset"] == target and _is(row, key)]
            used |= {id(row) for row in measured}
            system, task, metric = key
            named: Row = {"system": system, "task": task, "dataset": target, "metric": metric}
            why = {} if measured else {MISSING: _reason(ours, key, target)}
            rows += [_row(one, _beside(beside) | why) for one in measured or [blank | named]]
    rows += [_row(row, {}) for row in more if id(row) not in used]
    return _pruned(rows)


def datasets_of(dataset: str) -> tuple[str, ...]:
    """Names of the mixtures whose rows belong into the tables of a dataset."""
    printed = dict.fromkeys(cell["dataset"] for cell in PUBLISHED)
    return (*printed, PAPER) if dataset == PAPER else (dataset,)


def _is(row: Row, key: Cell) -> bool:
    system, task, metric = key
    same = str(row["metric"]).removeprefix("cross-modal ") == metric
    whole = _whole(row) or metric.startswith("R@")  # retrieval has directions and no mean
    return bool(row["system"] == system and task in ("", row["task"]) and same and whole)


def _beside(cells: Sequence[Row]) -> Row:
    """The published columns of one cell."""
    valued = [cell for cell in cells if cell["value"] is not None]
    says = [cell["status"] for cell in valued or cells]
    says += [cell["source"] for cell in cells if cell["source"] != PAPER_NAME]
    values = {f"published_{cell['dataset']}": cell["value"] for cell in cells}
    return {**values, STATUS: "; ".join(dict.fromkeys(says))} if cells else {}


def _row(measured: Row, beside: Row) -> Row:
    """A measured value, with what is published of it."""
    row = {**{name: measured[name] for name in COLUMNS}, MISSING: None, **beside}
    row["system"] = SYSTEMS.get(str(row["system"]), row["system"])
    more = {k: v for k, v in measured.items() if k not in (*COLUMNS, *DROPPED)}
    if more.get("direction") in MEAN:
        more.pop("direction", None)
    return row | more


def _reason(ours: Evaluations, key: Cell, dataset: str) -> str:
    """Why a cell is empty: what the evaluation said, or what was not run."""
    system, task, metric = key
    said = {
        one["metric"]: public(one["reason"])
        for one in reversed(ours.missing)
        if one["system"] == system
        and (task == one["task"] or (one["metric"] != EVERYTHING and "" in (task, one["task"])))
    }
    own = [row for row in ours.rows if (row["system"], row["dataset"]) == (system, dataset)]
    reasons = {
        said.get(metric) or said.get(EVERYTHING): True,
        "no study answered: cpr_study.ipynb": metric == PREFERENCE,
        "the evaluation has no such row": bool(own),
        f"not evaluated: baseline.ipynb -p system {system}, then evaluate.ipynb": system in TRAINED,
        "baseline, not run: evaluate.ipynb -p manifest scores its outputs": system in BASELINES,
        "no recordings scored: evaluate.ipynb": system == REAL,
        f"another work, not measured on {dataset}": system not in SYSTEMS,
        f"not evaluated: train.ipynb -p configuration {system}, then evaluate.ipynb": True,
    }
    return next(reason for reason, holds in reasons.items() if reason and holds)


def _pruned(rows: Sequence[Row]) -> list[Row]:
    """Leave out further columns that no row fills, and put the same ones in the same order."""
    names = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    filled = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    order = {STATUS: 1, MISSING: 2}  # after what is published, before all else
    filled.sort(key=lambda n: order.get(n, 0 if n.startswith("published_") else 3))
    return [{name: row.get(name) for name in (*COLUMNS, *filled)} for row in rows]
