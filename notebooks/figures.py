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
# # The paper's figures, from your checkpoint
#
# Makes Fig. 1 to 10 of the paper from a trained model, in the paper's layout, with the voices to
# listen to beside them. What cannot be made is named with its reason and what to do.
#
# **In:** a checkpoint under `run_root` (the newest, unless `checkpoint` names one), prepared stores
# under `data_root`, and for Fig. 5, if there is one, a correspondence study that people answered.
# **Out, under `out`:** `figures/fig1` to `fig10`, each with PNG, PDF, the data drawn in it and the
# record of where it comes from, and `voices/`. **Time:** 45 s of CPU time on one
# core of an AMD EPYC with `dataset mini` and a model of preset `mini`.
#
# The pictures show faces of the corpus: only those of `mini`, which are drawn, may be passed on
# without asking anybody. Converted voices say in their files that they are synthetic.
#
#     papermill notebooks/figures.ipynb runs/figures.ipynb -p dataset mini

# %% tags=["parameters"]
checkpoint: str = ""  # run folder or checkpoint; empty means the newest
dataset: str = "mini"  # mixture of corpora, see the README
data_root: str = "data"  # folder of prepared stores
run_root: str = "runs"  # folder of runs
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
others: str = ""  # runs or checkpoints to compare with, with commas
study: str = ""  # folder of a correspondence study; empty means an automatic one
answers: str = ""  # folder of answers to that study; empty means none
triplets: int = 30  # of the automatic study, a model and task
out: str = "runs/figures"  # folder of the figures and voices

# %%
from xfavot import report
from xfavot.parameters import Figures
from xfavot.viz import paper_figures, progress

# %%
began = report.begin()
cfg = Figures.resolve(
    checkpoint=checkpoint,
    dataset=dataset,
    data_root=data_root,
    run_root=run_root,
    seed=seed,
    device=device,
    vocoder=vocoder,
    others=others,
    study=study,
    answers=answers,
    triplets=triplets,
    out=out,
)
opened = paper_figures.open_figures(cfg, began, on_log=progress.line)

# %% [markdown]
# ## Fig. 1: both cross-modal tasks
#
# A face takes the style of a voice and keeps its pose and expression; a voice takes the style of a
# face and keeps its words. Small faces above voices are their speakers, unseen by the
# model.

# %%
paper_figures.figure1(opened)

# %% [markdown]
# ## Fig. 2: overview
#
# Drawn from the modules of this checkpoint: what feeds what is read from their arguments and from
# what comes out of them, sizes are counted. L_xm pulls the styles of a face and a voice of one
# speaker together.

# %%
paper_figures.figure2(opened)

# %% [markdown]
# ## Fig. 3: faces after voices, a row a system
#
# Checkpoints given as `others` are further rows, on the same sources and references.

# %%
paper_figures.figure3(opened)

# %% [markdown]
# ## Fig. 4: the same voices over several faces
#
# A column should show one person, whoever the source is.

# %%
paper_figures.figure4(opened)

# %% [markdown]
# ## Fig. 5: do face and voice belong together?
#
# The correspondence preference ratio: how often the candidate that belongs to the reference is
# preferred to another one; chance is one half. Asked of people (`notebooks/cpr_study.ipynb`), or
# else of a computer: by the hidden factors of `mini`, or by the style encoders, which flatter the
# outputs that they were trained with.

# %%
paper_figures.figure5(opened)

# %% [markdown]
# ## Fig. 6: led by latent codes
#
# Neither a face nor a voice leads: a random code goes through M, under the head of a gender.

# %%
paper_figures.figure6(opened)

# %% [markdown]
# ## Fig. 7: avatars
#
# An avatar takes on the style of a voice, and a voice that of an avatar. The faces of `mini` are
# drawn and serve as avatars; with other corpora, a prepared store `avatars` does.

# %%
paper_figures.figure7(opened)

# %% [markdown]
# ## Fig. 8: more faces after voices

# %%
paper_figures.figure8(opened)

# %% [markdown]
# ## Fig. 9: more voices after faces

# %%
paper_figures.figure9(opened)

# %% [markdown]
# ## Fig. 10: the style space
#
# Style vectors of held-out faces and voices, laid out by t-SNE: one colour a speaker. Such a map
# shows neighbours, not distances; how far speakers and modalities are apart is measured in the
# space itself and stands beside it.

# %%
paper_figures.figure10(opened)
