"""A checkpoint by the paper's whole protocol: faces and voices, seen and unseen speakers.

Paper, Sec. 4.1, App. B; Tables 2 to 5. The parts are the tasks among the speakers of one split, and
the ground truth of each split; `checkpoint_images.py` and `checkpoint_voices.py` say how a part is
measured. A finished part is kept under a hash of everything that it follows from, so a second run
with the same settings measures nothing anew and a run that was cut off goes on. A metric that
cannot be had is listed with its reason; a substitute is used only when asked for.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xfavot import __version__
from xfavot.audio.io import save_waveform
from xfavot.config import key_of
from xfavot.convert.converter import Converter, Style, StyleMaker, Task
from xfavot.convert.inputs import resize_face
from xfavot.data.batches import to_range
from xfavot.data.store import GENDERS, Item, Store
from xfavot.errors import ConfigError, DataError, ShapeError
from xfavot.evaluation import images, manifest, voices
from xfavot.evaluation.images import (
    BATCH,
    LPIPS,
    OUTPUTS,
    Direction,
    Generate,
    Metrics,
    Moments,
    Row,
    available_metrics,
    unit_package,
)
from xfavot.evaluation.judges import FaceJudge, ensure_judges, people_of, speakers_of
from xfavot.evaluation.manifest import GROUND_TRUTH, Output
from xfavot.evaluation.matching import cross_modal_rows, style_space
from xfavot.evaluation.rows import UNUSABLE, Group, Ledger, cell, csv_text, replace_text
from xfavot.evaluation.voices import CONTENT, METRIC, MOST_UTTERANCES, VoiceTools
from xfavot.parameters import METRICS
from xfavot.training.checkpoint import LoadedModel

# Who is evaluated: faces and voices of known sex that a checkpoint was not trained on


SPLIT_OF = {"seen": "val", "unseen": "unseen"}  # by the speakers
SEXES = {"f": "female", "m": "male"}
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


def require_held_out(stores: Sequence[Store], speakers: str) -> None:
    """Refuse a split without anybody.

    Raises:
        DataError: no clip of known sex lies in it.
    """
    split = SPLIT_OF[speakers]
    if not any(item.split == split and item.gender for store in stores for item in store.items):
        corpora = ", ".join(store.corpus for store in stores) or "no store"
        raise DataError(
            f"no clip of {speakers} speakers of known sex in {corpora} (split {split!r}); expected "
            "one; prepare a corpus that holds some out, or read the figures of the others alone"
        )


# Faces of a checkpoint by the paper's protocol: FID and LPIPS of ten outputs a source


FACE_TASKS = (Task.I2I, Task.A2I, Task.Z2I)
AT_ONCE = 32  # images
TRUTH = "faces"  # the task of real faces
LATENT_STRIDE = 1_000_003  # between the codes of two seeds of a run

Real = Mapping[tuple[str, str], Moments]
Log = Callable[[str], None]


def score_faces(
    task: Task,
    speakers: str,
    maker: StyleMaker,
    stores: Sequence[Store],
    metrics: Metrics,
    real: Real,
    *,
    system: str,
    dataset: str,
    seed: int,
    sources: int = 0,
) -> list[Row]:
    """Convert the held-out faces and measure them.

    Args:
        task: one of :data:`TASKS`.
        speakers: "seen" or "unseen".
        maker: the checkpoint.
        stores: the mixture.
        metrics: what to measure by.
        real: of :func:`real_statistics`.
        system, dataset: for the rows.
        seed: of the draws of sources, references and latent codes.
        sources: faces a direction, drawn at random; 0 for all.

    Returns:
        Rows of `image_protocol.score`, each with `sex` (of the outputs, "" for the mean).

    Raises:
        DataError: a sex has no face or no reference, or see `image_protocol.score`.
    """
    faces = _sources(stores, speakers, sources, seed)
    codes = OUTPUTS * max(BATCH, *map(len, faces.values()))
    styles = {
        name: _styles(task, maker, stores, SPLIT_OF[speakers], code, seed=seed, codes=codes)
        for code, name in SEXES.items()
    }
    counts = {name: len(own) for name, own in styles.items()}
    directions = _directions(faces, counts, f"{task.value}, {speakers} speakers")

    def shown(direction: Direction, chosen: Tensor) -> Tensor:
        own = [faces[direction.source][int(n)] for n in chosen]
        return pixels(own, maker.image_size)

    def generate(direction: Direction, chosen: Tensor, references: Tensor) -> Tensor:
        x = to_range(shown(direction, chosen))  # (n, 3, H, W)
        style = styles[direction.target][references]  # (n, K, S)
        made = _convert(maker, x.repeat_interleave(style.shape[1], 0), style.flatten(0, 1))
        return made.view(*style.shape[:2], *made.shape[1:])

    return _rows(
        generate,
        directions,
        metrics,
        real,
        system=system,
        task=task.value,
        dataset=dataset,
        seed=seed,
        sources=shown,
    )


def score_real_faces(
    speakers: str,
    stores: Sequence[Store],
    metrics: Metrics,
    real: Real,
    *,
    system: str,
    dataset: str,
    size: int,
    seed: int,
    sources: int = 0,
) -> list[Row]:
    """Measure the references of `i2i` themselves in the place of its outputs.

    What real faces that were not trained on reach, with the same draws and as many images.

    Args:
        speakers, stores, metrics, real, system, dataset, seed, sources: as in :func:`score`.
        size: pixels a side of the model.

    Raises:
        DataError: see :func:`score`.
    """
    faces = _sources(stores, speakers, sources, seed)
    told = _sources(stores, speakers, 0, seed)
    counts = {name: len(own) for name, own in told.items()}
    directions = _directions(faces, counts, f"ground truth, {speakers} speakers")

    def generate(direction: Direction, chosen: Tensor, references: Tensor) -> Tensor:
        own = [told[direction.target][int(n)] for n in references.flatten()]
        x = pixels(own, size)
        return x.view(*references.shape, *x.shape[1:])

    return _rows(
        generate, directions, metrics, real, system=system, task=TRUTH, dataset=dataset, seed=seed
    )


def _sources(
    stores: Sequence[Store], speakers: str, count: int, seed: int
) -> dict[str, list[Sample]]:
    """Faces by sex, all or as many as asked for."""
    return {
        name: drawn(faces_of(stores, SPLIT_OF[speakers], code), count, [seed, *name.encode()])
        for code, name in SEXES.items()
    }


def _directions(
    faces: Mapping[str, Sequence[Sample]], references: Mapping[str, int], where: str
) -> list[Direction]:
    """Both directions, from women to men and back."""
    found = []
    for source, target in (tuple(SEXES.values()), tuple(SEXES.values())[::-1]):
        counts = len(faces[source]), references[target]
        if not all(counts):
            raise DataError(
                f"{where}, {source} to {target}: {counts[0]} {source} faces and {counts[1]} "
                f"{target} references; expected some of both; prepare a corpus with women and men "
                "in this split"
            )
        found.append(
            Direction(source=source, target=target, sources=counts[0], references=counts[1])
        )
    return found


def _rows(
    generate: Generate, directions: Sequence[Direction], metrics: Metrics, real: Real, **named: Any
) -> list[Row]:
    """Score, with the batches that the references allow."""
    batch = min(BATCH, *(direction.references for direction in directions))
    smaller = "" if batch == BATCH else f"; batches of {batch}, not {BATCH}: few references"
    by_batch = {one.metric for one in metrics.distances}
    sexes = {direction.name: direction.target for direction in directions}
    return [
        {
            **row,
            "sex": sexes.get(row["direction"], ""),
            "definition": row["definition"] + (smaller if row["metric"] in by_batch else ""),
        }
        for row in images.score(generate, directions, metrics, real, batch=batch, **named)
    ]


def real_statistics(
    stores: Sequence[Store], metrics: Metrics, *, size: int, folder: Path, on_log: Log | None = None
) -> dict[tuple[str, str], Moments]:
    """Count the training faces of both sexes, once; later calls read what was kept.

    Args:
        stores: the mixture.
        metrics: whose extractors are used.
        size: pixels a side of the model.
        folder: of kept statistics.
        on_log: told what was done.

    Returns:
        Statistics by (metric, sex); a sex without faces has none.
    """
    found = {}
    prepared = "+".join(store.manifest_hash for store in stores)
    for code, name in SEXES.items():
        samples = faces_of(stores, TRAIN, code)
        for extractor in metrics.extractors if samples else ():
            found[extractor.metric, name] = extractor.real_moments(
                lambda samples=samples: (  # type: ignore[misc]
                    pixels(samples[at : at + AT_ONCE], size)
                    for at in range(0, len(samples), AT_ONCE)
                ),
                images=f"{prepared} {TRAIN} {name} {size}",
                folder=folder,
                on_log=on_log,
            )
    return found


def with_judge(metrics: Metrics, judge: FaceJudge, *, name: str, device: torch.device) -> Metrics:
    """Add the judge of faces as substitute, under its own name; it is no FID and no LPIPS.

    Args:
        metrics: those with published weights, which stay.
        judge: a small classifier of the real training faces.
        name: of it, for the rows.
        device: where it is.
    """
    width = judge.speaker.in_features
    extractor = images.substitute(
        name,
        lambda x: judge.who(x).mean((2, 3)),
        dims=width,
        fingerprint=images.digest(judge),
        device=device,
    )
    layers = nn.Sequential(*(layer for stage in judge.who for layer in stage.children()))
    learnt = [
        torch.full((one.num_features,), 1 / one.num_features)
        for one in layers
        if isinstance(one, nn.BatchNorm2d)
    ]
    distance = LPIPS(
        f"diversity, {name}",
        layers,
        learnt,
        unit_package,
        definition=f"mean squared difference of the maps of {name}, unit length, all pairs of a "
        "source's outputs, mean over sources; no LPIPS",
    )
    distance.shift.zero_()
    distance.scale.fill_(1)
    return Metrics(
        extractors=[*metrics.extractors, extractor],
        distances=[*metrics.distances, distance.to(device)],
        missing=metrics.missing,
        preserved=metrics.preserved,
    )


def drawn(samples: Sequence[Sample], count: int, seed: Sequence[int]) -> list[Sample]:
    """Draw samples without repetition; all of them, in their order, if `count` is 0 or too many."""
    if not 0 < count < len(samples):
        return list(samples)
    rows = np.random.default_rng([*seed]).permutation(len(samples))[:count]
    return [samples[row] for row in sorted(rows)]


def latent_seed(seed: int, number: int) -> int:
    """Seed of the code of a number in a run of a seed."""
    return seed * LATENT_STRIDE + number


def _styles(
    task: Task,
    maker: StyleMaker,
    stores: Sequence[Store],
    split: str,
    gender: str,
    *,
    seed: int,
    codes: int,
) -> Tensor:
    """Encode every reference of a sex once: (R, S)."""
    if task is Task.Z2I:
        found = (
            maker.style_of_latent(latent_seed(seed, n), gender=gender).vector for n in range(codes)
        )
    elif task is Task.I2I:
        found = (
            maker.style_of_face(
                one.store.face(one.item, one.face), gender=gender, aligned=True
            ).vector
            for one in faces_of(stores, split, gender)
        )
    else:
        found = (
            maker.style_of_voice(one.store.waveform(one.item), gender=gender).vector
            for one in voices_of(stores, split, gender)
        )
    vectors = list(found)
    return torch.cat(vectors) if vectors else torch.empty(0, maker.config.model.style_dim)


def _convert(maker: StyleMaker, x: Tensor, style: Tensor) -> Tensor:
    """Convert faces (n, 3, H, W) in [-1, 1] after styles (n, S), a few at once; on the CPU."""
    parts = zip(torch.split(x, AT_ONCE), torch.split(style, AT_ONCE), strict=True)
    made = [maker.nets.G_I(face.to(maker.device), led).cpu() for face, led in parts]
    return torch.cat(made)


# Voices of a checkpoint by the paper's protocol: random pairs, measured as foreign files are


VOICE_TASKS = (Task.A2A, Task.I2A, Task.Z2A)
PAPER = {Task.A2A: 140, Task.I2A: 180, Task.Z2A: 140}  # conversions; z2a is not the paper's
NOBODY = "no voice of the reference's person"
LATENT = "a latent code is nobody's: there is no voice to compare with"

VoiceRow = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Who is converted after whom; a latent code has a sex and no sample."""

    source: Sample
    gender: str
    reference: Sample | None = None

    @property
    def sexes(self) -> tuple[str, str]:
        """Of source and reference, in words."""
        return SEXES[self.source.item.gender], SEXES[self.gender]


