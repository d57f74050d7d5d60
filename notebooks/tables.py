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
# # The tables of the paper
#
# Tables 1 to 9, and three of our own: face-voice correspondence, verification, and every metric by
# direction and sex. Tables 1 and 6 to 9 are read from the program itself, 2 to 5 from evaluations
# on the disk, beside what the paper prints. Nothing is measured here: a cell that nobody measured
# says so, and how to have it measured.
#
# **In:** evaluations below `run_root` (`<run>/evaluation/evaluation.csv` of `evaluate`,
# `<folder>/scores.csv` of foreign outputs, `<folder>/paper_tables/cpr/` of `cpr_study`), any or
# none; prepared stores under `data_root`, for the record of the data, any or none. **Out:** one
# folder a table in `paper_tables/` under `out`: CSV in full precision, Markdown, LaTeX, and JSON
# with where it is from. **Time:** half a minute on one CPU core.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see the README
run_root: str = "runs"  # folder of runs
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
out: str = "runs/tables"  # folder of the tables

# %%
from pathlib import Path

from IPython import display

from xfavot import report
from xfavot.parameters import Tables
from xfavot.report import tables

# %%
began = report.begin()
cfg = Tables.resolve(dataset=dataset, run_root=run_root, data_root=data_root, seed=seed, out=out)
root = Path(cfg.out, "paper_tables")

# %% [markdown]
# ## What was found
#
# Rows of one tier alone, the highest; of two evaluations of a system the later one.

# %%
wanted = tables.datasets_of(dataset)
found = tables.read(cfg.run.run_root, wanted)
study = tables.read(cfg.run.run_root, wanted, study=True)
display.display(found, study)

# %%
stores = tables.stores_there(cfg.run.data_root, cfg.run.data.corpora)
program = report.collect(began, cfg.run, tier="paper", stores=[], notebook="tables")
measured = report.collect(
    began, cfg.run, tier=found.tier, stores=stores, split="val", notebook="tables"
)
answered = report.collect(
    began, cfg.run, tier=study.tier, stores=stores, split="val", notebook="tables"
)

# %% [markdown]
# ## Table 1: styles, losses and heads
#
# The data structure that drives training, printed. A11 in `ASSUMPTIONS.md` says what of it the
# paper states.

# %%
folder = report.write_table(
    "table1", tables.table_1(), provenance=program, root=root, caption=tables.CAPTIONS["table1"]
)
report.read_table(folder)

# %% [markdown]
# ## Tables 2 to 5: quality and ablations
#
# Values of one system on one dataset stand in one row with the paper's own, which its authors
# measured on their data and their choice of samples: they are a landmark, not a target to the
# second digit. The body of Table 2 is lost; its column GRID is inferred from Table 4. Metrics that
# are not the paper's bear their own names.

# %%
for item in ("table2", "table3", "table4", "table5"):
    rows = tables.compared(item, found, dataset=dataset)
    caption = tables.caption(item, rows, found)
    folder = report.write_table(item, rows, provenance=measured, root=root, caption=caption)
    display.display(report.read_table(folder))

# %% [markdown]
# ## Correspondence and verification
#
# The correspondence preference ratio comes from the answers of a study, or from a computer where
# the row says automatic. Verification holds the styles of faces against those of voices.

# %%
rows = tables.compared("correspondence", study, dataset=dataset)
folder = report.write_table(
    "correspondence",
    rows,
    provenance=answered,
    root=root,
    caption=tables.caption("correspondence", rows, study),
)
report.read_table(folder)

# %%
rows = tables.compared("verification", found, dataset=dataset)
folder = report.write_table(
    "verification",
    rows,
    provenance=measured,
    root=root,
    caption=tables.caption("verification", rows, found),
)
report.read_table(folder)

# %% [markdown]
# ## Every metric by direction and sex

# %%
rows = tables.by_direction_and_sex(found, dataset=dataset)
folder = report.write_table(
    "by_direction_and_sex",
    rows,
    provenance=measured,
    root=root,
    caption=tables.caption("Every metric by direction and sex.", rows, found),
)
report.read_table(folder)

# %% [markdown]
# ## Tables 6 to 9: the networks
#
# One pass through each module at the paper's sizes, with shapes but no values. The column
# `published` says how the printed table differs where that is known, with the assumption's id.

# %%
for item in tables.MODULES:
    rows = tables.module_table(item, cfg.run.model)
    caption = tables.CAPTIONS[item]
    folder = report.write_table(item, rows, provenance=program, root=root, caption=caption)
    display.display(report.read_table(folder))

# %%
folder = report.write_table(
    "modules",
    tables.modules(cfg.run.model),
    provenance=program,
    root=root,
    caption=tables.CAPTIONS["modules"],
)
report.read_table(folder)
