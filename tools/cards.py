"""Write cards: `DATASETS.md` of corpora, `WEIGHTS.md` of weights, `docs/systems/` of systems.

python -m tools.cards
"""

from __future__ import annotations

import csv
import inspect
import re
import sys
from pathlib import Path

import torch
import yaml

from xfavot import presets
from xfavot.baselines import training
from xfavot.data.readers.layouts import READERS
from xfavot.data.report import card
from xfavot.errors import DataError, WeightsError
from xfavot.models.xfavot import XFaVoT
from xfavot.parameters import BASELINES, Baseline, Train
from xfavot.report.tables import SYSTEMS
from xfavot.weights.fetched import Weights, describe, names

HERE = Path(__file__).parent


def datasets() -> str:
    """Return the text of `DATASETS.md`: a card for each corpus."""
    introduction = (HERE / "datasets_introduction.md").read_text(encoding="utf-8")
    return "\n".join([introduction, *map(card, READERS)])


def weights() -> str:
    """Return the text of `WEIGHTS.md`: a table of all sets, then a card for each."""
    every = [describe(name) for name in names()]
    rows = [
        f"| [{known.name}](#{known.name.replace('.', '')}) | {known.size_words} | "
        f"{known.check_words} | {known.licence} |"
        for known in every
    ]
    table = ["| name | size | checked against | licence |", "| --- | --- | --- | --- |", *rows]
    introduction = (HERE / "weights_introduction.md").read_text(encoding="utf-8")
    return "\n".join([introduction, *table, "", *map(_card, every)])


def _card(known: Weights) -> str:
    size = f"{known.bytes:,} bytes" if known.bytes else known.size_words
    checksum = known.checksum or "no checksum is published"
    if known.check_words.startswith("first "):
        checksum += "... (as much as is published)"
    return f"""## {known.name}

**What it is.** {known.title}

**What for.** {known.purpose}

**Licence.** {known.licence}; see {known.terms}

**Comes** {known.source_words}

**File.** `{known.file}`, {size}; {checksum}
"""


# A page a system: a row of the paper's tables, or one that the paper compares with


COSTS = HERE / "systems_measured.csv"
BUDGET = HERE.parent / "workflow" / "config.yaml"
SPEAKERS = {"model.speakers": 16}  # of `mini`, for which parameters are counted
PRESETS = ("paper", "mini")


def systems() -> dict[str, str]:
    """Return the pages by the name of the system."""
    measured = {row["system"]: row for row in csv.DictReader(COSTS.open(encoding="utf-8"))}
    pages, listed = {}, yaml.safe_load(BUDGET.read_text("utf-8"))["listed"]
    for name in (*presets.names("configurations"), *BASELINES):
        compared, cost = name in BASELINES, measured.get(name)
        about, ids = _about(name)
        kind, notebook = ("system", "baseline") if compared else ("configuration", "train")
        more = " -p conversion runs/<run of xfavot>" if name == "vclip" else ""
        counts = [f"| `{preset}` | {_parameters(name, preset)} |" for preset in PRESETS]
        lines = [f"# {SYSTEMS.get(name, name)}", "", *about, "", "## Our own choices", ""]
        lines += [_assumption(one) for one in ids] or [
            "None beyond those of the method: see ASSUMPTIONS.md."
        ]
        lines += ["", "## Commands", ""]
        lines += [f"    papermill notebooks/{notebook}.ipynb out.ipynb -p {kind} {name}{more}"]
        lines += ["    papermill notebooks/evaluate.ipynb out.ipynb -p checkpoint runs/<run>", ""]
        rows = "all" if name in listed else name
        lines += [f"or `make paper PAPER={rows}`, on the budget of all rows.", ""]
        lines += ["## Parameters that are trained", "", "| preset | parameters |", "|---|---:|"]
        lines += [*counts, "", "## Cost", ""]
        lines.append("Not measured." if cost is None else _cost(cost))
        pages[name] = "\n".join(lines) + "\n"
    return pages


def _about(name: str) -> tuple[list[str], list[str]]:
    """What a system is, in lines, and ids of the assumptions that are its own."""
    if name in BASELINES:
        module = sys.modules[training.SYSTEMS[name].__module__]
        text = inspect.getdoc(module) or ""
        text = re.sub(r":\w+:`[^`]*?(\w+)`", r"`\1`", text)
    else:
        file = presets.FOLDER / "configurations" / f"{name}.yaml"
        comments, rest = [], []
        for line in file.read_text(encoding="utf-8").splitlines():
            (comments if line.startswith("#") else rest).append(line.removeprefix("# "))
        settings = [f"    {line}" for line in rest if not line.startswith("description")]
        text = "\n".join([*comments, "", "Beside the defaults of `xfavot`:", "", *settings])
        text = text if settings else "\n".join(comments)
    return text.splitlines(), sorted(set(re.findall(r"\bA\d+\b", text)))


def _assumption(one: str) -> str:
    text = (HERE.parent / "ASSUMPTIONS.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {one} \|.*$", text, flags=re.MULTILINE)
    _, title, choice, status, reason, *_ = (cell.strip() for cell in line.strip("| ").split(" | "))
    return f"- **{title}** ({one}, {status}): {choice}. Reason: {reason}."


def _parameters(name: str, preset: str) -> str:
    given = {"dataset": "mini", "preset": preset}
    if name in BASELINES:
        speaks = {"conversion": "run"} if name == "vclip" else {}
        plan = training.plan_of(Baseline.resolve(system=name, **given, **speaks))
        try:
            system = plan.system()
        except (DataError, WeightsError):
            return "not counted: it depends on a frozen network that is not here"
        named = system.named_parameters()
        count = f"{sum(p.numel() for n, p in named if not n.startswith('content.')):,}"
        taken = getattr(system, "published", False)
        return f"none; {count} are taken as they were published" if taken else count
    overrides = SPEAKERS if preset == "mini" else {}
    with torch.device("meta"):
        nets = XFaVoT.of_run(Train.resolve(configuration=name, overrides=overrides, **given).run)
    return f"{sum(p.numel() for p in nets.parameters()):,}"


def _cost(row: dict[str, str]) -> str:
    return (
        f"{row['cpu_seconds']} CPU seconds a step, {row['memory_mb']} MB of memory at most (the "
        f"whole process): {row['conditions']}."
    )


if __name__ == "__main__":
    Path("DATASETS.md").write_text(datasets(), encoding="utf-8")
    Path("WEIGHTS.md").write_text(weights(), encoding="utf-8")
    Path("docs/systems").mkdir(exist_ok=True)
    for name, text in systems().items():
        Path("docs/systems", f"{name}.md").write_text(text, encoding="utf-8")
