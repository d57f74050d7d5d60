"""What the paper's Fig. 1 to 10 are made from, and how they are kept.

The figures themselves are drawn in `notebooks/figures.ipynb`. Samples are held out where the corpus
has a held-out split; which one stands in every figure's foot. What a figure shows is the paper's;
the captions of Fig. 2 to 10 are INFERRED from the text.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL
from xfavot.convert import Converter, Grid, open_stores
from xfavot.convert.converter import resize_face
from xfavot.data.sample import HELD_OUT_FIRST, Example, examples, first_split, has_any
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.parameters import Figures
from xfavot.report import Provenance, study, write_figure
from xfavot.viz.drawing import Drawing, median_hz
from xfavot.viz.widgets import CONVERTED, Html, players, show, voices_of

SHOWN_SECONDS = 2.4
PLAYERS = 5  # a figure: 2.4 s at 24 kHz are 0.15 MB in the notebook
AVATARS = "avatars"
NO_AVATARS = (
    "there is no prepared store of drawn faces; put pictures (such as faces stylised by JoJoGAN) "
    "into a folder and run notebooks/prepare_data.ipynb -p dataset avatars -p source <folder>"
)


def missing(item: str, reason: str) -> None:
    """Name a figure, or a part of one, that cannot be made, and why."""
    text = f"{item} is missing: {reason}"
    frame = "border:1px solid #D55E00;border-left-width:5px;padding:0.6em 0.9em"
    show(Html(f"<p style='{frame}'>{escape(text)}</p>", log=text))


@contextmanager
def excused(item: str) -> Iterator[None]:
    """Name a figure as missing, with the reason, where the data do not allow it."""
    try:
        yield
    except DataError as error:
        missing(item, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that the figures are made from.

    Args:
        cfg: the task.
        began: when the work began.
        systems: the models by name, the first one is that of the figures.
        stores: prepared stores.
        avatars: stores of drawn faces.
        split: what the samples are from.
    """

    cfg: Figures
    began: datetime
    systems: Mapping[str, Converter]
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
        systems = study.systems_of(cfg.asked)
        stores = tuple(open_stores(cfg.data_root, cfg.corpora))
        avatars = tuple(store for store in stores if store.corpus in ("mini", AVATARS))
        if not avatars and Path(cfg.data_root, AVATARS).is_dir():
            avatars = (Store.open(Path(cfg.data_root, AVATARS), corpus=AVATARS),)
        first = next(iter(systems.values()))
        split = first_split(stores, [kind for kind in ("face", "voice") if first.has(kind)])
        given: Any = {"cfg": cfg, "began": began, "systems": systems, "split": split}
        return cls(**given, stores=stores, avatars=avatars)

    @property
    def converter(self) -> Converter:
        """The model of the figures."""
        return next(iter(self.systems.values()))

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
        reason = next(filter(None, map(self._obstacle, kinds)), "")
        if reason:
            missing(item, reason)
        return not reason

    def _obstacle(self, kind: str) -> str:
        """Why nothing of a kind can be shown, "" if it can."""
        able, modality = self.converter, "face" if kind == "avatar" else kind
        if kind == "latent":
            known = able.trained_genders(kind)
            return "" if known else f"{able.name} has learnt no latent codes yet; train it on"
        if not able.has(modality):
            return f"{able.name} was not trained on {modality}s; give another"
        if self._split_of(kind):
            return ""
        where = f"split {self.split} of {self.cfg.dataset}"
        reason = f"{where} has no {kind} of known gender; prepare a corpus that has"
        return NO_AVATARS if kind == "avatar" else reason

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

    def publish(
        self,
        item: str,
        drawing: Drawing,
        *,
        grids: Mapping[str, Sequence[Grid]] | Sequence[Grid] = (),
        rows: Sequence[Mapping[str, Any]] = (),
        origin: Provenance | None = None,
    ) -> None:
        """Write a figure and its voices, and show the picture and players of the first few.

        Args:
            item: its name, such as "fig4".
            drawing: the figure.
            grids: the conversions drawn in it, of the first model or by the names of models.
            rows: the data drawn in it, in addition to those of the conversions.
            origin: where it comes from, if not from this material.

        Raises:
            DataError: it cannot be written.
        """
        out = Path(self.cfg.out)
        made = grids if isinstance(grids, Mapping) else {next(iter(self.systems)): grids}
        data = [row for name, some in made.items() for g in some for row in rows_of(item, g, name)]
        how: dict[str, Any] = {"began": self.began, "split": self.split, "notebook": "figures"}
        origin = origin or study.origin_of(self.cfg.asked, self.systems, self.stores, **how)
        folder = write_figure(
            item, drawing, data=[*data, *rows], provenance=origin, root=out / "figures"
        )
        drawing.path = folder / f"{item}.png"  # what is shown is read back from disk
        show(drawing)
        for old in (out / "voices" / item).glob("*.wav"):
            old.unlink()
        voices = voices_of(next(iter(made.values()), ()))
        for label, wave in voices.items():
            name = re.sub(r"\W+", "-", label).strip("-")
            synthetic = {"synthetic": "yes", "checkpoint": self.note} if CONVERTED in label else {}
            path = out / "voices" / item / f"{name}.wav"
            save_waveform(path, wave, metadata={"sample": label} | synthetic)
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
                    "f0_hz": None if cell.f0 is None else median_hz(cell.f0),
                    "source_f0_hz": None if source.f0 is None else median_hz(source.f0),
                    "reference_f0_hz": None if reference.f0 is None else median_hz(reference.f0),
                }
            )
    return rows
