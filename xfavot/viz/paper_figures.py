"""The paper's Fig. 1 to 10, each made from a checkpoint and what else it needs.

opened = figure_material.open_figures(cfg, began, on_log=progress.line)
paper_figures.figure1(opened)

Samples are held out where the corpus has a held-out split; which one stands in every figure's foot.
What a figure shows is the paper's, the layout follows it; the captions of Fig. 2 to 10 are INFERRED
from the text.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor, nn

from xfavot import report
from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL
from xfavot.config import ModelConfig
from xfavot.convert import Converter, Grid, Panel, Task, convert_grid, open_stores
from xfavot.convert.inputs import resize_face
from xfavot.data.sample import Example, examples, first_split, has_any
from xfavot.data.store import GENDERS, Store
from xfavot.errors import DataError
from xfavot.evaluation import cpr, matching
from xfavot.evaluation.cpr import corrected
from xfavot.evaluation.matching import KINDS, Array, StyleSpace
from xfavot.models.xfavot import F0_FEATURE_FACTOR, XFaVoT, shape_trace
from xfavot.parameters import Figures
from xfavot.report.artifact import Beginning, Provenance
from xfavot.report.study import (
    System,
    answered,
    open_study,
    read_answers,
    result_rows,
    systems_of,
    tier_of,
)
from xfavot.viz import drawing
from xfavot.viz import drawing as drawing_viz
from xfavot.viz.drawing import (
    FAINT,
    INK,
    PALETTE,
    RULE,
    Album,
    Board,
    Drawing,
    levels_of,
    median_hz,
    show_panel,
    styled,
)
from xfavot.viz.widgets import Html, players

# Conversions for the paper's figures: grids of one task, with the samples that a figure needs


SHOWN_SECONDS = 2.4


def draw(
    stores: Sequence[Store],
    modality: str,
    *,
    split: str,
    count: int,
    seed: int,
    avoid: Iterable[Example] = (),
) -> tuple[Example, ...]:
    """Draw samples that have a "face" or a "voice", with voices cut short.

    Args:
        stores, split, count, seed: of :func:`xfavot.data.sample.examples`.
        modality: what every sample must have.
        avoid: samples whose people are taken only when there is nobody else.

    Raises:
        DataError: the split has none.
    """
    drawn = examples(
        stores,
        modality=modality,
        split=split,
        count=count,
        seed=seed,
        avoid={example.speaker for example in avoid},
    )
    longest = int(SHOWN_SECONDS * MEL.sample_rate)
    return tuple(
        e if e.waveform is None else dataclasses.replace(e, waveform=e.waveform[:longest])
        for e in drawn
    )


def rows_of(item: str, grid: Grid, *, system: str) -> list[dict[str, Any]]:
    """What a grid shows, a row a conversion: who, after whom, and what can be said in numbers.

    Args:
        item: part of the figure, such as "fig1a".
        grid: the conversions.
        system: the model.

    Returns:
        Rows with the median pitch of output, source and reference in Hz (0 where unvoiced), or the
        mean absolute change of a face in grey levels of 255.
    """
    rows = []
    for reference, cells in zip(grid.rows, grid.cells, strict=True):
        for source, cell in zip(grid.columns, cells, strict=True):
            row: dict[str, Any] = {
                "item": item,
                "system": system,
                "task": grid.task.value,
                "source": source.label,
                "reference": reference.label,
                "change_levels": None,
                "f0_hz": None,
                "source_f0_hz": None,
                "reference_f0_hz": None,
            }
            if cell.face is not None and source.face is not None:
                seen = resize_face(source.face, len(cell.face)).astype(np.int16)
                row["change_levels"] = float(np.abs(cell.face - seen).mean())
            else:
                row |= {"f0_hz": median_hz(cell.f0), "source_f0_hz": median_hz(source.f0)}
            if reference.f0 is not None:
                row["reference_f0_hz"] = median_hz(reference.f0)
            rows.append(row)
    return rows


# What the paper's figures are made from, and how a figure is written and shown in a notebook


PLAYERS = 5  # a figure: 2.4 s at 24 kHz are 0.15 MB in the notebook
FILE_KINDS = ("face", "voice")
AVATARS = "avatars"
CONVERTED = " converted after "

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """All that the figures are made from.

    Args:
        cfg: the task.
        began: when the work began.
        systems: the models, the first one is that of the figures.
        stores: prepared stores.
        avatars: stores of drawn faces.
        split: what the samples are from.
        say: told what happens.
    """

    cfg: Figures
    began: Beginning
    systems: tuple[System, ...]
    stores: tuple[Store, ...]
    avatars: tuple[Store, ...]
    split: str
    say: Say

    @property
    def converter(self) -> Converter:
        """The model of the figures."""
        return self.systems[0].converter

    @property
    def note(self) -> str:
        """For the foot of a figure."""
        name = self.converter.config.name or self.converter.name
        return f"{name} at step {self.converter.step}, split {self.split}"

    def lacks(self, *kinds: str) -> str:
        """Why there can be no figure that needs these kinds of samples, "" if there can."""
        for kind in kinds or FILE_KINDS:
            if not self.converter.has(kind):
                return (
                    f"the checkpoint {self.converter.name} was not trained on {kind}s; give one "
                    "of configuration xfavot"
                )
            if not has_any(self.stores, modality=kind, split=self.split):
                return (
                    f"split {self.split} of {self.cfg.dataset} has no {kind} of known gender; "
                    "prepare a corpus that has"
                )
        return ""

    def provenance(self) -> Provenance:
        """Where a figure comes from, if it is written now."""
        return report.collect(
            self.began,
            self.converter.config,
            stores=self.stores,
            split=self.split,
            seeds=(self.cfg.seed,),
            tier=tier_of(self.cfg.asked, [one.converter.config.preset for one in self.systems]),
            weights={f"model {one.name}": one.sha256 for one in self.systems},
            notebook="figures",
            checkpoint={"step": self.converter.step, "sha256": self.systems[0].sha256},
            dataset=self.cfg.dataset,  # not what the model was trained on
        )


def open_figures(cfg: Figures, began: Beginning, *, on_log: Say) -> Opened:
    """Load the checkpoints and open the stores.

    Args:
        cfg: the task.
        began: when the work began.
        on_log: told what happens.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be used.
        DataError: there is no prepared store of the dataset.
    """
    systems = _short_names(systems_of(cfg.asked))
    stores = tuple(open_stores(cfg.data_root, cfg.corpora))
    drawn = tuple(store for store in stores if store.corpus in ("mini", AVATARS))
    apart = Path(cfg.data_root, AVATARS)
    if not drawn and apart.is_dir():
        drawn = (Store.open(apart, corpus=AVATARS),)
    split = first_split(stores, [kind for kind in FILE_KINDS if systems[0].converter.has(kind)])
    for one in systems:
        run = one.converter.config.name or one.converter.config.configuration
        on_log(f"{one.name}: checkpoint of {run} at step {one.converter.step}")
    return Opened(
        cfg=cfg, began=began, systems=systems, stores=stores, avatars=drawn, split=split, say=on_log
    )


def _short_names(systems: Sequence[System]) -> tuple[System, ...]:
    """Name models shortly, for rows and bars: configuration, step, number, as far as needed."""
    names = [one.converter.config.configuration for one in systems]
    steps = [one.converter.step for one in systems]
    for finer in (steps, range(1, len(systems) + 1)):
        often = Counter(names)
        names = [
            f"{name}, {'step ' if finer is steps else ''}{part}" if often[name] > 1 else name
            for name, part in zip(names, finer, strict=True)
        ]
    return tuple(
        dataclasses.replace(one, name=name) for one, name in zip(systems, names, strict=True)
    )


class Missing:
    """A figure, or a part of one, that cannot be made, and why."""

    def __init__(self, item: str, reason: str) -> None:
        """Keep the text."""
        self.text = f"{item} is missing: {reason}"

    def __repr__(self) -> str:
        """The text, for logs."""
        return self.text

    def _repr_html_(self) -> str:
        return (
            "<p style='border:1px solid #D55E00;border-left-width:5px;padding:0.6em 0.9em'>"
            f"{escape(self.text)}</p>"
        )


class Shown:
    """A figure as it lies on disk, with players beside it and notes of what is missing in it."""

    def __init__(
        self, folder: Path, drawing: Drawing, heard: Html | None, missing: Sequence[Missing]
    ) -> None:
        """Keep where it lies; the picture is read back from there."""
        self.folder, self.drawing, self.heard = folder, drawing, heard
        self.missing = tuple(missing)
        drawing.path = folder / f"{folder.name}.png"

    def __repr__(self) -> str:
        """Say what there is, for logs."""
        notes = [self.heard.log] if self.heard else []
        return ", ".join([f"figure {self.folder.name}", *notes, *map(repr, self.missing)])

    def _repr_html_(self) -> str:
        heard = self.heard.html if self.heard else ""
        notes = "".join(one._repr_html_() for one in self.missing)
        return Album((self.drawing,))._repr_html_() + heard + notes


def publish(
    opened: Opened,
    item: str,
    drawing: Drawing,
    rows: Sequence[Mapping[str, Any]],
    *,
    voices: Sequence[tuple[str, Panel]] = (),
    missing: Sequence[Missing] = (),
    provenance: Provenance | None = None,
) -> Shown:
    """Write a figure and its voices.

    Args:
        opened: what it was made from.
        item: its name, such as "fig4".
        drawing: the figure.
        rows: the data drawn in it.
        voices: what they are, and panels; those with a waveform are written, the first few played.
            A converted one is called "... converted after ...".
        missing: parts that could not be made.
        provenance: where it comes from, if not from what is opened.

    Raises:
        DataError: it cannot be written.
    """
    out = Path(opened.cfg.out)
    origin = provenance or opened.provenance()
    folder = report.write_figure(item, drawing, data=rows, provenance=origin, root=out / "figures")
    for old in (out / "voices" / item).glob("*.wav"):
        old.unlink()
    heard: dict[str, NDArray[np.float32]] = {}
    for label, panel in voices:
        if panel.waveform is not None:
            again = sum(other.partition(", ")[0] == label for other in heard)
            heard[f"{label}, {again + 1}" if again else label] = panel.waveform
    for label, wave in heard.items():
        name = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")
        made = {"synthetic": "yes", "checkpoint": opened.note} if CONVERTED in label else {}
        save_waveform(
            out / "voices" / item / f"{name}.wav", wave, metadata={"sample": label} | made
        )
    opened.say(f"{item}: written, with {len(heard)} voices")
    chosen = list(heard)[:PLAYERS]
    sounds = players([heard[label] for label in chosen], chosen) if chosen else None
    return Shown(folder, drawing, sounds, missing)


# The overview of the method (paper: Fig. 2), drawn from the modules themselves


FACE_CHANNELS = 3  # of a first layer that sees pictures
F0_BINS = 8  # mel bins for one of the F0 network's features
SIZE = (10.4, 6.55)  # inches
BOX = (1.5, 0.8)
MIDDLE = {"face": 2.2, "": 3.45, "voice": 4.7}  # inches from the top, of each row
COLUMN = {"style": 2.55, "generator": 5.85, "critic": 9.4}  # inches from the left, of each role
SPACE = (4.2, 0.52)  # where the style space stands, and its width
FACE, VOICE = (0.95, 0.95), (1.25, 0.72)
COLOURS = {"style": PALETTE[0], "generator": PALETTE[1], "critic": PALETTE[2]}


@dataclass(frozen=True, slots=True)
class ModuleFact:
    """What one of the modules is.

    Args:
        name: the paper's symbol, such as "G_I".
        title: its class in words.
        sees: "face", "voice" or "", what goes through it.
        takes: the arguments of its forward.
        gives: "face", "voice", "style" or "logits".
        role: "style", "generator" or "critic".
        blocks: residual blocks.
        heads: outputs to choose from by domain, 0 for none.
        parameters: trained numbers.
    """

    name: str
    title: str
    sees: str
    takes: tuple[str, ...]
    gives: str
    role: str
    blocks: int
    heads: int
    parameters: int


def module_facts(cfg: ModelConfig) -> list[ModuleFact]:
    """Read off the modules of a configuration what they take, give and hold.

    Args:
        cfg: the sizes.
    """
    with torch.device("meta"):
        nets = XFaVoT.from_config(cfg)
        return [_fact(name, module, cfg) for name, module in nets.named_children()]


def _fact(name: str, module: nn.Module, cfg: ModelConfig) -> ModuleFact:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    sees = "" if not layers else "face" if layers[0].in_channels == FACE_CHANNELS else "voice"
    frames = cfg.mel_frames
    shapes = {
        "face": (1, FACE_CHANNELS, cfg.image_size, cfg.image_size),
        "voice": (1, 1, cfg.mel_bins, frames),
    }
    given: dict[str, Tensor] = {
        "s": torch.empty(1, cfg.style_dim),
        "z": torch.empty(1, cfg.latent_dim),
        "gender": torch.zeros(1, dtype=torch.int64),
        "domain": torch.zeros(1, dtype=torch.int64),
        "f0_features": torch.empty(
            1, F0_FEATURE_FACTOR * cfg.f0_width, cfg.mel_bins // F0_BINS, frames
        ),
    }
    if sees:
        given["x"] = torch.empty(shapes[sees])
    takes = tuple(inspect.signature(module.forward).parameters)
    trace = shape_trace(module, *(given[argument] for argument in takes))
    with torch.no_grad():
        output = module(*(given[argument] for argument in takes))
    shape = () if isinstance(output, tuple) else tuple(output.shape)
    style = shape == (1, cfg.style_dim)
    gives = sees if len(shape) == 4 else "style" if style else "logits"
    last = trace[-1].shape[0]
    heads = {"style": last // cfg.style_dim, "logits": last}.get(gives, 0)
    return ModuleFact(
        name=name,
        title=_words(type(module).__name__),
        sees=sees,
        takes=takes,
        gives=gives,
        role={"style": "style", "logits": "critic"}.get(gives, "generator"),
        blocks=sum(row.layer == "ResBlk" for row in trace),
        heads=int(getattr(module, "domains", heads)),
        parameters=sum(p.numel() for p in module.parameters()),
    )


def _words(name: str) -> str:
    """The words of a class name, "MappingNetwork" as "mapping network"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


