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
# # Which face goes with which voice, learnt from few people
#
# The encoders of faces and of voices that come with the packages (dlib's and Resemblyzer's) know
# real people; what is learnt here is the way from one to the other, two linear heads, by the
# paper's L_xm (Sec. 3.2). Everybody is judged by heads that have not met them. With a `checkpoint`,
# its own encoders are judged on the same pairs, and with `conversions` it speaks: faces are given
# the voice of the people whose voices go best with them. `voices` may name further encoders of
# speech, folders with weights as transformers saves them (WavLM, HuBERT, wav2vec 2.0, AST).
#
# **In:** prepared stores under `data_root` with faces and speech of known people, some tens at
# least.
# **Out:** under `out`: `association.safetensors`, the heads of all people; `features/`, what the
# encoders tell, which is gone on with; `paper_tables/` and `figures/`; `voices/` with sounds and
# `manifest.csv`, which `evaluate.ipynb -p manifest` scores.
# **Time:** 253 clips of 104 people: reading 21 s, a fold 1 s, on one core of an Intel Xeon; a voice
# for a face some seconds.
#
# A face does not determine a voice. This measures how much one says of the other, and must not be
# used to identify anyone.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
folds: int = 8  # parts of the people; each is judged by heads of the others
steps: int = 300  # training steps of a fold
fewer: str = "13,26,52"  # people to learn from, for the curve, with commas
voices: str = "resemblyzer"  # encoders of voices, with commas; the first one speaks
checkpoint: str = ""  # run or shipped, whose encoders stand beside, and who speaks
conversions: int = 0  # voices to make for faces by the checkpoint
out: str = "runs/association"  # folder of what is found

# %%
from pathlib import Path

import numpy as np
import pandas as pd
from IPython import display
from matplotlib.figure import Figure

from xfavot import convert, report
from xfavot.data.prepare import open_or_make_mini
from xfavot.evaluation import association, matching
from xfavot.parameters import Associate
from xfavot.viz import drawing, progress, widgets

# %%
began = report.begin()
cfg = Associate.resolve(
    dataset=dataset,
    data_root=data_root,
    seed=seed,
    device=device,
    run_root=run_root,
    folds=folds,
    steps=steps,
    fewer=fewer,
    voices=voices,
    checkpoint=checkpoint,
    conversions=conversions,
    out=out,
)
stores = open_or_make_mini(cfg.data_root, cfg.corpora, progress.line)

# %% [markdown]
# ## What the encoders tell

# %%
told = Path(cfg.out, "features")
first, *others = cfg.encoders
pairs = association.read_pairs(stores, told, progress.line, voices=first)
fold = association.deal(pairs.genders, cfg.folds, cfg.seed)
women, men = (pairs.genders.count(gender) for gender in "fm")
f"{len(pairs.speaker)} clips of {len(pairs.speakers)} people ({women} women, {men} men)"

# %% [markdown]
# ## Verification and retrieval
#
# Every face meets every voice of its own fold; intervals draw people anew. The curve repeats it
# with fewer people to learn from, the same ones being judged.


# %%
def named(system, people, found):
    """Rows with the cells that tables need."""
    kept = ("metric", "value", "ci_low", "ci_high", "n", "people", "seed", "chance", "direction")
    cells = {
        "system": system,
        "task": f"{people} people",
        "dataset": dataset,
        "learnt_from": people,
    }
    return [{**cells, **{name: row.get(name) for name in kept}} for row in found]


heads, how = "heads on dlib_face and {}".format, {"steps": cfg.steps, "seed": cfg.seed}
own = heads(first)
judged = association.judged(pairs, fold, **how)
rows, learnt = named(own, judged.learnt, judged.rows), judged.learnt
for people in (one for one in cfg.curve if one < learnt):
    less = association.judged(pairs, fold, people=people, **how)
    rows += named(own, people, less.rows)

# %%
for name in others:
    heard = association.read_pairs(stores, told, progress.line, voices=name)
    dealt = association.deal(heard.genders, cfg.folds, cfg.seed)
    found = association.judged(heard, dealt, **how)
    rows += named(heads(name), found.learnt, found.rows)

# %%
converter = convert.Converter.load(cfg.checkpoint, device=cfg.device) if cfg.checkpoint else None
if converter is not None and converter.has("face"):  # a model of voices alone may speak
    found = association.judged_styles(converter, pairs, fold, seed=cfg.seed)
    rows += named(converter.name, 0, found)

# %%
table = pd.DataFrame(rows).query("learnt_from in [0, @learnt] or system != @own")
table[["system", "metric", "direction", "value", "ci_low", "ci_high", "chance", "n"]].round(3)

# %% [markdown]
# ## What more people would bring

# %%
curve = pd.DataFrame(rows).query("system == @own and metric.str.contains('AUC')")
figure = Figure(figsize=(4.6, 3.0), layout="constrained")
axes = figure.add_subplot()
for (metric, line), colour in zip(curve.groupby("metric"), drawing.PALETTE, strict=False):
    line = line.sort_values("learnt_from")
    label = metric.removeprefix("verification AUC, ")
    axes.plot(line["learnt_from"], line["value"], "o-", color=colour, label=label)
    axes.fill_between(
        line["learnt_from"], line["ci_low"], line["ci_high"], color=colour, alpha=0.15, linewidth=0
    )
axes.axhline(matching.CHANCE, color=drawing.FAINT, linewidth=1, linestyle=":")
axes.set(xscale="log", xlabel="people to learn from", ylabel="area under the curve", ylim=(0.45, 1))
ticks = sorted(set(curve["learnt_from"]))
axes.set_xticks(ticks, [str(tick) for tick in ticks])
axes.set_xticks([], minor=True)
axes.legend(loc="upper left")
drawn = drawing.Drawing(figure)

# %% [markdown]
# ## Faces that are given a voice
#
# The style is the mean over the five people whose voices go best with the face. Beside it, the
# conversion after the true voice, and the unconverted source.

# %%
if converter is not None and cfg.conversions:
    manifest = association.speak(
        converter,
        pairs,
        fold,
        judged.heads,
        Path(cfg.out, "voices"),
        conversions=cfg.conversions,
        seed=cfg.seed,
    )
    made = sorted(manifest.parent.glob("*_association.wav"))
    progress.line(f"score it: papermill notebooks/evaluate.ipynb out.ipynb -p manifest {manifest}")
    widgets.show(widgets.players(made, limit=6))

# %% [markdown]
# ## What was written, read back from disk

# %%
everybody = association.fit(pairs, np.arange(len(pairs.speakers)), **how)
known = {"steps": cfg.steps, "people": len(pairs.speakers), "voices": first}
association.save(everybody, Path(cfg.out, "association.safetensors"), **known)
origin = report.collect(began, cfg.run, tier="reduced", stores=stores, notebook="associate")
kept = report.write_table(
    "association", rows, provenance=origin, root=Path(cfg.out, "paper_tables")
)
report.read_table(kept)

# %%
folder = report.write_figure(
    "association",
    drawn,
    data=curve.to_dict("records"),
    provenance=origin,
    root=Path(cfg.out, "figures"),
)
display.Image(Path(folder, "association.png"), width=500)
