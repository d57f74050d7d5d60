"""Tables 2 to 5 of the paper, and three of our own, from what evaluation left on the disk.

Every cell that the paper has is there: with our value, or with the reason why there is none. The
paper's value stands in a column of its own, `published_<dataset>`, and only there; on a dataset
that the paper has not, all its columns stand beside, since none of them is comparable. What was
measured beyond the paper's cells follows below them. Nothing is computed here.

Our own: `correspondence` (CPR, Fig. 5), `verification` (face against voice) and
`by_direction_and_sex`, of every metric.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.evaluation.images import FID_STARGAN_V2 as FID
from xfavot.evaluation.images import LPIPS_STARGAN_V2 as LPIPS
from xfavot.evaluation.protocol import EVERYTHING
from xfavot.evaluation.voices import METRIC as SPKSIM
from xfavot.evaluation.voices import NISQA, WER
from xfavot.losses.objective import TABLE_1, Table1Row
from xfavot.models.blocks import AdaINResBlk, ResBlk
from xfavot.models.xfavot import F0_FEATURE_FACTOR, ShapeRow, XFaVoT, shape_trace
from xfavot.report.artifact import COLUMNS, TIERS, from_csv, read_table, require_columns

# What others have printed, as data: the only place where published numbers stand


GROUND_TRUTH = "ground truth"
SYSTEMS = {  # configuration or baseline: its name in the tables
    "xfavot": "XFaVoT",
    "joint": "joint training",
    "joint_xm": "joint training, L_xm",
    "dual_no_xm": "XFaVoT without L_xm",
    "starganv2": "StarGANv2",
    "starganv2vc_oneshot": "StarGANv2-VC, one-shot",
    "sgsim": "SGSIM",
    "adain_vc": "AdaIN-VC",
    "fragment_vc": "Fragment-VC",
    "adain_cvc": "AdaIN-CVC",
    "ground_truth": GROUND_TRUTH,
}
BASELINES = ("sgsim", "adain_vc", "fragment_vc", "adain_cvc")
ABLATIONS = ("joint", "joint_xm", "dual_no_xm", "starganv2vc_oneshot")
PAPER_NAME = "arXiv 2302.13838"
STATED = "STATED"
ON_GRID = "STATED; that it is on GRID is INFERRED (0.8)"
FROM_TABLE_4 = "INFERRED (0.8): Table 4 is taken to repeat Table 2's column GRID"
LOST = "UNKNOWN: the body of Table 2 is lost"
BARS = "UNKNOWN: Fig. 5 prints bars without numbers, and they are lost"
VALUE_NOT_PRINTED = "not printed in the paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A number in print, or a cell whose number is lost.

    Args:
        table: where the paper has it, such as "table3".
        system: a key of :data:`SYSTEMS`, or the name of other work.
        task: guidance to output, such as "a2i"; "" for recordings and for faces and voices.
        dataset: name of the mixture, as in `xfavot/presets/datasets/`.
        metric: as evaluation names it.
        value: the number, ``None`` if it is lost.
        status: STATED, INFERRED or UNKNOWN, with the reason.
        source: the work.
    """

    table: str
    system: str
    task: str
    dataset: str
    metric: str
    value: float | None
    status: str
    source: str = PAPER_NAME


def key_of(system: str) -> str:
    """Bring a system's name to its key in :data:`SYSTEMS`; an unknown one stays as it is."""
    plain = _plain(system)
    return next((k for k, name in SYSTEMS.items() if plain in (_plain(k), _plain(name))), system)


def of(table: str) -> list[Published]:
    """The cells of a table, in the paper's order; none for a table without numbers."""
    return [cell for cell in PUBLISHED if cell.table == table]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


IMAGES, VOICES = (FID, LPIPS), (NISQA, SPKSIM, WER)
Values = tuple[float | None, ...]
LOST_IMAGES: Values = (None, None)