@styled
def overview(
    facts: Sequence[ModuleFact], pictures: Mapping[str, Panel], *, style_dim: int, note: str
) -> Drawing:
    """Draw the modules and what flows between them.

    Args:
        facts: of :func:`module_facts`.
        pictures: panels "reference face", "source face", "converted face" and the same of voices,
            shown where the names would stand alone.
        style_dim: length of a style vector.
        note: at the foot.
    """
    board = Board(*SIZE)
    canvas = board.axes(0, 0, *SIZE)
    canvas.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
    board.text(
        0.2,
        0.27,
        "Overview: one style space between two modalities",
        fontsize=11,
        weight="bold",
        color=INK,
    )
    board.text(0.2, SIZE[1] - 0.1, note, fontsize=6.5, color=FAINT)
    levels = levels_of(pictures.values())
    _space(canvas, style_dim)
    for role in COLOURS:
        for kind, y in MIDDLE.items():
            group = [fact for fact in facts if (fact.role, fact.sees) == (role, kind)]
            for number, fact in enumerate(group):
                middle = y + (number - (len(group) - 1) / 2) * (BOX[1] + 0.18)
                _module(canvas, fact, COLUMN[role], middle)
                _flows(board, canvas, fact, middle, y, pictures, levels)
    return Drawing(board.figure)


