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
# Makes Fig. 1 to 10 of the paper from a trained model, with the voices to listen to beside them:
# the package converts, the cells draw. What cannot be made is named with its reason and what to do.
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
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
run_root: str = "runs"  # folder of runs
checkpoint: str = ""  # run folder or checkpoint; empty: the newest, or else shipped
vocoder: str = "source_filter"  # a vocoder's name, or its weights on disk
others: str = ""  # runs or checkpoints to compare with, with commas
study: str = ""  # folder of a correspondence study; empty means an automatic one
answers: str = ""  # folder of answers to that study; empty means none
triplets: int = 30  # of the automatic study, a model and task
out: str = "runs/figures"  # folder of the figures and voices

# %%
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from xfavot import report
from xfavot.audio.io import save_waveform
from xfavot.convert import Grid, Panel, Task, convert_grid
from xfavot.convert.converter import resize_face
from xfavot.evaluation import matching
from xfavot.parameters import Figures
from xfavot.report import study as correspondence
from xfavot.viz import drawing, paper_figures, progress, widgets

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
material = paper_figures.Material.load(cfg)
mpl.rcParams.update(drawing.RC)
progress.line(f"{', '.join(material.systems)}: {material.note}")


# %% [markdown]
# ## How a figure is kept
#
# With each figure go the data drawn in it, of conversions a row each: median pitch in Hz (0 where
# unvoiced), or the mean absolute change of a face in grey levels of 255.


# %%
def data_of(item, grid, system):
    """Rows of a grid: who, after whom, and what can be said in numbers."""
    for reference, cells in zip(grid.rows, grid.cells, strict=True):
        for source, cell in zip(grid.columns, cells, strict=True):
            row = {"item": item, "system": system, "task": grid.task.value}
            row |= {"source": source.label, "reference": reference.label, "change_levels": None}
            if cell.face is not None and source.face is not None:
                seen = resize_face(source.face, len(cell.face)).astype(np.int16)
                row["change_levels"] = float(np.abs(cell.face - seen).mean())
            for name, panel in (("", cell), ("source_", source), ("reference_", reference)):
                unheard = panel.f0 is None
                row[f"{name}f0_hz"] = None if unheard else drawing.median_hz(panel.f0)
            yield row


# %%
def keep_voices(item, grids):
    """Write the voices of grids in place of older ones, and show players of the first few."""
    place, voices = Path(cfg.out, "voices", item), widgets.voices_of(grids)
    for old in place.glob("*.wav"):
        old.unlink()
    for label, wave in voices.items():
        plain = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in label)
        made = widgets.CONVERTED in label
        synthetic = {"synthetic": "yes", "checkpoint": material.note} if made else {}
        path = place / f"{'-'.join(plain.split())}.wav"
        save_waveform(path, wave, metadata={"sample": label} | synthetic)
    if voices:  # 2.4 s at 24 kHz are 0.15 MB in the notebook
        widgets.show(widgets.players(dict(list(voices.items())[:5])))


# %%
def publish(item, figure, grids=(), rows=(), origin=None):
    """Write a figure, its data and voices, and show it with players of the first few.

    `grids` are the conversions drawn in it, of the first model or by the names of models; `rows`
    are further data; `origin` is where it comes from, if not from this material.
    """
    made = grids if isinstance(grids, dict) else {next(iter(material.systems)): grids}
    data = [row for name, some in made.items() for g in some for row in data_of(item, g, name)]
    how = {"began": began, "split": material.split, "notebook": "figures"}
    origin = origin or correspondence.origin_of(cfg.asked, material.systems, material.stores, **how)
    root = Path(cfg.out, "figures")
    folder = report.write_figure(item, figure, data=[*data, *rows], provenance=origin, root=root)
    figure.path = folder / f"{item}.png"  # what is shown is read back from disk
    widgets.show(figure)
    keep_voices(item, next(iter(made.values()), ()))