@dataclass(frozen=True, eq=False, kw_only=True)
class VoiceStudy:
    """The conversions of one checkpoint among some speakers.

    Args:
        stores: the mixture.
        speakers: "seen" or "unseen".
        folder: where files are written; the caller removes it.
        seed: of the draws.
        count: conversions of every task; 0 for the paper's.
    """

    stores: Sequence[Store]
    speakers: str
    folder: Path
    seed: int
    count: int = 0

    @cached_property
    def sources(self) -> list[Sample]:
        """Sources of all tasks, shuffled again and again as far as there are too few.

        Raises:
            DataError: there is no voice.
        """
        voices = voices_of(self.stores, SPLIT_OF[self.speakers])
        if not voices:
            raise DataError(
                f"no voice of {self.speakers} speakers of known sex; expected one to convert; "
                "evaluate on a corpus with speech in this split"
            )
        rng = np.random.default_rng([self.seed, *self.speakers.encode()])
        found: list[Sample] = []
        while len(found) < max(map(self.size, VOICE_TASKS)):
            found += [voices[row] for row in rng.permutation(len(voices))]
        return found[: max(map(self.size, VOICE_TASKS))]

    def size(self, task: Task) -> int:
        """How many conversions a task has."""
        return self.count or PAPER[task]

    def pairs(self, task: Task) -> list[Pair]:
        """Draw the pairs of a task; source n is the same for every task.

        Raises:
            DataError: a source has no reference of another person.
        """
        rng = np.random.default_rng([self.seed, *f"{task.value} {self.speakers}".encode()])
        sources = self.sources[: self.size(task)]
        if task is Task.Z2A:
            return [Pair(one, GENDERS[int(rng.integers(len(GENDERS)))]) for one in sources]
        split = SPLIT_OF[self.speakers]
        pool = voices_of(self.stores, split)
        if task is Task.I2A:
            pool = [one for sex in GENDERS for one in faces_of(self.stores, split, sex)]
        found = []
        for source in sources:
            others = [one for one in pool if not _alike(one, source)]
            if not others:
                raise DataError(
                    f"{task.value}: {source.name} has no reference ({task.guidance}) of another "
                    f"person among {len(pool)} of {self.speakers} speakers; expected two people "
                    "at least; prepare more speakers"
                )
            one = others[int(rng.integers(len(others)))]
            found.append(Pair(source, one.item.gender, one))
        return found

    def real(self, sample: Sample) -> Path:
        """Write a real voice, once, and say where."""
        file = self.folder / "real" / f"{sha256(sample.name.encode()).hexdigest()[:16]}.wav"
        if not file.exists():
            save_waveform(file, sample.store.waveform(sample.item))
        return file

    def told(self, names: Iterable[str], source: Path) -> list[Output]:
        """Rows that name up to ten utterances of each person, drawn at random from all splits.

        Args:
            names: people.
            source: a file to name as the rows' source.
        """
        known: dict[str, list[Sample]] = {}
        for one in voices_of(self.stores):
            known.setdefault(one.item.speaker, []).append(one)
        found = []
        for name in sorted(set(names) & known.keys() - {""}):
            rng = np.random.default_rng([self.seed, *name.encode()])
            for row in rng.permutation(len(known[name]))[:MOST_UTTERANCES]:
                file = self.real(known[name][row])
                found.append(
                    Output(
                        line=0,
                        task=Task.A2A,
                        source=source,
                        reference=file,
                        output=file,
                        model=manifest.GROUND_TRUTH,
                        speaker=name,
                    )
                )
        return found

    def convert(self, task: Task, converter: Converter) -> Iterator[tuple[Pair, Output, str]]:
        """Convert the pairs of a task, one at a time, each into a file.

        Yields:
            The pair, its output, and why there is no file ("" where there is one).

        Raises:
            DataError: see :meth:`pairs`.
        """
        for number, pair in enumerate(self.pairs(task)):
            file = self.folder / task.value / f"{number:04d}.wav"
            reason = ""
            try:
                style = _style(converter, task, pair, latent_seed(self.seed, number))
                wave = pair.source.store.waveform(pair.source.item)
                save_waveform(file, converter.convert_voice(wave, style=style).waveform)
            except DataError as error:
                reason = self.plain(error)
            reference = None
            if task is Task.A2A and pair.reference is not None:
                reference = self.real(pair.reference)
            yield (
                pair,
                Output(
                    line=number,
                    task=task,
                    source=self.real(pair.source),
                    reference=reference,
                    output=file,
                    model=converter.config.configuration,
                    transcript=pair.source.item.transcript,
                    gender=pair.gender,
                    speaker=pair.reference.item.speaker if pair.reference is not None else "",
                ),
                reason,
            )

    def plain(self, reason: object) -> str:
        """Take the folder's name out of a reason, so that equal reasons are equal in every run."""
        return str(reason).replace(f"{self.folder}/", "")