def _module(canvas: Any, fact: ModuleFact, x: float, y: float) -> None:
    colour = COLOURS[fact.role]
    place = (x - BOX[0] / 2, y - BOX[1] / 2)
    canvas.add_patch(
        FancyBboxPatch(
            place,
            *BOX,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=_pale(colour),
            edgecolor=colour,
            zorder=3,
        )
    )
    symbol, _, index = fact.name.partition("_")
    name = f"${symbol}_{{{index}}}$" if index else f"${symbol}$"
    canvas.text(x, y - 0.2, name, fontsize=12, ha="center", va="center", zorder=4)
    canvas.text(x, y + 0.04, fact.title, fontsize=7, ha="center", va="center", zorder=4)
    heads = f"{fact.heads} heads, " if fact.heads else f"{fact.blocks} blocks, "
    canvas.text(
        x,
        y + 0.24,
        f"{heads}{_count(fact.parameters)}",
        fontsize=6.5,
        ha="center",
        va="center",
        color=FAINT,
        zorder=4,
    )


def _pale(colour: str) -> tuple[float, ...]:
    return tuple(1 - 0.12 * (1 - part) for part in to_rgb(colour))


def _count(parameters: int) -> str:
    million = parameters / 1e6
    return f"{million:.1f} M" if million >= 1 else f"{parameters / 1e3:.0f} k"


