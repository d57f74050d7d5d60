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
# Tables 1 to 9, and five of our own: face-voice correspondence, verification, every metric by
# direction and sex, parameters a module, and the mapping network layer by layer. Tables 1 and 6 to
# 9 are read from the program itself, 2 to 5 from evaluations on the disk, beside what the paper
# prints. Nothing is measured here: a cell that nobody measured says so, and how to have it
# measured.
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
import torch
from IPython import display

from xfavot import report
from xfavot.data.store import Store
from xfavot.losses.objective import TABLE_1
from xfavot.models.generators import F0_FEATURE_FACTOR
from xfavot.models.xfavot import XFaVoT, shape_trace
from xfavot.parameters import SHIPPED, Tables
from xfavot.report import tables

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
for one in (found, study):
    files = sorted({row["evaluation"] for row in one.rows})
    head = f"{len(one.rows)} values, tier {one.tier}; evaluations read: {len(files)}.\n\n"
    lines = [*files, *(f"left out: {reason}" for reason in one.left_out)]
    display.display(display.Markdown(head + "".join(f"- {line}\n" for line in lines)))

# %%
folders = [Path(cfg.run.data_root, corpus) for corpus in cfg.run.data.corpora]
stores = [Store.open(path, corpus=path.name) for path in folders if (path / "store.json").is_file()]
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


def counted(system, task, metric, value):
    """A row about the program itself: one sample, no data, nothing random."""
    about = {"system": system, "task": task, "dataset": "", "metric": metric, "value": value}
    return {**about, "ci_low": None, "ci_high": None, "n": 1, "seed": "none"}


# %% [markdown]
# ## Table 1: styles, losses and heads
#
# The data structure that drives training, printed. A11 in `ASSUMPTIONS.md` says what of it the
# paper states.

# %%
rows = [
    {
        **counted(row.encoder, row.data, "head families", len(row.heads)),
        "L_xm": "yes" if row.xm else "no",
        "heads": ", ".join(row.heads),
        "speaker_label": "yes" if row.needs_speaker else "no",
        "status": "STATED" if row.data == "image-only face" else "L_xm STATED, heads INFERRED",
    }
    for row in TABLE_1
]
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
up, down, dash = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}", "\N{EN DASH}"
measures = {  # metric, or its beginning: as the paper calls it with the better direction; digits
    tables.FID: (f"FID {down}", 1),
    tables.LPIPS: (f"LPIPS {up}", 3),
    "frechet": (f"Fréchet {down}", 1),  # the substitutes for both on mini
    "diversity": (f"Diversity {up}", 3),
    tables.NISQA: (f"NISQA {up}", 2),
    tables.SPKSIM: (f"SpkSim {up}", 2),
    tables.WER: (f"WER {down}", 2),
}
guidances = {"": dash, "i": "Image", "a": "Audio"}  # first letter of a task
heads = {  # the datasets of a table as the paper heads and orders its columns
    "table2": {"celebahq_vctk": "CelebA-HQ", "grid": "GRID", "lrs3_lip2wav": "LRS3+Lip2Wav"},
    "table3": {"grid": "GRID", "celebahq_vctk": "VCTK (+CelebA-HQ)"},
}


# %%
def named(row, groups):
    """A cell of ours or the paper's, by the paper's names; nothing for what it does not have."""
    paper, value = "table" in row, row["value"]
    model = str(tables.SYSTEMS.get(row["system"], row["system"]))
    guidance = guidances.get("" if model == "ground truth" else str(row["task"])[:1])
    metric = str(row["metric"]).removeprefix("cross-modal ")
    measure = metric if metric in measures else metric.partition(", ")[0]
    if guidance is None or measure not in measures:
        return None
    name, digits = measures[measure]
    if paper:  # never fewer digits than it prints
        digits = max(digits, len(str(value).partition(".")[2]))
    if row.get("speakers") not in (None, "", "seen"):
        model += f", {row['speakers']} speakers"
    why = report.EMPTY + tables.public(str(row["status"] if paper else row.get("missing")))
    return {
        "Guidance": guidance,
        "Model": model[0].upper() + model[1:],
        "group": groups.get(row["dataset"], row["dataset"]) if groups else f"{guidance}-guided",
        "measure": name,
        "whose": "paper" if paper else "ours",
        "cell": why if value is None else f"{value:.{digits}f}",
    }