TABLE_2: tuple[tuple[str, str, str, Values, str], ...] = (
    *(("starganv2", "i2i", data, LOST_IMAGES, LOST) for data in ("celebahq_vctk", "lrs3_lip2wav")),
    ("starganv2", "i2i", "grid", (54.9, 0.200), FROM_TABLE_4),
    *(
        ("sgsim", "a2i", data, LOST_IMAGES, LOST)
        for data in ("celebahq_vctk", "lrs3_lip2wav", "grid")
    ),
    *(
        ("xfavot", task, data, LOST_IMAGES, LOST)
        for task in ("i2i", "a2i")
        for data in ("celebahq_vctk", "lrs3_lip2wav")
    ),
    ("xfavot", "i2i", "grid", (34.4, 0.175), FROM_TABLE_4),
    ("xfavot", "a2i", "grid", (33.3, 0.156), FROM_TABLE_4),
)
"""Table 2: FID and LPIPS. StarGAN v2 is the ancestor of i2i, SGSIM the baseline of a2i."""

TABLE_3: tuple[tuple[str, str, str, Values, str], ...] = (
    ("ground_truth", "", "grid", (4.61, 0.82, 0.30), STATED),
    ("ground_truth", "", "celebahq_vctk", (4.29, 0.93, 0.08), STATED),
    ("adain_vc", "a2a", "grid", (3.75, 0.75, 0.65), STATED),
    ("adain_vc", "a2a", "celebahq_vctk", (2.99, 0.78, 0.31), STATED),
    ("fragment_vc", "a2a", "grid", (3.49, 0.70, 0.66), STATED),
    ("fragment_vc", "a2a", "celebahq_vctk", (3.00, 0.71, 0.27), STATED),
    ("xfavot", "a2a", "grid", (4.65, 0.75, 0.46), STATED),
    ("xfavot", "a2a", "celebahq_vctk", (4.56, 0.83, 0.16), STATED),
    ("adain_cvc", "i2a", "grid", (3.45, 0.61, 0.54), STATED),
    ("adain_cvc", "i2a", "celebahq_vctk", (2.63, None, 0.21), STATED),
    ("xfavot", "i2a", "grid", (4.58, 0.66, 0.48), STATED),
    ("xfavot", "i2a", "celebahq_vctk", (4.51, None, 0.19), STATED),
)
"""Table 3: NISQA, SpkSim, WER. SpkSim of i2a is the mean over ten utterances of the face's speaker;
its column VCTK has faces of CelebA-HQ, whose people have no voice there."""

TABLE_4: tuple[tuple[str, str, str, Values, str], ...] = tuple(
    (system, task, "grid", values, ON_GRID)
    for system, *both in (
        ("starganv2", (54.9, 0.200)),
        ("joint", (52.8, 0.056), (107.2, 0.097)),
        ("joint_xm", (49.3, 0.048), (53.7, 0.049)),
        ("xfavot", (34.4, 0.175), (33.3, 0.156)),
        ("dual_no_xm", (47.0, 0.057), (38.5, 0.036)),
    )
    for task, values in zip(("i2i", "a2i"), both, strict=False)
)
"""Table 4: FID and LPIPS of the ablations, image-guided and then audio-guided."""

TABLE_5: tuple[tuple[str, str, str, Values, str], ...] = tuple(
    (system, task, "grid", values, ON_GRID)
    for system, *both in (
        ("starganv2vc_oneshot", (4.62, 0.64, 0.448)),
        ("joint", (4.61, 0.64, 0.428), (4.64, 0.58, 0.44)),
        ("joint_xm", (4.62, 0.64, 0.430), (4.69, 0.58, 0.44)),
        ("xfavot", (4.65, 0.75, 0.455), (4.58, 0.66, 0.48)),
    )
    for task, values in zip(("a2a", "i2a"), both, strict=False)
)
"""Table 5: NISQA, SpkSim, WER of the ablations, audio-guided and then image-guided."""