def _space(canvas: Any, style_dim: int) -> None:
    top, bottom = MIDDLE["face"] - 0.55, MIDDLE["voice"] + 0.55
    place = (SPACE[0] - SPACE[1] / 2, top)
    canvas.add_patch(
        FancyBboxPatch(
            place,
            SPACE[1],
            bottom - top,
            zorder=3,
            edgecolor=INK,
            boxstyle="round,pad=0,rounding_size=0.2",
            facecolor="#f3f3f3",
        )
    )
    text = f"style $s$, {style_dim} numbers:\nof a face, a voice or a code"
    canvas.text(
        SPACE[0],
        (top + bottom) / 2,
        text,
        rotation=90,
        fontsize=7.5,
        ha="center",
        va="center",
        zorder=4,
        linespacing=1.5,
    )
    x, half = COLUMN["style"] + BOX[0] / 2 - 0.2, BOX[1] / 2
    ends = (x, MIDDLE["face"] + half), (x, MIDDLE["voice"] - half)
    _arrow(canvas, *ends, both=True)
    canvas.text(x + 0.06, MIDDLE["face"] + 0.63, "$L_{xm}$", fontsize=8, color=FAINT, va="center")


def _flows(
    board: Board,
    canvas: Any,
    fact: ModuleFact,
    y: float,
    row: float,
    pictures: Mapping[str, Panel],
    levels: tuple[float, float],
) -> None:
    """Draw what goes into a module and what comes out of it."""
    x, half = COLUMN[fact.role], BOX[0] / 2
    thumb = FACE if fact.sees == "face" else VOICE
    if fact.role == "critic":
        start = COLUMN["generator"] + half + 0.35 + (VOICE[0] + thumb[0]) / 2
        _arrow(canvas, (start, row), (x - half, y))
        return
    if fact.role == "generator":
        _arrow(canvas, (SPACE[0] + SPACE[1] / 2, y), (x - half, y))
        away = -1 if fact.sees == "face" else 1
        centre = y + away * (BOX[1] / 2 + 0.22 + thumb[1] / 2)
        if fact.sees == "face":
            centre = max(centre, 0.45 + thumb[1] / 2)
        _picture(board, (x, centre), thumb, f"source {fact.sees}", pictures, levels, side=1)
        _arrow(canvas, (x, centre - away * thumb[1] / 2), (x, y + away * BOX[1] / 2))
        if "f0_features" in fact.takes:
            left = x - half - 0.75
            canvas.text(
                left,
                centre,
                "F0 network\n(frozen)",
                fontsize=7,
                ha="center",
                va="center",
                color=FAINT,
                bbox={
                    "boxstyle": "round,pad=0.4",
                    "facecolor": "white",
                    "edgecolor": FAINT,
                    "linestyle": "--",
                },
            )
            _arrow(canvas, (x - thumb[0] / 2, centre), (left + 0.34, centre))
            _arrow(canvas, (left, centre - 0.19), (x - half, y + 0.25))
        out = x + half + 0.35 + VOICE[0] / 2
        _picture(board, (out, row), thumb, f"converted {fact.sees}", pictures, levels)
        _arrow(canvas, (x + half, y), (out - thumb[0] / 2, y))
        return
    _arrow(canvas, (x + half, y), (SPACE[0] - SPACE[1] / 2, y))
    left = 0.2 + VOICE[0] / 2
    if fact.sees:
        _picture(board, (left, y), thumb, f"reference {fact.sees}", pictures, levels)
    else:
        canvas.text(left, y, "code $z \\sim N(0, I)$", fontsize=8, ha="center", va="center")
    _arrow(canvas, (left + (thumb[0] / 2 if fact.sees else 0.55), y), (x - half, y))