# %%
def laid_out(item, rows):
    """Our cells beside the paper's, in the paper's order."""
    groups, asked = heads.get(item, {}), {row["dataset"] for row in rows}
    printed = [cell for cell in tables.PUBLISHED if cell["table"] == item]
    near = [cell for cell in printed if cell["dataset"] in asked] or printed
    frame = pd.DataFrame(filter(None, (named(row, groups) for row in [*rows, *near])))
    frame["Model"] = frame["Model"].str.replace(r"\bL_(\w+)", r"$L_{\1}$", regex=True)
    orders = {name: list(dict.fromkeys(frame[name])) for name in frame if name != "cell"}
    orders["Guidance"].sort(key=dash.__ne__)
    orders["Model"] = list(dict.fromkeys(frame["Model"][::-1]))[::-1]  # the paper's own comes last
    places = {name: place for place, name in enumerate(groups.values())}
    orders["group"].sort(key=lambda name: places.get(name, -1))  # a dataset of ours first
    orders["measure"] = list(dict.fromkeys(name for name, _ in measures.values()))
    for column, order in orders.items():
        frame[column] = pd.Categorical(frame[column], order, ordered=True)
    return frame.pivot_table(
        index=["Guidance", "Model"] if groups else "Model",
        columns=["group", "measure", "whose"],
        values="cell",
        aggfunc="first",
        observed=True,
    )


# %%
def displayed(text):
    """Name the classifier as people do, which identifiers in files call a judge."""
    return text.replace("judge of the faces", "classifier of the faces")


def definitions(rows, names=None):
    """How the metrics of a table are defined, for the notes below it.

    `names` holds those of the metrics shown, by the metric up to its comma; without it, all are
    shown under their own.
    """
    shown, defined = {row["metric"] for row in rows if row["value"] is not None}, {}
    for row in (row for row in found.rows if row["metric"] in shown and row.get("definition")):
        name = str(row["metric"])
        if names is not None:
            name = names.get(name.partition(", ")[0], "")
        if name:
            text, few, batches = str(row["definition"]).partition("; batches of")
            metrics, more = defined.setdefault(text.removeprefix(f"{name}: "), ({}, {}))
            metrics[name] = None
            if few:  # said once, not for each row that has few references
                more[f"; some in batches of{batches}"] = None
    return [
        displayed(f"{', '.join(metrics)}: {text}{''.join(more)}.")
        for text, (metrics, more) in defined.items()
    ]


# %%
def cells(rows):
    """Tidy rows with a further column `cell`: the rounded value, or why there is none."""
    frame = pd.DataFrame(rows, dtype=object).assign(cell=[*map(report.cell_of, rows)])
    frame["metric"] = frame["metric"].map(displayed)
    return frame.where(frame.notna(), "")


# %%
def strangers(rows):
    """What has to be said where the model that ships stands among rows that were trained here."""
    there = any(str(row.get("evaluation")).startswith(f"{SHIPPED},") for row in rows)
    said = "the model that ships, trained for longer, on other people; it has never met these"
    return [f"XFaVoT, companion: {said}."] * there


# %%
def compare(item, caption):
    """Write a table of the paper, and show what was read back from disk."""
    rows = tables.compared(item, found, dataset=dataset)
    names = {metric: name.split()[0] for metric, (name, _) in measures.items()}
    notes = definitions(rows, names)
    several = {row["system"]: row["seeds"] for row in rows if row.get("seeds")}
    notes += [f"{name}: the mean of trainings with seeds {one}." for name, one in several.items()]
    notes += strangers(rows)
    view = report.footnoted(laid_out(item, rows), *notes)
    show(item, rows, measured, view, caption)


compare("table2", "Table 2: face image translation.")
compare("table3", "Table 3: voice conversion.")

# %% [markdown]
# ## Tables 4 and 5: ablations
#
# One row a configuration, one column a guidance and measure.

# %%
compare("table4", "Table 4: ablations, face image translation; the paper's values on GRID.")
compare("table5", "Table 5: ablations, voice conversion; the paper's values on GRID.")

