"""The paper's Fig. 1 to 10, each made from a checkpoint and what else it needs.

opened = figure_material.open_figures(cfg, began, on_log=progress.line)
paper_figures.figure1(opened)

Samples are held out where the corpus has a held-out split; which one stands in every figure's foot.
What a figure shows is the paper's, the layout follows it; the captions of Fig. 2 to 10 are INFERRED
from the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xfavot.convert import Grid, Panel, Task
from xfavot.convert.examples import has_any
from xfavot.errors import DataError
from xfavot.evaluation import automatic_cpr, style_space, triplets
from xfavot.evaluation.cpr import corrected
from xfavot.report.study import open_study
from xfavot.report.study_answers import read_answers, result_rows
from xfavot.report.study_origin import answered
from xfavot.viz import cpr_bars, figure_overview, figure_sheets, figure_styles
from xfavot.viz.figure_conversions import draw, latent_grid, led_grid, rows_of
from xfavot.viz.figure_material import CONVERTED, Missing, Opened, Shown, publish
from xfavot.viz.figure_sheets import Block

FACE_AFTER_VOICE = "(a) A face after a voice: pose and expression stay"
VOICE_AFTER_FACE = "(b) A voice after a face: the words stay"
NO_SGSIM = (
    "SGSIM needs its own networks (StyleGAN2 on FFHQ, CLIP, its audio encoder), which this project "
    "does not have; compare with other checkpoints with -p others, or score its pictures with "
    "notebooks/evaluate.ipynb -p manifest"
)
NO_AVATARS = (
    "there is no prepared store of drawn faces; put pictures (such as faces stylised by JoJoGAN) "
    "into a folder and run notebooks/prepare_data.ipynb -p dataset avatars -p source <folder>"
)


def figure1(opened: Opened) -> Shown | Missing:
    """Both cross-modal tasks at a glance (paper: Fig. 1)."""
    if reason := opened.lacks():
        return Missing("Fig. 1", reason)
    grids = [_led(opened, task, sources=2, references=2, seed=0) for task in (Task.A2I, Task.I2A)]
    captions = (FACE_AFTER_VOICE, VOICE_AFTER_FACE)
    return _blocks(opened, "fig1", "Cross-modal style transfer", captions, grids, across=True)


def figure2(opened: Opened) -> Shown:
    """The eight modules and what flows between them (paper: Fig. 2)."""
    model = opened.converter.config.model
    facts = figure_overview.module_facts(model)
    pictures: dict[str, Panel] = {}
    if not opened.lacks():
        face = _led(opened, Task.A2I, sources=1, references=1, seed=0)
        voice = _led(opened, Task.I2A, sources=1, references=1, seed=0)
        for kind, grid, other in (("face", face, voice), ("voice", voice, face)):
            pictures |= {f"source {kind}": grid.columns[0], f"converted {kind}": grid.cells[0][0],
                         f"reference {kind}": other.rows[0]}  # fmt: skip
    drawing = figure_overview.overview(
        facts, pictures, style_dim=model.style_dim,
        note=f"Drawn from the modules of preset {opened.converter.config.preset}; {opened.note}. "
        "The networks of content and F0 are frozen.",
    )  # fmt: skip
    rows = [
        {"module": f.name, "title": f.title, "takes": " ".join(f.takes), "gives": f.gives,
         "blocks": f.blocks, "heads": f.heads, "parameters": f.parameters}
        for f in facts
    ]  # fmt: skip
    return publish(opened, "fig2", drawing, rows)


def figure3(opened: Opened) -> Shown | Missing:
    """Faces led by voices, a row a system (paper: Fig. 3)."""
    if reason := opened.lacks():
        return Missing("Fig. 3", reason)
    cfg, missing = opened.cfg, [Missing("Fig. 3, row SGSIM", NO_SGSIM)]
    sources = draw(opened.stores, "face", split=opened.split, count=6, seed=cfg.seed + 3)
    references = draw(
        opened.stores, "voice", split=opened.split, count=6, seed=cfg.seed + 4, avoid=sources
    )
    across = sorted(range(len(references)), key=lambda i: i ^ (i >= 2))  # both sexes, one sex too
    references = tuple(references[i] for i in across)
    systems: dict[str, list[Panel]] = {}
    rows, heads, voices = [], list[Panel](), list[Panel]()
    for one in opened.systems:
        if not all(one.converter.has(kind) for kind in ("face", "voice")):
            missing.append(Missing(f"Fig. 3, row {one.name}", "it has no faces or no voices"))
            continue
        pairs = [
            led_grid(one.converter, Task.A2I, [source], [reference])
            for source, reference in zip(sources, references, strict=False)
        ]
        heads, voices = [g.columns[0] for g in pairs], [g.rows[0] for g in pairs]
        systems[one.name] = [g.cells[0][0] for g in pairs]
        rows += [row for g in pairs for row in rows_of("fig3", g, system=one.name)]
    drawing = figure_sheets.comparison(
        heads, voices, systems, title="Faces after voices", note=opened.note
    )
    heard = [(f"reference {panel.label}", panel) for panel in voices]
    return publish(opened, "fig3", drawing, rows, voices=heard, missing=missing)


def figure4(opened: Opened) -> Shown | Missing:
    """The same voices over several faces (paper: Fig. 4)."""
    if reason := opened.lacks():
        return Missing("Fig. 4", reason)
    grid = _led(opened, Task.A2I, sources=4, references=4, seed=6)
    return _blocks(opened, "fig4", "The same voices over several faces", ("",), [grid])


def figure5(opened: Opened) -> Shown | Missing:
    """The correspondence preference ratio (paper: Fig. 5), by people or automatic."""
    cfg = opened.cfg
    missing, origin = [], None
    if cfg.study:
        study = open_study(cfg.study)
        answers = read_answers(study, cfg.answers)
        rows, origin = result_rows(study, answers), answered(study.provenance, opened.began)
        if not answers.judgements:
            missing.append(
                Missing("Fig. 5, people's answers", "none was given; bars are the automatic CPR")
            )
    else:
        missing.append(
            Missing(
                "Fig. 5, people's answers",
                "no study was given; bars are the automatic CPR; make one with "
                "notebooks/cpr_study.ipynb and name it with -p study and -p answers",
            )
        )
        drawn = list(_triplets(opened))
        judges = automatic_cpr.judges_of(
            opened.stores, {one.name: one.converter for one in opened.systems}
        )
        rows = corrected(
            automatic_cpr.automatic_rows(drawn, judges, dataset=cfg.dataset, seed=cfg.seed)
        )
    if not rows:
        return Missing("Fig. 5", opened.lacks() or "nobody to judge; give a study with -p study")
    drawing = cpr_bars.cpr(rows, title="Correspondence")
    return publish(opened, "fig5", drawing, rows, missing=missing, provenance=origin)


def _triplets(opened: Opened) -> Iterator[triplets.Triplet]:
    how: dict[str, Any] = {"form": "faces", "count": opened.cfg.triplets, "seed": opened.cfg.seed}
    for task in triplets.TASKS:
        yield from triplets.ground_truth(opened.stores, task=task, **how)
        for one in opened.systems:
            if all(one.converter.has(kind) for kind in ("face", "voice")):
                yield from triplets.converted(
                    one.converter, opened.stores, system=one.name, task=task, **how
                )


def figure6(opened: Opened) -> Shown | Missing:
    """Faces and voices led by latent codes (paper: Fig. 6)."""
    missing, grids, captions = [], [], []
    for letter, kind, task in (("a", "face", Task.Z2I), ("b", "voice", Task.Z2A)):
        if reason := opened.lacks(kind):
            missing.append(Missing(f"Fig. 6 ({letter})", reason))
            continue
        sources = draw(opened.stores, kind, split=opened.split, count=2, seed=opened.cfg.seed + 9)
        seed = opened.cfg.seed
        codes = 3 if kind == "face" else 2
        grids.append(latent_grid(opened.converter, task, sources, codes=codes, seed=seed))
        captions.append(f"({letter}) {kind.capitalize()}s")
    if not grids:
        return Missing("Fig. 6", "; ".join(map(repr, missing)))
    title = "Led by latent codes alone"
    return _blocks(opened, "fig6", title, captions, grids, missing=missing)


def figure7(opened: Opened) -> Shown | Missing:
    """Applications to avatars (paper: Fig. 7): led by a voice, and leading one."""
    if reason := opened.lacks("voice"):
        return Missing("Fig. 7", reason)
    split = next(
        (s for s in (opened.split, "val", "unseen", "train")
         if has_any(opened.avatars, modality="face", split=s)), "",
    )  # fmt: skip
    if not split:
        return Missing("Fig. 7", NO_AVATARS)
    if not opened.converter.has("face"):
        return Missing("Fig. 7", opened.lacks("face"))
    seed = opened.cfg.seed + 12
    avatars = draw(opened.avatars, "face", split=split, count=3, seed=seed)
    corpora = ", ".join(store.corpus for store in opened.avatars)
    users = draw(opened.stores, "voice", split=opened.split, count=3, seed=seed + 1, avoid=avatars)
    grids = [
        led_grid(opened.converter, Task.A2I, avatars[:2], users),
        led_grid(opened.converter, Task.I2A, users[:2], avatars),
    ]
    captions = ("(a) An avatar made one's own by one's voice", "(b) A voice to match an avatar")
    note = f"avatars: drawn faces of {corpora}; "
    return _blocks(opened, "fig7", "Applications", captions, grids, note=note)


def figure8(opened: Opened) -> Shown | Missing:
    """More faces after voices (paper: Fig. 8)."""
    if reason := opened.lacks():
        return Missing("Fig. 8", reason)
    grid = _led(opened, Task.A2I, sources=6, references=6, seed=15)
    return _blocks(opened, "fig8", "More faces after voices", ("",), [grid])


def figure9(opened: Opened) -> Shown | Missing:
    """More voices after faces (paper: Fig. 9)."""
    if reason := opened.lacks():
        return Missing("Fig. 9", reason)
    grid = _led(opened, Task.I2A, sources=4, references=4, seed=18)
    return _blocks(opened, "fig9", "More voices after faces", ("",), [grid])


def figure10(opened: Opened) -> Shown | Missing:
    """The style space of faces and voices (paper: Fig. 10), as a map and in numbers."""
    if reason := opened.lacks():
        return Missing("Fig. 10", reason)
    cfg = opened.cfg
    try:
        space = style_space.style_space(
            opened.converter, opened.stores, split=opened.split, seed=cfg.seed
        )
        plane = style_space.embed(space, seed=cfg.seed)
    except DataError as error:  # faces and voices of nobody known, or too few: said in the notebook
        return Missing("Fig. 10", str(error))
    name = opened.systems[0].name
    rows = style_space.measures(space, system=name, dataset=cfg.dataset, seed=cfg.seed)
    drawing = figure_styles.style_map(
        space, plane, rows, title="Style vectors of faces and voices (t-SNE)", note=opened.note
    )
    places = [
        {"metric": "place", "task": style_space.KINDS[space.kind[i]], "system": name, "x": x,
         "y": y, "speaker": space.speakers[space.speaker[i]]}
        for i, (x, y) in enumerate(plane)
    ]  # fmt: skip
    return publish(opened, "fig10", drawing, [*rows, *places])


def _led(opened: Opened, task: Task, *, sources: int, references: int, seed: int) -> Grid:
    """Convert held-out samples after those of other people, as far as there are others."""
    stores, split, seed = opened.stores, opened.split, opened.cfg.seed + seed
    first = draw(stores, task.output, split=split, count=sources, seed=seed)
    second = draw(stores, task.guidance, split=split, count=references, seed=seed + 1, avoid=first)
    return led_grid(opened.converter, task, first, second)


def _blocks(
    opened: Opened,
    item: str,
    title: str,
    captions: list[str] | tuple[str, ...],
    grids: list[Grid],
    *,
    across: bool = False,
    note: str = "",
    missing: list[Missing] | None = None,
) -> Shown:
    """Draw grids and publish them, voices ordered by what is good to hear together."""
    blocks = [Block(caption, grid) for caption, grid in zip(captions, grids, strict=True)]
    drawing = figure_sheets.blocks(blocks, title=title, note=note + opened.note, across=across)
    rows = [row for grid in grids for row in rows_of(item, grid, system=opened.systems[0].name)]
    heard = [(f"reference {panel.label}", panel) for grid in grids for panel in grid.rows]
    for grid in grids:
        for number, source in enumerate(grid.columns):
            heard.append((f"source {source.label}", source))
            heard += [
                (f"{source.label}{CONVERTED}{reference.label}", cells[number])
                for reference, cells in zip(grid.rows, grid.cells, strict=True)
            ]
    return publish(opened, item, drawing, rows, voices=heard, missing=missing or [])