def _picture(
    board: Board,
    centre: tuple[float, float],
    size: tuple[float, float],
    name: str,
    pictures: Mapping[str, Panel],
    levels: tuple[float, float],
    *,
    side: int = 0,
) -> None:
    """Show a panel with its name below, or beside it on the right."""
    x, y = centre
    place = (x + size[0] / 2 + 0.08, y) if side else (x, y + size[1] / 2 + 0.14)
    if name in pictures:
        show_panel(board, (x - size[0] / 2, y - size[1] / 2, *size), pictures[name], levels)
    else:
        place = (x, y)
    board.text(
        *place,
        name,
        fontsize=7,
        color=FAINT,
        ha="left" if place[1] == y and side else "center",
        va="center",
    )


def _arrow(
    canvas: Any, start: tuple[float, float], end: tuple[float, float], *, both: bool = False
) -> None:
    """Draw an arrow; one with two heads is dashed: a loss between two modules."""
    canvas.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="<|-|>" if both else "-|>",
            mutation_scale=9,
            linewidth=1.0,
            shrinkA=1,
            shrinkB=1,
            color=FAINT if both else INK,
            linestyle="--" if both else "-",
            zorder=2,
        )
    )


# The paper's pictures of conversions (Fig. 1, 3, 4, 6 to 9): blocks of sources and references


FACE_SIZE = (1.0, 1.0)  # inches
VOICE_SIZE = (1.55, 0.85)
GAP, MARGIN, BETWEEN = 0.07, 0.2, 0.35
TITLE, CAPTION, LABEL, FOOT = 0.42, 0.3, 0.2, 0.4  # inches of height
SPEAKER = 0.42  # a side of the face of a reference voice's speaker

Size = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Part of a figure: a caption such as "(a) A face after a voice" and its conversions."""

    caption: str
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Sizes of a block, inches."""

    head: Size  # of a reference
    side: Size  # of a source
    cell: Size
    speakers: bool  # faces of reference voices' speakers stand above
    caption: float  # its height

    @property
    def step(self) -> float:
        return max(self.head[0], self.cell[0]) + GAP

    @property
    def top(self) -> float:
        if not self.head[1]:
            return self.caption + LABEL
        above = SPEAKER + GAP if self.speakers else 0.0
        return self.caption + LABEL + above + self.head[1] + 3 * GAP


def _plan(part: Block) -> _Plan:
    grid = part.grid
    output = FACE_SIZE if grid.task.output == "face" else VOICE_SIZE
    head = {"face": FACE_SIZE, "voice": VOICE_SIZE, "latent": (output[0], 0.0)}[grid.task.guidance]
    shown = grid.task.guidance == "voice" and any(r.speaker_face is not None for r in grid.rows)
    if grid.task.guidance == "voice" and grid.task.output == "face":
        head = (FACE_SIZE[0] * 1.25, VOICE_SIZE[1] * 0.85)
    caption = CAPTION if part.caption else 0.0
    return _Plan(head=head, side=output, cell=output, speakers=shown, caption=caption)


def _size(part: Block) -> Size:
    grid, plan = part.grid, _plan(part)
    wide = plan.side[0] + 3 * GAP + len(grid.rows) * plan.step - GAP
    return wide, plan.top + len(grid.columns) * (plan.cell[1] + LABEL)


@styled
def sheet_of_blocks(
    parts: Sequence[Block], *, title: str, note: str, across: bool = False
) -> Drawing:
    """Draw blocks of conversions, one below the other or side by side.

    Args:
        parts: at least one.
        title: above all.
        note: at the foot.
        across: side by side.
    """
    sizes = [_size(part) for part in parts]
    wide, high = [s[0] for s in sizes], [s[1] for s in sizes]
    spaces = BETWEEN * (len(parts) - 1)
    inner = (sum(wide) + spaces, max(high)) if across else (max(wide), sum(high) + spaces)
    board = Board(max(2 * MARGIN + inner[0], 5.6), TITLE + inner[1] + FOOT)
    board.text(MARGIN, 0.27, title, fontsize=11, weight="bold", color=INK)
    panels = [panel for part in parts for panel in _panels(part.grid)]
    speakers = any(_plan(part).speakers for part in parts)
    _foot(board, note, panels, speakers=speakers)
    levels = levels_of(panels)
    x, y = MARGIN, TITLE
    for part, size in zip(parts, sizes, strict=True):
        _draw(board, x, y, part, levels)
        x, y = (x + size[0] + BETWEEN, y) if across else (x, y + size[1] + BETWEEN)
    return Drawing(board.figure)


