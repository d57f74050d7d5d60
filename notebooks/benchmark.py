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
# # What it costs on this machine
#
# Times the loader at the paper's sizes (Sec. 4: batch 32, 128 x 128 faces, 80 x 192 mels) beside
# decoding the same samples from files, times full training steps at the small presets and every
# vocoder, and counts the operations of every network at preset `paper`.
#
# **In:** prepared stores under `data_root` (`mini` makes itself). **Out:** the tables `benchmark`,
# `benchmark_vocoders` and `benchmark_networks` and the figures `benchmark` and `benchmark_vocoders`
# under `out`.
# **Time:** a minute on one CPU core; busy neighbours change it, which is why everything that is
# compared takes turns and CPU time is counted.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
rounds: int = 5  # times that each thing is timed
out: str = "runs/benchmark"  # folder of the tables and figures

# %%
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from IPython import display
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from xfavot import presets, report
from xfavot.audio.mel import MEL
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, vocoder
from xfavot.config import resolve
from xfavot.data.batches import Batches
from xfavot.data.prepare import open_or_make_mini
from xfavot.evaluation import speed
from xfavot.evaluation.manifest import attempt
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.generators import F0_FEATURE_FACTOR
from xfavot.models.xfavot import XFaVoT
from xfavot.parameters import Benchmark
from xfavot.viz import drawing, progress

# %%
began = report.begin()
cfg = Benchmark.resolve(
    dataset=dataset, data_root=data_root, device=device, seed=seed, rounds=rounds, out=out
)
stores = open_or_make_mini(cfg.run.data_root, cfg.run.data.corpora, progress.line)

# %% [markdown]
# ## The machine

# %%
pd.Series(report.machine(device), name="").to_frame()

# %% [markdown]
# ## The loader
#
# A batch of the paper holds 3 x 32 faces and 3 x 32 voices. *Prepared store* is what training
# reads: memory-mapped arrays; faces go to the device as bytes and become float32 there. Where that
# is the CPU itself, its time is in the rows *float32 on the CPU*. The other rows decode the same
# clips from JPEG (quality 95; faces are stored at 128 pixels, so larger files are enlarged faces,
# which decode faster than photographs) and WAV (whole clip, spectrogram, crop). Files and arrays
# are in the page cache; one thread.


# %%
def named(what, metric, value, n):
    """A row of a system and task."""
    row = {"system": what[0], "task": what[1], "dataset": dataset, "metric": metric}
    return row | {"value": value, "ci_low": None, "ci_high": None, "n": n, "seed": seed}


def timings(metric, taken, base=None):
    """Rows of seconds by round: the median, both ends, how many a second, the ratio of medians."""
    rows, scale = [], 1.0 if metric == "rtf" else 1e3
    for what, seconds in taken.items():
        middle = float(np.median(seconds))
        row = named(what, metric, scale * middle, len(seconds))
        row |= {"lowest": scale * min(seconds), "highest": scale * max(seconds)}
        ratio = middle / float(np.median(taken[base])) if base else None
        rows.append(row | {"per_second": 1.0 / middle, "ratio": ratio})
    return rows


# %%
def drawing_of(batches, device=""):
    """A call that draws the next batches of the store and, if asked, brings them to a device."""
    numbers = iter(range(2**31))

    def draw():
        for _ in range(speed.BATCHES_A_ROUND):
            batch = batches.batch(next(numbers))
            if device:
                batch.to(device)

    return draw


shape = f"{cfg.run.model.image_size} px, {cfg.run.model.mel_frames} frames"
plain, augmented = Batches(cfg.run, stores), Batches(cfg.run, stores)
plain.augment, augmented.augment = False, True
ours = {"prepared store": "", "prepared store, float32 on the CPU": "cpu"}
with speed.files(plain) as decoded:
    calls = {(name, shape): drawing_of(plain, place) for name, place in ours.items()}
    calls |= {(name, shape): call for name, call in decoded.items()}
    task = f"{shape}, augmented"
    calls |= {(name, task): drawing_of(augmented, place) for name, place in ours.items()}
    taken = speed.take_turns(calls, rounds=cfg.rounds)
for what in [what for what in taken if what[0] in ours]:  # a round is several short batches
    taken[what] = [seconds / speed.BATCHES_A_ROUND for seconds in taken[what]]
base = list(ours)[1], shape  # what reading the files gives
loading = timings("cpu_ms", taken, base)

# %%
mpl.rcParams.update(drawing.RC)


def bars(rows, label, title):
    """Draw medians as bars, with a line from the lowest to the highest round."""
    frame = pd.DataFrame(rows)
    figure = Figure(figsize=(7.2, 0.21 * len(frame) + 0.9), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel=f"{label}; line: all rounds", title=title)
    ours = frame["system"] == frame["system"][0]
    colours = ours.map({True: drawing.PALETTE[0], False: drawing.PALETTE[1]})
    spread = [frame["value"] - frame["lowest"], frame["highest"] - frame["value"]]
    names = frame["system"] + ": " + frame["task"]
    notes = [
        f" {report.rounded(row.value)} ({report.rounded(row.ratio)} x)"
        for row in frame.itertuples()
    ]
    drawn = axes.barh(names, frame["value"], 0.62, color=colours, xerr=spread)
    axes.bar_label(drawn, notes, fontsize=7)
    axes.set(xlim=(frame["lowest"].min() / 2, frame["highest"].max() * 12))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return drawing.Drawing(figure)