def score_voices(
    task: Task, converter: Converter, study: VoiceStudy, tools: VoiceTools, group: Group
) -> Ledger:
    """Convert and measure the voices of a task, together, by direction and by sex.

    Args:
        task: one of :data:`TASKS`.
        converter: the checkpoint with its vocoder.
        study: who is converted.
        tools: networks that measure.
        group: names for the rows.

    Returns:
        Rows of `foreign_voices.score`, each with `direction` and `sex` (of the reference), both ""
        for all conversions together; and what is missing, told of all together alone.

    Raises:
        DataError: see :meth:`VoiceStudy.pairs`.
    """
    made = list(study.convert(task, converter))
    outputs = [output for _, output, _ in made]
    told = study.told((one.speaker for one in outputs), outputs[0].source)
    ledger = Ledger(seed=study.seed)
    for reason in (reason for _, _, reason in made if reason):
        ledger.lacks(group, "all", f"not converted: {reason}")
    manifest.score_voices(group, outputs, [*outputs, *told], tools, ledger)
    rows = [{**row, "direction": "", "sex": ""} for row in ledger.rows]
    for direction, sex, members in _parts(made):
        part = Ledger(seed=study.seed)
        manifest.score_voices(group, members, [*outputs, *told], tools, part)
        rows += [
            {**row, "direction": direction, "sex": sex}
            for row in part.rows
            if row["chance"] is None  # verification needs people of both sexes
        ]
    ledger.rows[:] = rows
    ledger.reasons = _plain(ledger, study)
    if task is Task.Z2A:
        lacking = [key for key in ledger.reasons if key[2] == METRIC and NOBODY in key[3]]
        for key in lacking:
            ledger.reasons[(*key[:3], LATENT)] = ledger.reasons.pop(key)
    return ledger


