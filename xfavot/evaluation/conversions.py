"""A checkpoint's conversions by the paper's protocol, as groups that are scored.

Paper, Sec. 4.1, App. B. Faces: between women and men, in both directions, every held-out face meets
ten references, as in StarGAN v2; they stay in memory, block by block. Voices: random pairs of a
source and a reference of another person, written to files. The ground truth stands beside both, and
what the checkpoint's styles tell of face and voice. Everything is made when it is first scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.io import save_waveform
from xfavot.convert.converter import Converter, StyleMaker, Task
from xfavot.convert.inputs import resize_face
from xfavot.data.batches import to_range
from xfavot.data.store import GENDERS, Item, Store
from xfavot.errors import DataError
from xfavot.evaluation import manifest
from xfavot.evaluation.images import to_bytes
from xfavot.evaluation.manifest import (
    AT_ONCE,
    GROUND_TRUTH,
    MOST_UTTERANCES,
    SEXES,
    Faces,
    Group,
    Output,
    Voices,
)
from xfavot.evaluation.matching import cross_modal_rows, style_space
from xfavot.evaluation.rows import Row

# Who is evaluated: faces and voices of known sex that a checkpoint was not trained on


SPLIT_OF = {"seen": "val", "unseen": "unseen"}  # by the speakers
TRAIN = "train"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A stored face or voice.

    Args:
        store: where it lies.
        item: its clip.
        face: number of the face in the clip; for a voice, which is the whole clip, 0.
    """

    store: Store
    item: Item
    face: int = 0

    @property
    def name(self) -> str:
        """Of the clip, with its corpus."""
        return f"{self.store.corpus}/{self.item.id}"


def faces_of(stores: Sequence[Store], split: str, gender: str) -> list[Sample]:
    """List every stored face of a split and sex, in the stores' order."""
    return [
        Sample(store, item, number)
        for store in stores
        for item in store.items
        if item.split == split and item.gender == gender
        for number in range(item.face_count)
    ]


def voices_of(stores: Sequence[Store], split: str = "", gender: str = "") -> list[Sample]:
    """List every voice of known sex; "" takes all splits or both sexes."""
    return [
        Sample(store, item)
        for store in stores
        for item in store.items
        if item.sample_count
        and item.split in ((split,) if split else (*SPLIT_OF.values(), TRAIN))
        and item.gender in ((gender,) if gender else GENDERS)
    ]


def pixels(samples: Sequence[Sample], size: int) -> Tensor:
    """Read faces: (n, 3, size, size) uint8."""
    x = [resize_face(one.store.face(one.item, one.face), size) for one in samples]
    return torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).contiguous()


def drawn(samples: Sequence[Sample], count: int, seed: Sequence[int]) -> list[Sample]:
    """Draw samples without repetition; all of them, in their order, if `count` is 0 or too many."""
    if not 0 < count < len(samples):
        return list(samples)
    rows = np.random.default_rng([*seed]).permutation(len(samples))[:count]
    return [samples[row] for row in sorted(rows)]


# The conversions


VOICE_TASKS = (Task.A2A, Task.I2A, Task.Z2A)
PAPER = {Task.A2A: 140, Task.I2A: 180, Task.Z2A: 140}  # conversions; z2a is not the paper's
PER_SPEAKER = 20  # faces, and as many voices, of everybody at most
STYLES_DEFINITION = (
    "real faces against real voices, cosine of their styles under the heads of their own sex, up "
    f"to {PER_SPEAKER} of either a person; galleries hold everybody's mean"
)
OUTPUTS = 10  # of a source
BATCH = 32  # sources