loaded = bars(loading, "CPU time of a batch (ms)", "Loading a batch")

# %% [markdown]
# ## Training steps
#
# Full steps on random inputs: discriminators, generators, averages of the weights. Wall time with
# all of torch's threads, so this one does depend on what else runs.

# %%
calls = {}
for preset in speed.STEP_PRESETS:
    given = {"seed": seed, "device": device, "overrides": {"model.speakers": 16}}
    run = resolve(preset=preset, **given)
    task = f"training step, batch {run.train.batch_size}, {run.train.precision}"
    calls[f"preset {preset}", task] = speed.full_step(run)
taken = speed.take_turns(calls, rounds=cfg.rounds, wall=True)
steps = timings("wall_ms", taken)

# %% [markdown]
# ## Vocoders
#
# CPU time for a second of sound, on one core. Published networks have their published sizes and
# random weights: their time does not depend on what they learnt.

# %%
generator = torch.Generator().manual_seed(seed)
frames = round(speed.SECONDS * MEL.sample_rate / MEL.hop) + 1
mel = 0.5 * torch.randn(MEL.n_mels, frames, generator=generator) - 2  # log10, as loud as speech
usual = {DEFAULT: "comes with the package", "griffin_lim": "no weights"}
made = {(name, about): vocoder(name) for name, about in usual.items()}
for name in presets.names("vocoders"):
    size = presets.load("vocoders", name)
    network = attempt(untrained, size["generator_type"], size["generator_params"])
    if isinstance(network, Exception):
        progress.line(f"{name} is not timed: {network}")
    else:
        made[name, "published size, random weights"] = network
calls = {what: lambda decode=decode: decode(mel) for what, decode in made.items()}
taken = speed.take_turns(calls, rounds=cfg.rounds)
shares = {what: [t / speed.SECONDS for t in times] for what, times in taken.items()}
vocoders = timings("rtf", shares, next(iter(shares)))

# %%
heard = bars(vocoders, "CPU time for a second of sound (s)", "Vocoders")

# %% [markdown]
# ## The networks at preset `paper`
#
# Parameters in millions, and 10^9 floating-point operations (a multiplication and an addition are
# two) of a forward pass of one sample. They are counted; nothing is computed.

# %%
m = cfg.run.model
with torch.device("meta"):
    nets, heard_by = XFaVoT(m), {"F0": F0Network, "content": ContentNetwork}
    x, a = torch.empty(1, 3, m.image_size, m.image_size), torch.empty(1, 1, 80, m.mel_frames)
    style, domain = torch.empty(1, m.style_dim), torch.zeros(1, dtype=torch.int64)
    melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
    passes = {name: (getattr(nets, name), x, domain) for name in ("E_I", "D_I")}
    passes |= {name: (getattr(nets, name), a, domain) for name in ("E_A", "D_A")}
    passes |= {"G_I": (nets.G_I, x, style), "G_A": (nets.G_A, a, style, melody)}
    passes |= {"C_A": (nets.C_A, a), "M": (nets.M, torch.empty(1, m.latent_dim), domain)}
    passes |= {f"{name} network": (kind.from_config(m), a) for name, kind in heard_by.items()}
networks = []
for name, (network, *inputs) in passes.items():
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(*inputs)
    gflop, task = counter.get_total_flops() / 1e9, f"one forward pass at preset {cfg.run.preset}"
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    row = named((name, task), "gflop", gflop, 1)
    networks.append(row | {"parameters_m": millions})

# %% [markdown]
# ## What was written, read back from disk

# %%
origin = report.collect(began, cfg.run, tier=cfg.tier, stores=stores, notebook="benchmark")
table = report.write_table(
    "benchmark",
    [*loading, *steps],
    provenance=origin,
    root=Path(cfg.out, "paper_tables"),
    caption="Loading a batch (one thread, page cache warm) and training steps on random inputs.",
)
report.read_table(table)

# %%
figure = report.write_figure(
    "benchmark", loaded, data=loading, provenance=origin, root=Path(cfg.out, "figures")
)
display.Image(Path(figure, "benchmark.png"), width=700)

# %%
table = report.write_table(
    "benchmark_networks", networks, provenance=origin, root=Path(cfg.out, "paper_tables")
)
report.read_table(table)

# %%
table = report.write_table(
    "benchmark_vocoders",
    vocoders,
    provenance=origin,
    root=Path(cfg.out, "paper_tables"),
    caption="Seconds of CPU time for a second of sound, on one core (rtf: real-time factor).",
)
report.read_table(table)

# %%
figure = report.write_figure(
    "benchmark_vocoders", heard, data=vocoders, provenance=origin, root=Path(cfg.out, "figures")
)
display.Image(Path(figure, "benchmark_vocoders.png"), width=700)