def score_real_voices(study: VoiceStudy, tools: VoiceTools, dataset: str) -> Ledger:
    """Measure the sources of all tasks, and two utterances of each reference's person.

    Args:
        study: who is converted.
        tools: networks that measure.
        dataset: for the rows.

    Raises:
        DataError: there is no voice.
    """
    rows = []
    for source in study.sources:
        file = study.real(source)
        rows.append(
            Output(
                line=0,
                task=Task.A2A,
                source=file,
                reference=None,
                output=file,
                model=manifest.GROUND_TRUTH,
                transcript=source.item.transcript,
            )
        )
    told = study.told((one.item.speaker for one in study.sources), rows[0].source)
    ledger = Ledger(seed=study.seed)
    manifest.score_sources(dataset, [*told, *rows], tools, ledger)
    ledger.rows[:] = [{**row, "direction": "", "sex": ""} for row in ledger.rows]
    ledger.reasons = _plain(ledger, study)
    return ledger


def _parts(made: Sequence[tuple[Pair, Output, str]]) -> Iterator[tuple[str, str, list[Output]]]:
    """Direction, sex of the reference and outputs: every direction, then every sex."""
    for target in SEXES.values():
        for source in SEXES.values():
            members = [output for pair, output, _ in made if pair.sexes == (source, target)]
            if members:
                yield f"{source} to {target}", target, members
    for target in SEXES.values():
        members = [output for pair, output, _ in made if pair.sexes[1] == target]
        if members:
            yield "", target, members


def _style(converter: Converter, task: Task, pair: Pair, code: int) -> Style:
    """Encode the style of a pair's reference, or draw that of a latent code."""
    one = pair.reference
    if one is None:
        return converter.style_of_latent(code, gender=pair.gender)
    if task is Task.I2A:
        face = one.store.face(one.item, one.face)
        return converter.style_of_face(face, gender=pair.gender, aligned=True)
    return converter.style_of_voice(one.store.waveform(one.item), gender=pair.gender)


