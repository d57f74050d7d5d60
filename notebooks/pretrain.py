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
# # Train the F0 network, the content network, the vocoder
#
# Two networks listen along while XFaVoT trains and are not trained then: one says the pitch of a
# voice (the losses on F0, and an input of the voice generator), one says what is spoken (the speech
# consistency loss). The paper takes both from StarGANv2-VC; here they are trained on this project's
# own mel-spectrogram (Sec. 3.2; assumptions A28, A36, A37).
#
# The vocoder makes a voice of a mel-spectrogram. The paper uses Parallel WaveGAN (Sec. 4), which
# takes days of a GPU; a small source-filter vocoder comes with the package, and
# `-p network vocoder` trains another one, with `-p dataset speech` on the speech under open
# licences that the one that ships was trained on.
#
# **In:** prepared stores under `data_root` (`prepare_data.ipynb` makes them; `mini` makes itself).
# F0 is learnt from WORLD's, content from the transcripts.
# **Out:** `auxiliary/f0_<key>`, `auxiliary/content_<key>` and `auxiliary/vocoder_<key>` under
# `run_root`, found again by every run on the same data with the same sizes and seed. `train.ipynb`
# makes the first two itself if need be. A training of the vocoder that was stopped goes on.
# **Time:** `dataset mini` some minutes on two CPU cores; `preset paper` hours on one GPU; the
# vocoder half an hour on one CPU core (4,000 steps of 0.45 s), a quarter of it with `dataset mini`;
# beside judges of its spectra (`pretrain.vocoder_adversary`, about 8) four times as long.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
network: str = "all"  # f0, content, vocoder, or all: the first two
preset: str = ""  # size; empty means mini for dataset mini, else paper
steps: int = -1  # training steps; -1: the preset's
overrides: dict = {}  # dotted settings, such as loss.xm, to values

# %%
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from xfavot import config
from xfavot.audio.mel import MEL
from xfavot.audio.source_filter import SourceFilterVocoder
from xfavot.audio.vocoder import GriffinLim
from xfavot.data.prepare import open_or_make_mini
from xfavot.data.store import mel_statistics
from xfavot.evaluation import voices
from xfavot.parameters import Pretrain
from xfavot.training import pretrain, speech
from xfavot.viz import drawing, progress, widgets

# %% [markdown]
# ## What will be trained
#
# Values in parentheses are the paper preset's.

# %%
task = Pretrain.resolve(
    network=network,
    dataset=dataset,
    preset=preset,
    steps=steps,
    seed=seed,
    device=device,
    data_root=data_root,
    run_root=run_root,
    overrides=overrides,
)
mpl.rcParams.update(drawing.RC)
progress.line(config.describe(task.run))

# %% [markdown]
# ## Training

# %%
run = task.run
stores = open_or_make_mini(run.data_root, run.data.corpora, progress.line)
standardiser = mel_statistics(stores, split="train")
trained = {
    name: pretrain.ensure_network(name, run, stores, standardiser, progress.line)
    for name in task.networks
}

# %% [markdown]
# ## On clips that were not trained on
#
# Read back from disk. `val` are other sentences of known speakers, `unseen` are speakers left out;
# all but the correlation are shares. Voicing error: frames called voiced or unvoiced wrongly. Gross
# pitch error: frames more than 20 % off WORLD's F0, of those voiced in both. Character error: edits
# per character of the transcript, without a language model. Of the vocoder: mean absolute distance
# of the log10 mels, and the distance that its loss is made of.

# %%
for name, one in trained.items():
    progress.line(f"{name}: {pretrain.in_words(one.record['measures'])}")

# %% [markdown]
# ## Pitch of one clip

# %%
networks = {name: one.network for name, one in trained.items()}
f0, content, vocoder = (networks.get(name) for name in ("f0", "content", "vocoder"))


def clips_with(needs: str) -> list[speech.Clip]:
    """Clips with a label, of the first of val, unseen and train that has any."""
    splits = (*speech.HELD_OUT, "train")
    found = (speech.held_out(stores, split, needs=needs) for split in splits)
    return next((clips for clips in found if clips), [])


clip = clips_with("f0")[0]
tracks = {"WORLD": clip.f0()}
if f0 is not None:
    tracks["network"] = speech.track_of(f0, clip, standardiser)
if vocoder is not None:
    tracks["vocoder"] = SourceFilterVocoder(vocoder).find_f0(clip.log_mel())

