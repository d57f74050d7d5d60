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
# # Train XFaVoT
#
# Trains the eight modules of the paper (Sec. 3, Tables 6 to 9) on a prepared dataset and shows what
# they learnt: image-guided, audio-guided and latent-guided conversions of faces and voices.
#
# **In:** prepared stores under `data_root` (`prepare_data.ipynb` makes them; `mini` makes itself).
# **Out:** a run under `run_root`: `config.json`, `metrics.jsonl`, `checkpoints/`, `samples/` with
# labelled grids and the converted voices as WAV.
# **Time:** preset `mini` 0.7 to 1.6 s a step on two CPU cores, so 40 to 95 minutes for all
# 3,500 steps; `preset paper` days on one GPU.
#
# A run that was stopped goes on with the same parameters and `-p resume auto`.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
configuration: str = "xfavot"  # row of the paper's tables
preset: str = ""  # size; empty means mini for dataset mini, else paper
steps: int = -1  # training steps; -1: the preset's
batch_size: int = -1  # samples a step; -1: the preset's
precision: str = ""  # float32 or bf16; empty means the preset's
processes: int = 1  # that train together on this machine
initial: str = ""  # model to start from: shipped, a run or a checkpoint; empty: none
resume: str = ""  # run folder or checkpoint to go on from; empty means none
overrides: dict = {}  # dotted settings, such as loss.xm, to values

# %%
from pathlib import Path

from xfavot import config, convert, training
from xfavot.audio.io import save_waveform
from xfavot.parameters import Train
from xfavot.viz import drawing, progress, widgets

# %% [markdown]
# ## What will be run
#
# Values in parentheses are the paper preset's.

# %%
parameters = Train.resolve(
    dataset=dataset,
    configuration=configuration,
    preset=preset,
    steps=steps,
    batch_size=batch_size,
    seed=seed,
    device=device,
    precision=precision,
    processes=processes,
    data_root=data_root,
    run_root=run_root,
    initial=initial,
    resume=resume,
    overrides=overrides,
)
cfg = parameters.run
progress.line(config.describe(cfg))

# %% [markdown]
# ## Training
#
# The loop of the paper's Sec. 3: a batch, then an update of the discriminators and one of the
# generators, encoders and the mapping network for every source of styles (`method.ipynb` goes
# through one update term by term). One line every few steps, means over the passes. The curves are
# drawn anew twice a minute: solid in training, dashed on the validation split. On the sheet of
# samples the sources are on top, the references at the left.
#
# The session keeps what is not the method: it resumes exactly, stops between two steps on an
# interrupt, lets no second process into the run, and refuses a term that is not finite.
#
# With `processes` above 1 the same loop runs in as many processes, each on a part of every batch,
# and here the run that came out is opened.

# %%
if processes > 1:
    resume = training.launch(parameters, progress.line)
live = widgets.Live()
with training.open_session(cfg, resume=resume, on_log=progress.line) as session:
    for step in session:
        batch = session.batch(step)  # sources and references of both modalities
        terms = session.update(batch, step)  # Table 1, the objective, the optimisers
        if session.due("log"):
            session.log(terms)
            live.curves(session.metrics)
        if session.due("sample"):
            session.validate()
            live.images(session.sample())
        if session.due("checkpoint"):
            session.save()
    run = session.finish()
live.curves(session.metrics, path=Path(run.path, "samples", "curves.png"))

# %% [markdown]
# ## Conversions by the final checkpoint
#
# Sources and references come from a split that was not trained on; the foot of each grid names it.
# A voice is shown as its spectrogram with its pitch.

# %%
converter = convert.Converter.load(run.path, device=cfg.train.device)
stores = convert.open_stores(cfg.data_root, cfg.data.corpora)
grids = convert.sample_grids(converter, stores, seed=cfg.seed)
for name, grid in grids.items():
    widgets.show(drawing.conversions(grid).save(Path(run.path, "samples", f"grid_{name}.png")))

# %% [markdown]
# ## The same voices, to listen to
#
# The source-filter vocoder that comes with the package makes the waveform of the converted
# spectrogram; a part of the roughness is its own.


# %%
def slug(panel):
    """Return the label of a panel as a part of a file's name."""
    plain = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in panel.label)
    return "-".join(plain.split())


voices = []
for name, grid in ((name, grid) for name, grid in grids.items() if grid.task.output == "voice"):
    folder = Path(run.path, "samples", "voices", name)
    for kind, panels in (("source", grid.columns), ("reference", grid.rows)):
        for panel in (panel for panel in panels if panel.waveform is not None):
            save_waveform(folder / f"{kind}_{slug(panel)}.wav", panel.waveform)
    for row, cells in zip(grid.rows, grid.cells, strict=True):
        for column, cell in zip(grid.columns, cells, strict=True):
            voices.append(folder / f"{slug(column)}_to_{slug(row)}.wav")
            texts = {"task": name, "source": column.label, "reference": row.label}
            save_waveform(voices[-1], cell.waveform, metadata={"synthetic": "yes", **texts})
widgets.players(voices)

# %% [markdown]
# ## What was written

# %%
widgets.files(run.path)