# %% [markdown]
# ## Fig. 1: both cross-modal tasks
#
# A face takes the style of a voice and keeps its pose and expression; a voice takes the style of a
# face and keeps its words. Sources stand on top, references on the left. The faces beside reference
# voices are their speakers, unseen by the model.

# %%
if material.has("Fig. 1", "face", "voice"):
    faces = material.draw("face", count=2, seed=0)
    voices = material.draw("voice", count=2, seed=1, avoid=faces)
    audio_guided = convert_grid(material.converter, Task.A2I, faces, voices)
    speech = material.draw("voice", count=2, seed=0)
    looks = material.draw("face", count=2, seed=1, avoid=speech)
    image_guided = convert_grid(material.converter, Task.I2A, speech, looks)
    figure = drawing.conversions(
        {
            "(a) Audio-guided: pose and expression stay": audio_guided,
            "(b) Image-guided: the words stay": image_guided,
        },
        title="Cross-modal style transfer",
        note=material.note,
        across=True,
    )
    publish("fig1", figure, grids=[audio_guided, image_guided])

# %% [markdown]
# ## Fig. 2: overview
#
# The modules with their sizes, read off this checkpoint, and what flows between them. L_xm pulls
# the styles of a face and a voice of one speaker together.

# %%
facts, nets = {}, material.converter.nets
for (name, module), (_, count) in zip(nets.named_children(), nets.parameter_table(), strict=False):
    parts = dict(module.named_modules())
    last = next((part for place, part in parts.items() if place.endswith("heads")), None)
    domains = getattr(module, "domains", getattr(module, "genders", 0))
    forward, optional = module.forward.__code__, len(module.forward.__defaults__ or ())
    letters = [f" {one.lower()}" if one.isupper() else one for one in type(module).__name__]
    facts[name] = {
        "module": name,
        "title": "".join(letters).strip(),
        "takes": " ".join(forward.co_varnames[1 : forward.co_argcount - optional]),
        "gives": {"G_I": "face", "G_A": "voice"}.get(
            name, "style" if name[0] in "EM" else "logits"
        ),
        "blocks": sum(type(part).__name__.endswith("ResBlk") for part in parts.values()),
        "heads": getattr(last, "out_channels", domains),  # to choose from by domain, 0 for none
        "parameters": count,
    }

# %%
figure = Figure(figsize=(10.4, 6.55))
canvas = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, 10.4), ylim=(6.55, 0.0))
canvas.axis("off")
boxes = {}


def box(name, x, y, width=1.5, height=0.8, *, text="", size=7, rotation=0, **look):
    """Draw a box around a point, in inches from the top left."""
    shape = "round,pad=0,rounding_size=0.08"
    corner = (x - width / 2, y - height / 2)
    patch = FancyBboxPatch(corner, width, height, shape, zorder=3, **look)
    boxes[name] = x, y, canvas.add_patch(patch)
    middle = {"ha": "center", "va": "center", "zorder": 4, "rotation": rotation}
    canvas.text(x, y, text, fontsize=size, linespacing=1.5, **middle)


encoders = {"E_I": (2.55, 2.2), "M": (2.55, 3.45), "E_A": (2.55, 4.7)}
generators = {"G_I": (5.85, 2.2), "G_A": (5.85, 4.7)}
critics = {"D_I": (9.4, 2.2), "D_A": (9.4, 4.21), "C_A": (9.4, 5.19)}
for places, colour in zip((encoders, generators, critics), drawing.PALETTE, strict=False):
    pale = [0.88 + 0.12 * part for part in to_rgb(colour)]
    for name, place in places.items():
        fact = facts[name]
        held = f"{fact['heads']} heads" if fact["heads"] else f"{fact['blocks']} blocks"
        text = (
            f"${name[0]}_{{{name[2:]}}}$\n{fact['title']}\n{held}, {fact['parameters'] / 1e6:.2f} M"
        )
        box(name, *place, text=text, edgecolor=colour, facecolor=pale)