def _alike(one: Sample, other: Sample) -> bool:
    """Whether two samples are of one person, as far as it is known, or of one clip."""
    known = one.item.speaker and one.item.speaker == other.item.speaker
    return bool(known) or one.name == other.name


def _plain(ledger: Ledger, study: VoiceStudy) -> dict[tuple[str, str, str, str], int]:
    """Reasons without the folder's name, equal ones added up."""
    found: dict[tuple[str, str, str, str], int] = {}
    for (*names, reason), count in ledger.reasons.items():
        key = (*names, study.plain(reason))
        found[key] = found.get(key, 0) + count  # type: ignore[index, arg-type]
    return found


# Face against voice by a checkpoint's own styles: is this face the speaker of this voice?


TASK = "verification"
PER_SPEAKER = 20  # faces, and as many voices, of everybody at most
DEFINITION = (
    "real faces against real voices, cosine of their styles under the heads of their own sex, up "
    f"to {PER_SPEAKER} of either a person; galleries hold everybody's mean"
)


def score_verification(
    converter: Converter,
    stores: Sequence[Store],
    speakers: str,
    *,
    system: str,
    dataset: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Measure verification and retrieval between faces and voices.

    Args:
        converter: the checkpoint.
        stores: the mixture.
        speakers: "seen" or "unseen", whose samples.
        system, dataset: for the rows.
        seed: of the draws.

    Returns:
        Rows of :func:`xfavot.evaluation.verification.cross_modal_rows`, with their names.

    Raises:
        DataError: nobody has faces and voices there, or not both sexes do.
        ConfigError: the model has no faces or no voices.
    """
    space = style_space(
        converter, stores, split=SPLIT_OF[speakers], per_speaker=PER_SPEAKER, seed=seed
    )
    vectors = torch.from_numpy(space.styles)
    faces, voices = (
        [space.speakers[code] for code in space.speaker[space.kind == kind]] for kind in (0, 1)
    )
    rows = cross_modal_rows(
        vectors[torch.from_numpy(space.kind == 0)],
        vectors[torch.from_numpy(space.kind == 1)],
        faces,
        voices,
        dict(zip(space.speakers, space.genders, strict=True)),
        seed=seed,
    )
    names = {"system": system, "task": TASK, "dataset": dataset, "definition": DEFINITION}
    return [{**row, **names} for row in rows]


# Results of the paper's protocol on the disk: finished parts, the rows, and what is missing


COLUMNS = (
    *("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed"),
    *("direction", "sex", "guidance", "speakers", "n_real", "chance", "definition"),
)
MISSING = ("system", "task", "speakers", "metric", "reason", "samples")
SHOWN = ("system", "task", "speakers", "metric", "value", "ci_low", "ci_high", "n")
SHOWN_APART = ("system", "task", "speakers", "direction", "sex", "metric", "value", "n")
NUMBERS = ("value", "ci_low", "ci_high", "n")
PARTS = "parts"
MEAN = "mean"  # the direction of rows that average both
EVERYTHING = "all"  # a metric: none of them
LONGEST_REASON = 200  # characters, in Markdown

ProtocolRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one task among some speakers, and what is missing there."""

    rows: list[ProtocolRow]
    missing: list[ProtocolRow]

    @classmethod
    def nothing(cls, system: str, task: str, speakers: str, reason: str) -> Part:
        """Make a part in which nothing could be measured."""
        names = {"system": system, "task": task, "speakers": speakers}
        return cls([], [{**names, "metric": EVERYTHING, "reason": reason, "samples": 0}])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All parts together.

    Args:
        rows: by `COLUMNS`.
        missing: by `MISSING`.
        origin: what was measured, and how.
        folder: where it belongs.
    """

    rows: list[ProtocolRow]
    missing: list[ProtocolRow]
    origin: Mapping[str, Any]
    folder: Path

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        *,
        wanted: tuple[str, ...],
        unasked: str,
        folder: Path,
        origin: Mapping[str, Any],
    ) -> Evaluation:
        """Join parts and leave out what was not asked for.

        Args:
            parts: in the order of the rows.
            wanted: how the names of metrics begin that were asked for.
            unasked: the reason of metrics that were not.
            folder, origin: see the class.

        Raises:
            DataError: nothing was measured; the reasons are told.
        """
        always = (*wanted, UNUSABLE)
        rows = [row for part in parts for row in part.rows if row["metric"].startswith(always)]
        missing = [
            {name: one.get(name, "") for name in MISSING}
            for part in parts
            for one in part.missing
            if one["reason"] != unasked and one["metric"].startswith((*always, EVERYTHING))
        ]
        if not any(row["metric"] != UNUSABLE for row in rows):
            reasons = "; ".join(dict.fromkeys(one["reason"] for one in missing)) or "no reason"
            raise DataError(f"evaluation: nothing could be measured; {reasons}")
        return cls([{n: row.get(n) for n in COLUMNS} for row in rows], missing, origin, folder)


def results_folder(model: LoadedModel) -> Path:
    """Where the results of a checkpoint belong: the folder `evaluation` of its run."""
    return model.path.resolve().parents[1] / "evaluation"


def keep(file: Path, basis: str, part: Part) -> None:
    """Keep a finished part, whole or not at all.

    Args:
        file: under `PARTS`.
        basis: all that it follows from.
        part: what was measured.

    Raises:
        DataError: it cannot be written.
    """
    _write(file, json.dumps({"basis": json.loads(basis), **asdict(part)}, indent=1) + "\n")


def kept(file: Path, basis: str) -> Part | None:
    """Read a finished part; ``None`` if there is none, or none that can be trusted."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["basis"] != json.loads(basis):
            return None
        part = Part(list(held["rows"]), list(held["missing"]))
        whole = all("metric" in row for row in (*part.rows, *part.missing))
        return part if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(evaluation: Evaluation) -> Path:
    """Write the four files, each whole or not at all.

    Returns:
        The table in Markdown.

    Raises:
        DataError: they cannot be written.
    """
    target = evaluation.folder / "evaluation.md"
    origin = json.dumps(dict(evaluation.origin), indent=2, sort_keys=True) + "\n"
    _write(target.with_suffix(".csv"), csv_text(evaluation.rows, COLUMNS))
    _write(target.with_name("missing.csv"), csv_text(evaluation.missing, MISSING))
    _write(target.with_suffix(".json"), origin)
    _write(target, markdown(evaluation))
    return target


def markdown(evaluation: Evaluation) -> str:
    """Write rows, definitions and reasons for people."""
    told = evaluation.origin
    count = told["conversions"]
    lines = [
        f"{told['run']}, step {told['step']}; dataset {told['dataset']}, seed {told['seed']}; "
        f"vocoder {told['vocoder']}, recogniser {told['recogniser']}.",
        "",
        f"Reduced: {count} voices a task, {count} source faces a direction, ten outputs of each."
        if count
        else "The paper's counts: 140 and 180 voices, all faces, ten outputs of each.",
        "",
        *_table([row for row in evaluation.rows if not row["sex"]], SHOWN),
        "",
        "Frechet distances fall with the number of images: compare those of equal n alone. The "
        "speakers are those of the validation split (seen) and those left out (unseen).",
        "",
        "By direction (source to reference) and by sex (of the reference):",
        "",
        *_table([row for row in evaluation.rows if row["sex"]], SHOWN_APART),
        "",
    ]
    defined = dict.fromkeys((row["metric"], row["definition"]) for row in evaluation.rows)
    lines += [f"- {metric}: {text}." for metric, text in defined]
    if evaluation.missing:
        lines += ["", "Missing, or not for all:", ""]
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for one in evaluation.missing:
        key = (one["system"], one["metric"], " ".join(one["reason"].split()))
        reasons.setdefault(key, []).append(f"{one['task']} {one['speakers']}".strip())
    for (system, metric, reason), where in reasons.items():
        short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
        lines.append(f"- {system}, {metric} ({', '.join(where)}): {short}")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[ProtocolRow], columns: Sequence[str]) -> list[str]:
    rules = ("---:" if name in NUMBERS else "---" for name in columns)
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(rules) + "|",
        *("| " + " | ".join(cell(row[name]) for name in columns) + " |" for row in rows),
    ]


