"""A checkpoint's conversions by the paper's protocol, as groups that are scored.

Paper, Sec. 4.1, App. B. Faces: between women and men, in both directions, every held-out face meets
ten references, as in StarGAN v2; they stay in memory, block by block. Voices: random pairs of a
source and a reference of another person, written to files. The ground truth stands beside both, and
what the checkpoint's styles tell of face and voice. Everything is made when it is first scored, and
only towards sexes that there was something to learn from.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.io import save_waveform
from xfavot.convert.converter import Converter, Style, Task, resize_face
from xfavot.data.batches import to_range
from xfavot.data.store import GENDERS, Item, Store
from xfavot.errors import DataError
from xfavot.evaluation import manifest
from xfavot.evaluation.images import to_bytes
from xfavot.evaluation.manifest import SEXES, Faces, Group, Output, Voices, reason_of
from xfavot.evaluation.matching import cross_modal_rows, style_space
from xfavot.evaluation.rows import DEFINITIONS, Row
from xfavot.parameters import Evaluate

SPLIT_OF = {"seen": "val", "unseen": "unseen"}  # by the speakers
TRAIN = "train"
PAPER = {Task.A2A: 140, Task.I2A: 180, Task.Z2A: 140}  # voices; z2a is not the paper's
OUTPUTS = 10  # of a source face
BATCH = 32  # sources
NOT_FINITE = "converted faces of a source that are not finite"
FACES = "faces"  # the task of real faces
DIRECTIONS = {"female to male": ("f", "m"), "male to female": ("m", "f")}
LATENT_STRIDE = 1_000_003  # between the codes of two seeds of a run
PER_SPEAKER = 20  # faces, and as many voices, of everybody at most, as definitions.yaml says


class Sample(NamedTuple):
    """A stored voice, or a face with its number in the clip."""

    store: Store
    item: Item
    face: int = 0

    @property
    def name(self) -> str:
        """Of the clip, with its corpus."""
        return f"{self.store.corpus}/{self.item.id}"


def samples(
    stores: Sequence[Store], kind: str, split: str = "", genders: Sequence[str] = GENDERS
) -> list[Sample]:
    """List every face or voice of a split, or of all, and of some sexes, in the stores' order."""
    return [
        Sample(store, item, number)
        for store in stores
        for item in store.items
        if split in ("", item.split) and item.gender in genders
        for number in range(item.face_count if kind == "face" else item.sample_count > 0)
    ]


def pixels(faces: Sequence[Sample], size: int) -> Tensor:
    """Read faces: (n, 3, size, size) uint8."""
    x = [resize_face(one.store.face(one.item, one.face), size) for one in faces]
    return torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).contiguous()


def drawn(pool: Sequence[Sample], count: int, seed: Sequence[int]) -> list[Sample]:
    """Draw samples without repetition; all of them, in their order, if `count` is 0 or too many."""
    if not 0 < count < len(pool):
        return list(pool)
    rows = np.random.default_rng([*seed]).permutation(len(pool))[:count]
    return [pool[row] for row in sorted(rows)]


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

    draws, order = batches(), rng.permutation(sources)
    for start in range(0, sources, batch):
        own = order[start : start + batch]
        met = np.stack([next(draws)[: len(own)] for _ in range(outputs)], axis=1)
        yield torch.from_numpy(own), torch.from_numpy(met)


