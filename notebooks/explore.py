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
# # Explore a trained XFaVoT
#
# Looks at and listens to image-guided, audio-guided and latent-guided conversions of faces and
# voices (paper, Fig. 1 and 3 to 6), then lets you choose for yourself.
#
# **In:** a checkpoint under `run_root` (the newest, unless `checkpoint` names one) and prepared
# stores under `data_root`. **Out:** pictures and players below; what you keep goes to `explored/`
# under `run_root`.
# **Time:** about a minute on two CPU cores.
#
# Faces and voices are biometric: convert yourself, or people who agreed.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
checkpoint: str = ""  # run folder or checkpoint; empty: the newest, or else shipped
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk

# %%
from pathlib import Path

from xfavot import convert
from xfavot.parameters import Explore
from xfavot.viz import drawing, explorer, progress, widgets

# %%
cfg = Explore.resolve(
    checkpoint=checkpoint,
    dataset=dataset,
    data_root=data_root,
    run_root=run_root,
    seed=seed,
    device=device,
    vocoder=vocoder,
)
converter = convert.Converter.load(cfg.model, device=cfg.device, vocoder=cfg.vocoder)
stores = convert.open_stores(cfg.data_root, cfg.corpora)
progress.line(f"checkpoint: {converter.name}, on {converter.device}")
progress.line(f"vocoder: {converter.vocoder.name}")

# %% [markdown]
# ## Every task at a glance
#
# Each field keeps what its column says or shows and takes the identity of its row. The samples were
# not trained on, unless the foot of a grid says `train`.

# %%
grids = convert.sample_grids(converter, stores, seed=cfg.seed)
widgets.show(*map(drawing.conversions, grids.values()))

# %% [markdown]
# The first voice of each task, before and after, and what guided it.

# %%
heard = {}
for grid in (grid for grid in grids.values() if grid.task.output == "voice"):
    source, reference, made = grid.columns[0], grid.rows[0], grid.cells[0][0]
    heard[f"source {source.label}"] = source.waveform
    if reference.waveform is not None:
        heard[f"reference {reference.label}"] = reference.waveform
    heard[f"{source.label} converted after {grid.task.guidance} {reference.label}"] = made.waveform
widgets.players(heard)

# %% [markdown]
# ## Choose for yourself
#
# With a running kernel, what you choose is converted at once: original, reference and result side
# by side, at true level. *mixed with* and *how much* slide to a second reference, *head* slides
# between the genders' heads, and the *directions* are the principal ones of these people's styles.
# Add a frontal face or a clip of speech as a file, or record a voice. *keep this* saves the result
# with its provenance in `runs/explored`; what is there stays in the gallery. The tab key reaches
# everything, the arrow keys move a slider. `voila notebooks/explore.ipynb` serves this notebook as
# a page (`pip install voila`).

# %%
people = convert.samples(stores, seed=cfg.seed)
explorer.Explorer(converter, people, folder=Path(cfg.run_root, "explored")).widget

# %% [markdown]
# ## Your own files, in code
#
# ```python
# face = converter.convert_face("me.jpg", voice_reference="friend.wav", gender="f")
# voice = converter.convert_voice("me.wav", face_reference="friend.jpg", gender="f")
# face.save("me_after_friend.png"), voice.save("me_after_friend.wav")
# ```
#
# A picture may have any size: the face in it is found and aligned first. The gender is the
# reference's; for a voice it may be left out and is estimated then.