def _write(file: Path, text: str) -> None:
    try:
        replace_text(file, text)
    except OSError as error:
        raise DataError(
            f"{file} cannot be written ({error}); expected a writable folder with room for a few "
            "kilobytes; free some space"
        ) from error


# What a checkpoint is measured by: the families that were asked for, as far as they can be had


OF_FACES = METRICS[:3]
PREFIXES = {  # of the names in the rows
    "fid": ("fid_", "frechet,"),
    "lpips": ("lpips_", "diversity,"),
    "preservation": images.METRICS,
    "nisqa": ("nisqa",),
    "speaker_similarity": ("speaker_similarity",),
    "word_error": ("word_error", "character_error"),
    "f0": ("f0_", "voicing_", "gender_agreement_f0"),
    "content": ("content_",),
    "verification": ("speaker verification", "verification", "R@"),
}
NOT_ASKED = "not asked for"


def image_metrics(
    converter: Converter,
    model: LoadedModel,
    stores: Sequence[Store],
    asked: Sequence[str],
    *,
    substitute: str,
    dataset: str,
    cache: str | PathLike[str] | None,
    on_log: Log,
) -> Metrics:
    """Load the metrics of faces that were asked for, and the substitute."""
    if not set(asked) & set(OF_FACES):
        return Metrics(missing={})
    found = available_metrics(image_size=converter.image_size, cache=cache, device=converter.device)
    if substitute:
        label = f"{substitute} of the faces of {dataset}"
        try:
            names = speakers_of(stores, (TRAIN, SPLIT_OF["seen"]))
            train, people = (
                people_of(stores, split, speakers=names, image_size=converter.image_size)
                for split in (TRAIN, SPLIT_OF["seen"])
            )
            judges = ensure_judges(
                stores,
                train,
                people,
                frames=model.config.model.mel_frames,
                folder=results_folder(model).parents[1] / "auxiliary",
                device=converter.device,
                on_log=on_log,
            )
            found = with_judge(found, judges.face, name=label, device=converter.device)
        except DataError as error:
            missing = {**found.missing, f"frechet, {label}": str(error)}
            found = dataclasses.replace(found, missing=missing)
    wanted = beginnings([one for one in asked if one in OF_FACES])
    return Metrics(
        extractors=[one for one in found.extractors if one.metric.startswith(wanted)],
        distances=[one for one in found.distances if one.metric.startswith(wanted)],
        missing={name: why for name, why in found.missing.items() if name.startswith(wanted)},
        preserved=found.preserved and "preservation" in asked,
    )