def _cells() -> Iterator[Published]:
    for table, metrics, lines in (
        ("table2", IMAGES, TABLE_2),
        ("table3", VOICES, TABLE_3),
        ("table4", IMAGES, TABLE_4),
        ("table5", VOICES, TABLE_5),
    ):
        for system, task, dataset, values, status in lines:
            for metric, value in zip(metrics, values, strict=True):
                said = status if value is not None or status == LOST else VALUE_NOT_PRINTED
                yield Published(
                    table=table,
                    system=system,
                    task=task,
                    dataset=dataset,
                    metric=metric,
                    value=value,
                    status=said,
                )
    for dataset in ("grid", "celebahq_vctk"):
        truth = [("ground_truth", "")] if dataset == "grid" else []  # no pairs in the other
        for system, task in (
            ("sgsim", "a2i"),
            ("xfavot", "a2i"),
            ("adain_cvc", "i2a"),
            ("xfavot", "i2a"),
            *truth,
        ):
            yield Published(
                table="correspondence",
                system=system,
                task=task,
                dataset=dataset,
                metric="CPR",
                value=None,
                status=BARS,
            )
    shape = "arXiv 2103.07293, the authors' repository KID-7391/seeking-the-shape-of-sound"
    for system, metric, value, source in (
        ("Vclip", "verification AUC, all pairs", 0.8963, "arXiv 2601.02753, abstract"),
        ("Wen et al., voice to face", "verification AUC, all pairs", 0.872, shape),
        ("Wen et al., face to voice", "verification AUC, all pairs", 0.870, shape),
        ("Wen et al., voice to face", "verification AUC, pairs of one sex", 0.775, shape),
        ("Wen et al., face to voice", "verification AUC, pairs of one sex", 0.761, shape),
    ):
        yield Published(
            table="verification",
            system=system,
            task="",
            dataset="voxceleb",
            metric=metric,
            value=value,
            status=STATED,
            source=source,
        )


PUBLISHED = tuple(_cells())


# The evaluations that lie below a folder of runs, read for the paper's tables


PAPER_STEPS = 20_000  # STATED, App. A
REDUCED = "reduced"
EVALUATION, SCORES, STUDY = "evaluation.csv", "scores.csv", "cpr.csv"
FILES = {  # where each lies, and how many folders below its run
    EVALUATION: ("*/evaluation/evaluation.csv", 1),
    SCORES: ("*/scores.csv", 0),
    STUDY: ("*/paper_tables/cpr/cpr.csv", 2),
}
PREFERENCE = "CPR"  # in the metric of every row of the study
REASONS = "missing.csv"
REASON_COLUMNS = ("system", "metric", "reason")
DIGEST = 12  # hex digits of a file's sha256 that rows carry
LONGEST_REASON = 240  # characters
FOLDER = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,;:'\"()]+[/\\])+")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a metric of a system is missing; an empty task is any."""

    system: str
    task: str
    metric: str
    reason: str


@dataclass(slots=True, eq=False, kw_only=True)
class Evaluations:
    """What was measured on the datasets asked for.

    Args:
        tier: of all rows; "reduced" without any.
        rows: tidy, with the column ``evaluation`` (run, step, hash of the file) after their own;
            ``system`` is a key of :data:`xfavot.report.published.SYSTEMS` where it is one.
        missing: reasons that the evaluations gave.
        left_out: files that are not used, and why.
    """

    tier: str = REDUCED
    rows: list[Row] = field(default_factory=list)
    missing: list[Reason] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """What was found, as Markdown, which logs show as well."""
        files = sorted({str(row["evaluation"]) for row in self.rows})
        head = f"{len(self.rows)} values, tier {self.tier}; evaluations read: {len(files)}.\n"
        lines = [*files, *(f"left out: {one}" for one in self.left_out)]
        return "\n".join([head, *(f"- {line}" for line in lines)]) + "\n"

    def _repr_markdown_(self) -> str:
        return repr(self)


@dataclass(slots=True, eq=False, kw_only=True)
class _File:
    """One file of rows."""

    run: str
    name: str
    written: float
    tier: str
    rows: list[Row]
    missing: list[Reason]


def read(run_root: Path | str, datasets: tuple[str, ...], *, study: bool = False) -> Evaluations:
    """Read all evaluations below a folder.

    Args:
        run_root: folder of runs; one that does not exist holds none.
        datasets: names of the mixtures wanted; rows of others are passed over.
        study: read the preferences (CPR), else everything but them.

    Raises:
        DataError: a file is damaged, lacks columns, or holds what is no number.
    """
    patterns = [pattern for name, (pattern, _) in FILES.items() if study or name != STUDY]
    paths = [path for pattern in patterns for path in sorted(Path(run_root).glob(pattern))]
    files = [_file(path, datasets, study=study) for path in paths]
    files = [one for one in files if one.rows or one.missing]
    if not files:
        return Evaluations()
    tier = max((one.tier for one in files), key=TIERS.index)
    found = Evaluations(tier=tier)
    newest: dict[tuple[str, str], _File] = {}
    for one in sorted(files, key=lambda file: (file.written, file.run)):
        if one.tier != tier:
            found.left_out.append(
                f"{one.name} of {one.run} is of tier {one.tier}, another of tier {tier}"
            )
            continue
        for row in one.rows:
            newest[_key(row)] = one
    used = [one for one in files if one.tier == tier]
    for one in used:
        kept = [row for row in one.rows if newest[_key(row)] is one]
        found.rows += kept
        older = {str(row["system"]) for row in one.rows} - {str(row["system"]) for row in kept}
        if older:
            found.left_out.append(
                f"{', '.join(sorted(older))} in {one.name} of {one.run}: a later file has them"
            )
        found.missing += one.missing
    return found


