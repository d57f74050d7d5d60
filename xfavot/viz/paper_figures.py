"""What the paper's Fig. 1 to 10 are made from, how they are kept, and the overview (Fig. 2).

The figures themselves are drawn in `notebooks/figures.ipynb`. Samples are held out where the corpus
has a held-out split; which one stands in every figure's foot. What a figure shows is the paper's;
the captions of Fig. 2 to 10 are INFERRED from the text.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray
from torch import nn

from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL
from xfavot.config import ModelConfig
from xfavot.convert import Converter, Grid, Panel, open_stores
from xfavot.convert.inputs import resize_face
from xfavot.data.sample import HELD_OUT_FIRST, Example, examples, first_split, has_any
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.evaluation import matching
from xfavot.models.xfavot import XFaVoT
from xfavot.parameters import Figures
from xfavot.report.artifact import Provenance, write_figure
from xfavot.report.study import (
    System,
    answered,
    ask,
    open_study,
    origin_of,
    read_answers,
    result_rows,
    systems_of,
)
from xfavot.viz import progress
from xfavot.viz.drawing import (
    FAINT,
    INK,
    PALETTE,
    Drawing,
    levels_of,
    median_hz,
    show_panel,
    styled,
)
from xfavot.viz.widgets import Html, players, show

SHOWN_SECONDS = 2.4
PLAYERS = 5  # a figure: 2.4 s at 24 kHz are 0.15 MB in the notebook
FEWEST_STYLES = 6  # that a map is made of
AVATARS = "avatars"
CONVERTED = " converted after "
NO_SGSIM = (
    "SGSIM needs its own networks (StyleGAN2 on FFHQ, CLIP, its audio encoder), which this project "
    "does not have; compare with other checkpoints with -p others, or score its pictures with "
    "notebooks/evaluate.ipynb -p manifest"
)
NO_AVATARS = (
    "there is no prepared store of drawn faces; put pictures (such as faces stylised by JoJoGAN) "
    "into a folder and run notebooks/prepare_data.ipynb -p dataset avatars -p source <folder>"
)
NO_STUDY = (
    "no study was given; bars are the automatic CPR; make one with notebooks/cpr_study.ipynb and "
    "name it with -p study and -p answers"
)


def missing(item: str, reason: str) -> None:
    """Name a figure, or a part of one, that cannot be made, and why."""
    text = f"{item} is missing: {reason}"
    frame = "border:1px solid #D55E00;border-left-width:5px;padding:0.6em 0.9em"
    show(Html(f"<p style='{frame}'>{escape(text)}</p>", log=text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that the figures are made from.

    Args:
        cfg: the task.
        began: when the work began.
        systems: the models, the first one is that of the figures.
        stores: prepared stores.
        avatars: stores of drawn faces.
        split: what the samples are from.
    """

    cfg: Figures
    began: datetime
    systems: tuple[System, ...]
    stores: tuple[Store, ...]
    avatars: tuple[Store, ...]
    split: str

    @classmethod
    def load(cls, cfg: Figures, began: datetime) -> Material:
        """Load the checkpoints and open the stores.

        Raises:
            CheckpointError: there is no checkpoint, or it cannot be used.
            DataError: there is no prepared store of the dataset.
        """
        systems = systems_of(cfg.asked)
        stores = tuple(open_stores(cfg.data_root, cfg.corpora))
        avatars = tuple(store for store in stores if store.corpus in ("mini", AVATARS))
        apart = Path(cfg.data_root, AVATARS)
        if not avatars and apart.is_dir():
            avatars = (Store.open(apart, corpus=AVATARS),)
        split = first_split(stores, [k for k in ("face", "voice") if systems[0].converter.has(k)])
        shared: Any = {"cfg": cfg, "began": began, "systems": systems, "split": split}
        return cls(**shared, stores=stores, avatars=avatars)

    @property
    def converter(self) -> Converter:
        """The model of the figures."""
        return self.systems[0].converter

    @property
    def note(self) -> str:
        """For the foot of a figure."""
        name = self.converter.config.name or self.converter.name
        return f"{name} at step {self.converter.step}, split {self.split}"

    def has(self, item: str, *kinds: str) -> bool:
        """Whether there are a model and samples of these kinds; if not, the reason is shown.

        Args:
            item: what is to be made, such as "Fig. 1".
            kinds: "face", "voice", "avatar" or "latent".
        """
        where = f"split {self.split} of {self.cfg.dataset}"
        for kind in kinds:
            modality = "face" if kind == "avatar" else kind
            reason = f"{where} has no {kind} of known gender; prepare a corpus that has"
            reason = NO_AVATARS if kind == "avatar" else reason
            if kind == "latent":
                reason = f"{self.converter.name} has learnt no latent codes yet; train it on"
                if self.converter.trained_genders(kind):
                    continue
            elif not self.converter.has(modality):
                reason = f"{self.converter.name} was not trained on {modality}s; give another model"
            elif self._split_of(kind):
                continue
            missing(item, reason)
            return False
        return True

    def draw(
        self, kind: str, *, count: int, seed: int, avoid: Iterable[Example] = ()
    ) -> tuple[Example, ...]:
        """Draw samples that have a "face", a "voice" or an "avatar", with voices cut short.

        Args:
            kind, count: what, and how many at most.
            seed: of the draw, counted from the task's.
            avoid: samples whose people are taken only when there is nobody else.

        Raises:
            DataError: there is none; see :meth:`has`.
        """
        drawn = examples(
            self.avatars if kind == "avatar" else self.stores,
            modality="face" if kind == "avatar" else kind,
            split=self._split_of(kind) or self.split,
            count=count,
            seed=self.cfg.seed + seed,
            avoid={example.speaker for example in avoid},
        )
        longest = int(SHOWN_SECONDS * MEL.sample_rate)
        return tuple(
            e if e.waveform is None else dataclasses.replace(e, waveform=e.waveform[:longest])
            for e in drawn
        )

    def _split_of(self, kind: str) -> str:
        """Where samples of a kind are drawn from, "" if there are none."""
        drawn = kind == "avatar"
        stores, modality = (self.avatars, "face") if drawn else (self.stores, kind)
        splits = (self.split, *HELD_OUT_FIRST) if drawn else (self.split,)
        return next((s for s in splits if has_any(stores, modality=modality, split=s)), "")

    def cross_modal(self, item: str) -> Iterator[System]:
        """The models that convert between faces and voices; the others are named as missing."""
        for one in self.systems:
            if one.cross_modal:
                yield one
            else:
                missing(f"{item}, {one.name}", "it has no faces or no voices")

    def correspondence(self) -> tuple[list[dict[str, Any]], Provenance | None]:
        """The CPR, of people if there is a study, else automatic.

        Returns:
            Rows, none if there is nothing to ask; and the origin of a study's questions.
        """
        if self.cfg.study:
            study = open_study(self.cfg.study)
            answers = read_answers(study, self.cfg.answers)
            if not answers.judgements:
                missing("Fig. 5, people's answers", "none given; bars are the automatic CPR")
            return result_rows(study, answers), answered(study.key["provenance"], self.began)
        missing("Fig. 5, people's answers", NO_STUDY)
        _, rows = ask(self.cfg.asked, self.stores, self.systems, on_log=progress.line)
        if not rows:
            missing("Fig. 5", "nothing to ask; give a study with -p study")
        return rows, None

    def style_space(self) -> matching.StyleSpace | None:
        """Styles of held-out faces and voices; ``None`` if there are too few, which is shown."""
        how: dict[str, Any] = {"split": self.split, "seed": self.cfg.seed}
        try:
            space = matching.style_space(self.converter, self.stores, **how)
            if len(space.styles) >= FEWEST_STYLES:
                return space
            reason = f"{len(space.styles)} styles; a map needs {FEWEST_STYLES} or more"
        except DataError as error:  # faces and voices of nobody known
            reason = str(error)
        missing("Fig. 10", reason)
        return None

    def publish(
        self,
        item: str,
        figure: Drawing | Figure,
        *,
        grids: Mapping[str, Sequence[Grid]] | Sequence[Grid] = (),
        rows: Sequence[Mapping[str, Any]] = (),
        origin: Provenance | None = None,
    ) -> None:
        """Write a figure and its voices, and show the picture and players of the first few.

        Args:
            item: its name, such as "fig4".
            figure: the figure.
            grids: the conversions drawn in it, of the first model or by the names of models.
            rows: the data drawn in it, in addition to those of the conversions.
            origin: where it comes from, if not from this material.

        Raises:
            DataError: it cannot be written.
        """
        out = Path(self.cfg.out)
        drawing = figure if isinstance(figure, Drawing) else Drawing(figure)
        made = grids if isinstance(grids, Mapping) else {self.systems[0].name: grids}
        data = [row for name, some in made.items() for g in some for row in rows_of(item, g, name)]
        if origin is None:
            how: dict[str, Any] = {"began": self.began, "split": self.split}
            origin = origin_of(self.cfg.asked, self.systems, self.stores, notebook="figures", **how)
        folder = write_figure(
            item, drawing, data=[*data, *rows], provenance=origin, root=out / "figures"
        )
        drawing.path = folder / f"{item}.png"  # what is shown is read back from disk
        voices = voices_of(next(iter(made.values()), ()))
        for old in (out / "voices" / item).glob("*.wav"):
            old.unlink()
        for label, wave in voices.items():
            name = re.sub(r"\W+", "-", label).strip("-")
            synthetic = {"synthetic": "yes", "checkpoint": self.note} if CONVERTED in label else {}
            path = out / "voices" / item / f"{name}.wav"
            save_waveform(path, wave, metadata={"sample": label} | synthetic)
        show(drawing)
        if voices:
            show(players(dict(list(voices.items())[:PLAYERS])))