# %%
text = (
    f"style $s$, {material.converter.config.model.style_dim} numbers:\nof a face, a voice or a code"
)
box("style", 4.2, 3.45, 0.52, 3.6, text=text, rotation=90, facecolor="#f3f3f3")
box("code", 0.825, 3.45, 1.0, 0.45, text="code $z \\sim N(0, I)$", visible=False)
text = "F0 network\n(frozen)"
box("F0", 4.3, 5.75, 1.0, 0.45, text=text, facecolor="white", edgecolor=drawing.FAINT, ls="--")

# %%
places = {
    "reference face": (0.825, 2.2),
    "reference voice": (0.825, 4.7),
    "source face": (5.85, 1.1),
    "source voice": (5.85, 5.75),
    "converted face": (7.575, 2.2),
    "converted voice": (7.575, 4.7),
}
pictures = {}
if material.has("Fig. 2, pictures in it", "face", "voice"):
    for grid in (audio_guided, image_guided):
        pictures[f"source {grid.task.output}"] = grid.columns[0]
        pictures[f"reference {grid.task.guidance}"] = grid.rows[0]
        pictures[f"converted {grid.task.output}"] = grid.cells[0][0]

# %%
levels = drawing.levels_of(pictures.values())
for name, (x, y) in places.items():
    box(name, x, y, 0.95, 0.75, text=name, visible=False)
    if name in pictures:
        axes = figure.add_axes(
            ((x - 0.475) / 10.4, 1 - (y + 0.375) / 6.55, 0.95 / 10.4, 0.75 / 6.55)
        )
        drawing.show_panel(axes, pictures[name], levels)
        below = name == "source voice"  # an arrow leaves above
        look = {"fontsize": 7, "color": drawing.FAINT}
        axes.set_title("" if below else name, loc="center", pad=2, **look)
        axes.set_xlabel(name if below else "", labelpad=2, **look)

# %%
arrows = {
    "reference face": ["E_I"],
    "code": ["M"],
    "reference voice": ["E_A"],
    **{encoder: ["style"] for encoder in encoders},
    "style": ["G_I", "G_A"],
    "source face": ["G_I"],
    "source voice": ["G_A", "F0"],
    "F0": ["G_A"],
    "G_I": ["converted face"],
    "G_A": ["converted voice"],
    "converted face": ["D_I"],
    "converted voice": ["D_A", "C_A"],
}
for name, ends in arrows.items():
    for other in ends:
        (x, y, start), (to_x, to_y, end) = boxes[name], boxes[other]
        y = to_y if name == "style" else y  # arrows leave the tall box and arrive there level
        to_y = y if other == "style" else to_y
        how = {"patchA": start, "patchB": end, "arrowstyle": "-|>", "mutation_scale": 9}
        canvas.add_patch(FancyArrowPatch((x, y), (to_x, to_y), zorder=2, **how))

# %%
how = {"arrowstyle": "<|-|>", "mutation_scale": 9, "linestyle": "--", "color": drawing.FAINT}
canvas.add_patch(FancyArrowPatch((3.1, 4.3), (3.1, 2.6), **how))
canvas.text(3.16, 2.83, "$L_{xm}$", fontsize=8, color=drawing.FAINT, va="center")
title = "Overview: one style space between two modalities"
canvas.text(0.2, 0.27, title, fontsize=11, weight="bold")
note = f"Drawn from the modules of preset {material.converter.config.preset}; {material.note}. "
note += "The networks of content and F0 are frozen."
canvas.text(0.2, 6.45, note, fontsize=6.5, color=drawing.FAINT)
publish("fig2", drawing.Drawing(figure), rows=list(facts.values()))

# %% [markdown]
# ## Fig. 3: audio-guided faces, a row a system
#
# Checkpoints given as `others` are further rows, on the same sources and references.