# %% [markdown]
# ## All else that was measured
#
# Means over directions and sexes of every metric; intervals and counts are in the CSV files.

# %%
values = pd.DataFrame(found.rows, columns=[*report.COLUMNS, "direction"])
values["metric"] = values["metric"].map(displayed)
whole = values[values["direction"].isna() | (values["direction"] == "mean")]
table = whole.pivot_table(index="metric", columns=["system", "task"], values="value").round(3)
table.astype(object).fillna("")

# %% [markdown]
# ## Correspondence and verification
#
# The correspondence preference ratio comes from the answers of a study, or from a computer where
# the row says automatic. Verification holds the styles of faces against those of voices.

# %%
rows = tables.compared("correspondence", study, dataset=dataset)
table = cells(rows).pivot_table(
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
table, notes = report.listing(rows, columns)
show("verification", rows, measured, (table, [*notes, *strangers(rows)]), caption)

# %% [markdown]
# ## Every metric by direction and sex

# %%
rows = tables.compared("by_direction_and_sex", found, dataset=dataset)
table = cells(rows).pivot_table(
    index=["metric", "system", "task"],
    columns=[name for name in ("direction", "sex") if name in rows[0]] or "dataset",
    values="cell",
    aggfunc="first",
)
view = report.footnoted(table.fillna(""), *definitions(rows))
show("by_direction_and_sex", rows, measured, view, "Every metric by direction and sex.")

# %% [markdown]
# ## Tables 6 to 9: the networks
#
# One pass through each module at the paper's sizes, with shapes but no values. The last column says
# how the printed table differs where that is known, with the assumption's id.

# %%
m = cfg.run.model
with torch.device("meta"):
    nets = XFaVoT(m)
    face = torch.empty(1, 3, m.image_size, m.image_size)
    voice, style = torch.empty(1, 1, m.mel_bins, m.mel_frames), torch.empty(1, m.style_dim)
    melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
    code, domain = torch.empty(1, m.latent_dim), torch.zeros(1, dtype=torch.int64)
tables_of_modules = {  # what each module of a table takes
    "table6": {"G_I": (face, style)},
    "table7": {"G_A": (voice, style, melody)},
    "table8": {"E_I": (face, domain), "D_I": (face, domain)},
    "table9": {"E_A": (voice, domain), "D_A": (voice, domain), "C_A": (voice,)},
    "mapping_network": {"M": (code, domain)},
}


# %%
def printed(item, number, count, layer):
    """What is known of a layer in the printed tables (ASSUMPTIONS A17, A18, A21)."""
    if item == "mapping_network":
        return "the same"  # STATED in App. G, in words
    if number == 1:
        return "Conv 1x1 (A21)"
    if item in ("table6", "table7"):
        if number > count - 2 or (item, number) == ("table7", 8):
            return ""  # the output head is lost; the block on the F0 features is the ancestor's
        return "not printed (A17)" if (item, number) == ("table7", 12) else "the same"
    return "with IN (A18)" if layer.layer == "ResBlk" and layer.norm == "-" else "the same"


def layers_of(item, name, inputs):
    """A row a layer of a module, and one for it as a whole."""
    traced, rows = shape_trace(getattr(nets, name), *inputs), []
    for number, layer in enumerate(traced, 1):
        rows.append(counted(name, f"layer {number}", "parameters", layer.parameters))
        rows[-1] |= {"layer": layer.layer, "resample": layer.resample, "norm": layer.norm}
        rows[-1]["output"] = " x ".join(map(str, layer.shape))
        rows[-1]["published"] = printed(item, number, len(traced), layer)
    total = sum(layer.parameters for layer in traced)
    return [*rows, counted(name, "whole module", "parameters", total)]


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
    modules = tables_of_modules[item].items()
    rows = [row for name, inputs in modules for row in layers_of(item, name, inputs)]
    show(item, rows, program, report.listing(rows, columns), caption)

# %%
rows = [counted(name, "", "parameters", count) for name, count in nets.parameter_table()]
columns = {"system": "Module", "value": "Parameters"}
caption = "All trained modules; parameters are counted, the paper prints none."
show("modules", rows, program, report.listing(rows, columns), caption)
