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
# `<folder>/scores.csv` of external outputs, `<folder>/paper_tables/cpr/` of `cpr_study`), any or
# none; prepared stores under `data_root`, for the record of the data, any or none. **Out:** one
# folder a table in `paper_tables/` under `out`: tidy CSV in full precision with intervals and
# counts, the paper's layout as Markdown and LaTeX, and JSON with where it is from. **Time:** half a
# minute on one CPU core.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
run_root: str = "runs"  # folder of runs
out: str = "runs/tables"  # folder of the tables

# %%
from pathlib import Path

import pandas as pd
from IPython import display

from xfavot import report
from xfavot.parameters import Tables
from xfavot.report import modules, tables

# %%
began = report.begin()
cfg = Tables.resolve(dataset=dataset, run_root=run_root, data_root=data_root, seed=seed, out=out)
root = Path(cfg.out, "paper_tables")

# %% [markdown]
# ## What was read
#
# Rows of one tier alone, the highest; of two evaluations of a system the later one.

# %%
wanted = tables.datasets_of(dataset)
found = tables.read(cfg.run.run_root, wanted)
study = tables.read(cfg.run.run_root, wanted, study=True)
display.display(found.summary, study.summary)

# %%
stores = tables.stores_there(cfg.run.data_root, cfg.run.data.corpora)
about = {"began": began, "cfg": cfg.run, "split": "val", "notebook": "tables"}
program = report.collect(**about, tier="paper", stores=[])
measured = report.collect(**about, tier=found.tier, stores=stores)
answered = report.collect(**about, tier=study.tier, stores=stores)


def show(item, rows, provenance, view, caption):
    """Write a table and show what was read back from disk."""
    folder = report.write_table(
        item, rows, provenance=provenance, root=root, caption=caption, view=view
    )
    display.display(report.read_table(folder))


# %% [markdown]
# ## Table 1: styles, losses and heads
#
# The data structure that drives training, printed. A11 in `ASSUMPTIONS.md` says what of it the
# paper states.

# %%
rows = modules.table_1()
columns = {
    "system": "Style vector of",
    "task": "Data",
    "L_xm": "$L_{xm}$",
    "heads": "Heads of $D_A$ and $C_A$",
    "speaker_label": "Speaker label",
    "status": "Status",
}
caption = "Table 1: where a style comes from, and what may be trained with it."
show("table1", rows, program, report.listing(rows, columns), caption)

# %% [markdown]
# ## Tables 2 and 3: quality
#
# One row a system, one column a dataset and measure, as the paper has them; a dash has its reason
# below the table. The authors measured the paper's values on their data and their choice of
# samples: they are a landmark, not a target to the second digit. The body of Table 2 is lost; its
# column GRID is inferred from Table 4. On `mini`, the features of a classifier of drawn faces stand
# in for those of Inception and AlexNet, under names of their own.

# %%
captions = {"table2": "Table 2: face image translation.", "table3": "Table 3: voice conversion."}
for item, caption in captions.items():
    rows = tables.compared(item, found, dataset=dataset)
    table = tables.paper_cells(item, rows).pivot_table(
        index=["Guidance", "Model"],
        columns=["group", "measure", "whose"],
        values="cell",
        aggfunc="first",
        observed=True,
    )
    view = report.footnoted(table, *tables.definitions(rows, found, of_paper=True))
    show(item, rows, measured, view, caption)

# %% [markdown]
# ## Tables 4 and 5: ablations
#
# One row a configuration, one column a guidance and measure.

# %%
captions = {
    "table4": "Table 4: ablations, face image translation; the paper's values on GRID.",
    "table5": "Table 5: ablations, voice conversion; the paper's values on GRID.",
}
for item, caption in captions.items():
    rows = tables.compared(item, found, dataset=dataset)
    table = tables.paper_cells(item, rows).pivot_table(
        index="Model",
        columns=["group", "measure", "whose"],
        values="cell",
        aggfunc="first",
        observed=True,
    )
    view = report.footnoted(table, *tables.definitions(rows, found, of_paper=True))
    show(item, rows, measured, view, caption)

# %% [markdown]
# ## All else that was measured
#
# Means over directions and sexes of every metric; intervals and counts are in the CSV files.

# %%
values = pd.DataFrame(found.rows, columns=[*report.COLUMNS, "direction"])
values["metric"] = values["metric"].map(tables.displayed)
whole = values[values["direction"].isna() | (values["direction"] == "mean")]
whole.pivot_table(index="metric", columns=["system", "task"], values="value").round(3).fillna("")

# %% [markdown]
# ## Correspondence and verification
#
# The correspondence preference ratio comes from the answers of a study, or from a computer where
# the row says automatic. Verification holds the styles of faces against those of voices.

# %%
rows = tables.compared("correspondence", study, dataset=dataset)
table = tables.cells(rows).pivot_table(
    index="metric", columns=["task", "system"], values="cell", aggfunc="first"
)
caption = "Correspondence preference ratio (paper: Sec. 4.3, Fig. 5); chance is 0.5."
show("correspondence", rows, answered, report.footnoted(table), caption)

# %%
rows = tables.compared("verification", found, dataset=dataset)
columns = {
    "system": "System",
    "task": "Styles or voices",
    "metric": "Measure",
    "direction": "Direction",
    "value": "Value",
    "chance": "Chance",
    "published_voxceleb": "Published, VoxCeleb",
}
caption = "Face against voice by their styles: verification and retrieval."
show("verification", rows, measured, report.listing(rows, columns), caption)

# %% [markdown]
# ## Every metric by direction and sex

# %%
rows = tables.compared("by_direction_and_sex", found, dataset=dataset)
table = tables.cells(rows).pivot_table(
    index=["metric", "system", "task"],
    columns=[name for name in ("direction", "sex") if name in rows[0]] or "dataset",
    values="cell",
    aggfunc="first",
)
view = report.footnoted(table.fillna(""), *tables.definitions(rows, found))
show("by_direction_and_sex", rows, measured, view, "Every metric by direction and sex.")

# %% [markdown]
# ## Tables 6 to 9: the networks
#
# One pass through each module at the paper's sizes, with shapes but no values. The last column says
# how the printed table differs where that is known, with the assumption's id.

# %%
columns = {
    "system": "Module",
    "layer": "Layer",
    "resample": "Resample",
    "norm": "Norm.",
    "output": "Output shape",
    "value": "Parameters",
    "published": "Printed table",
}
captions = {
    "table6": "Table 6: the image generator.",
    "table7": "Table 7: the audio generator; the F0 features join before the AdaIN blocks.",
    "table8": "Table 8: the image style encoder and discriminator.",
    "table9": "Table 9: the audio style encoder, discriminator and classifier.",
    "mapping_network": "The mapping network (App. G); parameters are those of all domains.",
}
for item, caption in captions.items():
    rows = modules.module_table(item, cfg.run.model)
    show(item, rows, program, report.listing(rows, columns), caption)

# %%
rows = modules.totals(cfg.run.model)
columns = {"system": "Module", "value": "Parameters"}
caption = "All trained modules; parameters are counted, the paper prints none."
show("modules", rows, program, report.listing(rows, columns), caption)
