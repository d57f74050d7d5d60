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
# decoding the same samples from files, times full training steps by schedule and precision and
# conversions at the small presets, and every vocoder, and counts the operations of every network at
# preset `paper`. With `peers_root`, a folder with check-outs of `stargan-v2` and `StarGANv2-VC`,
# their own iterations take turns with ours at preset `paper`. With `checkpoint`, a run that kept
# its checkpoints, what these have learnt is drawn against the CPU seconds that they took.
#
# **In:** prepared stores under `data_root` (`mini` makes itself). **Out:** the tables `benchmark`,
# `benchmark_vocoders` and `benchmark_networks` and the figures `benchmark`, `benchmark_steps` and
# `benchmark_vocoders` under `out`; with `checkpoint` also the figure `time_to_quality`.
# **Time:** two minutes on one CPU core, an hour more with `peers_root`, three minutes more for each
# checkpoint; busy neighbours change it,
# which is why everything that is compared takes turns and CPU time is counted.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
rounds: int = 5  # times that each thing is timed
peers_root: str = ""  # folder with check-outs of stargan-v2 and StarGANv2-VC
checkpoint: str = ""  # run whose checkpoints are measured, for the time to quality
out: str = "runs/benchmark"  # folder of the tables and figures

# %%
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from IPython import display, get_ipython
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

import xfavot
from xfavot import presets, report
from xfavot.audio.mel import MEL
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, vocoder
from xfavot.config import resolve
from xfavot.data.batches import Batches
from xfavot.data.prepare import open_or_make_mini
from xfavot.evaluation import learning, speed
from xfavot.evaluation.manifest import attempt
from xfavot.models import content, device_of, f0
from xfavot.models.generators import F0_FEATURE_FACTOR
from xfavot.models.xfavot import XFaVoT
from xfavot.parameters import Benchmark
from xfavot.training import checkpoint as kept
from xfavot.viz import drawing, progress

# %%
began = report.begin()
cfg = Benchmark.resolve(
    dataset=dataset,
    data_root=data_root,
    device=device,
    seed=seed,
    rounds=rounds,
    peers_root=peers_root,
    checkpoint=checkpoint,
    out=out,
)
taught = kept.cpu_seconds(Path(cfg.checkpoint)) if cfg.checkpoint else {}
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


def timings(metric, taken, base=None, share=1.0, tflop=None):
    """Rows of a share of a call by round: medians, both ends, how many a second, the ratio."""
    rows, scale, clock = [], 1.0 if metric == "rtf" else 1e3, int(metric == "wall_ms")
    for what, spent in taken.items():
        cpu, wall = (float(np.median(seconds)) / share for seconds in zip(*spent, strict=True))
        seconds = [one[clock] / share for one in spent]
        middle = (cpu, wall)[clock]
        row = named(what, metric, scale * middle, len(spent))
        row |= {"lowest": scale * min(seconds), "highest": scale * max(seconds)}
        against = float(np.median(taken[base], axis=0)[clock]) / share if base else None
        row |= {"work": what[1], "cpu_s": cpu, "wall_s": wall, "peak_mib": None}
        row |= {"tflop": (tflop or {}).get(what), "ratio": middle / against if base else None}
        rows.append(row | {"per_second": 1.0 / middle})
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
    taken[what] = [np.divide(spent, speed.BATCHES_A_ROUND) for spent in taken[what]]
base = list(ours)[1], shape  # what reading the files gives
loading = timings("cpu_ms", taken, base)

# %%
mpl.rcParams.update(drawing.RC)


def bars(rows, label, title):
    """Draw medians as bars, with a line from the lowest to the highest round."""
    frame = pd.DataFrame(rows)
    figure = Figure(figsize=(7.2, 0.21 * len(frame) + 0.9), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel=f"{label}; line: all rounds", title=title)
    first = frame["system"].str.split().str[0]
    ours = first == first[0]
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
# ## Training steps and conversions
#
# Full steps on random inputs: discriminators, generators, averages of the weights; in the order of
# the ancestors' updates (`alternate`) or in one update a side (`fused`). `tflop`: 10^12 operations
# a sample of a step with one source of styles. Conversions: the generators on given styles, without
# gradients. Wall time with all of torch's threads, so this one does depend on what else runs; its
# ratio is to the first row of the same work. bf16 where the processor has it.

# %%
calls, tflop = {}, {}
for preset in speed.STEP_PRESETS:
    for rule in ("alternate", "fused"):
        for precision in speed.precisions(device):
            given = {"seed": seed, "device": device, "precision": precision}
            over = {"model.speakers": 16, "train.update_rule": rule}
            run = resolve(preset=preset, overrides=over, **given)
            count = run.train.batch_size
            what = f"preset {preset}, {rule}, {precision}", f"training step, batch {count}"
            calls[what] = speed.full_step(run)
            with speed.Operations() as counter:
                calls[what]()
            tflop[what] = counter.total / 1e12 / count


# %%
def converting(nets, x, s, *features):
    """A call that converts sources to styles."""

    def convert():
        with torch.inference_mode():
            return nets(x, s, *features).sum().item()

    return convert