# %%
made = {}
if material.has("Fig. 3", "face", "voice"):
    if not any(one.title == "SGSIM" for one in material.systems.values()):
        reason = "no checkpoint of it is given; train one with notebooks/baseline.ipynb -p system "
        reason += "sgsim and give it with -p others"
        paper_figures.missing("Fig. 3, row SGSIM", reason)
    faces = material.draw("face", count=6, seed=3)
    voices = material.draw("voice", count=6, seed=4, avoid=faces)
    order = [0, 1, 3, 2, 5, 4]  # after a voice of one's own sex twice, then of the other one
    pairs = list(zip(faces, [voices[i] for i in order if i < len(voices)], strict=False))
    for name, one in material.systems.items():
        if Task.A2I in one.tasks and one.has("face") and one.has("voice"):
            made[name] = [convert_grid(one, Task.A2I, [face], [voice]) for face, voice in pairs]
        else:
            paper_figures.missing(f"Fig. 3, {name}", "it makes no faces after voices")

# %%
if made:
    first = next(iter(made.values()))
    rows = {
        "reference\nvoice": [grid.rows[0] for grid in first],
        "its speaker": [Panel(label="", face=grid.rows[0].speaker_face) for grid in first],
        **{name.replace(", ", "\n"): [g.cells[0][0] for g in made[name]] for name in made},
    }
    columns = [grid.columns[0] for grid in first]
    names = [Panel(label=name) for name in rows]
    sheet = Grid(task=Task.A2I, note="", columns=columns, rows=names, cells=list(rows.values()))
    figure = drawing.conversions(sheet, title="Audio-guided faces", note=material.note)
    publish("fig3", figure, grids=made)

# %% [markdown]
# ## Fig. 4: the same voices over several faces
#
# A row should show one person, whoever the source is. Systems given as `others` follow.


# %%
def of_all(item, task, sources, references, title):
    """Draw the same conversions by every system that makes them."""
    able = {n: m for n, m in material.systems.items() if task in m.tasks}
    able = {n: m for n, m in able.items() if m.has(task.guidance) and m.has(task.output)}
    count = 4 if len(able) == 1 else 3  # so that all fit a page
    given = task, sources[:count], references[:count]
    grids = {name: convert_grid(one, *given) for name, one in able.items()}
    shown = grids if len(grids) > 1 else next(iter(grids.values()))
    figure = drawing.conversions(shown, title=title, note=material.note)
    publish(item, figure, grids={name: [grid] for name, grid in grids.items()})


# %%
if material.has("Fig. 4", "face", "voice"):
    faces = material.draw("face", count=4, seed=6)
    voices = material.draw("voice", count=4, seed=7, avoid=faces)
    of_all("fig4", Task.A2I, faces, voices, "The same voices over several faces")

# %% [markdown]
# ## Fig. 5: do face and voice belong together?
#
# The correspondence preference ratio: how often the candidate that belongs to the reference is
# preferred to another one; chance is one half. Asked of people (`notebooks/cpr_study.ipynb`), or
# else of a computer: by the hidden factors of `mini`, or by the style encoders, which flatter the
# outputs that they were trained with.

# %%
reason, origin, ratios = "", None, []
if cfg.study:
    key = correspondence.open_study(cfg.study)
    given = correspondence.read_answers(key, cfg.answers)
    reason = "" if given else "none given; bars are the automatic CPR"
    ratios = correspondence.result_rows(key, given)
    origin = correspondence.answered(key["provenance"], began)
else:
    reason = "no study was given; bars are the automatic CPR; make one with "
    reason += "notebooks/cpr_study.ipynb and name it with -p study and -p answers"
    asked = cfg.asked, material.stores, material.systems
    _, ratios = correspondence.ask(*asked, on_log=progress.line)
if reason:
    paper_figures.missing("Fig. 5, people's answers", reason)
if ratios:
    publish("fig5", drawing.preferences(ratios), rows=ratios, origin=origin)
else:
    paper_figures.missing("Fig. 5", "nothing to ask; give a study with -p study")