def voice_tools(
    recogniser: str, asked: Sequence[str], cache: str | PathLike[str] | None
) -> VoiceTools:
    """Load what measures voices, and set aside what was not asked for."""
    tools = VoiceTools(recogniser, cache=cache)
    used = {
        "nisqa": (voices.NISQA, voices.NISQA_TTS),
        "speaker_similarity": (voices.METRIC,),
        "word_error": (recogniser,),
        "content": (CONTENT,),
        "f0": (voices.VOICING, voices.GENDER),
    }
    for family, names in used.items():
        if family not in asked:
            tools.missing.update(dict.fromkeys(names, NOT_ASKED))
    return tools


def beginnings(metrics: Sequence[str]) -> tuple[str, ...]:
    """How the names of the metrics that were asked for begin."""
    return tuple(prefix for name in metrics for prefix in PREFIXES[name])


FACES, VOICES = TRUTH, "voices"  # the parts of real ones
VERIFICATION = TASK
SEEN = (*(task.value for task in FACE_TASKS), FACES)
SCHEMA = 1  # raise when a part would come out otherwise


def evaluate(
    model: LoadedModel,
    stores: Sequence[Store],
    *,
    dataset: str,
    vocoder: Any,
    recogniser: str,
    metrics: Sequence[str] = METRICS,
    conversions: int = 0,
    substitute: str = "",
    seed: int = 0,
    device: str = "cpu",
    weights: str | PathLike[str] | None = None,
    on_log: Log | None = None,
) -> Evaluation:
    """Measure a checkpoint.

    Args:
        model: the checkpoint.
        stores: the mixture.
        dataset: its name.
        vocoder: as :class:`xfavot.convert.Converter` takes it.
        recogniser: of words, one of `recognisers.NAMES`.
        metrics: some of `parameters.METRICS`.
        conversions: voices a task, and source faces a direction; 0 for the paper's: 140 and 180
            voices, all faces.
        substitute: "judge" also measures faces by the project's own judge, under its own name.
        seed: of all draws.
        device: where the checkpoint's networks run.
        weights: the folder of weights; see `weights.root`. Nothing is fetched.
        on_log: told what is done and what is missing.

    Returns:
        Rows and what is missing.

    Raises:
        DataError: nothing can be measured; the reasons are told.
        ConfigError: no such metric, substitute or device.
        WeightsError: the vocoder's weights cannot be used.
    """
    _require_known("metrics", metrics, METRICS)
    _require_known("substitute", [substitute], ("", "judge"))
    say = on_log or (lambda _: None)
    folder = results_folder(model)
    system, name = model.config.configuration, f"{model.config.name} at step {model.step}"
    converter = Converter(model, name=name, device=device, vocoder=vocoder)
    faces = image_metrics(
        converter,
        model,
        stores,
        metrics,
        substitute=substitute,
        dataset=dataset,
        cache=weights,
        on_log=say,
    )
    tools = voice_tools(recogniser, metrics, weights)
    basis = {
        "schema": SCHEMA,
        "version": __version__,
        "system": system,
        "dataset": dataset,
        "checkpoint": [model.step, images.digest(model.nets), images.digest(model.f0)],
        "stores": [store.manifest_hash for store in stores],
        "seed": seed,
        "conversions": conversions,
        "metrics": sorted(metrics),
    }
    seen = {
        **basis,
        "extractors": [one.fingerprint for one in faces.extractors],
        "distances": [images.digest(one) for one in faces.distances],
        "missing": dict(faces.missing),
        "preserved": faces.preserved,
    }
    heard = {
        **basis,
        "vocoder": [str(getattr(vocoder, "name", vocoder)), converter.vocoder.name],
        "recogniser": recogniser,
        "missing": dict(tools.missing),
    }
    parts: list[Part] = []
    with _workshop(folder) as workshop:
        for speakers, split in SPLIT_OF.items():
            try:
                require_held_out(stores, speakers)
            except DataError as error:
                parts.append(Part.nothing(system, "", speakers, str(error)))
                say(str(error))
                continue
            study = VoiceStudy(
                stores=stores,
                speakers=speakers,
                folder=Path(workshop, split),
                seed=seed,
                count=conversions,
            )
            plan = [
                *_face_parts(
                    converter,
                    stores,
                    speakers,
                    faces,
                    system,
                    dataset,
                    seed,
                    conversions,
                    folder,
                    metrics,
                    say,
                ),
                *_voice_parts(converter, study, tools, system, dataset, metrics),
                *_verification_part(converter, stores, speakers, system, dataset, seed, metrics),
            ]
            for task, measure in plan:
                who = GROUND_TRUTH if task in (FACES, VOICES) else system
                by = basis if task == VERIFICATION else seen if task in SEEN else heard
                own = {**by, "part": [task, speakers]}
                parts.append(_part(own, folder / PARTS, who, task, speakers, measure, say))
    origin = {
        **basis,
        "run": model.config.name,
        "step": model.step,
        "recogniser": recogniser,
        "vocoder": converter.vocoder.name,
        "substitute": substitute,
    }
    found = Evaluation.of(
        parts, wanted=beginnings(metrics), unasked=NOT_ASKED, folder=folder, origin=origin
    )
    say(f"evaluation: {len(found.rows)} rows, {len(found.missing)} missing")
    return found