def rows_of(item: str, grid: Grid, system: str) -> list[dict[str, Any]]:
    """What a grid shows, a row a conversion: who, after whom, and what can be said in numbers.

    Args:
        item: the figure, such as "fig1".
        grid: the conversions.
        system: the model.

    Returns:
        Rows with the median pitch of output, source and reference in Hz (0 where unvoiced), or the
        mean absolute change of a face in grey levels of 255.
    """
    rows = []
    for reference, cells in zip(grid.rows, grid.cells, strict=True):
        for source, cell in zip(grid.columns, cells, strict=True):
            change = None
            if cell.face is not None and source.face is not None:
                seen = resize_face(source.face, len(cell.face)).astype(np.int16)
                change = float(np.abs(cell.face - seen).mean())
            rows.append(
                {
                    "item": item,
                    "system": system,
                    "task": grid.task.value,
                    "source": source.label,
                    "reference": reference.label,
                    "change_levels": change,
                    "f0_hz": median_hz(cell.f0) if change is None else None,
                    "source_f0_hz": median_hz(source.f0) if change is None else None,
                    "reference_f0_hz": None if reference.f0 is None else median_hz(reference.f0),
                }
            )
    return rows


def voices_of(grids: Sequence[Grid]) -> dict[str, NDArray[np.float32]]:
    """Voices of grids by label: references, then each source with what was made of it."""
    labelled = [(f"reference {panel.label}", panel) for grid in grids for panel in grid.rows]
    for grid in grids:
        for number, source in enumerate(grid.columns):
            labelled.append((f"source {source.label}", source))
            labelled += [
                (f"{source.label}{CONVERTED}{reference.label}", cells[number])
                for reference, cells in zip(grid.rows, grid.cells, strict=True)
            ]
    heard: dict[str, NDArray[np.float32]] = {}
    for label, panel in labelled:
        if panel.waveform is not None:  # a second one of the same label gets a number
            again = sum(other.partition(", ")[0] == label for other in heard)
            heard[f"{label}, {again + 1}" if again else label] = panel.waveform
    return heard


