# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # All tables and figures of the paper
#
# The page of a workflow (`workflow/Snakefile`) that runs the other notebooks: `prepare_data`,
# `train` and `baseline` (a run a row and seed), `evaluate`, `cpr_study`, `figures`, `tables`, and
# this one. The budget of every row, and the rows, stand in `workflow/config.yaml`. After a kill the
# same command does what is left; training goes on where it stopped; a notebook that fails stops
# only what follows from it.
#
# **In:** what the workflow made: runs below `run_root`, tables and figures below `out`.
# **Out:** this page: what is in the tables, what is missing, and why. **Time:** seconds.
#
#     make paper DATASET=mini PAPER=all
#     make paper DATASET=mini CONFIG="checkpoint=runs/<run>"
#     papermill notebooks/paper.ipynb runs/paper.ipynb -p dataset mini -p out .

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
run_root: str = "runs"  # folder of runs
out: str = "runs/paper"  # folder of figures/ and paper_tables/

# %%
from pathlib import Path

import pandas as pd
from IPython import display

from xfavot import report
from xfavot.parameters import Page
from xfavot.report import tables
from xfavot.training import checkpoint

# %%
cfg = Page.resolve(dataset=dataset, data_root=data_root, seed=seed, run_root=run_root, out=out)
runs, folders = (
    Path(cfg.run_root),
    {kind: Path(cfg.out, kind) for kind in ("paper_tables", "figures")},
)

# %% [markdown]
# ## The runs
#
# Every run on this dataset: its newest checkpoint, the samples that it was trained with, and
# whether that checkpoint was scored.

# %%
found = []
for file in sorted(runs.glob("*/config.json")):
    run, kept = report.read_json(file, "a run's settings"), checkpoint.checkpoints_of(file.parent)
    if run["data"]["dataset"] != cfg.dataset:
        continue
    last, train = int(kept[-1].name.removeprefix("step_")) if kept else 0, run["train"]
    scores = file.with_name("evaluation") / "evaluation.json"
    scored = report.read_json(scores, "an evaluation")["step"] if scores.is_file() else None
    row = {"row": tables.SYSTEMS.get(run["configuration"], run["configuration"])}
    row |= {"seed": run["seed"], "preset": run["preset"], "step": last, "of": train["steps"]}
    row |= {
        "samples a step": train["batch_size"],
        "scored at step": scored,
        "run": file.parent.name,
    }
    found.append(row)
display.Markdown(pd.DataFrame(found, dtype=object).to_markdown(index=False) or "none")

# %% [markdown]
# ## What failed
#
# Notebooks of the workflow that ended with an error; the files beside this page hold them whole.

# %%
executed = [*runs.glob(f"paper_{cfg.dataset}/*.ipynb"), *runs.glob("*/evaluation/evaluate.ipynb")]
for file in sorted(executed):
    for cell in report.read_json(file, "an executed notebook")["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                why = f"- {file.relative_to(runs)}: {output['ename']}: {output['evalue']}"
                display.display(display.Markdown(why))

# %% [markdown]
# ## The tables

# %%
items = [f"table{number}" for number in range(1, 10)]
items += ["correspondence", "verification", "by_direction_and_sex", "modules", "mapping_network"]
for name in items:
    for table in (folders["paper_tables"] / name).glob("*.md"):
        display.display(display.Markdown(table.read_text(encoding="utf-8")))

# %% [markdown]
# ## The figures

# %%
figures = [f"fig{number}" for number in range(1, 11)]
for name in figures:
    for picture in (folders["figures"] / name).glob("*.png"):
        display.display(display.Image(picture, width=900))

# %% [markdown]
# ## What is here, and what is not

# %%
listed = []
for kind, names in (("paper_tables", items), ("figures", figures)):
    for folder in (folders[kind] / name for name in names):
        listed.append({"item": folder.name, "tier": "not made", "values": "", "empty cells": ""})
        if folder.is_dir():
            listed[-1]["tier"] = report.read_record(folder)["tier"]
        if folder.is_dir() and kind == "paper_tables":
            rows = report.read_table(folder).rows
            empty = sum(bool(row.get("missing")) for row in rows)
            listed[-1] |= {"values": str(len(rows) - empty), "empty cells": str(empty or "")}
display.Markdown(pd.DataFrame(listed).set_index("item").to_markdown())