# %%
figure = Figure(figsize=(6.4, 2.4), layout="constrained")
axes = figure.add_subplot()
for (label, track), colour in zip(tracks.items(), drawing.PALETTE, strict=False):
    seconds = np.arange(len(track)) * MEL.hop / MEL.sample_rate
    hz = torch.where(track > 0, track, torch.nan).numpy()
    axes.plot(seconds, hz, color=colour, label=label)
axes.set(xlabel="time (s)", ylabel="pitch (Hz)", yscale="log", ylim=drawing.PITCH_RANGE_HZ)
ticks = (60, 80, 100, 150, 200, 300, 400, 500)
axes.set_yticks(ticks, [str(tick) for tick in ticks])
axes.set_yticks([], minor=True)
figure.legend(loc="outside right upper")
drawing.Drawing(figure)

# %% [markdown]
# ## What is said and what is heard

# %%
if not clips_with("transcript"):
    progress.line("no transcript")
for clip in clips_with("transcript")[:6]:
    text = f"{clip.item.id}: {speech.spell(speech.encode(clip.item.transcript))}"
    if content is not None:
        text += f" | heard: {speech.heard_of(content, clip, standardiser)}"
    progress.line(text)

# %% [markdown]
# ## The vocoder's losses
#
# Score: distance of two outputs from the recording, less their distance from each other. Pitch and
# voicing: cross-entropies against WORLD.

# %%
own = trained.get("vocoder")
records = own.record["training"]["losses"] if own else []
drawing.curves(records, columns=3) if records else "no vocoder was trained in this run"

# %% [markdown]
# ## The vocoder against Griffin-Lim
#
# Mel-spectrograms of recordings, made audible again and held against the recordings: `unseen` are
# speakers left out of training. Log mel: mean distance within 60 dB of the loudest value; voicing,
# gross errors (more than 20 %) and median error of F0 by WORLD on both sounds; similarity of the
# speaker by Resemblyzer. Griffin-Lim is built to fit the mel, so that it wins there.

# %%
pair = (SourceFilterVocoder.load(own.path), GriffinLim()) if own else ()
made = voices.copies(pair, stores)
voices.copy_table(made, on_log=progress.line).round(3) if made else None

# %% [markdown]
# The loudest 1.2 s of four recordings beside their copies, up to 12 kHz; every corpus in turn.

# %%
corpora = pd.Series([copy.clip.item.corpus for copy in made], dtype=str)
turns = corpora.groupby(corpora).cumcount().sort_values(kind="stable")
chosen, shown = [made[turn] for turn in turns.index], round(1.2 * MEL.sample_rate)


def loudest(wave):
    """The sample at which the part with the most energy starts."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    return int((energy[shown:] - energy[:-shown]).argmax()) if len(wave) > shown else 0


def decibels(wave, size=1024, window=720, step=120):
    """(F, T) magnitudes in dB, fine enough in time to show the pulses; full scale is about 50."""
    x = torch.nn.functional.pad(torch.from_numpy(wave), (0, max(0, size - len(wave))))
    weights = torch.hann_window(window)
    spectrum = torch.stft(x, size, step, window, weights, return_complex=True).abs()
    return (20 * (spectrum + 1e-6).log10()).numpy()


# %%
if made:
    names, rows = list(made[0].sounds), chosen[:4]
    size = (0.6 + 3.0 * len(names), 0.6 + 1.75 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    fields = figure.subplots(len(rows), len(names), sharex=True, sharey=True, squeeze=False)
    for copy, line in zip(rows, fields, strict=True):
        start = loudest(copy.sounds[names[0]])
        for name, axes in zip(names, line, strict=True):
            part = copy.sounds[name][start : start + shown]
            size = (len(part) / MEL.sample_rate, MEL.sample_rate / 2000)  # s, kHz
            drawing.show_spectrogram(axes, decibels(part), (-75.0, 10.0), size)
            axes.grid(visible=False)
            axes.set_title(name, fontsize=7, color=drawing.FAINT)
        line[0].set(yticks=[0, 4, 8, 12], ylabel="kHz")
        line[0].set_title(f"{copy.label}: {names[0]}", fontsize=7, color=drawing.FAINT)
    for axes in fields[-1]:
        axes.set(xticks=[0.0, 0.4, 0.8], xlabel="time (s)")
    widgets.show(drawing.Drawing(figure))

# %%
if made:
    heard = chosen[: max(1, widgets.MOST_PLAYERS // len(names))]
    sounds = {f"{one.label}: {name}": one.sounds[name] for one in heard for name in names}
    widgets.show(widgets.players(sounds))

# %% [markdown]
# ## What is kept

# %%
widgets.files(Path(task.run.run_root, "auxiliary"))
