"""Triplets of the correspondence study: a reference and two candidates, one of which belongs to it.

Paper: Sec. 4.3. A source is converted after two references of different speakers; whoever looks and
listens says which candidate belongs to the reference. The paper always shows a voice and two faces
(form "faces"); form "outputs" asks for voices with a face and two converted voices (A60). Every
system converts the same sources after the same references (A61).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.convert import Converter
from xfavot.convert.examples import SPLITS
from xfavot.data.manifest import GENDERS, Item, Store
from xfavot.errors import DataError
from xfavot.evaluation.cpr import BOTH_SEXES, ONE_SEX

TASKS = ("a2i", "i2a")  # a face led by a voice, a voice led by a face
TRUTH = "ground truth"
LONGEST_SECONDS = 6.0  # of a voice
SHORTEST_SECONDS = 0.5

Sample = NDArray[Any]  # a face, (H, W, 3) uint8, or a voice, (N,) float32 at 24 kHz


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Triplet:
    """One question.

    Args:
        system: what made it, "ground truth" or a model.
        task: "a2i" or "i2a".
        prompt: what the candidates are held against, a voice or a face.
        match: the candidate that belongs to it.
        other: the candidate that belongs to somebody else.
        people: whom `match` and `other` follow.
        genders: of the two, "f" or "m" each.
        source: the clip that was converted, "" for the ground truth.
    """

    system: str
    task: str
    prompt: Sample
    match: Sample
    other: Sample
    people: tuple[str, str]
    genders: tuple[str, str]
    source: str = ""

    @property
    def sexes(self) -> str:
        """Whether the two people are of "one sex" or "both sexes"."""
        return ONE_SEX if self.genders[0] == self.genders[1] else BOTH_SEXES


@dataclass(frozen=True, slots=True)
class Part:
    """A face or a voice of a store."""

    store: Store
    item: Item
    number: int  # of the face in its clip

    @property
    def person(self) -> str:
        """The speaker; a picture of nobody known stands for a person of its own."""
        return self.item.speaker or self.item.id

    def face(self) -> Sample:
        """(H, W, 3) uint8."""
        return self.store.face(self.item, self.number)

    def voice(self) -> Sample:
        """(N,) float32 at 24 kHz, its first six seconds."""
        return self.store.waveform(self.item)[: int(LONGEST_SECONDS * MEL.sample_rate)]


def is_face(sample: Sample) -> bool:
    """Whether a sample is a face; else it is a voice."""
    return sample.ndim == 3


def split_of(stores: Sequence[Store]) -> str:
    """Return the first of val, unseen and train with faces and voices of two people each.

    Args:
        stores: prepared stores.

    Returns:
        Its name; "train" if none has.
    """
    for split in SPLITS:
        if all(len(_parts(stores, modality, split)) > 1 for modality in ("face", "voice")):
            return split
    return SPLITS[-1]


def ground_truth(
    stores: Sequence[Store], *, task: str, form: str, count: int, seed: int
) -> list[Triplet]:
    """Draw triplets of recordings: a face and a voice of one person, and somebody else.

    Args:
        stores: prepared stores.
        task: "a2i" or "i2a"; both are drawn, each for itself.
        form: "faces" or "outputs".
        count: how many.
        seed: of the draw.

    Returns:
        The triplets; none where the stores hold no clip with a face and a voice.
    """
    split = split_of(stores)
    rng = np.random.default_rng([seed, TASKS.index(task), 1])
    voices = _parts(stores, "voice", split, paired=True)
    faces = _parts(stores, "face", split, paired=True)
    if len(voices) < 2:
        return []
    prompts, answers = (faces, voices) if task == "i2a" and form == "outputs" else (voices, faces)
    made = []
    for a, b in _pairs(prompts, count, rng):
        prompt = _draw(prompts[a], rng)
        apart = [part for part in answers[a] if part.item.id != prompt.item.id]
        match, other = _draw(apart or answers[a], rng), _draw(answers[b], rng)
        prompted, shown = (_face_or_voice(parts is faces) for parts in (prompts, answers))
        made.append(
            Triplet(
                system=TRUTH, task=task, people=(a, b), prompt=prompted(prompt), match=shown(match),
                other=shown(other), genders=(match.item.gender, other.item.gender),
            )
        )  # fmt: skip
    return made


def converted(
    converter: Converter,
    stores: Sequence[Store],
    *,
    system: str,
    task: str,
    form: str,
    count: int,
    seed: int,
) -> Iterator[Triplet]:
    """Convert a source after two references of different people, again and again.

    Args:
        converter: the model.
        stores: prepared stores.
        system: name of the model.
        task: "a2i" or "i2a".
        form: "faces" or "outputs".
        count: how many triplets.
        seed: of the draw; every model gets the same sources and references.

    Yields:
        The triplets, as they are made.

    Raises:
        DataError: fewer than two people to lead, or nobody to convert.
    """
    split = split_of(stores)
    rng = np.random.default_rng([seed, TASKS.index(task), 2])
    led, leading = ("face", "voice") if task == "a2i" else ("voice", "face")
    references = _parts(stores, leading, split)
    sources = [part for parts in _parts(stores, led, split).values() for part in parts]
    if len(references) < 2 or not sources:
        names = ", ".join(store.corpus for store in stores)
        raise DataError(
            f"study, task {task}: split {split!r} of {names} has {len(references)} people with a "
            f"{leading} to lead and {len(sources)} {led}s to convert; expected two people and one "
            f"{led} at least, of known gender; prepare more clips"
        )
    for a, b in _pairs(references, count, rng):
        first, second = _draw(references[a], rng), _draw(references[b], rng)
        strangers = [part for part in sources if part.person not in (a, b)]
        source = _draw(strangers or sources, rng)
        results = [_convert(converter, source, part, task) for part in (first, second)]
        if task == "a2i":
            prompt, match, other = first.voice(), *results
        elif form == "faces":
            prompt, match, other = results[0], first.face(), second.face()
        else:
            prompt, match, other = first.face(), *results
        yield Triplet(
            system=system, task=task, prompt=prompt, match=match, other=other, people=(a, b),
            genders=(first.item.gender, second.item.gender), source=source.item.id,
        )  # fmt: skip


def _convert(converter: Converter, source: Part, reference: Part, task: str) -> Sample:
    gender = reference.item.gender
    if task == "a2i":
        voice = reference.voice()
        return converter.convert_face(
            source.face(), aligned=True, voice_reference=voice, gender=gender
        ).image
    return converter.convert_voice(
        source.voice(), face_reference=reference.face(), reference_aligned=True, gender=gender
    ).waveform


def _face_or_voice(face: bool) -> Callable[[Part], Sample]:
    return Part.face if face else Part.voice


def _draw(parts: Sequence[Part], rng: np.random.Generator) -> Part:
    part = parts[int(rng.integers(len(parts)))]
    number = int(rng.integers(max(1, part.item.face_count)))
    return Part(part.store, part.item, number)


def _parts(
    stores: Sequence[Store], modality: str, split: str, *, paired: bool = False
) -> dict[str, list[Part]]:
    """The faces or voices of everybody of known gender in a split."""
    shortest = SHORTEST_SECONDS * MEL.sample_rate
    found: dict[str, list[Part]] = {}
    for store in stores:
        for item in store.items:
            has = {"face": item.face_count > 0, "voice": item.sample_count >= shortest}
            fits = all(has.values()) and bool(item.speaker) if paired else has[modality]
            if fits and item.split == split and item.gender in GENDERS:
                part = Part(store, item, 0)
                found.setdefault(part.person, []).append(part)
    return found


def _pairs(
    people: dict[str, list[Part]], count: int, rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Yield who leads and who is the other one: of one sex and of both in turn, all evenly."""
    names = sorted(people)
    gender = {name: people[name][0].item.gender for name in names}
    leads: Counter[str] = Counter()
    others: Counter[tuple[str, str]] = Counter()
    for turn in range(count):
        order = [names[i] for i in rng.permutation(len(names))]
        lead = min(order, key=lambda name: leads[name])

        def unwanted(name: str, lead: str = lead, turn: int = turn) -> tuple[bool, int]:
            alike = gender[name] == gender[lead]
            return alike is (turn % 2 == 1), others[lead, name]

        other = min((name for name in order if name != lead), key=unwanted)
        leads[lead] += 1
        others[lead, other] += 1
        yield lead, other
