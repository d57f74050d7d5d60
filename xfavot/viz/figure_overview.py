"""The overview of the method (paper: Fig. 2), drawn from the modules themselves.

What feeds what is read from the arguments of each module's ``forward`` and from what comes out of
it on the "meta" device, where nothing is computed; sizes are counted. Only the page's layout is
chosen here: producers of styles, generators, critics, faces above and voices below.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.convert import Panel
from xfavot.models.xfavot import F0_FEATURE_FACTOR, XFaVoT, shape_trace
from xfavot.viz.drawing import FAINT, INK, PALETTE, Board, Drawing, styled
from xfavot.viz.grids import levels_of, show_panel

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
        "s": torch.empty(1, cfg.style_dim), "z": torch.empty(1, cfg.latent_dim),
        "gender": torch.zeros(1, dtype=torch.int64), "domain": torch.zeros(1, dtype=torch.int64),
        "f0_features": torch.empty(
            1, F0_FEATURE_FACTOR * cfg.f0_width, cfg.mel_bins // F0_BINS, frames
        ),
    }  # fmt: skip
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
        name=name, title=_words(type(module).__name__),
        sees=sees, takes=takes, gives=gives,
        role={"style": "style", "logits": "critic"}.get(gives, "generator"),
        blocks=sum(row.layer == "ResBlk" for row in trace),
        heads=int(getattr(module, "domains", heads)),
        parameters=sum(p.numel() for p in module.parameters()),
    )  # fmt: skip


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
    board.text(0.2, 0.27, "Overview: one style space between two modalities", fontsize=11,
               weight="bold", color=INK)  # fmt: skip
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
    canvas.add_patch(FancyBboxPatch(
        place, *BOX, boxstyle="round,pad=0,rounding_size=0.08", facecolor=_pale(colour),
        edgecolor=colour, zorder=3,
    ))  # fmt: skip
    symbol, _, index = fact.name.partition("_")
    name = f"${symbol}_{{{index}}}$" if index else f"${symbol}$"
    canvas.text(x, y - 0.2, name, fontsize=12, ha="center", va="center", zorder=4)
    canvas.text(x, y + 0.04, fact.title, fontsize=7, ha="center", va="center", zorder=4)
    heads = f"{fact.heads} heads, " if fact.heads else f"{fact.blocks} blocks, "
    canvas.text(x, y + 0.24, f"{heads}{_count(fact.parameters)}", fontsize=6.5, ha="center",
                va="center", color=FAINT, zorder=4)  # fmt: skip


def _pale(colour: str) -> tuple[float, ...]:
    return tuple(1 - 0.12 * (1 - part) for part in to_rgb(colour))


def _count(parameters: int) -> str:
    million = parameters / 1e6
    return f"{million:.1f} M" if million >= 1 else f"{parameters / 1e3:.0f} k"


def _space(canvas: Any, style_dim: int) -> None:
    top, bottom = MIDDLE["face"] - 0.55, MIDDLE["voice"] + 0.55
    place = (SPACE[0] - SPACE[1] / 2, top)
    canvas.add_patch(FancyBboxPatch(place, SPACE[1], bottom - top, zorder=3, edgecolor=INK,
                                    boxstyle="round,pad=0,rounding_size=0.2",
                                    facecolor="#f3f3f3"))  # fmt: skip
    text = f"style $s$, {style_dim} numbers:\nof a face, a voice or a code"
    canvas.text(SPACE[0], (top + bottom) / 2, text, rotation=90, fontsize=7.5, ha="center",
                va="center", zorder=4, linespacing=1.5)  # fmt: skip
    x, half = COLUMN["style"] + BOX[0] / 2 - 0.2, BOX[1] / 2
    ends = (x, MIDDLE["face"] + half), (x, MIDDLE["voice"] - half)
    _arrow(canvas, *ends, both=True)
    canvas.text(x + 0.06, MIDDLE["face"] + 0.63, "$L_{xm}$", fontsize=8, color=FAINT,
                va="center")  # fmt: skip


def _flows(
    board: Board, canvas: Any, fact: ModuleFact, y: float, row: float,
    pictures: Mapping[str, Panel], levels: tuple[float, float],
) -> None:  # fmt: skip
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
            canvas.text(left, centre, "F0 network\n(frozen)", fontsize=7, ha="center", va="center",
                        color=FAINT, bbox={"boxstyle": "round,pad=0.4", "facecolor": "white",
                                           "edgecolor": FAINT, "linestyle": "--"})  # fmt: skip
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
    board: Board, centre: tuple[float, float], size: tuple[float, float], name: str,
    pictures: Mapping[str, Panel], levels: tuple[float, float], *, side: int = 0,
) -> None:  # fmt: skip
    """Show a panel with its name below, or beside it on the right."""
    x, y = centre
    place = (x + size[0] / 2 + 0.08, y) if side else (x, y + size[1] / 2 + 0.14)
    if name in pictures:
        show_panel(board, (x - size[0] / 2, y - size[1] / 2, *size), pictures[name], levels)
    else:
        place = (x, y)
    board.text(*place, name, fontsize=7, color=FAINT, ha="left" if place[1] == y and side else
               "center", va="center")  # fmt: skip


def _arrow(
    canvas: Any, start: tuple[float, float], end: tuple[float, float], *, both: bool = False
) -> None:
    """Draw an arrow; one with two heads is dashed: a loss between two modules."""
    canvas.add_patch(FancyArrowPatch(
        start, end, arrowstyle="<|-|>" if both else "-|>", mutation_scale=9, linewidth=1.0,
        shrinkA=1, shrinkB=1, color=FAINT if both else INK, linestyle="--" if both else "-",
        zorder=2,
    ))  # fmt: skip