# The overview of the method (paper: Fig. 2); sizes are read off the modules


SIZE = (10.4, 6.55)  # inches
BOX, SPACE = (1.5, 0.8), (0.52, 3.6)
THUMB = {"face": (0.95, 0.95), "voice": (1.25, 0.72)}
MODULES = {  # centre in inches from the left and the top, colour
    "E_I": (2.55, 2.2, PALETTE[0]),
    "M": (2.55, 3.45, PALETTE[0]),
    "E_A": (2.55, 4.7, PALETTE[0]),
    "G_I": (5.85, 2.2, PALETTE[1]),
    "G_A": (5.85, 4.7, PALETTE[1]),
    "D_I": (9.4, 2.2, PALETTE[2]),
    "D_A": (9.4, 4.21, PALETTE[2]),
    "C_A": (9.4, 5.19, PALETTE[2]),
}
PICTURES = {  # centre, and where the name stands from there
    "reference face": (0.825, 2.2, 0.0, 0.615),
    "reference voice": (0.825, 4.7, 0.0, 0.5),
    "source face": (5.85, 1.105, 0.555, 0.0),
    "source voice": (5.85, 5.68, 0.705, 0.0),
    "converted face": (7.575, 2.2, 0.0, 0.615),
    "converted voice": (7.575, 4.7, 0.0, 0.5),
}
ARROWS = (
    *((1.3, 2.2, 1.8, 2.2), (1.375, 3.45, 1.8, 3.45), (1.45, 4.7, 1.8, 4.7)),  # into E, M
    *((3.3, 2.2, 3.94, 2.2), (3.3, 3.45, 3.94, 3.45), (3.3, 4.7, 3.94, 4.7)),  # to the styles
    *((4.46, 2.2, 5.1, 2.2), (4.46, 4.7, 5.1, 4.7)),  # from there into G
    *((5.85, 1.58, 5.85, 1.8), (5.85, 5.32, 5.85, 5.1)),  # sources into G
    *((5.225, 5.68, 4.69, 5.68), (4.35, 5.49, 5.1, 4.95)),  # through the F0 network
    *((6.6, 2.2, 7.1, 2.2), (6.6, 4.7, 6.95, 4.7)),  # out of G
    *((8.05, 2.2, 8.65, 2.2), (8.2, 4.7, 8.65, 4.21), (8.2, 4.7, 8.65, 5.19)),  # into D, C
)