def _part(
    basis: Mapping[str, Any],
    folder: Path,
    system: str,
    task: str,
    speakers: str,
    measure: Callable[[], Part],
    say: Log,
) -> Part:
    """Read a part that is finished, or measure it and keep it."""
    text = json.dumps(basis, sort_keys=True)
    file = folder / f"{key_of(basis)}.json"
    found = kept(file, text)
    if found is not None:
        say(f"{task}, {speakers} speakers: {len(found.rows)} rows read from {file.name}")
        return found
    try:
        found = measure()
    except (DataError, ShapeError) as error:
        found = Part.nothing(system, task, speakers, str(error))
    else:
        found = Part(
            rows=[{**row, "speakers": speakers} for row in found.rows],
            missing=[{**one, "speakers": speakers} for one in found.missing],
        )
        keep(file, text, found)
    say(f"{task}, {speakers} speakers: {len(found.rows)} rows, {len(found.missing)} missing")
    return found


def _face_parts(
    converter: Converter,
    stores: Sequence[Store],
    speakers: str,
    metrics: Metrics,
    system: str,
    dataset: str,
    seed: int,
    count: int,
    folder: Path,
    asked: Sequence[str],
    say: Log,
) -> Iterator[tuple[str, Callable[[], Part]]]:
    """Name and measurement of every task that makes faces, and of the ground truth."""

    @cache
    def real() -> Real:
        return real_statistics(
            stores,
            metrics,
            size=converter.image_size,
            on_log=say,
            folder=folder.parents[1] / "auxiliary" / "moments",
        )

    def part(rows: Sequence[ProtocolRow], system: str, task: str, guidance: str) -> Part:
        missing = [
            {"system": system, "task": task, "metric": name, "reason": why, "samples": 0}
            for name, why in metrics.missing.items()
        ]
        return Part(rows=[{**row, "guidance": guidance} for row in rows], missing=missing)

    def measure(task: Task) -> Part:
        _require_trained(converter, task)
        rows = (
            score_faces(
                task,
                speakers,
                converter,
                stores,
                metrics,
                real(),
                system=system,
                dataset=dataset,
                seed=seed,
                sources=count,
            )
            if metrics.any
            else []
        )
        return part(rows, system, task.value, task.guidance)

    def truth() -> Part:
        rows = (
            score_real_faces(
                speakers,
                stores,
                metrics,
                real(),
                system=GROUND_TRUTH,
                dataset=dataset,
                size=converter.image_size,
                seed=seed,
                sources=count,
            )
            if metrics.any
            else []
        )
        return part(rows, GROUND_TRUTH, FACES, "")

    if not set(asked) & set(OF_FACES):
        return
    for task in FACE_TASKS:
        yield task.value, partial(measure, task)
    if converter.has("face"):
        yield FACES, truth


def _voice_parts(
    converter: Converter,
    study: VoiceStudy,
    tools: VoiceTools,
    system: str,
    dataset: str,
    asked: Sequence[str],
) -> Iterator[tuple[str, Callable[[], Part]]]:
    """Name and measurement of every task that makes voices, and of the ground truth."""

    def measure(task: Task) -> Part:
        _require_trained(converter, task)
        group = Group(system=system, task=task.value, dataset=dataset)
        ledger = score_voices(task, converter, study, tools, group)
        rows = [{**row, "guidance": task.guidance} for row in ledger.rows]
        return Part(rows=rows, missing=[dataclasses.asdict(one) for one in ledger.missing])

    def truth() -> Part:
        ledger = score_real_voices(study, tools, dataset)
        rows = [{**row, "guidance": ""} for row in ledger.rows]
        return Part(rows=rows, missing=[dataclasses.asdict(one) for one in ledger.missing])

    if not set(asked) - set(OF_FACES):
        return
    for task in VOICE_TASKS:
        yield task.value, partial(measure, task)
    if converter.has("voice"):
        yield VOICES, truth


def _verification_part(
    converter: Converter,
    stores: Sequence[Store],
    speakers: str,
    system: str,
    dataset: str,
    seed: int,
    asked: Sequence[str],
) -> Iterator[tuple[str, Callable[[], Part]]]:
    """Name and measurement of what the styles tell of face and voice."""

    def measure() -> Part:
        _require_trained(converter, Task.A2I)
        rows = score_verification(
            converter, stores, speakers, system=system, dataset=dataset, seed=seed
        )
        return Part(rows=rows, missing=[])

    if VERIFICATION in asked:
        yield VERIFICATION, measure


def _require_trained(converter: Converter, task: Task) -> None:
    """Refuse a task of a modality that a checkpoint was not trained on."""
    lacking = [
        kind
        for kind in ("face", "voice")
        if kind in (task.guidance, task.output) and not converter.has(kind)
    ]
    if lacking:
        raise DataError(
            f"{task.value}: checkpoint {converter.name} was trained without {lacking[0]}s, on "
            f"{', '.join(converter.config.train.modalities)}; expected both; train configuration "
            "xfavot"
        )


def _require_known(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    odd = [one for one in given if one not in known]
    if odd or not given:
        listed = ", ".join(filter(None, known))
        raise ConfigError(f"{name} is {odd[0] if odd else ''!r}; expected of: {listed}")


def _workshop(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a folder for voices, removed at the end, on the disk of the results."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".voices_", dir=folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error}); expected a writable folder with room for the "
            "converted voices; free some space"
        ) from error