def _foot(board: Board, note: str, panels: Sequence[Panel], *, speakers: bool) -> None:
    """Say at the foot how to read the fields, and where they come from."""
    low, high = drawing.PITCH_RANGE_HZ
    lines = []
    if any(panel.f0 is not None for panel in panels):
        lines.append(f"Line on a voice: pitch ({low:.0f} to {high:.0f} Hz, log) and its median.")
    if speakers:
        lines.append("The model hears a voice and does not see its speaker.")
    board.text(MARGIN, board.height - 0.24, " ".join(lines), fontsize=6.5, color=FAINT)
    board.text(MARGIN, board.height - 0.1, note, fontsize=6.5, color=FAINT)


def _panels(grid: Grid) -> list[Panel]:
    return [*grid.columns, *grid.rows, *(cell for cells in grid.cells for cell in cells)]


def _draw(board: Board, x: float, y: float, part: Block, levels: tuple[float, float]) -> None:
    grid, plan = part.grid, _plan(part)
    board.text(x, y + 0.16, part.caption, fontsize=9, weight="bold", color=INK)
    left, top = x + plan.side[0] + 3 * GAP, y + plan.top
    board.text(
        x + plan.side[0] / 2, top - 1.2 * GAP, "source", fontsize=7, color=FAINT, ha="center"
    )
    for number, reference in enumerate(grid.rows):
        middle = left + number * plan.step + (plan.step - GAP) / 2
        if plan.head[1]:
            _sheet_reference(board, middle, y + plan.caption, reference, plan, levels)
        else:
            board.text(
                middle, top - 1.2 * GAP, reference.label, fontsize=7, ha="center", color=FAINT
            )
    for row, source in enumerate(grid.columns):
        high = top + row * (plan.cell[1] + LABEL)
        show_panel(board, (x, high, *plan.side), source, levels)
        board.text(
            x + plan.side[0] / 2,
            high + plan.side[1] + 0.13,
            source.label,
            fontsize=7,
            ha="center",
            color=FAINT,
        )
        for number, cells in enumerate(grid.cells):
            place = left + number * plan.step + (plan.step - GAP - plan.cell[0]) / 2
            target = drawing.median_hz(grid.rows[number].f0)
            show_panel(board, (place, high, *plan.cell), cells[row], levels, target)


def _sheet_reference(
    board: Board, middle: float, y: float, panel: Panel, plan: _Plan, levels: tuple[float, float]
) -> None:
    board.text(middle, y + 0.12, panel.label, fontsize=7, ha="center", color=FAINT)
    y += LABEL
    if plan.speakers:
        if panel.speaker_face is not None:
            place = (middle - SPEAKER / 2, y, SPEAKER, SPEAKER)
            drawing.show_face(board.axes(*place), panel.speaker_face)
        y += SPEAKER + GAP
    show_panel(board, (middle - plan.head[0] / 2, y, *plan.head), panel, levels)


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.fill(part, 14) for part in name.split(", "))


@styled
def comparison(
    sources: Sequence[Panel],
    references: Sequence[Panel],
    systems: Mapping[str, Sequence[Panel]],
    *,
    title: str,
    note: str,
) -> Drawing:
    """Draw faces led by voices, a column a pair and a row a system (paper: Fig. 3).

    Args:
        sources: faces.
        references: voices, one each.
        systems: name to converted faces, one each.
        title: above all.
        note: at the foot.
    """
    count = len(sources)
    left, step, voice = 1.05, FACE_SIZE[0] + 2 * GAP, VOICE_SIZE[1] * 0.75
    shown = any(panel.speaker_face is not None for panel in references)
    heights = {
        "source": FACE_SIZE[1],
        "reference voice": voice,
        **({"its speaker": 0.55} if shown else {}),
        **dict.fromkeys(systems, FACE_SIZE[1]),
    }
    height = TITLE + sum(heights.values()) + LABEL * 2 + len(heights) * 2 * GAP + FOOT
    board = Board(MARGIN + left + count * step - 2 * GAP + MARGIN, height)
    board.text(MARGIN, 0.27, title, fontsize=11, weight="bold", color=INK)
    _foot(board, note, references, speakers=shown)
    levels = levels_of(references)
    y = TITLE + LABEL
    for name, high in heights.items():
        strong = {"weight": "bold", "color": INK} if name in systems else {"color": FAINT}
        board.text(MARGIN, y + high / 2, _wrapped(name), fontsize=8, va="center", **strong)
        for number in range(count):
            x = MARGIN + left + number * step
            source, reference = sources[number], references[number]
            if name == "source":
                board.text(
                    x + FACE_SIZE[0] / 2,
                    y - 0.06,
                    source.label,
                    fontsize=7,
                    ha="center",
                    color=FAINT,
                )
                show_panel(board, (x, y, *FACE_SIZE), source, levels)
            elif name in systems:
                show_panel(board, (x, y, *FACE_SIZE), systems[name][number], levels)
            elif name == "its speaker":
                if reference.speaker_face is not None:
                    place = (x + (FACE_SIZE[0] - high) / 2, y, high, high)
                    drawing.show_face(board.axes(*place), reference.speaker_face)
            else:
                show_panel(board, (x, y, FACE_SIZE[0], high), reference, levels)
                board.text(
                    x + FACE_SIZE[0] / 2,
                    y + high + 0.13,
                    reference.label,
                    fontsize=7,
                    ha="center",
                    color=FAINT,
                )
        y += high + 2 * GAP + (LABEL if name.startswith("reference") else 0.0)
    return Drawing(board.figure)


