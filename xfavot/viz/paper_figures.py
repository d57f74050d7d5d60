"""What the paper's Fig. 1 to 10 are made from.

The figures themselves are drawn, and kept, in `notebooks/figures.ipynb`. Samples are held out
where the corpus has a held-out split; which one stands in every figure's foot. What a figure shows
is the paper's; the captions of Fig. 2 to 10 are INFERRED from the text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from xfavot.audio.mel import MEL
from xfavot.convert import Converter, open_stores
from xfavot.data.sample import HELD_OUT_FIRST, Example, examples, first_split, has_any
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.parameters import Figures
from xfavot.report import study
from xfavot.viz.widgets import Html, show

SHOWN_SECONDS = 2.4
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
        systems: the models by name, the first one is that of the figures.
        stores: prepared stores.
        avatars: stores of drawn faces.
        split: what the samples are from.
    """

    cfg: Figures
    systems: Mapping[str, Converter]
    stores: tuple[Store, ...]
    avatars: tuple[Store, ...]
    split: str

    @classmethod
    def load(cls, cfg: Figures) -> Material:
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
        return cls(cfg=cfg, systems=systems, stores=stores, avatars=avatars, split=split)

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
        able, (_, modality, split) = self.converter, self._place(kind)
        if kind == "latent":
            known = able.trained_genders(kind)
            return "" if known else f"{able.name} has learnt no latent codes yet; train it on"
        if not able.has(modality):
            return f"{able.name} was not trained on {modality}s; give another"
        where = f"split {self.split} of {self.cfg.dataset}"
        reason = f"{where} has no {kind} of known gender; prepare a corpus that has"
        return "" if split else NO_AVATARS if kind == "avatar" else reason

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
        stores, modality, split = self._place(kind)
        drawn = examples(
            stores,
            modality=modality,
            split=split or self.split,
            count=count,
            seed=self.cfg.seed + seed,
            avoid={example.speaker for example in avoid},
        )
        longest = int(SHOWN_SECONDS * MEL.sample_rate)
        return tuple(
            e if e.waveform is None else dataclasses.replace(e, waveform=e.waveform[:longest])
            for e in drawn
        )

    def _place(self, kind: str) -> tuple[tuple[Store, ...], str, str]:
        """Stores, modality and split that samples of a kind are drawn from; no split has none."""
        stores, modality, splits = self.stores, kind, [self.split]
        if kind == "avatar":
            stores, modality, splits = self.avatars, "face", [self.split, *HELD_OUT_FIRST]
        held = (s for s in splits if has_any(stores, modality=modality, split=s))
        return stores, modality, next(held, "")
