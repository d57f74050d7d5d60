"""The whole paper: every notebook in its order, and only what is not fresh.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xfavot.config import corpora_of, key_of
from xfavot.errors import CheckpointError, DataError
from xfavot.files import write_whole
from xfavot.parameters import Paper
from xfavot.report.artifact import FOLDERS, MISSING, installed, read_record, read_table
from xfavot.report.tables import EVALUATION, FILES
from xfavot.training import checkpoint
from xfavot.weights import fetched

PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
CHATTER = ("Executing ", "Ending ", "Input Notebook", "Output Notebook")  # of papermill
TABLES, FIGURES = "paper_tables", "figures"
ALL_TABLES = (
    *(f"table{number}" for number in range(1, 10)),
    *("correspondence", "verification", "by_direction_and_sex", "modules"),
)
ALL_FIGURES = tuple(f"fig{number}" for number in range(1, 11))

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One notebook to run.

    Args:
        name: of the step and its files; the notebook's, and which run.
        notebook: its name.
        parameters: what papermill is given.
        folder: where the executed notebook lies, and the record of how it ended.
        inputs: files and folders whose content the result follows from, beside the package.
        outputs: what must be there afterwards; patterns below a folder.
        code: whether the result also follows from the notebook, the packages and the weights.
        needed: whether nothing can go on without it.
    """

    name: str
    notebook: str
    parameters: Mapping[str, Any]
    folder: Path
    inputs: tuple[Path, ...] = ()
    outputs: tuple[tuple[Path, str], ...] = ()
    code: bool = True
    needed: bool = False

    @property
    def key(self) -> str:
        """What the result follows from, as of now; folders may move."""
        given = {name: v for name, v in self.parameters.items() if name not in FOLDERS}
        if self.code:
            weights = [p for p in fetched.root().glob("*/*") if p.is_file()]
            given |= {
                "code": _digest([NOTEBOOKS / f"{self.notebook}.py", *_package()]),
                "installed": installed(),
                "weights": sorted(f"{p.parent.name}/{p.name} {p.stat().st_size}" for p in weights),
            }
        files = [p for place in self.inputs for p in (place, *sorted(place.glob("*")))]
        return key_of({"parameters": given, "inputs": _digest(p for p in files if p.is_file())})

    @property
    def complete(self) -> bool:
        """Whether all outputs are there."""
        return all(any(place.glob(pattern)) for place, pattern in self.outputs)

    @property
    def fresh(self) -> bool:
        """Whether it ended well before, and nothing has changed since."""
        try:
            record = json.loads((self.folder / f"{self.name}.json").read_text(encoding="utf-8"))
            return bool(record["key"] == self.key and self.complete)
        except (OSError, ValueError, KeyError, TypeError):
            return False


def steps(cfg: Paper) -> Iterator[Step]:
    """The steps in their order; a later one is made when those before it have run.

    Raises:
        DataError: there are no notebooks here.
        CheckpointError: there is no checkpoint where one was named.
    """
    if not NOTEBOOKS.is_dir():
        raise DataError(f"{NOTEBOOKS} does not exist; work in a clone of the repository")
    run_root, data_root = cfg.absolute("run_root"), cfg.absolute("data_root")
    runs, data, out = Path(run_root), Path(data_root), Path(cfg.absolute("out"))
    shared = {"dataset": cfg.dataset, "data_root": data_root, "seed": cfg.seed}
    model = {**shared, "run_root": run_root, "device": cfg.device}
    heard = {**model, "vocoder": cfg.vocoder}
    models = [checkpoint.locate(one).resolve() for one in cfg.checkpoints]
    if missing := [one for one in models if not one.is_dir()]:
        raise CheckpointError(
            f"{missing[0]} does not exist; expected a run's folder or one of its checkpoints; name "
            "another, or none to train one"
        )

    def step(notebook: str, parameters: dict[str, Any], which: str = "", **more: Any) -> Step:
        folder, name = runs / f"paper_{cfg.dataset}", "_".join(filter(None, [notebook, which]))
        return Step(name=name, notebook=notebook, parameters=parameters, folder=folder, **more)

    before: dict[str, Any] = {"code": False, "needed": True}
    files = [data / corpus / "store.json" for corpus in corpora_of(cfg.dataset)]
    if cfg.source or cfg.dataset == "mini" or not any(file.is_file() for file in files):
        source = {"source": cfg.absolute("source")} if cfg.source else {}
        stored = ((data, "*/store.json"),)
        yield step("prepare_data", {**shared, **source}, outputs=stored, **before)
    stores = tuple(file for file in files if file.is_file())
    for run in cfg.runs:
        size = {"preset": run.preset, "steps": run.train.steps, "resume": "auto"}
        given = {**model, **size, "configuration": run.configuration}
        models.append(checkpoint.folder_of(runs / run.name, run.train.steps))
        made = ((models[-1], "*"),)
        yield step("train", given, run.name, inputs=stores, outputs=made, **before)
    for path in models:
        given = {**heard, **cfg.evaluation, "checkpoint": str(path)}
        which, made = path.parents[1].name, ((path.parents[1] / "evaluation", EVALUATION),)
        name = f"{which}_{path.name}"
        yield step("evaluate", given, name, inputs=(path, *stores), outputs=made)
    answers = (Path(cfg.absolute("answers")),) if cfg.answers else ()
    inputs = (*models, *stores, *answers)
    heard |= {"triplets": cfg.triplets, "answers": cfg.absolute("answers")}
    first, *others = map(str, models)
    pages = step("cpr_study", {**heard, "checkpoint": ",".join([first, *others])}, inputs=inputs)
    study = Path(cfg.absolute("study") or runs / f"study_{cfg.dataset}_{pages.key[:8]}")
    given = {**pages.parameters, "out": str(study)}
    made = ((study, f"{TABLES}/cpr/cpr.csv"),)
    yield dataclasses.replace(pages, parameters=given, outputs=made)
    given = {**heard, "checkpoint": first, "others": ",".join(others), "out": str(out)}
    given["study"] = str(study) if study.is_dir() else ""
    inputs = (*models, *stores, study, study / TABLES / "cpr", *answers)
    yield step("figures", given, inputs=inputs, outputs=((out, f"{FIGURES}/fig1/fig1.png"),))
    measured = (path for pattern, _ in FILES.values() for path in sorted(runs.glob(pattern)))
    given = {**shared, "run_root": run_root, "out": str(out)}
    made = ((out, f"{TABLES}/table1/table1.md"),)
    yield step("tables", given, inputs=(*measured, *stores), outputs=made)