def _key(row: Row) -> tuple[str, str]:
    """What one file alone may tell: a system on a dataset."""
    return str(row["system"]), str(row["dataset"])


def _file(path: Path, datasets: tuple[str, ...], *, study: bool) -> _File:
    """Read one file of rows and the reasons beside it."""
    run = path.parents[FILES[path.name][1]]
    described = _described(run / "config.json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST]
    table = read_table(path.parent) if path.name == STUDY else None
    told = _told(path.with_suffix(".json")) if path.name == EVALUATION else {}
    step = f", step {told['step']}" if "step" in told else ""
    own = {"evaluation": f"{run.name}{step}, sha256 {digest}"}
    rows = []
    for number, row in enumerate(table.rows if table else _rows(path), 1):
        require_columns(f"{path}, row {number}", row)
        if row["dataset"] in datasets and (PREFERENCE in str(row["metric"])) == study:
            rows.append({**row, "system": _system(row["system"], run, described), **own})
    tier = str(table.record["tier"]) if table else _tier(described, told)
    reasons = path.with_name(REASONS)
    ours = told.get("dataset") in (None, *datasets)
    given = _rows(reasons) if ours and not study and reasons.is_file() else []
    missing = []
    for number, row in enumerate(given, 1):
        if any(not row.get(name) for name in REASON_COLUMNS):
            raise DataError(
                f"{reasons}, row {number}: {dict(row)}; expected {', '.join(REASON_COLUMNS)}; run "
                "notebooks/evaluate.ipynb again"
            )
        if row.get("dataset") in (None, *datasets):
            missing.append(
                Reason(
                    system=_system(row["system"], run, described),
                    task=str(row.get("task") or ""),
                    metric=str(row["metric"]),
                    reason=public(str(row["reason"])),
                )
            )
    return _File(
        run=run.name,
        name=path.name,
        written=path.stat().st_mtime,
        tier=tier,
        rows=rows,
        missing=missing,
    )


def _rows(path: Path) -> list[Row]:
    """Read a CSV file whose every line is whole."""
    advice = "run notebooks/evaluate.ipynb again"
    try:
        rows = from_csv(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected a CSV file in UTF-8 whose lines have as "
            f"many cells as its head; {advice}"
        ) from error
    if path.name != REASONS and not rows:
        raise DataError(f"{path} has no row; expected the columns {list(COLUMNS)}; {advice}")
    return rows


def _described(path: Path) -> dict[str, Any]:
    """The configuration of a run, {} where there is none."""
    config = _mapping(path, "a run's configuration; restore it, or move the run away")
    if config and not {"configuration", "preset", "train"} <= config.keys():
        raise DataError(
            f"{path} lacks configuration, preset or train; expected a run's configuration; restore "
            "it, or move the run away"
        )
    return config


def _told(path: Path) -> dict[str, Any]:
    """How a checkpoint was evaluated, {} where that is not told."""
    return _mapping(path, "how the run was evaluated; run notebooks/evaluate.ipynb again")


def _mapping(path: Path, expected: str) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); expected {expected}") from error
    if not isinstance(read, dict):
        raise DataError(f"{path} holds {type(read).__name__}; expected {expected}")
    return read


def _system(name: Any, run: Path, described: dict[str, Any]) -> str:
    """The key of a system; a row named after its run is its configuration."""
    own = (run.name, described.get("name"))
    return key_of(str(described["configuration"] if described and name in own else name))


