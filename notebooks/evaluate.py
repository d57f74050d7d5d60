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
# An evaluation is a list of conversions, scored metric by metric. The conversions are those of a
# checkpoint, of faces and utterances that it was not trained on (the paper's protocol, App. B;
# Tables 2 to 5), or, with `manifest`, those that any system made, listed in a CSV file (columns
# task, source, reference, output, model, and where known transcript, speaker, gender).
#
# **In:** a checkpoint under `run_root` (the newest, unless `checkpoint` names one) and prepared
# stores under `data_root`; or a `manifest`, where a named `checkpoint` says what fits face to
# voice. **Out:** `evaluation.csv`, `missing.csv`, `evaluation.json` and `evaluation.md`,
# `learning.csv` and `learning.md` in the run's folder `evaluation/`; classifiers
# under `run_root`, in `auxiliary/`. Of a manifest: `scores.csv`, `missing.csv`,
# `scores.json` and `scores.md` under `out`.
#
# **Time:** four minutes on one CPU core with `dataset mini`; a second run reads the scores that
# were kept.

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
checkpoint: str = ""  # run folder or checkpoint; empty: the newest, or else shipped
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
manifest: str = ""  # CSV file of external outputs; empty means the checkpoint
recogniser: str = "espnet_librispeech"  # or pocketsphinx_grid, for GRID, or whisper_base
out: str = "runs/external"  # folder of the scores of a manifest
metrics: str = "all"  # or some, with commas: fid, lpips, nisqa, word_error, ...
conversions: int = -1  # of each task; 0: the paper's; -1: few on mini
substitute: str = ""  # judge: also a classifier of faces

# %%
import pandas as pd
from IPython import display

from xfavot import convert
from xfavot.audio import vocoder as vocoders
from xfavot.baselines.training import load_model
from xfavot.evaluation import learning, protocol, rows, voices
from xfavot.parameters import Evaluate
from xfavot.training.checkpoint import LoadedModel
from xfavot.viz import progress

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
# ## The conversions
#
# A task is named guidance to output: `a2i` is an audio-guided face, `z` a latent code. Faces: ten
# outputs of every source, between women and men in both directions. Voices: 140 audio-guided and
# 180 image-guided pairs (`conversions` takes fewer). Seen speakers are those of the validation
# split, unseen ones were left out of training; the ground truth stands beside every system.

# %%
if cfg.manifest:
    evaluation = protocol.of_manifest(cfg, on_log=progress.line)

# %%
if not cfg.manifest:
    model = load_model(cfg.model)
    stores = convert.open_stores(cfg.data_root, cfg.corpora)
    evaluation = protocol.of_checkpoint(cfg, model, stores, on_log=progress.line)


# %%
def show(table: pd.DataFrame) -> None:
    """Show what metrics are, rows of both directions and sexes together, and what is missing."""
    measured = table[table["value"].notna() & ~table["sex"].isin(["female", "male"])]
    for name, text in measured[["metric", "definition"]].drop_duplicates().to_numpy():
        display.display(display.Markdown(f"**{name}**: {text}"))
    if len(measured):
        numbers = ["value", "ci_low", "ci_high", "chance"]
        rounded = measured.astype(dict.fromkeys(numbers, float)).round(3).set_index("metric")
        shown = rounded[["system", "task", "speakers", "direction", *numbers, "n"]]
        shown = shown.replace("", None).dropna(axis="columns", how="all")
        display.display(shown.astype(object).fillna(""))
    for name, reason in table[["metric", "reason"]].dropna().drop_duplicates().to_numpy():
        display.display(display.Markdown(f"**{name}** is missing: {reason[:150]} ..."))


show(evaluation.measure("unusable_outputs"))

# %% [markdown]
# ## Faces: FID (Tables 2 and 4)
#
# The Frechet distance between the outputs of a direction and the training faces of the target sex;
# smaller is better. It falls with the number of images: compare values of equal n alone. Over
# EfficientNet-lite0's features it is no FID, and has its own name.

# %%
show(evaluation.measure("fid"))

# %% [markdown]
# ## Faces: LPIPS (Tables 2 and 4)
#
# How different the ten outputs of one source look, over all pairs: larger is more diverse.

# %%
show(evaluation.measure("lpips"))