# The style space as a map (paper: Fig. 10) with the numbers beside it


MARKERS = ("o", "^")  # faces, voices
FOLDS = 20  # colours of the map before they repeat
SIDE, RIGHT = 4.9, 2.6  # inches of the map, of the numbers
SHOWN = (
    "silhouette by speaker",
    "silhouette by modality",
    "modality gap",
    "cosine, face and voice of one person",
    "cosine, of two people",
    "cosine, of two people of one sex",
    "R@1, gallery of single samples",
    "R@1 within one sex, gallery of single samples",
)


@styled
def style_map(
    space: StyleSpace, plane: Array, rows: Sequence[Mapping[str, Any]], *, title: str, note: str
) -> Drawing:
    """Draw the style of every face and voice, a colour a speaker.

    Args:
        space: the styles.
        plane: (n, 2) of :func:`xfavot.evaluation.style_space.embed`.
        rows: of :func:`xfavot.evaluation.style_space.measures`.
        title: above.
        note: at the foot.

    Raises:
        DataError: not one point a style.
    """
    if len(plane) != len(space.styles):
        raise DataError(
            f"style map: got {len(plane)} points for {len(space.styles)} styles; expected as many; "
            "embed the same space"
        )
    width, height = SIDE + RIGHT, SIDE + 0.75
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.2 / width, 0.3 / height, SIDE / width, SIDE / height))
    colours = mpl.colormaps["tab20"](np.arange(len(space.speakers)) % FOLDS)
    for code, name in enumerate(space.speakers):
        for kind, marker in enumerate(MARKERS):
            chosen = (space.speaker == code) & (space.kind == kind)
            axes.scatter(
                plane[chosen, 0],
                plane[chosen, 1],
                s=26 if kind else 20,
                marker=marker,
                color=colours[code],
                edgecolors="white" if kind == 0 else INK,
                linewidths=0.4,
                zorder=2 + kind,
            )
        own = plane[space.speaker == code]
        axes.annotate(
            f"{name.rsplit('/', 1)[-1]} ({space.genders[code]})",
            (float(np.median(own[:, 0])), float(own[:, 1].max())),
            (0, 4.5),
            ha="center",
            textcoords="offset points",
            fontsize=6.8,
            color=INK,
            zorder=9,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.07)
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE)
    handles = [
        Line2D([], [], marker=marker, linestyle="", color=FAINT, markersize=5, label=f"{kind}s")
        for kind, marker in zip(KINDS, MARKERS, strict=True)
    ]
    place = ((SIDE + 0.35) / width, (SIDE + 0.38) / height)
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=place,
        title="A colour a speaker",
        title_fontsize=7.5,
        alignment="left",
        borderpad=0.0,
    )
    figure.text(0.2 / width, 1 - 0.28 / height, title, fontsize=11, weight="bold", color=INK)
    figure.text(0.2 / width, 0.1 / height, note, fontsize=6.5, color=FAINT)
    _numbers(figure, rows, (width, height))
    return Drawing(figure)