def plan(cfg: Paper) -> pd.DataFrame:
    """What :func:`steps` would do now: a row a step, whether it is fresh, and its parameters."""
    rows, changed = [], False
    for one in steps(cfg):
        fresh = one.fresh
        state = "to run" if not fresh else "to run if its inputs change" if changed else "fresh"
        changed |= not fresh
        given = {k: v for k, v in one.parameters.items() if k not in FOLDERS and v != ""}
        text = ", ".join(f"{name} {value}" for name, value in given.items())
        rows.append({"step": one.name, "notebook": one.notebook, "state": state, "given": text})
    return pd.DataFrame(rows).set_index("step")


def run(step: Step, *, on_log: Say) -> list[str]:
    """Run a step that is not fresh.

    Args:
        step: of :func:`steps`.
        on_log: receives what the notebook says, line by line.

    Returns:
        Why it failed, if the others can do without it.

    Raises:
        DataError: it failed, and nothing can go on without it.
    """
    if step.fresh:
        on_log(f"{step.name}: fresh")
        return []
    on_log(f"{step.name}: notebooks/{step.notebook}.ipynb")
    key, started = step.key, time.monotonic()
    try:
        _execute(step, on_log)
    except DataError as error:
        if step.needed:
            raise
        on_log(str(error))
        return [str(error)]
    seconds = round(time.monotonic() - started, 1)
    record = json.dumps({"key": key, "seconds": seconds})
    write_whole(step.folder / f"{step.name}.json", record + "\n")
    on_log(f"{step.name}: done in {seconds:.0f} s")
    return []


def refuse(failed: Iterable[str]) -> None:
    """Stop if a step failed; call it when all the rest was shown.

    Raises:
        DataError: something failed.
    """
    if reasons := list(failed):
        raise DataError(f"{len(reasons)} steps failed; " + "; ".join(reasons))


def _package() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.*")) if p.is_file() and p.suffix != ".pyc"]


def _digest(files: Iterable[Path]) -> str:
    sums = hashlib.sha256()
    for file in files:
        sums.update(f"{file.name}\0".encode())
        sums.update(hashlib.sha256(file.read_bytes()).digest())
    return sums.hexdigest()[:16]


def _execute(step: Step, on_log: Say) -> None:
    """Execute a notebook; what it prints is handed on line by line."""
    out = step.folder / f"{step.name}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "papermill", "--log-output", "--no-progress-bar"]
    words += [str(NOTEBOOKS / f"{step.notebook}.ipynb"), str(out)]
    words += ["-y", json.dumps(dict(step.parameters))]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    pipes |= {"text": True, "encoding": "utf-8", "errors": "replace"}
    last = ""
    with subprocess.Popen(words, cwd=PACKAGE.parent, **pipes) as process:
        try:
            for line in process.stdout or ():
                if line.strip() and not line.startswith(CHATTER):
                    last = line.rstrip()
                    on_log(last)
        except BaseException:
            process.terminate()
            raise
    if process.returncode or not step.complete:
        why = last if process.returncode else f"{step.outputs[0][1]} was not written"
        raise DataError(
            f"{step.name}: the notebook failed ({why}); expected it to end; {out.name} beside the "
            "others holds the error; mend it and run this again: what is done is not done twice"
        )


def contents(out: str | os.PathLike[str]) -> pd.DataFrame:
    """The tier of every table and figure of a folder, and the tables' values and empty cells.

    Args:
        out: the folder with `paper_tables/` and `figures/`.

    Raises:
        DataError: one of them is damaged or was edited.
    """
    items = []
    for kind, names in ((TABLES, ALL_TABLES), (FIGURES, ALL_FIGURES)):
        for folder in (Path(out, kind, name) for name in names):
            line = {"item": folder.name, "tier": "", "values": "", "empty cells": ""}
            if not folder.is_dir():
                line["tier"] = f"not made: see the log of {kind.removeprefix('paper_')}.ipynb"
            elif kind == FIGURES:
                line["tier"] = read_record(folder)["tier"]
            else:
                table = read_table(folder)
                empty = sum(bool(row.get(MISSING)) for row in table.rows)
                counts = {"values": str(len(table.rows) - empty), "empty cells": str(empty or "")}
                line |= {"tier": table.record["tier"], **counts}
            items.append(line)
    return pd.DataFrame(items).set_index("item")