def module_facts(cfg: ModelConfig) -> list[dict[str, Any]]:
    """Read off the modules of a configuration what they take, give and hold.

    Args:
        cfg: the sizes.

    Returns:
        A row a module: the paper's symbol, its class in words, the arguments of its forward, what
        comes out ("face", "voice", "style" or "logits"), residual blocks, outputs to choose from by
        domain (0 for none) and trained numbers.
    """
    with torch.device("meta"):
        nets = XFaVoT(cfg)
    counts, facts = dict(nets.parameter_table()), []
    for name, module in nets.named_children():
        generated = "face" if name == "G_I" else "voice"
        last = [m for place, m in module.named_modules() if place.endswith("heads")]
        heads = getattr(module, "domains", 0)
        if last and isinstance(last[0], nn.Conv2d):
            heads = last[0].out_channels
        elif last and isinstance(last[0], nn.Linear):
            heads = last[0].out_features // cfg.style_dim
        letters = (f" {one.lower()}" if one.isupper() else one for one in type(module).__name__)
        facts.append(
            {
                "module": name,
                "title": "".join(letters).strip(),
                "takes": " ".join(inspect.signature(module.forward).parameters),
                "gives": {"G": generated, "E": "style", "M": "style"}.get(name[0], "logits"),
                "blocks": sum(type(m).__name__.endswith("ResBlk") for m in module.modules()),
                "heads": int(heads),
                "parameters": counts[name],
            }
        )
    return facts