def _tier(described: dict[str, Any], told: dict[str, Any]) -> str:
    """Tier of a run: "paper" only at the paper's sizes, steps and numbers of conversions."""
    preset = described.get("preset")
    trained = told.get("step", 0) if isinstance(told.get("step"), int) else 0
    whole = preset == "paper" and trained >= PAPER_STEPS and told.get("conversions") == 0
    return "smoke" if preset == "smoke" else "paper" if whole else REDUCED


def public(reason: str) -> str:
    """Say a reason in short: what is wrong and what to do, without folders of the machine."""
    parts = FOLDER.sub("", " ".join(reason.split())).split("; ")
    plain = parts[0] if len(parts) == 1 else f"{parts[0]}; {parts[-1]}"
    if len(plain) <= LONGEST_REASON:
        return plain
    return f"{plain[:LONGEST_REASON].rpartition(' ')[0].rstrip(',;')} ..."


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
VERIFIED = tuple(
    f"verification {name}, {part}"
    for part in ("all pairs", "pairs of one sex")
    for name in ("AUC", "EER")
)
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
        caption=f"Table 5: ablations, voice conversion. {BESIDE}", fits=_led("2a", ablations=True)
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
    layout, cells = LAYOUTS[item], of(item)
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
    metrics = (*IMAGES, *VOICES)
    keys = [("xfavot", "", metric) for metric in metrics]
    return _pruned([_empty(key, dataset, {}, _reason(found, key, dataset)) for key in keys])


def datasets_of(dataset: str) -> tuple[str, ...]:
    """Names of the mixtures whose rows belong into the tables of a dataset."""
    printed = dict.fromkeys(cell.dataset for cell in PUBLISHED)
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
    sources = dict.fromkeys(cell.source for cell in cells if cell.source != PAPER_NAME)
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
    told = {
        "system": SYSTEMS.get(system, system),
        "task": task,
        "dataset": dataset,
        "metric": metric,
    }
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
    filled = [
        name
        for name in (*first, STATUS, MISSING, *last)
        if any(row.get(name) not in (None, "") for row in rows)
    ]
    return [{name: row.get(name) for name in (*COLUMNS, *filled)} for row in rows]


# Table 1 and Tables 6 to 9, read from what the program runs: never typed in, never out of step


MODULES = {
    "table6": ("G_I",),
    "table7": ("G_A",),
    "table8": ("E_I", "D_I"),
    "table9": ("E_A", "D_A", "C_A"),
    "mapping_network": ("M",),
}
PAPER_SPEAKERS = 128  # STATED
SAME, UNKNOWN = "the same", ""
STEM = "Conv 1x1 (A21)"
WITH_NORM = "with IN (A18)"
NOT_PRINTED = "not printed (A17)"
CAPTIONS = {
    "table1": "Table 1: where a style comes from, and what may be trained with it. The value is "
    "the number of head families of D_A and C_A.",
    "table6": "Table 6: the image generator.",
    "table7": "Table 7: the audio generator; the F0 features join before the AdaIN blocks.",
    "table8": "Table 8: the image style encoder and discriminator.",
    "table9": "Table 9: the audio style encoder, discriminator and classifier.",
    "mapping_network": "The mapping network (App. G); parameters are those of all domains.",
    "modules": "All trained modules; parameters are counted, the paper prints none.",
}


def table_1() -> list[Row]:
    """Table 1, one row a source of styles; status as in `losses/objective.py` (A11)."""
    return [
        {
            **_number(row.encoder, row.data, "head families", len(row.heads)),
            "L_xm": _yes(row.xm),
            "heads": ", ".join(row.heads),
            "speaker_label": _yes(row.needs_speaker),
            "status": _status(row),
        }
        for row in TABLE_1
    ]


def module_table(item: str, model: ModelConfig) -> list[Row]:
    """One of Tables 6 to 9, or the mapping network: layers, shapes, parameters.

    Args:
        item: one of :data:`MODULES`.
        model: the sizes; 0 speakers count as the paper's 128.

    Returns:
        One row a layer, and one for each module as a whole.

    Raises:
        DataError: no such table.
    """
    if item not in MODULES:
        raise DataError(f"table {item!r} has no modules; expected one of: {', '.join(MODULES)}")
    nets = _empty_modules(model)
    rows: list[Row] = []
    for name in MODULES[item]:
        net: nn.Module = getattr(nets, name)
        traced, counts = _trace(net, _inputs(name, model))
        printed = _printed(item, traced)
        for place, (layer, count) in enumerate(zip(traced, counts, strict=True), 1):
            rows.append(
                {
                    **_number(name, f"layer {place}", "parameters", count),
                    "layer": layer.layer,
                    "resample": layer.resample,
                    "norm": layer.norm,
                    "output": " x ".join(str(size) for size in layer.shape),
                    "published": printed[place - 1],
                }
            )
        rows.append(_number(name, "whole module", "parameters", sum(counts)))
    return rows