# %% [markdown]
# ## Fig. 6: latent-guided
#
# Neither a face nor a voice guides: a random code goes through M, under the head of a gender.

# %%
grids, genders = {}, material.converter.trained_genders("latent")
if material.has("Fig. 6 (a)", "face", "latent"):
    faces = material.draw("face", count=2, seed=9)
    codes = [(seed + code, gender) for gender in genders for code in range(3)]
    grids["(a) Faces"] = convert_grid(material.converter, Task.Z2I, faces, codes)
if material.has("Fig. 6 (b)", "voice", "latent"):
    voices = material.draw("voice", count=2, seed=9)
    codes = [(seed + code, gender) for gender in genders for code in range(2)]
    grids["(b) Voices"] = convert_grid(material.converter, Task.Z2A, voices, codes)
if grids:
    figure = drawing.conversions(
        grids, title="Latent-guided conversion", note=material.note, across=True
    )
    publish("fig6", figure, grids=list(grids.values()))

# %% [markdown]
# ## Fig. 7: avatars
#
# An avatar takes on the style of a voice, and a voice that of an avatar. The faces of `mini` are
# drawn and serve as avatars; with other corpora, a prepared store `avatars` does.

# %%
if material.has("Fig. 7", "voice", "avatar"):
    avatars = material.draw("avatar", count=3, seed=12)
    users = material.draw("voice", count=3, seed=13, avoid=avatars)
    grids = {
        "(a) An avatar made one's own by one's voice": convert_grid(
            material.converter, Task.A2I, avatars[:2], users
        ),
        "(b) A voice to match an avatar": convert_grid(
            material.converter, Task.I2A, users[:2], avatars
        ),
    }
    corpora = ", ".join(store.corpus for store in material.avatars)
    note = f"avatars: drawn faces of {corpora}; {material.note}"
    figure = drawing.conversions(grids, title="Applications", note=note, across=True)
    publish("fig7", figure, grids=list(grids.values()))

# %% [markdown]
# ## Fig. 8: more audio-guided faces

# %%
if material.has("Fig. 8", "face", "voice"):
    faces = material.draw("face", count=6, seed=15)
    voices = material.draw("voice", count=6, seed=16, avoid=faces)
    grid = convert_grid(material.converter, Task.A2I, faces, voices, note=material.note)
    figure = drawing.conversions(grid, title="More audio-guided faces")
    publish("fig8", figure, grids=[grid])

# %% [markdown]
# ## Fig. 9: more image-guided voices

# %%
if material.has("Fig. 9", "face", "voice"):
    voices = material.draw("voice", count=4, seed=18)
    faces = material.draw("face", count=4, seed=19, avoid=voices)
    of_all("fig9", Task.I2A, voices, faces, "More image-guided voices")

# %% [markdown]
# ## Fig. 10: the style space
#
# Style vectors of held-out faces and voices, laid out by t-SNE: one colour a speaker. Such a map
# shows neighbours, not distances; how far speakers and modalities are apart is measured in the
# space itself and stands beside it.

# %%
space, fewest = None, 6  # styles that a map is made of
if material.has("Fig. 10", "face", "voice"):
    with paper_figures.excused("Fig. 10"):  # faces and voices of nobody known
        given = {"split": material.split, "seed": seed}
        space = matching.style_space(material.converter, material.stores, **given)
if space is not None and len(space.styles) < fewest:
    reason = f"{len(space.styles)} styles; a map needs {fewest} or more"
    paper_figures.missing("Fig. 10", reason)
    space = None

# %%
if space is not None:
    distance = np.clip(1.0 - space.styles @ space.styles.T, 0.0, 2.0)  # of cosines
    np.fill_diagonal(distance, 0.0)
    left, scale, _ = np.linalg.svd(space.styles - space.styles.mean(axis=0), full_matrices=False)
    start = left[:, :2] * scale[:2]  # the two main directions
    tsne = TSNE(
        metric="precomputed",
        init=start / (start[:, 0].std() + 1e-12) * 1e-4,
        random_state=seed,
        perplexity=min(30.0, (len(start) - 1) / 3),
    )
    plane = tsne.fit_transform(distance)

