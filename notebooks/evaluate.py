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
# # Evaluate what XFaVoT has learnt
#
# Measures a checkpoint on utterances and faces that it was not trained on: the paper's protocol
# (App. B; Tables 2 to 5), retrieval between faces and voices by their styles (L_xm), and what
# converted faces and voices carry of the reference (sex, identity) and keep of the source (pose,
# words, melody).
#
# **In:** a checkpoint under `run_root` (the newest, unless `checkpoint` names one) and prepared
# stores under `data_root`. **Out:** `evaluation.csv`, `missing.csv`, `evaluation.json` and
# `evaluation.md`, `learning.csv` and `learning.md` in the run's folder `evaluation/`; judges and
# statistics of real faces are kept under `run_root`, in `auxiliary/`.
# With `manifest`, a CSV file of outputs that any system made (columns task, source, reference,
# output, model, and where known transcript, speaker, gender), these are scored instead, and a
# `checkpoint` that is named judges what fits face to voice. **Out:** `scores.csv`, `missing.csv`,
# `scores.md` and `scores.json` under `out`.
#
# **Time:** four minutes on one CPU core with `dataset mini`, one of them for the judges, once; a
# second run reads the finished parts of the protocol.

# %% tags=["parameters"]
checkpoint: str = ""  # run folder or checkpoint; empty means the newest
dataset: str = "mini"  # mixture of corpora, see the README
data_root: str = "data"  # folder of prepared stores
run_root: str = "runs"  # folder of runs
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
manifest: str = ""  # CSV file of external outputs; empty means the checkpoint
recogniser: str = "espnet_librispeech"  # or pocketsphinx_grid, of GRID's sentences
out: str = "runs/external"  # folder of the scores of a manifest
metrics: str = "all"  # or some, with commas: fid, lpips, nisqa, word_error, ...
conversions: int = -1  # of each task; 0: the paper's; -1: few on mini
substitute: str = ""  # judge: also the classifier of faces, under its own name

# %%
from IPython import display

from xfavot import convert
from xfavot.audio import vocoder as vocoders
from xfavot.evaluation import copy_synthesis, learning, protocol
from xfavot.evaluation import manifest as manifest_evaluation
from xfavot.parameters import Evaluate
from xfavot.training.checkpoint import load_model
from xfavot.viz import progress, widgets

# %%
cfg = Evaluate.resolve(
    checkpoint=checkpoint,
    dataset=dataset,
    data_root=data_root,
    run_root=run_root,
    seed=seed,
    device=device,
    vocoder=vocoder,
    manifest=manifest,
    recogniser=recogniser,
    out=out,
    metrics=metrics,
    conversions=conversions,
    substitute=substitute,
)

# %% [markdown]
# ## Outputs that another system made
#
# Only with `manifest`. The sources stand beside every system as `ground truth`; what could not be
# measured is listed with its reason and is never replaced.

# %%
if cfg.manifest:
    verifier = manifest_evaluation.verifier_of(cfg.checkpoint, device=cfg.device)
    scored = manifest_evaluation.score(
        cfg.manifest,
        recogniser=cfg.recogniser,
        verifier=verifier,
        seed=cfg.seed,
        on_log=progress.line,
    )
    written = manifest_evaluation.save(scored, cfg.manifest, cfg.out)
    display.display(display.Markdown(written.read_text(encoding="utf-8")))

# %%
if not cfg.manifest:
    model = load_model(cfg.checkpoint or cfg.run_root)
    stores = convert.open_stores(cfg.data_root, cfg.corpora)
    progress.line(f"checkpoint: {model.path}, step {model.step}")

# %% [markdown]
# ## The paper's protocol
#
# Ten outputs of every source face, both directions between women and men shown apart and averaged;
# 140 voices led by voices and 180 led by faces, or fewer with `conversions`; seen and unseen
# speakers. The ground truth stands beside every system. A metric whose weights are not here is
# listed with its reason and never replaced: `substitute judge` adds this project's own judge of
# faces under a name of its own. Finished parts are kept; a second run reads them.

# %%
if not cfg.manifest:
    found = protocol.evaluate(
        model,
        stores,
        dataset=cfg.dataset,
        vocoder=cfg.vocoder,
        recogniser=cfg.recogniser,
        metrics=cfg.chosen,
        conversions=cfg.count,
        substitute=cfg.substitute,
        seed=cfg.seed,
        device=cfg.device,
        on_log=progress.line,
    )
    written = protocol.save(found)
    display.display(display.Markdown(written.read_text(encoding="utf-8")))

# %% [markdown]
# ## What was learnt
#
# Judges are small classifiers of real faces and voices, trained on the real training split alone.
# How well they read real samples that they were not trained on stands in the table too: no figure
# of a conversion can be trusted further than that.

# %%
if not cfg.manifest:
    table = learning.measure_and_save(
        model, stores, seed=cfg.seed, device=cfg.device, on_log=progress.line
    )

# %% [markdown]
# ## The table, as it was written
#
# A task is named guidance to output: `a2i` is a face led by a voice, `z` a latent code. Goals are
# those of this project for `mini`; a row without one is for information. Sex is easy and passes
# long before the pictures are good: watch identity, pose and diversity.

# %%
if not cfg.manifest and table:
    display.display(display.Markdown(table.read_text(encoding="utf-8")))

# %% [markdown]
# ## What the vocoder alone changes
#
# The measures above read converted voices from their mel-spectrograms. Who listens hears the
# vocoder too: recordings sent through it, held against themselves (log mel within 60 dB of the
# loudest value; F0 by WORLD; speaker by Resemblyzer). No conversion can sound better.

# %%
if not cfg.manifest:
    made = copy_synthesis.copies([vocoders.vocoder(cfg.vocoder, seed=cfg.seed)], stores)
    found = copy_synthesis.measure(made, on_log=progress.line, seed=cfg.seed)
    display.display(widgets.table(found))