def modules(model: ModelConfig) -> list[Row]:
    """Parameters of the eight trained modules and of all together."""
    table = _empty_modules(model).parameter_table()
    return [_number(name, "", "parameters", count) for name, count in table]


def _number(system: str, task: str, metric: str, value: int) -> Row:
    """A row about the program itself: one sample, no data, nothing random."""
    return {
        "system": system,
        "task": task,
        "dataset": "",
        "metric": metric,
        "value": value,
        "ci_low": None,
        "ci_high": None,
        "n": 1,
        "seed": "none",
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _status(row: Table1Row) -> str:
    """What is certain of a row: see the docstring of `TABLE_1`."""
    return "STATED" if row.data == "image-only face" else "L_xm STATED, heads INFERRED"


def _empty_modules(model: ModelConfig) -> XFaVoT:
    """The modules with shapes but no values."""
    known = dataclasses.replace(model, speakers=model.speakers or PAPER_SPEAKERS)
    with torch.device("meta"):
        return XFaVoT.from_config(known)


def _inputs(name: str, m: ModelConfig) -> tuple[Tensor, ...]:
    """What a module takes, one sample, without values."""
    with torch.device("meta"):
        face = torch.empty(1, 3, m.image_size, m.image_size)
        voice, s = torch.empty(1, 1, m.mel_bins, m.mel_frames), torch.empty(1, m.style_dim)
        domain = torch.zeros(1, dtype=torch.int64)
        melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
        known: dict[str, tuple[Tensor, ...]] = {
            "G_I": (face, s),
            "G_A": (voice, s, melody),
            "E_I": (face, domain),
            "D_I": (face, domain),
            "E_A": (voice, domain),
            "D_A": (voice, domain),
            "C_A": (voice,),
            "M": (torch.empty(1, m.latent_dim), domain),
        }
    return known[name]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Every residual block whole, every other layer by itself."""
    children = list(module.children())
    if isinstance(module, ResBlk | AdaINResBlk) or not children:
        yield module
    for child in children if not isinstance(module, ResBlk | AdaINResBlk) else []:
        yield from _layers(child)


def _trace(net: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[ShapeRow], list[int]]:
    """The layers in the order in which they ran, and the parameters of each."""
    counts: list[int] = []

    def note(layer: nn.Module, *_: object) -> None:
        counts.append(sum(p.numel() for p in layer.parameters()))

    hooks = [layer.register_forward_hook(note) for layer in _layers(net)]
    try:
        traced = shape_trace(net, *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    joins = [place for place, row in enumerate(traced) if row.layer == "Concat F0"]
    for place in joins:  # joins what is there; its convolutions have rows of their own
        counts.insert(place, 0)
    return traced, counts


def _printed(item: str, traced: Sequence[ShapeRow]) -> list[str]:
    """What is known of the printed tables, layer by layer (ASSUMPTIONS A17, A18, A21)."""
    said = [SAME] * len(traced)
    if item == "mapping_network":
        return said  # STATED in App. G, in words
    said[0] = STEM
    if item in ("table6", "table7"):
        said[-2:] = [UNKNOWN, UNKNOWN]  # the output head does not survive
    if item in ("table8", "table9"):
        said = [
            WITH_NORM if row.layer == "ResBlk" and row.norm == "-" else was
            for row, was in zip(traced, said, strict=True)
        ]
    if item == "table7":
        joined = [row.layer for row in traced].index("Concat F0")
        said[joined - 1] = UNKNOWN  # the block on the F0 features is the ancestor's
        between = [
            place
            for place, row in enumerate(traced)
            if place > joined and row.norm == "AdaIN" and row.resample == "-"
        ]
        for place in between[2:]:
            said[place] = NOT_PRINTED
    return said
