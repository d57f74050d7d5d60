"""Voices of a checkpoint by the paper's protocol: random pairs, measured as foreign files are.

Paper, App. B: 140 conversions led by voices (`a2a`), 180 led by faces (`i2a`), of sources and
references drawn at random; here source and reference are different people, and 140 conversions led
by latent codes (`z2a`) stand beside them. Where a face leads, ten utterances of its person, of any
split, are compared. The converted voices and the real ones are written as 16-bit files, which
`foreign_voices.py` measures, so a checkpoint and any other system are measured alike. Clips are not
joined to 6 to 9 s (A25).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from xfavot.audio.io import save_waveform
from xfavot.convert.converter import Converter
from xfavot.convert.results import Style, Task
from xfavot.data.items import GENDERS
from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.evaluation import foreign_voices, held_out
from xfavot.evaluation.checkpoint_images import latent_seed
from xfavot.evaluation.foreign_manifest import Output
from xfavot.evaluation.held_out import SEXES, SPLITS, Sample
from xfavot.evaluation.ledger import Group, Ledger
from xfavot.evaluation.speaker_similarity import METRIC, MOST_UTTERANCES
from xfavot.evaluation.voice_tools import VoiceTools

TASKS = (Task.A2A, Task.I2A, Task.Z2A)
PAPER = {Task.A2A: 140, Task.I2A: 180, Task.Z2A: 140}  # conversions; z2a is not the paper's
NOBODY = "no voice of the reference's person"
LATENT = "a latent code is nobody's: there is no voice to compare with"

Row = dict[str, Any]


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
        voices = held_out.voices_of(self.stores, SPLITS[self.speakers])
        if not voices:
            raise DataError(
                f"no voice of {self.speakers} speakers of known sex; expected one to convert; "
                "evaluate on a corpus with speech in this split"
            )
        rng = np.random.default_rng([self.seed, *self.speakers.encode()])
        found: list[Sample] = []
        while len(found) < max(map(self.size, TASKS)):
            found += [voices[row] for row in rng.permutation(len(voices))]
        return found[: max(map(self.size, TASKS))]

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
        split = SPLITS[self.speakers]
        pool = held_out.voices_of(self.stores, split)
        if task is Task.I2A:
            pool = [one for sex in GENDERS for one in held_out.faces_of(self.stores, split, sex)]
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
        for one in held_out.voices_of(self.stores):
            known.setdefault(one.item.speaker, []).append(one)
        found = []
        for name in sorted(set(names) & known.keys() - {""}):
            rng = np.random.default_rng([self.seed, *name.encode()])
            for row in rng.permutation(len(known[name]))[:MOST_UTTERANCES]:
                file = self.real(known[name][row])
                found.append(
                    Output(line=0, task=Task.A2A, source=source, reference=file, output=file,
                           model=foreign_voices.GROUND_TRUTH, speaker=name)
                )  # fmt: skip
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
            yield pair, Output(
                line=number, task=task, source=self.real(pair.source), reference=reference,
                output=file, model=converter.config.configuration,
                transcript=pair.source.item.transcript, gender=pair.gender,
                speaker=pair.reference.item.speaker if pair.reference is not None else "",
            ), reason  # fmt: skip

    def plain(self, reason: object) -> str:
        """Take the folder's name out of a reason, so that equal reasons are equal in every run."""
        return str(reason).replace(f"{self.folder}/", "")


def score(
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
    foreign_voices.score(group, outputs, [*outputs, *told], tools, ledger)
    rows = [{**row, "direction": "", "sex": ""} for row in ledger.rows]
    for direction, sex, members in _parts(made):
        part = Ledger(seed=study.seed)
        foreign_voices.score(group, members, [*outputs, *told], tools, part)
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


def score_ground_truth(study: VoiceStudy, tools: VoiceTools, dataset: str) -> Ledger:
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
            Output(line=0, task=Task.A2A, source=file, reference=None, output=file,
                   model=foreign_voices.GROUND_TRUTH, transcript=source.item.transcript)
        )  # fmt: skip
    told = study.told((one.item.speaker for one in study.sources), rows[0].source)
    ledger = Ledger(seed=study.seed)
    foreign_voices.score_sources(dataset, [*told, *rows], tools, ledger)
    ledger.rows[:] = [{**row, "direction": "", "sex": ""} for row in ledger.rows]
    ledger.reasons = _plain(ledger, study)
    return ledger


def _parts(
    made: Sequence[tuple[Pair, Output, str]],
) -> Iterator[tuple[str, str, list[Output]]]:
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
