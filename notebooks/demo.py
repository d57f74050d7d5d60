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
# # What the model does, and what it learns in a hundred steps
#
# The model that comes with the package converts faces and voices of people whom it has never seen
# or heard: all six tasks of the paper (Fig. 1 and 3 to 6). Then it learns a few of these people in
# a short training that starts from its weights, and converts the same samples again.
#
# **In:** a prepared store under `data_root` (`mini` makes itself) and a model. **Out:** this page,
# and a run under `run_root`. **Time:** see the lines below; minutes on two CPU cores.
#
# The people are drawn and synthesised. Faces and voices are biometric: convert yourself, or people
# who agreed.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs/demo"  # folder of runs
checkpoint: str = "shipped"  # model to show and to start from: shipped, or a run
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
people: int = 4  # new people to learn, women and men
steps: int = 100  # training steps

# %%
from pathlib import Path

import pandas as pd

from xfavot import config, convert, training
from xfavot.data.prepare import open_or_make_mini
from xfavot.data.store import subset
from xfavot.parameters import Demo
from xfavot.viz import drawing, progress, widgets

# %%
cfg = Demo.resolve(
    dataset=dataset,
    data_root=data_root,
    seed=seed,
    device=device,
    run_root=run_root,
    checkpoint=checkpoint,
    vocoder=vocoder,
    people=people,
    steps=steps,
)
stores = open_or_make_mini(cfg.data_root, cfg.corpora, progress.line)
converter = convert.Converter.load(cfg.model, device=cfg.device, vocoder=cfg.vocoder)
progress.line(f"model: {converter.name}, on {converter.device}")

# %% [markdown]
# ## Six kinds of conversion
#
# A face keeps its pose and expression and takes the identity of a face, of a *voice* or of a latent
# code.

# %%
grids = convert.sample_grids(converter, stores, seed=cfg.seed, count=2)
guides = {"i": "after a face", "a": "after a voice", "z": "after a latent code"}


def of(output):
    """Return the conversions of faces or voices by what guides them."""
    return {guides[name[0]]: grid for name, grid in grids.items() if name[-1] == output}


drawing.conversions(of("i"), title="Faces", across=True)

# %% [markdown]
# A voice keeps its words and its melody and takes the identity of a voice, of a *face* or of a
# latent code. Each field is a mel-spectrogram with its pitch.

# %%
drawing.conversions(of("a"), title="Voices")

# %% [markdown]
# The first voice, and what was made of it, at the level that they have.

# %%
source = grids["a2a"].columns[0]
heard = {f"source {source.label}": source.waveform}
for name in ("a2a", "i2a", "z2a"):
    reference, made = grids[name].rows[0], grids[name].cells[0][0]
    heard[f"{source.label} {guides[name[0]]}: {reference.label}"] = made.waveform
    if reference.waveform is not None:
        heard[f"the voice {reference.label}"] = reference.waveform
widgets.players(heard)

# %% [markdown]
# ## Learning new people
#
# As many women as men of these strangers, whose training clips the model now learns from; the
# samples that are shown and the clips that are measured are held out. The loop is that of
# `train.ipynb`.

# %%
genders = {item.speaker: item.gender for item in stores[0].items}
chosen = [[one for one in sorted(genders) if genders[one] == g] for g in ("f", "m")]
names = [one for pair in zip(*chosen, strict=False) for one in pair][: cfg.people]
few = subset(stores[0], Path(cfg.run_root, f"people_{cfg.people}", stores[0].path.name), names)
run_cfg = cfg.learning(str(few.path.parent), converter.config)
progress.line(config.describe(run_cfg))

# %%
with training.open_session(run_cfg, resume="auto", on_log=progress.line) as session:
    if session.step == 0:
        session.validate()
    for step in session:
        terms = session.update(session.batch(step), step)
        if session.due("log"):
            session.log(terms)
    if session.due("sample"):
        session.validate()
    run = session.finish()
    measured = [line for line in session.metrics() if "val/total" in line]

# %% [markdown]
# ## What changed
#
# Means over held-out clips of these people, before and after; smaller is better. What so short a
# training mainly brings is that a person's face and voice find each other; the rest needs longer.

# %%
terms = {
    "a person's face and voice apart (L_xm)": "val/xm",
    "face after a face: distance from its style": "val/i2i/sty",
    "face after a voice: distance from its style": "val/a2i/sty",
    "face: lost on the way there and back": "val/i2i/cyc",
    "voice after a voice: distance from its style": "val/a2a/sty",
    "voice after a face: distance from its style": "val/i2a/sty",
    "voice: lost on the way there and back": "val/a2a/cyc",
}
rows = {
    what: [line.get(key) for line in (measured[0], measured[-1])] for what, key in terms.items()
}
table = pd.DataFrame(rows, index=["before", f"after {run.step} steps"]).T
table.round(3)

# %%
learnt = convert.Converter.load(run.path, device=cfg.device, vocoder=cfg.vocoder)
both = {"before": converter, f"after {run.step} steps": learnt}
made = {
    when: convert.sample_grids(one, [few], seed=cfg.seed, count=2) for when, one in both.items()
}
for task in ("i2i", "a2i", "a2a", "i2a"):
    parts = {when: each[task] for when, each in made.items()}
    note = f"{converter.name}; then {learnt.name}; split val"
    widgets.show(drawing.conversions(parts, across=True, note=note))

# %%
source = next(iter(made.values()))["i2a"].columns[0]
heard = {f"source {source.label}": source.waveform}
for when, each in made.items():
    heard[f"after the face of {each['i2a'].rows[0].label}, {when}"] = (
        each["i2a"].cells[0][0].waveform
    )
widgets.players(heard)

# %% [markdown]
# ## Go on
#
# - Choose other sources and references, slide between styles, add your own:
#   `jupyter lab notebooks/explore.ipynb`
# - Convert on the command line: `xfavot convert --source me.jpg --reference friend.wav`
# - Train on your own people: docs/own_data.md
