"""What the paper's figures are made from, and how a figure is written and shown in a notebook.

Each figure is a folder with PNG, PDF, the data drawn and the record of where it comes from; its
voices are written beside it, and a few of them are played. What cannot be made says so and why, and
leaves no picture.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot import report
from xfavot.audio.io import save_waveform
from xfavot.convert import Converter, Panel, open_stores
from xfavot.convert.examples import first_split, has_any
from xfavot.data.manifest import Store
from xfavot.figures_config import FIGURES_PARAMETERS, FiguresConfig
from xfavot.report.provenance import FOLDERS, Beginning, Checkpoint, Provenance
from xfavot.report.study_origin import System, systems_of, tier_of
from xfavot.viz.drawing import Album, Drawing
from xfavot.viz.widgets import Html, players

PLAYERS = 5  # a figure: 2.4 s at 24 kHz are 0.15 MB in the notebook
KINDS = ("face", "voice")
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

    cfg: FiguresConfig
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
        for kind in kinds or KINDS:
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
        words = ["papermill", "notebooks/figures.ipynb", "out.ipynb"]
        for parameter in FIGURES_PARAMETERS:
            value = getattr(self.cfg, parameter.name)
            if parameter.name not in FOLDERS and value != parameter.default:
                words += ["-p", parameter.name, str(value)]
        weights = {f"model {one.name}": one.sha256 for one in self.systems}
        run = self.converter.config
        origin = report.collect(
            self.began, run, stores=self.stores, split=self.split, seeds=(self.cfg.seed,),
            tier=tier_of(self.cfg.asked, [one.converter.config.preset for one in self.systems]),
            weights=weights, notebook="figures", command=shlex.join(words),
            checkpoint=Checkpoint(step=self.converter.step, sha256=self.systems[0].sha256),
        )  # fmt: skip
        return dataclasses.replace(origin, dataset=self.cfg.dataset)  # not what it was trained on


def open_figures(cfg: FiguresConfig, began: Beginning, *, on_log: Say) -> Opened:
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
    split = first_split(stores, [kind for kind in KINDS if systems[0].converter.has(kind)])
    for one in systems:
        run = one.converter.config.name or one.converter.config.configuration
        on_log(f"{one.name}: checkpoint of {run} at step {one.converter.step}")
    return Opened(
        cfg=cfg, began=began, systems=systems, stores=stores, avatars=drawn, split=split,
        say=on_log,
    )  # fmt: skip


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