updater, batch = speed.open_step(run, device_of(device))  # of the last preset
nets, s = updater.n.nets, torch.randn(count, run.model.style_dim, device=updater.device)
faces, voices = batch.source_image.x, batch.source_audio.x
what = f"preset {preset}", f"conversion of {count} faces"
calls[what] = converting(nets.G_I, faces, s)
what = f"preset {preset}", f"conversion of {count} voices of {run.model.mel_frames / 80:g} s"
calls[what] = converting(nets.G_A, voices, s, *nets.G_A.hear(updater.n.f0, voices))
taken = speed.take_turns(calls, rounds=cfg.rounds, threads=torch.get_num_threads())
steps = timings("wall_ms", taken, tflop=tflop)
for row in steps:
    first = next(one for one in steps if one["work"] == row["work"])
    row["ratio"] = row["value"] / first["value"]

# %%
stepping = bars(steps, "Wall time of a step or conversion (ms)", "Steps and conversions")

# %% [markdown]
# ## Beside the peers
#
# The peers' own iterations at their published sizes, 128 pixels and 192 frames, one thread, each
# system in a process of its own that also says the peak of its memory; `ratio` is of CPU time. Code
# of the peers is imported from `peers_root`, none of it is here.

# %%
peers = []
for work in ("image", "audio") if peers_root else ():
    found = Path(cfg.out, f"peers_{work}.json").absolute()
    tool = Path(xfavot.__file__).parents[1] / "tools" / "steps_beside.py"
    given = f"{tool} peers {peers_root} {found} --work {work} --rounds {rounds}"
    get_ipython().run_line_magic("run", given)
    for row in pd.read_json(found).to_dict("records"):
        what = row["system"], row["work"]
        peers.append(named(what, "cpu_ms", 1e3 * row["cpu_s"], row["n"]) | row | {"seed": seed})

# %% [markdown]
# ## Time to quality
#
# What the checkpoints of a run have learnt (`xfavot.evaluation.learning`), against the CPU seconds
# of its training. Dashed: what `xfavot` at preset `mini` had learnt of the sixteen people at
# revision 5b8a329 after 3,500 steps and 7,175 CPU seconds, when espeak-ng spoke. A run keeps all
# of its checkpoints by `-p overrides '{"train.keep_checkpoints": 99}'`.

# %%
SEX, IDENTITY = "sex of the reference, all pairs", "identity of the reference"
PITCH, POSE = "correlation of log pitch", "error of pose over that of random faces"
DIFFERENT = "diversity over the references, L1"
BEFORE = {(SEX, "a2a"): 0.90, (SEX, "i2a"): 0.87, (SEX, "z2a"): 0.73, (IDENTITY, "a2a"): 0.94}
BEFORE |= {(IDENTITY, "i2a"): 0.91, (PITCH, "a2a"): 0.41, (POSE, "a2i"): 0.48}
BEFORE |= {(DIFFERENT, "a2a"): 0.57}
learnt = []
for path, spent in taught.items():
    how = {"seed": seed, "device": device, "on_log": progress.line}
    found = learning.evaluate_learning(kept.load_model(path), stores, **how)
    learnt += [
        one | {"cpu_s": spent}
        for one in found
        if (one["metric"], one["task"]) in BEFORE and "speaker" not in one["guidance"]
    ]


# %%
def courses(rows):
    """A panel for each measure, a line for each task, over the CPU seconds of the training."""
    frame, kinds = pd.DataFrame(rows), list(dict.fromkeys(metric for metric, _ in BEFORE))
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    for panel, metric in zip(figure.subplots(2, 3).flat, kinds, strict=False):
        for k, task in enumerate(task for measure, task in BEFORE if measure == metric):
            one = frame[(frame["metric"] == metric) & (frame["task"] == task)].sort_values("cpu_s")
            colour = drawing.PALETTE[k]
            panel.plot(one["cpu_s"], one["value"], ".-", color=colour, label=task)
            panel.axhline(BEFORE[metric, task], color=colour, linestyle="--", linewidth=0.8)
        title = metric.replace(" over", "\nover").replace(", all pairs", "")
        panel.set(title=title, xlabel="CPU seconds", xlim=(0, None))
        panel.legend(fontsize=7)
    figure.axes[-1].remove()
    return drawing.Drawing(figure)


quality = courses(learnt) if learnt else None

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
vocoders = timings("rtf", taken, next(iter(taken)), share=speed.SECONDS)

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
    nets, heard_by = XFaVoT(m), {"F0": f0.F0Network, "content": content.ContentNetwork}
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
shown = ("work", "system", "cpu_s", "wall_s", "peak_mib", "tflop", "ratio")
table = report.write_table(
    "benchmark",
    measured := [*loading, *steps, *peers],
    provenance=origin,
    root=Path(cfg.out, "paper_tables"),
    caption="Loading a batch (one thread, page cache warm), training steps and conversions.",
    view=report.listing(measured, {name: name for name in shown}),
)
report.read_table(table)

# %%
figure = report.write_figure(
    "benchmark", loaded, data=loading, provenance=origin, root=Path(cfg.out, "figures")
)
display.Image(Path(figure, "benchmark.png"), width=700)

# %%
figure = report.write_figure(
    "benchmark_steps", stepping, data=steps, provenance=origin, root=Path(cfg.out, "figures")
)
display.Image(Path(figure, "benchmark_steps.png"), width=700)

# %%
if quality:  # which does not depend on how often anything was timed
    whole = origin | {"tier": "reduced"}
    figure = report.write_figure(
        "time_to_quality", quality, data=learnt, provenance=whole, root=Path(cfg.out, "figures")
    )
    display.display(display.Image(Path(figure, "time_to_quality.png"), width=700))

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
