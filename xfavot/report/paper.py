"""The whole paper: every notebook in its order, and only what is not fresh.

A step is a notebook with parameters, run by papermill in a process of its own. It is fresh if it
ended well before with the same parameters, its output is still there, and none of the files that it
follows from was touched since. Data and training follow from their parameters alone: a later
version of the package trains nothing anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from xfavot.config import corpora_of, key_of
from xfavot.errors import CheckpointError, DataError, import_optional
from xfavot.files import write_whole
from xfavot.parameters import Paper
from xfavot.report import FOLDERS
from xfavot.report.tables import EVALUATION, FILES
from xfavot.training import checkpoint
from xfavot.weights import fetched

PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
NEEDED = ("prepare_data", "train")  # without which nothing can go on
TABLES, FIGURES = "paper_tables", "figures"


@dataclass(frozen=True, slots=True)
class Step:
    """One notebook to run.

    Args:
        folder: where the executed notebook lies, and the record that it ended well.
        notebook: its name.
        parameters: what papermill is given.
        output: what must be there afterwards.
        inputs: files and folders that the result follows from.
        of: which run it is about, "" if none.
    """

    folder: Path
    notebook: str
    parameters: dict[str, Any]
    output: Path
    inputs: Sequence[Path] = ()
    of: str = ""

    @property
    def name(self) -> str:
        """Of the step and its files: the notebook's, and which run."""
        return f"{self.notebook}_{self.of}" if self.of else self.notebook

    @property
    def key(self) -> str:
        """What the result follows from, as of now; folders may move."""
        files = [p for place in self.inputs for p in (place, *sorted(place.glob("*")))]
        if self.notebook not in NEEDED:
            weights = sorted(fetched.root().glob("*/*"))
            files += [NOTEBOOKS / f"{self.notebook}.py", *sorted(PACKAGE.rglob("*.*")), *weights]
        seen = [(p.name, p.stat()) for p in files if p.is_file() and p.suffix != ".pyc"]
        given = {name: v for name, v in self.parameters.items() if name not in FOLDERS}
        return key_of({**given, "files": [[n, s.st_size, s.st_mtime_ns] for n, s in seen]})

    @property
    def record(self) -> Path:
        """The file that holds the key of the last run that ended well."""
        return self.folder / f"{self.name}.key"

    @property
    def fresh(self) -> bool:
        """Whether it ended well before, and nothing has changed since."""
        there = self.record.is_file() and self.output.exists()
        return there and self.record.read_text("utf-8") == self.key


def steps(cfg: Paper) -> Iterator[Step]:
    """The steps in their order; a later one is made when those before it have run.

    Raises:
        DataError: there are no notebooks here.
        CheckpointError: there is no checkpoint where one was named.
    """
    if not NOTEBOOKS.is_dir():
        raise DataError(f"{NOTEBOOKS} does not exist; work in a clone of the repository")
    run_root, data_root, out = (cfg.absolute(name) for name in ("run_root", "data_root", "out"))
    runs, answers = Path(run_root), cfg.absolute("answers")
    shared = {"dataset": cfg.dataset, "data_root": data_root, "seed": cfg.seed}
    on_runs = {**shared, "run_root": run_root}
    model = {**on_runs, "device": cfg.device}
    models = [checkpoint.locate(one).resolve() for one in cfg.checkpoints]
    if missing := [one for one in models if not one.is_dir()]:
        raise CheckpointError(
            f"{missing[0]} does not exist; expected a run's folder or one of its checkpoints; name "
            "another, or none to train one"
        )

    step = partial(Step, runs / f"paper_{cfg.dataset}")
    files = [Path(data_root, corpus, "store.json") for corpus in corpora_of(cfg.dataset)]
    if cfg.source or cfg.dataset == "mini" or not any(file.is_file() for file in files):
        source = {"source": cfg.absolute("source")} if cfg.source else {}
        yield step("prepare_data", {**shared, **source}, files[0])
    stores = [file for file in files if file.is_file()]
    for run in cfg.runs:
        size = {"preset": run.preset, "steps": run.train.steps, "resume": "auto"}
        models.append(checkpoint.folder_of(runs / run.name, run.train.steps))
        given = {**model, **size, "configuration": run.configuration}
        yield step("train", given, models[-1], stores, run.name)
    heard = {**model, "vocoder": cfg.vocoder}
    for path in models:
        run_folder = path.parents[1]
        given = {**heard, **cfg.evaluation, "checkpoint": str(path)}
        made, of = run_folder / "evaluation" / EVALUATION, f"{run_folder.name}_{path.name}"
        yield step("evaluate", given, made, [path, *stores], of)
    inputs = [*models, *stores, *([Path(answers)] if answers else [])]
    first, *others = map(str, models)
    asked = {**heard, "triplets": cfg.triplets, "answers": answers}
    pages = step("cpr_study", {**asked, "checkpoint": ",".join([first, *others])}, runs, inputs)
    study = Path(cfg.absolute("study") or runs / f"study_{cfg.dataset}_{pages.key[:8]}")
    preferences = study / TABLES / "cpr"
    given = {**pages.parameters, "out": str(study)}
    yield replace(pages, parameters=given, output=preferences / "cpr.csv")
    given = {**asked, "checkpoint": first, "others": ",".join(others), "out": out}
    given["study"] = str(study) if study.is_dir() else ""
    picture = Path(out, FIGURES, "fig1", "fig1.png")
    yield step("figures", given, picture, [*inputs, study, preferences])
    measured = [path for pattern in FILES for path in sorted(runs.glob(pattern))]
    table = Path(out, TABLES, "table1", "table1.md")
    yield step("tables", {**on_runs, "out": out}, table, [*measured, *stores])


def run(step: Step, *, on_log: Callable[[str], None]) -> list[str]:
    """Run a step that is not fresh; the notebook's own output follows in the log.

    Args:
        step: of :func:`steps`.
        on_log: receives a line at the beginning and the end.

    Returns:
        Why it failed, if the others can do without it.

    Raises:
        DataError: it failed, and nothing can go on without it.
    """
    if step.fresh:
        on_log(f"{step.name}: fresh")
        return []
    on_log(f"{step.name}: notebooks/{step.notebook}.ipynb")
    key = step.key
    try:
        _execute(step)
    except DataError as error:
        if step.notebook in NEEDED:
            raise
        on_log(str(error))
        return [str(error)]
    write_whole(step.record, key)
    on_log(f"{step.name}: done")
    return []


def _execute(step: Step) -> None:
    """Execute a notebook; what it prints is printed here."""
    papermill = import_optional("papermill", extra="notebooks", purpose="the paper")
    out = step.folder / f"{step.name}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    how = {"cwd": PACKAGE.parent, "progress_bar": False, "stdout_file": sys.stdout}
    why = ""
    try:
        papermill.execute_notebook(
            NOTEBOOKS / f"{step.notebook}.ipynb", out, step.parameters, **how
        )
    except papermill.PapermillExecutionError as error:
        why = f"{error.ename}: {error.evalue}"
    if why or not step.output.exists():
        raise DataError(
            f"{step.name}: the notebook failed ({why or f'{step.output.name} was not written'}); "
            f"expected it to end; {out.name} beside the others holds the error; mend it and run "
            "this again: what is done is not done twice"
        )
