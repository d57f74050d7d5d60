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
# Runs the other notebooks in their order, each in a process of its own: `prepare_data`, `train`
# (a run a configuration, unless `checkpoint` names finished ones), `evaluate`, `cpr_study`,
# `figures`, `tables`. What is fresh is skipped: a step runs again only when its parameters, its
# inputs, or the package have changed; training goes on where it stopped.
#
# **In:** a dataset; for all but `mini`, `source`, the folder of its originals. **Out:** the
# executed notebooks in `<run_root>/paper_<dataset>/`, runs and study under `run_root`, and the
# tables and figures under `out`. At the end stands what is in the tables, what is missing, and why.
#
# **Time:** on two CPU cores with `dataset mini`, an hour or more for the training, five minutes for
# all the rest.
#
#     make paper DATASET=mini
#     papermill notebooks/paper.ipynb runs/paper.ipynb -p dataset mini -p checkpoint runs/<run>

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
source: str = ""  # folder of originals; not needed for mini
checkpoint: str = ""  # runs or checkpoints, with commas; empty means to train
configurations: str = "xfavot"  # rows of the paper's tables, with commas
preset: str = ""  # size; empty means mini for dataset mini, else paper
steps: int = -1  # training steps; -1: the preset's
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
recogniser: str = ""  # of words; empty means pocketsphinx_grid on mini, or ESPnet
metrics: str = "all"  # as in evaluate
conversions: int = -1  # as in evaluate
substitute: str = "judge"  # as in evaluate; empty means none
triplets: int = 30  # of the study, a model and task
study: str = ""  # folder of a study that was answered; empty makes one
answers: str = ""  # folder of people's answers to that study; empty means none
out: str = "runs/paper"  # folder of figures/ and paper_tables/

# %%
from pathlib import Path

import pandas as pd
from IPython import display

from xfavot import report
from xfavot.parameters import Paper
from xfavot.report import paper
from xfavot.viz import progress

# %%
cfg = Paper.resolve(
    dataset=dataset,
    source=source,
    checkpoint=checkpoint,
    configurations=configurations,
    preset=preset,
    steps=steps,
    data_root=data_root,
    run_root=run_root,
    seed=seed,
    device=device,
    vocoder=vocoder,
    recogniser=recogniser,
    metrics=metrics,
    conversions=conversions,
    substitute=substitute,
    triplets=triplets,
    study=study,
    answers=answers,
    out=out,
)

# %% [markdown]
# ## The notebooks
#
# A failure of `evaluate`, the study or the figures stops only what follows from it.

# %%
failed = []
for step in paper.steps(cfg):
    failed += paper.run(step, on_log=progress.line)

# %% [markdown]
# ## The tables

# %%
tables = [f"table{number}" for number in range(1, 10)]
tables += ["correspondence", "verification", "by_direction_and_sex", "modules"]
for name in tables:
    for table in Path(cfg.out, paper.TABLES, name).glob("*.md"):
        display.display(display.Markdown(table.read_text(encoding="utf-8")))

# %% [markdown]
# ## The figures

# %%
figures = [f"fig{number}" for number in range(1, 11)]
for name in figures:
    for picture in Path(cfg.out, paper.FIGURES, name).glob("*.png"):
        display.display(display.Image(picture, width=900))

# %% [markdown]
# ## What is here, and what is not

# %%
items = []
for kind, names in ((paper.TABLES, tables), (paper.FIGURES, figures)):
    for folder in (Path(cfg.out, kind, name) for name in names):
        items.append({"item": folder.name, "tier": "not made", "values": "", "empty cells": ""})
        if folder.is_dir():
            items[-1]["tier"] = report.read_record(folder)["tier"]
        if folder.is_dir() and kind == paper.TABLES:
            rows = report.read_table(folder).rows
            empty = sum(bool(row.get("missing")) for row in rows)
            items[-1] |= {"values": str(len(rows) - empty), "empty cells": str(empty or "")}
display.Markdown(pd.DataFrame(items).set_index("item").to_markdown())

# %%
assert not failed, f"{len(failed)} steps failed; " + "; ".join(failed)