# %% [markdown]
# Silhouettes are from -1 to 1: by speaker 1 is best, by modality 0 (mixed). The modality gap is the
# distance of the modalities' means, from 0 to 2. R@1 is of one sample a person.

# %%
if space is not None:
    places = pd.DataFrame(plane, columns=["x", "y"]).assign(
        kind=space.kind, speaker=[space.speakers[code] for code in space.speaker]
    )
    figure = Figure(figsize=(7.5, 5.3), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=(4.9, 2.3))
    look = {"style": "kind", "markers": {"face": "o", "voice": "^"}, "palette": "tab20", "s": 26}
    sns.scatterplot(places, x="x", y="y", hue="speaker", ax=axes, **look)
    handles, labels = axes.get_legend_handles_labels()
    axes.get_legend().remove()
    beside.legend(handles[-2:], labels[-2:], loc="lower left", title="A colour a speaker")
    axes.set(xticks=[], yticks=[], xlabel=material.note, ylabel="")
    axes.spines[:].set(visible=True, color=drawing.RULE)
    halo = [withStroke(linewidth=2.0, foreground="white")]
    named = {"ha": "center", "fontsize": 6.8, "textcoords": "offset points", "path_effects": halo}
    for (name, one), sex in zip(places.groupby("speaker", sort=False), space.genders, strict=True):
        top = (one["x"].median(), one["y"].max())
        axes.annotate(f"{name.rsplit('/', 1)[-1]} ({sex})", top, (0, 4.5), **named)

# %%
if space is not None:
    (face, of_face), (voice, of_voice) = map(space.of, matching.KINDS)
    same, cosine = of_face[:, None] == of_voice, face @ voice.T
    labels = {"speaker": space.speaker, "modality": space.kind}
    gap, count = (face.mean(0) - voice.mean(0)).norm(), len(space.kind)
    found = [
        (f"silhouette by {name}", silhouette_score(space.styles, label, metric="cosine"), count)
        for name, label in labels.items()
    ]
    found.append(("modality gap", gap, count))
    for name, pairs in {
        "face and voice of one person": same,
        "of two people": ~same,
        "of two people of one sex": space.one_sex[of_face][:, of_voice] & ~same,
    }.items():
        if pairs.any():
            found.append((f"cosine, {name}", cosine[pairs].mean(), int(pairs.sum())))

# %%
if space is not None:
    system, columns = next(iter(material.systems)), ["task", "metric", "value", "n", "chance"]
    rows = [("styles", metric, float(value), n, None) for metric, value, n in found]
    rows += [tuple(map(row.get, columns)) for row in matching.retrieval(space, seed=seed)]
    shared = {"system": system, "dataset": dataset, "ci_low": None, "ci_high": None, "seed": seed}
    measures = [dict(zip(columns, row, strict=True)) | shared for row in rows]
    beside.axis("off")
    shown = [row for row in measures if "gallery of means" not in row["metric"]]
    for line, row in enumerate(shown):
        name = row["metric"].replace(", gallery of single samples", "")
        name += "" if row["task"] == "styles" else f", {row['task']}"
        beside.text(0.0, 0.95 - 0.05 * line, name.replace(", face and voice of one", ", one"))
        beside.text(
            1.0,
            0.95 - 0.05 * line,
            f"{round(row['value'], 2) + 0.0:.2f}",
            ha="right",
            weight="bold",
        )
    figure.suptitle("Style vectors of faces and voices (t-SNE)", fontsize=11, x=0.01, ha="left")
    points = places.rename(columns={"kind": "task"}).assign(metric="place", system=system)
    rows = [*measures, *points.to_dict("records")]
    publish("fig10", drawing.Drawing(figure), rows=rows)
