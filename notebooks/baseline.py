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
# # Train a compared system
#
# Trains one of the systems that the paper compares with (Tables 3 and 5, App. F) and listens to it:
# `adain_vc` and `fragment_vc`, voices after a reference voice, `adain_cvc`, AdaIN-VC with a face
# encoder in the place of its speaker encoder, voices after a face; `sgsim`, which moves a face in a
# generator's latent space after a voice (Table 2, Fig. 3); or its neighbour `vclip`, which
# retrieves speakers for a face and lets a trained model of the method speak (`conversion`). Preset
# `paper` has the published sizes, features and schedule (Fragment-VC needs wav2vec 2.0, Vclip and
# SGSIM CLIP, see docs/training.md), preset `mini` narrower ones on the package's mel-spectrogram,
# networks and vocoder. Our own choices: A84 (AdaIN-CVC), A86 (Vclip), A87 (Fragment-VC), A88
# (SGSIM).
#
# **In:** prepared stores under `data_root` (`mini` makes itself); or `weights`, the checkpoint that
# the authors of `adain_vc` (with `attr.npz` beside it) or of `fragment_vc` published, or the folder
# of `sgsim`'s networks: then nothing is trained.
# **Out:** a run under `run_root`: `config.json`, `metrics.jsonl`, `checkpoints/`, `samples/`.
# `evaluate.ipynb` scores it as it scores the method: `-p checkpoint <run>`.
# **Time:** preset `mini` 0.2 (AdaIN-VC) to 1.1 CPU seconds (Fragment-VC) a step, see
# `docs/systems/`. Preset `paper` has not been run to its end here.
#
# A run that was stopped goes on with the same parameters and `-p resume auto`.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
system: str = "adain_vc"  # compared system: adain_vc, adain_cvc, fragment_vc, vclip, sgsim
preset: str = ""  # size; empty means mini for dataset mini, else paper
steps: int = -1  # training steps; -1: the preset's
batch_size: int = -1  # samples a step; -1: the preset's
resume: str = ""  # run folder or checkpoint to go on from; empty means none
overrides: dict = {}  # dotted settings, such as system.width, to values
weights: str = ""  # published checkpoint to take in place of training
conversion: str = ""  # of vclip: run of XFaVoT that speaks, or shipped

# %%
from pathlib import Path

from xfavot import config, convert
from xfavot.baselines import training
from xfavot.parameters import Baseline
from xfavot.training import loop
from xfavot.viz import drawing, progress, widgets

# %% [markdown]
# ## What will be run
#
# Values in parentheses are the defaults of XFaVoT's paper preset; the last line holds the settings
# of the system.

# %%
parameters = Baseline.resolve(
    dataset=dataset,
    data_root=data_root,
    seed=seed,
    device=device,
    run_root=run_root,
    system=system,
    preset=preset,
    steps=steps,
    batch_size=batch_size,
    resume=resume,
    overrides=overrides,
    weights=weights,
    conversion=conversion,
)
plan = training.plan_of(parameters)
progress.line(config.describe(plan.run))
progress.line(str(plan.settings))

# %% [markdown]
# ## Training
#
# A voice is taken apart into content and speaker and put together again: ten times the L1 distance,
# and the divergence of the content from a normal distribution, whose weight grows from 0.

# %%
if weights:
    run = training.import_published(plan, Path(parameters.weights))
else:
    run = training.fit(plan, resume=resume, on_log=progress.line)
records = loop.read(run.path / loop.METRICS)

# %% [markdown]
# Solid in training, dashed on the validation split.

# %%
drawing.curves(records, columns=3) if records else "nothing was trained here"

# %% [markdown]
# ## Conversions
#
# Sources and references come from a split that was not trained on. Each is followed by what the
# system made of it, to be heard beside source and reference.

# %%
model = training.load_model(run.path)
converter = training.converter_of(model, device=parameters.device)
stores = convert.open_stores(parameters.data_root, parameters.corpora)
grids = convert.sample_grids(converter, stores, count=2, seed=seed)
for name, grid in grids.items():
    widgets.show(drawing.conversions(grid).save(Path(run.path, "samples", f"grid_{name}.png")))

# %%
widgets.players(widgets.voices_of(list(grids.values())), limit=8)

# %% [markdown]
# ## What was written

# %%
widgets.files(run.path)
