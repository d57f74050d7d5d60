"""The whole paper from one call: every notebook in its order, and only what is not fresh.

A step is a notebook with parameters, run by papermill in a process of its own. It is fresh if it
ended well before, with the same parameters, notebook, packages, weights of metrics and inputs
(checkpoints, evaluations, the study), and its outputs are still there. Data and training ask only
for what they themselves follow from: a later version of the package trains nothing anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfavot.config import corpora_of, key_of
from xfavot.errors import CheckpointError, DataError
from xfavot.parameters import Paper
from xfavot.report.artifact import FOLDERS, MISSING, installed, read_record, read_table
from xfavot.report.tables import EVALUATION, FILES
from xfavot.training import checkpoint
from xfavot.weights import fetched

PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
SOURCES = ("*.py", "*.yaml", "*.js", "*.html", "*.css", "*.safetensors")
CHATTER = ("Executing ", "Ending ", "Input Notebook", "Output Notebook")  # of papermill
TABLES, FIGURES = "paper_tables", "figures"

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One notebook to run.

    Args:
        name: of the step and its files; the notebook's, and which run.
        notebook: its name.
        parameters: what papermill is given.
        inputs: files and folders whose content the result follows from, beside the package.
        outputs: what must be there afterwards; patterns below a folder.
        code: whether the result also follows from the notebook, the packages and the weights.
        needed: whether nothing can go on without it.
    """

    name: str
    notebook: str
    parameters: Mapping[str, Any]
    inputs: tuple[Path, ...] = ()
    outputs: tuple[tuple[Path, str], ...] = ()
    code: bool = True
    needed: bool = False