@dataclass(frozen=True, eq=False)
class Study:
    """A checkpoint among some speakers.

    Args:
        converter: the checkpoint with its vocoder.
        stores: the mixture.
        cfg: the dataset's name, the seed of all draws, and how many voices a task and source faces
            a direction (0 for the paper's).
        speakers: "seen" or "unseen".
        folder: of voices in files; removed later.
    """

    converter: Converter
    stores: Sequence[Store]
    cfg: Evaluate
    speakers: str
    folder: Path

    def own(self, kind: str, genders: Sequence[str] = GENDERS) -> list[Sample]:
        """Faces or voices of these speakers."""
        return samples(self.stores, kind, SPLIT_OF[self.speakers], genders)

    def names(self, task: Task | str, system: str = "") -> Row:
        """Names of the group of a task."""
        system = system or self.converter.config.configuration
        dataset, speakers = self.cfg.dataset, self.speakers
        return manifest.names_of(task, system=system, dataset=dataset, speakers=speakers)

    def groups(self) -> list[Group]:
        """Every group, in the order of the rows; one that says why, where nobody is held out."""
        if not self.own("face") and not self.own("voice"):
            return [Group(names=self.names(""), make=lambda: self.convert(Task.A2A))]
        tasks = self.converter.tasks
        groups: list[Group] = [self.faces(task) for task in tasks if task.output == "face"]
        groups += [self.faces(None)] if self.converter.has("face") else []
        groups += [self.voices(task) for task in PAPER if task in tasks]
        groups += self.ground_truth() if self.converter.has("voice") else []
        return [*groups, Group(names=self.names("verification"), score=self.verification)]

    def learnt(self, task: Task) -> list[str]:
        """Sexes that guidance and output have been trained on, by the checkpoint and the data."""
        kinds = {task.output, task.guidance} - {"latent"}
        known = {
            (kind, one.item.gender)
            for kind in filter(self.converter.has, kinds)
            for one in samples(self.stores, kind, TRAIN) or samples(self.stores, kind)
        }
        trained = self.converter.trained_genders(task.guidance)
        return [sex for sex in trained if known >= {(kind, sex) for kind in kinds}]

    def lacking(self, what: str) -> str:
        """Why something cannot be evaluated."""
        kinds = " and ".join(f"{kind}s" for kind in ("face", "voice") if self.converter.has(kind))
        return (
            f"{self.speakers} speakers, {what} of a kind and sex that the checkpoint knows; it was "
            f"trained on {kinds}; prepare more speakers, or train it on more"
        )

    def style(self, task: Task, sex: str, reference: Sample | None, number: int) -> Style:
        """Encode what guides a conversion, or draw the latent code of its number.

        Raises:
            DataError: there is no reference, or it cannot be used.
        """
        if task.guidance == "latent":
            code = self.cfg.seed * LATENT_STRIDE + number
            return self.converter.style_of_latent(code, gender=sex)
        if reference is None:
            raise DataError(self.lacking(f"{task.value}: no reference of another person"))
        store, item, face = reference
        if task.guidance == "face":
            return self.converter.style_of_face(store.face(item, face), gender=sex, aligned=True)
        return self.converter.style_of_voice(store.waveform(item), gender=sex)

    # Faces: ten outputs of every source, in both directions between women and men

    def faces(self, task: Task | None) -> Faces:
        """Group of a task that makes faces; without one, of real ones in the place of outputs."""
        size, seed = self.converter.image_size, self.cfg.seed
        sources = {
            sex: drawn(self.own("face", [sex]), self.cfg.count, [seed, *word.encode()])
            for sex, word in SEXES.items()
        }
        codes = [None] * OUTPUTS * max(BATCH, *map(len, sources.values()))
        kind = task.guidance if task else "face"
        by_face = task is not None and kind == "face"
        listed: dict[str, Sequence[Sample | None]] = {
            sex: codes if kind == "latent" else self.own(kind, [sex])
            for sex in (self.learnt(task) if task else GENDERS)
        }
        possible, absent = {}, []
        for name, (source, target) in DIRECTIONS.items():
            counts = len(sources[source]), len(listed.get(target, ()))
            if all(counts):
                possible[name] = source, target
                continue
            few = f"{counts[0]} {SEXES[source]} faces and {counts[1]} {SEXES[target]} references"
            absent.append(self.lacking(f"{name}: {few}"))

        @cache
        def references(sex: str) -> tuple[Any, list[Any], list[str]]:
            """Styles (R, S), or real faces, whose they are, and why some are none."""
            if task is None:
                return listed[sex], [], []
            vectors, used, failures = [], [], []
            for number, one in enumerate(listed[sex]):
                try:
                    vectors.append(self.style(task, sex, one, number).vector)
                    used.append(one)
                except Exception as error:
                    failures.append(f"reference {one.name if one else ''}: {reason_of(error)}")
            if not vectors:
                raise DataError(f"no reference can be used; {failures[0]}")
            return torch.cat(vectors), used, failures

        def batch() -> int:
            return min(BATCH, *(len(references(target)[0]) for _, target in possible.values()))

        def note(family: str) -> str:
            few = family == "lpips" and batch() < BATCH
            return f"; batches of {batch()}, not {BATCH}: few references" if few else ""

        def made(direction: str, each: int = OUTPUTS) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            """Sources (n, 3, H, W), outputs (n, K, 3, H, W), numbers of references (n, K)."""
            source, target = possible[direction]
            guidance, _, failures = references(target)
            group.skipped.update(failures)
            counts = len(sources[source]), len(guidance)
            for own, met in plan(direction, *counts, seed=seed, batch=batch()):
                x, met = pixels([sources[source][n] for n in own.tolist()], size), met[:, :each]
                if task:
                    y = self.convert_faces(x, guidance[met])
                else:
                    y = pixels([guidance[n] for n in met.flatten().tolist()], size)
                    y = y.view(*met.shape, *y.shape[1:])
                good = y.isfinite().flatten(1).all(1)
                group.skipped[NOT_FINITE] += int((~good).sum())
                if good.any():
                    yield x[good], y[good], met[good]

        def pairs(direction: str) -> Iterator[tuple[Tensor, ...]]:
            _, used, _ = references(possible[direction][1])
            for x, y, met in made(direction, 1):
                shown = [pixels([used[n] for n in met[:, 0].tolist()], size)] if by_face else []
                yield x, to_bytes(y)[:, 0], *shown

        def train(sex: str) -> Iterator[Tensor]:
            known = samples(self.stores, "face", TRAIN, (sex[0],))
            for at in range(0, len(known), manifest.AT_ONCE):
                yield pixels(known[at : at + manifest.AT_ONCE], size)

        group = Faces(
            names=self.names(task) if task else self.names(FACES, manifest.GROUND_TRUTH),
            absent=absent,
            directions={name: SEXES[target] for name, (_, target) in possible.items()},
            blocks=lambda direction: (y for _, y, _ in made(direction)),
            pairs=pairs if task else None,
            real=train,
            real_key="+".join(store.manifest_hash for store in self.stores),
            note=note,
        )
        return group

    def convert_faces(self, x: Tensor, style: Tensor) -> Tensor:
        """Convert faces (n, 3, H, W) uint8 after styles (n, K, S): (n, K, 3, H, W) on the CPU."""
        maker, count = self.converter, style.shape[1]
        faces = torch.split(to_range(x).repeat_interleave(count, 0), manifest.AT_ONCE)
        pairs = zip(faces, torch.split(style.flatten(0, 1), manifest.AT_ONCE), strict=True)
        with torch.no_grad():
            made = torch.cat([maker.nets.G_I(a.to(maker.device), b).cpu() for a, b in pairs])
        return made.view(-1, count, *made.shape[1:])

    # Voices: random pairs, written to files

    @cached_property
    def sources(self) -> list[Sample]:
        """Sources of all tasks, shuffled again and again as far as there are too few.

        Raises:
            DataError: there is no voice.
        """
        known = self.own("voice")
        if not known:
            raise DataError(
                f"no voice of {self.speakers} speakers of known sex in "
                f"{', '.join(store.corpus for store in self.stores)}; expected one to convert; "
                "evaluate on a corpus with speech in this split"
            )
        rng = np.random.default_rng([self.cfg.seed, *self.speakers.encode()])
        order, most = list[int](), self.cfg.count or max(PAPER.values())
        while len(order) < most:
            order += rng.permutation(len(known)).tolist()
        return [known[row] for row in order[:most]]

    def pairs(self, task: Task) -> list[tuple[Sample, str, Sample | None]]:
        """Draw source, sex and reference of every conversion; source n is the same for every task.

        Raises:
            DataError: no source has a reference of another person.
        """
        rng = np.random.default_rng([self.cfg.seed, *f"{task.value} {self.speakers}".encode()])
        sources, sexes = self.sources[: self.cfg.count or PAPER[task]], self.learnt(task)
        if task is Task.Z2A and sexes:
            return [(one, sexes[int(rng.integers(len(sexes)))], None) for one in sources]
        pool = self.own("voice", sexes)
        if task is Task.I2A:
            pool = [one for sex in sexes for one in self.own("face", [sex])]
        pairs: list[tuple[Sample, str, Sample | None]] = []
        for source in sources:
            who, clip = source.item.speaker, source.name
            others = [x for x in pool if x.name != clip and not (who and x.item.speaker == who)]
            reference = others[int(rng.integers(len(others)))] if others else None
            pairs.append((source, reference.item.gender if reference else "", reference))
        if not any(reference for *_, reference in pairs):
            raise DataError(self.lacking(f"{task.value}: no reference of another person"))
        return pairs

    def real(self, sample: Sample) -> Path:
        """Write a real voice, once, and say where."""
        name = hashlib.sha256(sample.name.encode()).hexdigest()[:16]
        file = self.folder / "real" / f"{name}.wav"
        if not file.exists():
            save_waveform(file, sample.store.waveform(sample.item))
        return file

    @cached_property
    def by_speaker(self) -> dict[str, list[Sample]]:
        """Voices of all splits by speaker."""
        voices = defaultdict(list)
        for one in samples(self.stores, "voice"):
            voices[one.item.speaker].append(one)
        return voices

    def utterances(self, name: str) -> list[Path]:
        """Up to ten utterances of a person, drawn at random from all splits."""
        own = self.by_speaker.get(name, []) if name else []
        order = np.random.default_rng([self.cfg.seed, *name.encode()]).permutation(len(own))
        return [self.real(own[row]) for row in order[: manifest.MOST_UTTERANCES]]

    def convert(self, task: Task) -> list[Output]:
        """Convert the pairs of a task, each into a file."""
        outputs = []
        for number, (source, gender, reference) in enumerate(self.pairs(task)):
            file, failure = self.folder / task.value / f"{number:04d}.wav", ""
            wave = source.store.waveform(source.item)
            try:
                style = self.style(task, gender, reference, number)
                made = self.converter.convert_voice(wave, style=style)
                save_waveform(file, made.waveform)
            except Exception as error:
                if isinstance(error.__cause__, OSError):  # a full disk is no fault of the model
                    raise
                failure = f"not converted: {reason_of(error)}"
            outputs.append(
                Output(
                    task=task,
                    source=self.real(source),
                    reference=self.real(reference) if reference and task is Task.A2A else None,
                    output=file,
                    transcript=source.item.transcript,
                    gender=gender,
                    source_gender=source.item.gender,
                    speaker=reference.item.speaker if reference else "",
                    failure=failure,
                )
            )
        return outputs

    def voices(self, task: Task) -> Voices:
        """Group of a task that makes voices."""
        make = partial(self.convert, task)
        return Voices(names=self.names(task), make=make, people=self.utterances, folder=self.folder)

    def ground_truth(self) -> list[Group]:
        """Groups of the sources of all tasks, and of two utterances of a person each."""

        def people() -> dict[str, list[Path]]:
            names = sorted({one.item.speaker for one in self.sources})
            return {name: self.utterances(name) for name in names}

        return manifest.ground_truth(
            lambda: {self.real(one): one.item.transcript for one in self.sources},
            people,
            self.names("", manifest.GROUND_TRUTH),
            self.folder,
        )

    # Face against voice by the checkpoint's own styles: is this face the speaker of this voice?

    def verification(self) -> list[Row]:
        """Measure verification and retrieval between real faces and voices.

        Raises:
            DataError: nobody has faces and voices there, or not both sexes do.
        """
        split = SPLIT_OF[self.speakers]
        space = style_space(
            self.converter, self.stores, split=split, per_speaker=PER_SPEAKER, seed=self.cfg.seed
        )
        rows = cross_modal_rows(space, seed=self.cfg.seed)
        return [{**row, "definition": DEFINITIONS["verification"]["styles"]} for row in rows]
