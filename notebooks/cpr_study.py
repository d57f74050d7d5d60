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
# # Do the face and the voice belong together? Ask people
#
# Makes the study of the paper's Sec. 4.3 and, when people have answered, its Fig. 5: the
# correspondence preference ratio (CPR), how often evaluators choose the candidate that belongs to
# the reference. Thirty triplets a model and task, the ground truth among them; chance is one half.
#
# **In:** checkpoints under `run_root` and prepared stores under `data_root`; to read back, the
# files that the pages saved. **Out, under `out`:** `pages/`, one HTML file an evaluator, which
# works offline on any computer or telephone; `key.json`, which says what is right and stays with
# you; the table and the figure `cpr`. **Time:** 22 s of CPU time on one core of an AMD EPYC with
# `dataset mini` and one model of preset `mini` (120 questions, five pages of 6.5 MB); reading back
# takes seconds.
#
# The pages hold faces and voices of the corpus and of people converted: mind its licence before you
# pass them on, and ask only people who agreed.
#
#     papermill notebooks/cpr_study.ipynb runs/study.ipynb -p dataset mini
#     papermill notebooks/cpr_study.ipynb runs/answers.ipynb -p answers <folder of the saved files>

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
checkpoint: str = ""  # runs or checkpoints with commas; empty: newest, none: none
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
form: str = "faces"  # a voice, two faces; outputs: also two voices
triplets: int = 30  # questions a model and task
evaluators: int = 5  # pages to make
answers: str = ""  # folder of answers to read back; empty means make the pages
out: str = "runs/cpr_study"  # folder of the study

# %%
from pathlib import Path

import pandas as pd
from IPython import display

from xfavot import report
from xfavot.convert import open_stores
from xfavot.errors import DataError
from xfavot.evaluation import cpr
from xfavot.parameters import Study
from xfavot.report import study
from xfavot.viz import drawing, progress

# %%
began = report.begin()
cfg = Study.resolve(
    checkpoint=checkpoint,
    dataset=dataset,
    data_root=data_root,
    run_root=run_root,
    seed=seed,
    device=device,
    vocoder=vocoder,
    form=form,
    triplets=triplets,
    evaluators=evaluators,
    answers=answers,
    out=out,
)

# %% [markdown]
# ## The pages
#
# Every page asks everything, in an order and with sides of its own. Nothing in a page tells which
# model made a sample or what is right. Answers are kept in the evaluator's browser as they are
# given, survive a reload, and are saved as a file at the end (or in the middle).

# %%
if cfg.answers:
    key = study.open_study(cfg.out)
else:
    stores, systems = open_stores(cfg.data_root, cfg.corpora), study.systems_of(cfg)
    drawn, automatic = study.ask(cfg, stores, systems, on_log=progress.line)
    if not drawn:
        raise DataError(
            f"study of {cfg.dataset}: nothing to ask; expected clips with a face and a voice, or a "
            "model; prepare an audio-visual corpus, or name a checkpoint"
        )
    example = cpr.ground_truth(stores, task="a2i", form="faces", count=1, seed=cfg.seed + 1)
    about = {"began": began, "split": cpr.split_of(stores), "notebook": "cpr_study"}
    origin = study.origin_of(cfg, systems, stores, **about)
    key = study.write_study(cfg, drawn, (example or drawn)[0], origin, automatic=automatic)
    progress.line(
        f"study {key['study']}: {len(key['sheets'])} pages of {len(drawn)} questions, at most "
        f"{key['bytes'] / 1e6:.1f} MB each, in {Path(cfg.out, study.PAGES)}; give one to each "
        f"evaluator and keep {study.KEY}, which holds the answers"
    )

# %% [markdown]
# ## Who answered
#
# A file of another study, an edited one or a sheet that was answered twice stops here, with the
# reason for each. Half a page counts for what it holds.

# %%
choices = study.read_answers(key, cfg.answers)
frame = pd.DataFrame(choices, columns=["evaluator", "item", "ms", "plays", "side"])
own, asked = frame.assign(a=frame["side"] == "A").groupby("evaluator", sort=False), key["questions"]
counts = own["item"].count()
whole = (counts == len(asked)).sum()
progress.line(f"{len(counts)} of {len(key['sheets'])} pages came back, {whole} of them complete;")
progress.line("every answer of the others counts.")
table = {
    "answered": counts.map(f"{{}} of {len(asked)}".format),
    "median time (s)": own["ms"].median() / 1000,
    "plays an answer": own["plays"].mean(),
    "chose A": own["a"].mean(),  # one half if sides do not matter
}
pd.DataFrame(table).round(2) if choices else "no answers were read"

# %% [markdown]
# ## The ratio
#
# `CPR` is what people answered. Its interval draws evaluators and triplets anew; `wilson` counts
# every answer as independent, which is too narrow. `p` is the exact two-sided binomial test against
# one half, `p_holm` corrected over the rows; `alpha` is Krippendorff's, of which candidate was
# chosen. `automatic CPR` is the same asked of a computer: by the hidden factors of `mini`, or by a
# model's own style encoders, which were trained on the model's outputs and flatter them.

# %%
rows = study.result_rows(key, choices)
origin = study.answered(key["provenance"], began)
table = report.write_table(
    "cpr",
    rows,
    provenance=origin,
    root=Path(cfg.out, "paper_tables"),
    caption="Correspondence preference ratio (paper: Sec. 4.3, Fig. 5); chance is 0.5.",
)
report.read_table(table)

# %%
picture = drawing.preferences(rows)
folder = report.write_figure(
    "cpr", picture, data=rows, provenance=origin, root=Path(cfg.out, "figures")
)
display.Image(Path(folder, "cpr.png"), width=640)
