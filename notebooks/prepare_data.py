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
# # Prepare data
#
# Reads the originals of a dataset once into prepared stores (paper, Sec. 4): faces found and framed
# as in CelebA-HQ at 128 x 128, sound at 24 kHz with its mel-spectrogram and pitch, transcripts,
# splits. What cannot be used is listed with the reason and never stops the rest.
#
# **In:** the originals, in the layout in which their owners ship them; `mini` makes its own.
# **Out:** one store a corpus under `data_root`, with a page `report.html` and a card `CARD.md`.
# **Time:** `mini` some minutes on two CPU cores; about 0.6 s of one core a clip of 3 s, so GRID's
# 33,000 films take about 20 minutes on 16 cores. A run that was stopped goes on where it was.
#
# | dataset | corpora |
# | --- | --- |
# | `mini` | drawn faces and synthetic voices of the package's own |
# | `grid` | GRID |
# | `celebahq_vctk` | CelebA-HQ, VCTK |
# | `lrs3_lip2wav` | LRS3, Lip2Wav |
# | `voxceleb` | VoxCeleb |
# | `avatars` | a folder of stylised faces |
# | `clips` | films, or voices with faces, of your own |
# | `speech` | mini, VCTK, LibriSpeech: voices for the F0, content and vocoder networks |
# | `paper` | GRID, Lip2Wav, LRS3, CelebA-HQ, VCTK |
#
# `source` is the corpus's own folder, or a folder that holds one folder a corpus (`grid`, `vctk`,
# `celeba_hq`, `lrs3`, `lip2wav`, `voxceleb`, `librispeech`, `avatars`, `clips`). Nothing has to be
# renamed.
#
# With `download` the originals of GRID, VCTK and CelebA-HQ are first fetched from their owners into
# `source` (`<data_root>/originals` if that is empty): terms and sizes are shown, a transfer that
# was cut goes on, checksums are compared. LRS3, Lip2Wav and VoxCeleb have to be asked for; the
# notebook says where.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
source: str = ""  # folder of originals; not needed for mini
download: bool = False  # first fetch what the owners let anyone download
speakers: int = 16  # people in mini
utterances: int = 24  # sentences of each person in mini
voices: str = "auto"  # of mini: auto, kokoro or espeak
twins: int = 0  # pictures of each person of mini in a pose that others share
workers: int = 0  # processes; 0 means one a core

# %%
from xfavot.data import prepare, report
from xfavot.parameters import Prepare
from xfavot.viz import progress, widgets

# %%
cfg = Prepare.resolve(
    dataset=dataset,
    source=source,
    download=download,
    speakers=speakers,
    utterances=utterances,
    voices=voices,
    twins=twins,
    data_root=data_root,
    workers=workers,
    seed=seed,
)
progress.line(f"{cfg.dataset}: {', '.join(cfg.corpora)}; {cfg.processes} processes")

# %% [markdown]
# ## Preparation

# %%
stores = prepare.prepare_dataset(cfg, progress.line)

# %% [markdown]
# ## What was accepted, and what was not
#
# Read back from disk. `quarantine.csv` beside each store names every file that was left out.

# %%
progress.line(report.summary(stores))

# %% [markdown]
# ## Faces and voices
#
# One face a speaker in turn, as the model will see them; the voices at their own level, at most
# five seconds of each. The report pages hold more. These are the media of the corpus: an executed
# copy of this notebook is as restricted as the corpus is.

# %%
widgets.Html(report.preview(stores), log="a contact sheet and players")