def _numbers(figure: Figure, rows: Sequence[Mapping[str, Any]], size: tuple[float, float]) -> None:
    """Write the measures on the right, a line each."""
    width, height = size
    left, right, y = SIDE + 0.37, SIDE + RIGHT - 0.2, SIDE - 0.55
    for row in (row for row in rows if row["metric"] in SHOWN):
        metric = (
            row["metric"]
            .replace(", gallery of single samples", "")
            .replace("cosine, face and voice of one", "cosine, one")
        )
        name = metric if row["task"] == "styles" else f"{metric}, {row['task']}"
        figure.text(left / width, y / height, name, fontsize=7, color=INK)
        value = round(row["value"], 2) + 0.0  # no -0.00
        figure.text(
            right / width,
            y / height,
            f"{value:.2f}",
            fontsize=7.5,
            weight="bold",
            ha="right",
            color=INK,
        )
        y -= 0.21
    lines = (
        "Silhouettes are from -1 to 1: by speaker",
        "1 is best, by modality 0 (mixed). The gap",
        "is the distance of the modalities' means,",
        "from 0 to 2. R@1 is of one sample a person.",
    )
    for line in lines:
        figure.text(left / width, (y - 0.1) / height, line, fontsize=6.3, color=FAINT)
        y -= 0.14


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
    facts = module_facts(model)
    pictures: dict[str, Panel] = {}
    if not opened.lacks():
        face = _led(opened, Task.A2I, sources=1, references=1, seed=0)
        voice = _led(opened, Task.I2A, sources=1, references=1, seed=0)
        for kind, grid, other in (("face", face, voice), ("voice", voice, face)):
            pictures |= {
                f"source {kind}": grid.columns[0],
                f"converted {kind}": grid.cells[0][0],
                f"reference {kind}": other.rows[0],
            }
    drawing = overview(
        facts,
        pictures,
        style_dim=model.style_dim,
        note=f"Drawn from the modules of preset {opened.converter.config.preset}; {opened.note}. "
        "The networks of content and F0 are frozen.",
    )
    rows = [
        {
            "module": f.name,
            "title": f.title,
            "takes": " ".join(f.takes),
            "gives": f.gives,
            "blocks": f.blocks,
            "heads": f.heads,
            "parameters": f.parameters,
        }
        for f in facts
    ]
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
            convert_grid(one.converter, Task.A2I, [source], [reference])
            for source, reference in zip(sources, references, strict=False)
        ]
        heads, voices = [g.columns[0] for g in pairs], [g.rows[0] for g in pairs]
        systems[one.name] = [g.cells[0][0] for g in pairs]
        rows += [row for g in pairs for row in rows_of("fig3", g, system=one.name)]
    drawing = comparison(heads, voices, systems, title="Faces after voices", note=opened.note)
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
        judges = cpr.judges_of(opened.stores, {one.name: one.converter for one in opened.systems})
        rows = corrected(cpr.automatic_rows(drawn, judges, dataset=cfg.dataset, seed=cfg.seed))
    if not rows:
        return Missing("Fig. 5", opened.lacks() or "nobody to judge; give a study with -p study")
    drawing = drawing_viz.cpr(rows, title="Correspondence")
    return publish(opened, "fig5", drawing, rows, missing=missing, provenance=origin)


def _triplets(opened: Opened) -> Iterator[cpr.Triplet]:
    how: dict[str, Any] = {"form": "faces", "count": opened.cfg.triplets, "seed": opened.cfg.seed}
    for task in cpr.TASKS:
        yield from cpr.ground_truth(opened.stores, task=task, **how)
        for one in opened.systems:
            if all(one.converter.has(kind) for kind in ("face", "voice")):
                yield from cpr.converted(
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
        count = 3 if kind == "face" else 2
        codes = [(opened.cfg.seed + code, gender) for gender in GENDERS for code in range(count)]
        grids.append(convert_grid(opened.converter, task, sources, codes))
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
        (
            s
            for s in (opened.split, "val", "unseen", "train")
            if has_any(opened.avatars, modality="face", split=s)
        ),
        "",
    )
    if not split:
        return Missing("Fig. 7", NO_AVATARS)
    if not opened.converter.has("face"):
        return Missing("Fig. 7", opened.lacks("face"))
    seed = opened.cfg.seed + 12
    avatars = draw(opened.avatars, "face", split=split, count=3, seed=seed)
    corpora = ", ".join(store.corpus for store in opened.avatars)
    users = draw(opened.stores, "voice", split=opened.split, count=3, seed=seed + 1, avoid=avatars)
    grids = [
        convert_grid(opened.converter, Task.A2I, avatars[:2], users),
        convert_grid(opened.converter, Task.I2A, users[:2], avatars),
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
        space = matching.style_space(
            opened.converter, opened.stores, split=opened.split, seed=cfg.seed
        )
        plane = matching.embed(space, seed=cfg.seed)
    except DataError as error:  # faces and voices of nobody known, or too few: said in the notebook
        return Missing("Fig. 10", str(error))
    name = opened.systems[0].name
    rows = matching.measures(space, system=name, dataset=cfg.dataset, seed=cfg.seed)
    drawing = style_map(
        space, plane, rows, title="Style vectors of faces and voices (t-SNE)", note=opened.note
    )
    places = [
        {
            "metric": "place",
            "task": matching.KINDS[space.kind[i]],
            "system": name,
            "x": x,
            "y": y,
            "speaker": space.speakers[space.speaker[i]],
        }
        for i, (x, y) in enumerate(plane)
    ]
    return publish(opened, "fig10", drawing, [*rows, *places])


def _led(opened: Opened, task: Task, *, sources: int, references: int, seed: int) -> Grid:
    """Convert held-out samples after those of other people, as far as there are others."""
    stores, split, seed = opened.stores, opened.split, opened.cfg.seed + seed
    first = draw(stores, task.output, split=split, count=sources, seed=seed)
    second = draw(stores, task.guidance, split=split, count=references, seed=seed + 1, avoid=first)
    return convert_grid(opened.converter, task, first, second)


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
    drawing = sheet_of_blocks(blocks, title=title, note=note + opened.note, across=across)
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