@styled
def overview(
    facts: Sequence[Mapping[str, Any]], pictures: Mapping[str, Panel], *, style_dim: int, note: str
) -> Drawing:
    """Draw the modules and what flows between them.

    Args:
        facts: of :func:`module_facts`.
        pictures: panels "reference face", "source face", "converted face" and the same of voices,
            shown where the names would stand alone.
        style_dim: length of a style vector.
        note: at the foot.
    """
    figure = Figure(figsize=SIZE)
    canvas = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    canvas.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
    canvas.axis("off")
    title = "Overview: one style space between two modalities"
    canvas.text(0.2, 0.27, title, fontsize=11, weight="bold")
    canvas.text(0.2, SIZE[1] - 0.1, note, fontsize=6.5, color=FAINT)
    for fact in facts:
        _module(canvas, fact)
    _box(canvas, 4.2, 3.45, SPACE, rounding=0.2, facecolor="#f3f3f3", edgecolor=INK)
    middle: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    text = f"style $s$, {style_dim} numbers:\nof a face, a voice or a code"
    canvas.text(4.2, 3.45, text, rotation=90, fontsize=7.5, linespacing=1.5, **middle)
    canvas.text(0.825, 3.45, "code $z \\sim N(0, I)$", fontsize=8, **middle)
    frame = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": FAINT}
    canvas.text(
        4.35,
        5.68,
        "F0 network\n(frozen)",
        fontsize=7,
        color=FAINT,
        bbox=frame | {"linestyle": "--"},
        **middle,
    )
    arrow: dict[str, Any] = {"shrinkA": 1, "shrinkB": 1, "mutation_scale": 9, "linewidth": 1.0}
    for from_x, from_y, x, y in ARROWS:
        look = {**arrow, "arrowstyle": "-|>", "color": INK}
        canvas.annotate("", (x, y), (from_x, from_y), arrowprops=look, zorder=2)
    look = {**arrow, "arrowstyle": "<|-|>", "color": FAINT, "linestyle": "--"}
    canvas.annotate("", (3.1, 4.3), (3.1, 2.6), arrowprops=look, zorder=2)
    canvas.text(3.16, 2.83, "$L_{xm}$", fontsize=8, color=FAINT, va="center")
    levels = levels_of(pictures.values())
    for name, (x, y, right, below) in PICTURES.items():
        shown = name in pictures
        if shown:
            wide, high = THUMB[name.split()[1]]
            corner = ((x - wide / 2) / SIZE[0], 1 - (y + high / 2) / SIZE[1])
            axes = figure.add_axes((*corner, wide / SIZE[0], high / SIZE[1]))
            show_panel(axes, dataclasses.replace(pictures[name], label=""), levels)
        align = "left" if shown and right else "center"
        place = (x + right, y + below) if shown else (x, y)
        canvas.text(*place, name, fontsize=7, color=FAINT, ha=align, va="center")
    return Drawing(figure)


def _module(canvas: Any, fact: Mapping[str, Any]) -> None:
    x, y, colour = MODULES[fact["module"]]
    pale = tuple(1 - 0.12 * (1 - part) for part in to_rgb(colour))
    _box(canvas, x, y, BOX, rounding=0.08, facecolor=pale, edgecolor=colour)
    symbol, _, index = fact["module"].partition("_")
    million = fact["parameters"] / 1e6
    count = f"{million:.1f} M" if million >= 1 else f"{million * 1e3:.0f} k"
    held = f"{fact['heads']} heads" if fact["heads"] else f"{fact['blocks']} blocks"
    middle: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    name = f"${symbol}_{{{index}}}$" if index else f"${symbol}$"
    canvas.text(x, y - 0.2, name, fontsize=12, **middle)
    canvas.text(x, y + 0.04, fact["title"], fontsize=7, **middle)
    canvas.text(x, y + 0.24, f"{held}, {count}", fontsize=6.5, color=FAINT, **middle)


def _box(
    canvas: Any, x: float, y: float, size: tuple[float, float], *, rounding: float, **style: Any
) -> None:
    """Draw a box with round corners around (x, y)."""
    corner = (x - size[0] / 2, y - size[1] / 2)
    shape = f"round,pad=0,rounding_size={rounding}"
    canvas.add_patch(FancyBboxPatch(corner, *size, boxstyle=shape, zorder=3, **style))