# %% [markdown]
# ## Faces: what an output keeps of its source
#
# Pose and contours, which should stay; by chance: held against another source. Not in the paper.

# %%
show(evaluation.measure("preservation"))

# %% [markdown]
# ## Faces: identity
#
# Is it the person of the reference, or still the source? By dlib's face network, which knows real
# people; drawn ones (`mini`) it tells apart less well. Not in the paper.

# %%
show(evaluation.measure("face_identity"))

# %% [markdown]
# ## Voices: NISQA (Tables 3 and 5)
#
# How good a voice sounds, from 1 to 5, by a network that listens.

# %%
show(evaluation.measure("nisqa"))

# %% [markdown]
# ## Voices: Distill-MOS
#
# The same question, put to a network that may be used for any purpose. Not in the paper.

# %%
show(evaluation.measure("distill_mos"))

# %% [markdown]
# ## Voices: SpkSim (Tables 3 and 5)
#
# Does the output sound like the person of the reference? Image-guided outputs are held against up
# to ten utterances of the face's person.

# %%
show(evaluation.measure("speaker_similarity"))

# %% [markdown]
# ## Voices: WER (Tables 3 and 5)
#
# Does the output still say what its source says? Errors of a speech recogniser.

# %%
show(evaluation.measure("word_error"))

# %% [markdown]
# ## Voices: melody and sex, by F0
#
# The melody is the source's, the height of the voice the reference's. Not in the paper. WORLD's F0,
# and swift-f0's where its weights are.

# %%
show(evaluation.measure("f0"))

# %% [markdown]
# ## Voices: content, by the network that comes with the package
#
# For `mini`, whose words it knows; it reads characters where no recogniser is at hand.

# %%
show(evaluation.measure("content"))

# %% [markdown]
# ## Face and voice: verification
#
# Is the right person recognised: an output among the references of its task, and real faces and
# voices by the checkpoint's own styles (what the loss L_xm trains). One half is chance.

# %%
show(evaluation.measure("verification"))

# %% [markdown]
# ## What is missing
#
# A metric whose weights or words are not here is listed with its reason and never replaced;
# `substitute judge` adds this project's own classifier of faces under a name of its own.

# %%
written = evaluation.save()
display.display(pd.read_csv(written.with_name("missing.csv")).set_index("metric"))
progress.line(f"written: {written} and three files beside it")

# %% [markdown]
# ## What was learnt
#
# What converted faces and voices carry of the reference (sex, identity), as small classifiers read
# it; these are trained on the real training split alone. How well they read real samples that they
# were not trained on stands in the table too: no figure can be trusted further than that.
#
# Goals are those of this project for `mini`; a row without one is for information. Sex is easy and
# passes long before the pictures are good: watch identity, pose and diversity. A compared system is
# not asked: its own measures are above.

# %%
if not cfg.manifest and isinstance(model, LoadedModel):
    how = {"seed": cfg.seed, "device": cfg.device, "on_log": progress.line}
    learnt = learning.evaluate_learning(model, stores, **how)
    if learnt:
        origin = {name: value for name, value in learnt[0].items() if name not in rows.COLUMNS}
        about = ", ".join(f"{name} {value}" for name, value in origin.items())
        met = [row["met"] for row in learnt if row["met"] is not None]
        about += f"\n\n{sum(met)} of {len(met)} goals met.\n\n"
        table = about + rows.markdown_table(learnt, rows.COLUMNS) + "\n"
        values, folder = rows.csv_text(learnt, [*rows.COLUMNS, *origin]), evaluation.folder
        rows.write_tables(folder, {"learning.csv": values, "learning.md": table})
        display.display(display.Markdown(table))
        progress.line(f"written: learning.md and learning.csv in {folder}")

# %% [markdown]
# ## What the vocoder alone changes
#
# The measures above read converted voices from their mel-spectrograms. Who listens hears the
# vocoder too: recordings sent through it, held against themselves (log mel within 60 dB of the
# loudest value; F0 by WORLD; speaker by Resemblyzer). No conversion can sound better.

# %%
if not cfg.manifest:
    made = voices.copies([vocoders.vocoder(cfg.vocoder, seed=cfg.seed)], stores)
    display.display(voices.copy_table(made, on_log=progress.line).round(3))