def plan(
    name: str, sources: int, references: int, *, seed: int, outputs: int = OUTPUTS, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Say batch by batch which sources meet which references.

    Args:
        name: of the direction; with the seed it fixes the draw.
        sources, references: how many there are; with latent codes, how many codes.
        seed: of the draw.
        outputs: K, of a source.
        batch: sources at once, and references drawn at once; incomplete draws are dropped.

    Yields:
        Numbers of sources (n,) and of references (n, K).
    """
    rng = np.random.default_rng([seed, *name.encode()])

    def batches() -> Iterator[NDArray[np.int64]]:
        while True:
            order = rng.permutation(references)
            yield from order[: references // batch * batch].reshape(-1, batch)

    drawn, order = batches(), rng.permutation(sources)
    for start in range(0, sources, batch):
        own = order[start : start + batch]
        met = np.stack([next(drawn)[: len(own)] for _ in range(outputs)], axis=1)
        yield torch.from_numpy(own), torch.from_numpy(met)


# Converted faces: ten outputs of every source, in both directions between women and men


FACE_TASKS = (Task.I2I, Task.A2I, Task.Z2I)
FACES = "faces"  # the task of real faces
DIRECTIONS = {"female to male": ("f", "m"), "male to female": ("m", "f")}
LATENT_STRIDE = 1_000_003  # between the codes of two seeds of a run


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """A checkpoint among some speakers.

    Args:
        converter: the checkpoint with its vocoder.
        stores: the mixture.
        dataset: its name.
        speakers: "seen" or "unseen".
        seed: of all draws.
        count: voices a task and source faces a direction; 0 for the paper's.
        folder: of voices in files; removed later.
    """

    converter: Converter
    stores: Sequence[Store]
    dataset: str
    speakers: str
    seed: int
    count: int
    folder: Path

    @property
    def split(self) -> str:
        """Of the stores."""
        return SPLIT_OF[self.speakers]

    def names(self, task: Task | None, name: str = "", system: str = "") -> dict[str, Any]:
        """Fields of a task's group, or of another one with a name."""
        return {
            "system": system or self.converter.config.configuration,
            "task": task.value if task else name,
            "dataset": self.dataset,
            "speakers": self.speakers,
            "guidance": task.guidance if task else "",
        }

    def groups(self) -> list[Group]:
        """Every group, in the order of the rows.

        Raises:
            DataError: the split has nobody of known sex.
        """
        if not any(i.split == self.split and i.gender for s in self.stores for i in s.items):
            corpora = ", ".join(store.corpus for store in self.stores) or "no store"
            raise DataError(
                f"no clip of {self.speakers} speakers of known sex in {corpora} (split "
                f"{self.split!r}); expected one; prepare a corpus that holds some out, or read the "
                "figures of the others alone"
            )
        found: list[Group] = [self.faces(task) for task in FACE_TASKS]
        found += [self.faces(None)] if self.converter.has("face") else []
        found += [self.voices(task) for task in VOICE_TASKS]
        found += self.ground_truth() if self.converter.has("voice") else []
        check = partial(self.require_trained, Task.A2I)
        names = self.names(None, "verification")
        return [*found, Styles(**names, score=self.verification, check=check)]

    def require_trained(self, task: Task) -> None:
        """Refuse a task of a modality that the checkpoint was not trained on."""
        for kind in ("face", "voice"):
            if kind in (task.guidance, task.output) and not self.converter.has(kind):
                raise DataError(
                    f"{task.value}: checkpoint {self.converter.name} was trained without {kind}s, "
                    f"on {', '.join(self.converter.config.train.modalities)}; expected both; "
                    "train configuration xfavot"
                )

    def faces(self, task: Task | None) -> Faces:
        """Group of a task that makes faces; without one, of real ones in the place of outputs."""
        size = self.converter.image_size
        names = self.names(task) if task else self.names(None, FACES, GROUND_TRUTH)
        real = {sex: faces_of(self.stores, self.split, sex) for sex in SEXES}
        sources = {
            sex: drawn(real[sex], self.count, [self.seed, *word.encode()])
            for sex, word in SEXES.items()
        }
        codes = OUTPUTS * max(BATCH, *map(len, sources.values()))

        @cache
        def styles(sex: str) -> Tensor:
            return self.styles(task, sex, codes) if task else torch.empty(0)

        def references(sex: str) -> int:
            if task in (None, Task.I2I):
                return len(real[sex])
            return codes if task is Task.Z2I else len(voices_of(self.stores, self.split, sex))

        batch = min(BATCH, *map(references, SEXES))

        def check() -> None:
            if task:
                self.require_trained(task)
            for direction, (source, target) in DIRECTIONS.items():
                counts = len(sources[source]), references(target)
                if not all(counts):
                    raise DataError(
                        f"{names['task']}, {self.speakers} speakers, {direction}: "
                        f"{counts[0]} {SEXES[source]} faces and {counts[1]} {SEXES[target]} "
                        "references; expected some of both; prepare a corpus with women and men "
                        "in this split"
                    )

        def meetings(direction: str) -> Iterator[tuple[Tensor, Tensor]]:
            source, target = DIRECTIONS[direction]
            counts = len(sources[source]), references(target)
            for own, met in plan(direction, *counts, seed=self.seed, batch=batch):
                yield pixels([sources[source][int(n)] for n in own], size), met

        def converted(x: Tensor, style: Tensor) -> Tensor:
            """Outputs (n, K, 3, H, W) of faces (n, 3, H, W) after styles (n, K, S)."""
            x = to_range(x).repeat_interleave(style.shape[1], 0)
            made = convert(self.converter, x, style.flatten(0, 1))
            return made.view(*style.shape[:2], *made.shape[1:])

        def blocks(direction: str) -> Iterator[Tensor]:
            target = DIRECTIONS[direction][1]
            for x, met in meetings(direction):
                if task:
                    yield converted(x, styles(target)[met])
                else:
                    shown = [real[target][int(n)] for n in met.flatten()]
                    yield pixels(shown, size).view(*met.shape, 3, size, size)

        def pairs(direction: str) -> Iterator[tuple[Tensor, Tensor]]:
            for x, met in meetings(direction):
                first = converted(x, styles(DIRECTIONS[direction][1])[met[:, :1]])
                yield x, to_bytes(first)[:, 0]

        def train(sex: str) -> Iterator[Tensor]:
            known = faces_of(self.stores, TRAIN, next(k for k, v in SEXES.items() if v == sex))
            for at in range(0, len(known), AT_ONCE):
                yield pixels(known[at : at + AT_ONCE], size)

        prepared = "+".join(store.manifest_hash for store in self.stores)
        small = f"; batches of {batch}, not {BATCH}: few references" if batch < BATCH else ""
        return Faces(
            **names,
            directions={name: SEXES[target] for name, (_, target) in DIRECTIONS.items()},
            blocks=blocks,
            pairs=pairs if task else None,
            real=train,
            real_key=f"{prepared} {TRAIN} {size}",
            notes={"lpips": small},
            check=check,
        )

    def styles(self, task: Task, sex: str, codes: int) -> Tensor:
        """Encode every reference of a sex once: (R, S)."""
        maker = self.converter
        if task is Task.Z2I:
            seeds = (self.seed * LATENT_STRIDE + number for number in range(codes))
            found = [maker.style_of_latent(one, gender=sex) for one in seeds]
        elif task is Task.I2I:
            known = faces_of(self.stores, self.split, sex)
            found = [
                maker.style_of_face(one.store.face(one.item, one.face), gender=sex, aligned=True)
                for one in known
            ]
        else:
            known = voices_of(self.stores, self.split, sex)
            found = [maker.style_of_voice(o.store.waveform(o.item), gender=sex) for o in known]
        return torch.cat([one.vector for one in found])

    # Converted voices: random pairs, written to files

    def size(self, task: Task) -> int:
        """How many conversions a task that makes voices has."""
        return self.count or PAPER[task]

    @cached_property
    def sources(self) -> list[Sample]:
        """Sources of all tasks, shuffled again and again as far as there are too few.

        Raises:
            DataError: there is no voice.
        """
        known = voices_of(self.stores, self.split)
        if not known:
            raise DataError(
                f"no voice of {self.speakers} speakers of known sex; expected one to convert; "
                "evaluate on a corpus with speech in this split"
            )
        rng = np.random.default_rng([self.seed, *self.speakers.encode()])
        found: list[Sample] = []
        while len(found) < max(map(self.size, VOICE_TASKS)):
            found += [known[row] for row in rng.permutation(len(known))]
        return found[: max(map(self.size, VOICE_TASKS))]

    def pairs(self, task: Task) -> list[tuple[Sample, str, Sample | None]]:
        """Draw source, sex and reference of every conversion; source n is the same for every task.

        Raises:
            DataError: a source has no reference of another person.
        """
        rng = np.random.default_rng([self.seed, *f"{task.value} {self.speakers}".encode()])
        sources = self.sources[: self.size(task)]
        if task is Task.Z2A:
            return [(one, GENDERS[int(rng.integers(len(GENDERS)))], None) for one in sources]
        pool = voices_of(self.stores, self.split)
        if task is Task.I2A:
            pool = [one for sex in GENDERS for one in faces_of(self.stores, self.split, sex)]
        found: list[tuple[Sample, str, Sample | None]] = []
        for source in sources:
            who = source.item.speaker
            others = [
                one
                for one in pool
                if one.name != source.name and not (who and one.item.speaker == who)
            ]
            if not others:
                raise DataError(
                    f"{task.value}: {source.name} has no reference ({task.guidance}) of another "
                    f"person among {len(pool)} of {self.speakers} speakers; expected two people "
                    "at least; prepare more speakers"
                )
            one = others[int(rng.integers(len(others)))]
            found.append((source, one.item.gender, one))
        return found

    def real(self, sample: Sample) -> Path:
        """Write a real voice, once, and say where."""
        name = hashlib.sha256(sample.name.encode()).hexdigest()[:16]
        file = self.folder / "real" / f"{name}.wav"
        if not file.exists():
            save_waveform(file, sample.store.waveform(sample.item))
        return file

    @cached_property
    def known(self) -> dict[str, list[Sample]]:
        """Voices of all splits by speaker."""
        found: dict[str, list[Sample]] = {}
        for one in voices_of(self.stores):
            found.setdefault(one.item.speaker, []).append(one)
        return found

    def utterances(self, name: str) -> list[Path]:
        """Up to ten utterances of a person, drawn at random from all splits."""
        own = self.known.get(name, []) if name else []
        order = np.random.default_rng([self.seed, *name.encode()]).permutation(len(own))
        return [self.real(own[row]) for row in order[:MOST_UTTERANCES]]

    def convert(self, task: Task) -> list[Output]:
        """Convert the pairs of a task, each into a file."""
        self.require_trained(task)
        found = []
        for number, (source, gender, reference) in enumerate(self.pairs(task)):
            file, failure = self.folder / task.value / f"{number:04d}.wav", ""
            wave = source.store.waveform(source.item)
            try:
                if reference is None:
                    code = self.seed * LATENT_STRIDE + number
                    style = self.converter.style_of_latent(code, gender=gender)
                elif task is Task.I2A:
                    face = reference.store.face(reference.item, reference.face)
                    style = self.converter.style_of_face(face, gender=gender, aligned=True)
                else:
                    voice = reference.store.waveform(reference.item)
                    style = self.converter.style_of_voice(voice, gender=gender)
                made = self.converter.convert_voice(wave, style=style)
                save_waveform(file, made.waveform)
            except DataError as error:
                failure = f"not converted: {error}"
            led = reference is not None and task is Task.A2A
            found.append(
                Output(
                    task=task,
                    source=self.real(source),
                    reference=self.real(reference) if led and reference is not None else None,
                    output=file,
                    model=self.converter.config.configuration,
                    transcript=source.item.transcript,
                    gender=gender,
                    source_gender=source.item.gender,
                    speaker=reference.item.speaker if reference is not None else "",
                    failure=failure,
                )
            )
        return found

    def voices(self, task: Task) -> Voices:
        """Group of a task that makes voices."""

        def check() -> None:
            self.require_trained(task)
            self.pairs(task)

        return Voices(
            **self.names(task),
            make=partial(self.convert, task),
            people=self.utterances,
            check=check,
            folder=self.folder,
        )

    def ground_truth(self) -> list[Group]:
        """Groups of the sources of all tasks, and of two utterances of a person each."""

        def people() -> dict[str, list[Path]]:
            names = sorted({one.item.speaker for one in self.sources})
            return {name: self.utterances(name) for name in names}

        return manifest.ground_truth(
            lambda: {self.real(one): one.item.transcript for one in self.sources},
            people,
            dataset=self.dataset,
            speakers=self.speakers,
            folder=self.folder,
            check=lambda: self.sources,
        )

    # Face against voice by the checkpoint's own styles: is this face the speaker of this voice?

    def verification(self) -> list[Row]:
        """Measure verification and retrieval between real faces and voices.

        Raises:
            DataError: nobody has faces and voices there, or not both sexes do.
        """
        space = style_space(
            self.converter, self.stores, split=self.split, per_speaker=PER_SPEAKER, seed=self.seed
        )
        face, voice = (torch.from_numpy(space.styles[space.kind == kind]) for kind in (0, 1))
        of_face, of_voice = (
            [space.speakers[n] for n in space.speaker[space.kind == kind]] for kind in (0, 1)
        )
        sexes = dict(zip(space.speakers, space.genders, strict=True))
        rows = cross_modal_rows(face, voice, of_face, of_voice, sexes, seed=self.seed)
        return [{**row, "definition": STYLES_DEFINITION} for row in rows]


def convert(maker: StyleMaker, x: Tensor, style: Tensor) -> Tensor:
    """Convert faces (n, 3, H, W) in [-1, 1] after styles (n, S), a few at once; on the CPU.

    Raises:
        DataError: an output is not finite.
    """
    parts = zip(torch.split(x, AT_ONCE), torch.split(style, AT_ONCE), strict=True)
    with torch.no_grad():
        made = torch.cat([maker.nets.G_I(a.to(maker.device), b).cpu() for a, b in parts])
    bad = int((~made.isfinite().flatten(1).all(1)).sum())
    if bad:
        raise DataError(
            f"{bad} of {len(made)} converted faces are not finite; expected numbers in [-1, 1]; "
            "look at the checkpoint"
        )
    return made


@dataclass(eq=False, kw_only=True)
class Styles(Group):
    """Real faces and voices of a split, told apart by a checkpoint's styles.

    Args:
        score: measures them.
    """

    score: Callable[[], list[Row]]