def make(cfg: Paper, *, on_log: Say) -> list[str]:
    """Run every step that is not fresh.

    Args:
        cfg: the task.
        on_log: told what is run, what is fresh, and all that the notebooks say.

    Returns:
        What failed, each with its reason; the steps that could do without it were run.

    Raises:
        DataError: there are no notebooks here, or data or training failed.
        CheckpointError: there is no checkpoint where one was named or trained.
    """
    folder = Path(cfg.absolute("run_root"), f"paper_{cfg.dataset}")
    if not NOTEBOOKS.is_dir():
        raise DataError(
            f"{NOTEBOOKS} does not exist; expected the notebooks beside the package; work in a "
            "clone of the repository"
        )
    began, failed = time.monotonic(), []
    for step in _steps(cfg):
        key = _key(step)
        if _kept(folder, step) == key and _complete(step):
            on_log(f"{step.name}: fresh")
            continue
        on_log(f"{step.name}: notebooks/{step.notebook}.ipynb")
        started = time.monotonic()
        try:
            _run(step, folder / f"{step.name}.ipynb", on_log)
        except DataError as error:
            if step.needed:
                raise
            failed.append(str(error))
            on_log(str(error))
            continue
        seconds = time.monotonic() - started
        record = {"key": key, "seconds": round(seconds, 1)}
        (folder / f"{step.name}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        on_log(f"{step.name}: done in {seconds:.0f} s")
    on_log(f"all steps: {time.monotonic() - began:.0f} s, {len(failed)} failed")
    return failed


def refuse(failed: Iterable[str]) -> None:
    """Stop if a step failed; call it when all the rest was shown.

    Raises:
        DataError: something failed.
    """
    if reasons := list(failed):
        raise DataError(f"{len(reasons)} steps failed; " + "; ".join(reasons))


def _steps(cfg: Paper) -> Iterator[Step]:
    """The steps in their order; a later one is made when those before it have run."""
    run_root, data_root = cfg.absolute("run_root"), cfg.absolute("data_root")
    runs, data, out = Path(run_root), Path(data_root), Path(cfg.absolute("out"))
    shared = {"dataset": cfg.dataset, "data_root": data_root, "seed": cfg.seed}
    model = {**shared, "run_root": run_root, "device": cfg.device}
    heard = {**model, "vocoder": cfg.vocoder}
    source = {"source": cfg.absolute("source")} if cfg.source else {}
    files = [data / corpus / "store.json" for corpus in corpora_of(cfg.dataset)]
    if cfg.source or cfg.dataset == "mini" or not any(file.is_file() for file in files):
        yield Step(
            name="prepare_data",
            notebook="prepare_data",
            parameters={**shared, **source},
            code=False,
            needed=True,
            outputs=((data, "*/store.json"),),
        )
    stores = tuple(file for file in files if file.is_file())
    for run in cfg.runs:
        size = {"preset": run.preset, "steps": run.train.steps}
        yield Step(
            name=f"train_{run.name}",
            notebook="train",
            inputs=stores,
            code=False,
            needed=True,
            parameters={**model, **size, "configuration": run.configuration, "resume": "auto"},
            outputs=((checkpoint.folder_of(runs / run.name, run.train.steps), "*"),),
        )
    named = cfg.checkpoints or tuple(str(runs / run.name) for run in cfg.runs)
    found = [checkpoint.locate(one).resolve() for one in named]
    if missing := [one for one in found if not one.is_dir()]:
        raise CheckpointError(
            f"{missing[0]} does not exist; expected a run's folder or one of its checkpoints; name "
            "another, or none to train one"
        )
    for path in found:
        results = path.parents[1] / "evaluation"
        yield Step(
            name=f"evaluate_{path.parents[1].name}_{path.name}",
            notebook="evaluate",
            inputs=(path, *stores),
            outputs=((results, EVALUATION),),
            parameters={**heard, **cfg.evaluation, "checkpoint": str(path)},
        )
    asked = (*found, *stores)
    answers = (Path(cfg.absolute("answers")),) if cfg.answers else ()
    questions = {"triplets": cfg.triplets, "answers": cfg.absolute("answers")}
    pages = Step(
        name="cpr_study",
        notebook="cpr_study",
        inputs=(*asked, *answers),
        parameters={**heard, **questions, "checkpoint": ",".join(map(str, found))},
    )
    study = Path(cfg.absolute("study") or runs / f"study_{cfg.dataset}_{_key(pages)[:8]}")
    yield dataclasses.replace(
        pages,
        parameters={**pages.parameters, "out": str(study)},
        outputs=((study, f"{TABLES}/cpr/cpr.csv"),),
    )
    first, *others = map(str, found)
    yield Step(
        name="figures",
        notebook="figures",
        inputs=(*asked, study, study / TABLES / "cpr", *answers),
        parameters={
            **heard,
            **questions,
            "checkpoint": first,
            "others": ",".join(others),
            "study": str(study) if study.is_dir() else "",
            "out": str(out),
        },
        outputs=((out, f"{FIGURES}/fig1/fig1.png"),),
    )
    measured = (path for pattern, _ in FILES.values() for path in sorted(runs.glob(pattern)))
    yield Step(
        name="tables",
        notebook="tables",
        inputs=(*measured, *stores),
        parameters={**shared, "run_root": run_root, "out": str(out)},
        outputs=((out, f"{TABLES}/table1/table1.md"),),
    )


def _key(step: Step) -> str:
    """What a step's result follows from; folders may move."""
    given = {name: v for name, v in step.parameters.items() if name not in FOLDERS}
    if step.code:
        code = _digest([[NOTEBOOKS / f"{step.notebook}.py", *_package()]])
        given |= {"code": code, "installed": installed(), "weights": _weights()}
    return key_of({"parameters": given, "inputs": _digest(map(_files, step.inputs))})


def _files(place: Path) -> list[Path]:
    """A file, or the files of a folder but for those of its own folders."""
    return [place] if place.is_file() else sorted(p for p in place.glob("*") if p.is_file())


def _weights() -> list[str]:
    """What was fetched, by name and size; a metric that was missing can be had with it."""
    files = sorted(path for path in fetched.root().glob("*/*") if path.is_file())
    return [f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files]


def _package() -> list[Path]:
    return sorted(path for pattern in SOURCES for path in PACKAGE.rglob(pattern))


def _digest(groups: Iterable[Iterable[Path]]) -> str:
    sums = hashlib.sha256()
    for file in (file for group in groups for file in group):
        sums.update(f"{file.name}\0".encode())
        sums.update(hashlib.sha256(file.read_bytes()).digest())
    return sums.hexdigest()[:16]


def _kept(folder: Path, step: Step) -> str:
    """The key with which a step last ended well, "" if it did not."""
    try:
        record = json.loads((folder / f"{step.name}.json").read_text(encoding="utf-8"))
        return str(record["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _complete(step: Step) -> bool:
    return all(any(place.glob(pattern)) for place, pattern in step.outputs)


def _run(step: Step, out: Path, on_log: Say) -> None:
    """Execute a notebook; what it prints is handed on line by line."""
    out.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "papermill", "--log-output", "--no-progress-bar"]
    words += [str(NOTEBOOKS / f"{step.notebook}.ipynb"), str(out)]
    words += ["-y", json.dumps(dict(step.parameters))]
    last = ""
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        cwd=PACKAGE.parent,
    ) as process:
        try:
            for line in process.stdout or ():
                if line.strip() and not line.startswith(CHATTER):
                    last = line.rstrip()
                    on_log(last)
        except BaseException:
            process.terminate()
            raise
    if process.returncode or not _complete(step):
        told = last if process.returncode else f"{step.outputs[0][1]} was not written"
        raise DataError(
            f"{step.name}: the notebook failed ({told}); expected it to end; {out.name} beside the "
            "others holds the error; mend it and run this again: what is done is not done twice"
        )


# What is in the tables and figures of a folder, what is missing, and why


ALL_TABLES = (
    *(f"table{number}" for number in range(1, 10)),
    *("correspondence", "verification", "by_direction_and_sex", "modules"),
)
ALL_FIGURES = tuple(f"fig{number}" for number in range(1, 11))
NOT_MADE = "not made: see the log of notebooks/{}.ipynb"


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in a folder; a notebook shows it as Markdown.

    Args:
        items: name, tier, values and empty cells of every table and figure; a tier "" for one that
            is not there.
        reasons: reason, tables and number of cells, most cells first.
        failed: what could not be run.
    """

    items: tuple[tuple[str, str, int, int], ...]
    reasons: tuple[tuple[str, str, int], ...]
    failed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The Markdown, which logs show as well."""
        lines = ["| item | tier | values | empty cells |", "|---|---|---:|---:|"]
        for name, tier, values, empty in self.items:
            if tier:
                lines.append(f"| {name} | {tier} | {values or ''} | {empty or ''} |")
            else:
                notebook = "figures" if name in ALL_FIGURES else "tables"
                lines.append(f"| {name} | {NOT_MADE.format(notebook)} | | |")
        lines += ["", "Empty cells, and why:" if self.reasons else "No cell is empty.", ""]
        lines += [f"- {cells} in {where}: {reason}" for reason, where, cells in self.reasons]
        lines += ["", *(f"- failed: {one}" for one in self.failed)]
        return "\n".join(lines).rstrip("\n") + "\n"

    def _repr_markdown_(self) -> str:
        return repr(self)


def contents(out: str | os.PathLike[str], failed: Sequence[str] = ()) -> Contents:
    """Read every table and the record of every figure.

    Args:
        out: the folder with `paper_tables/` and `figures/`.
        failed: what could not be run.

    Raises:
        DataError: one of them is damaged or was edited.
    """
    items: list[tuple[str, str, int, int]] = []
    told: dict[str, list[str]] = {}
    there = sorted(path.name for path in Path(out, "paper_tables").glob("[!.]*"))
    for name in dict.fromkeys((*ALL_TABLES, *there)):
        folder = Path(out, "paper_tables", name)
        if not folder.is_dir():
            items.append((name, "", 0, 0))
            continue
        table = read_table(folder)
        empty = [str(row[MISSING]) for row in table.rows if row.get(MISSING)]
        for reason in empty:
            told.setdefault(reason, []).append(name)
        items.append((name, str(table.record["tier"]), len(table.rows) - len(empty), len(empty)))
    for name in ALL_FIGURES:
        folder = Path(out, "figures", name)
        tier = str(read_record(folder)["tier"]) if folder.is_dir() else ""
        items.append((name, tier, 0, 0))
    reasons = sorted(told.items(), key=lambda pair: -len(pair[1]))
    return Contents(
        tuple(items),
        tuple((why, ", ".join(dict.fromkeys(where)), len(where)) for why, where in reasons),
        tuple(failed),
    )
