"""Automatic CPR: the same triplets, judged by a computer instead of people.

On `mini` the hidden factors of everybody are known: what a task made is read by a linear probe of
real samples and held against the exact factors of the people in question. On any data a measure of
likeness between a face and a voice decides; a model's own style encoders are one, but its outputs
were trained to please them, so only the row of the ground truth is a measurement of the encoders,
and another verifier should judge the outputs. Not in the paper (A64).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import log_mel
from xfavot.convert import Converter
from xfavot.convert.inputs import resize_face
from xfavot.data.items import GENDERS
from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.evaluation.cpr import METRICS, Row, binomial
from xfavot.evaluation.triplets import Sample, Triplet, is_face

FACTORS = ("sex", "age", "size", "liveliness")
PROBE_PIXELS = 16  # a side of the faces that the probe sees
RIDGE = 0.1  # share of the features' number
TASK_MAKES_FACES = {"a2i": True, "i2a": False}

Array = NDArray[np.float64]
Likeness = Callable[[Sample, Sample, str], float]  # of a face and a voice, of a person of a gender


class Judge(Protocol):
    """Says which candidate fits."""

    @property
    def name(self) -> str:
        """What judges, for the rows."""

    def prefers(self, triplet: Triplet) -> float:
        """1 if the matching candidate fits better, 0 if the other one does, 0.5 if neither."""


def automatic_rows(
    triplets: Sequence[Triplet], judges: Sequence[Judge], *, dataset: str, seed: int
) -> list[Row]:
    """Measure the CPR of every system and task by every judge.

    Args:
        triplets: what was made.
        judges: who judges; rows are named after them.
        dataset, seed: for the rows.

    Returns:
        Rows like those of :func:`xfavot.evaluation.cpr.cpr_rows`, with Wilson's interval. An
        undecided triplet counts half in the value, and as wrong in interval and test.
    """
    rows = []
    for judge in judges:
        votes = [(triplet, judge.prefers(triplet)) for triplet in triplets]
        for system, task in dict.fromkeys((t.system, t.task) for t in triplets):
            for metric, sexes in METRICS.items():
                found = [
                    vote
                    for t, vote in votes
                    if (t.system, t.task) == (system, task) and sexes in ("", t.sexes)
                ]
                if found:
                    test = binomial(sum(vote == 1.0 for vote in found), len(found))
                    value = float(np.mean(found))
                    rows.append({
                        "system": system, "task": task, "dataset": dataset,
                        "metric": f"automatic {metric}, by {judge.name}", "value": value,
                        "ci_low": min(test["wilson_low"], value),
                        "ci_high": max(test["wilson_high"], value), "n": len(found), "seed": seed,
                        **test, "triplets": len(found), "interval": "Wilson",
                    })  # fmt: skip
    return rows


def _compare(match: float, other: float) -> float:
    return 0.5 if match == other else float(match > other)


@dataclass(frozen=True, slots=True)
class LikenessJudge:
    """Prefers the candidate that is more like the prompt.

    Args:
        name: what measures the likeness.
        likeness: of a face and a voice, the larger the better; it is told the gender of the person
            whom the prompt follows, for both candidates alike.
    """

    name: str
    likeness: Likeness

    def prefers(self, triplet: Triplet) -> float:
        """See :class:`Judge`."""
        found = []
        for candidate in (triplet.match, triplet.other):
            face, voice = triplet.prompt, candidate
            if is_face(candidate):
                face, voice = candidate, triplet.prompt
            found.append(self.likeness(face, voice, triplet.genders[0]))
        return _compare(found[0], found[1])


def style_judge(converter: Converter, system: str) -> LikenessJudge:
    """Judge by the cosine of the styles that a model's own encoders give to face and voice.

    Args:
        converter: the model.
        system: its name.
    """

    def likeness(face: Sample, voice: Sample, gender: str) -> float:
        seen = converter.style_of_face(face, gender=gender, aligned=True).vector
        heard = converter.style_of_voice(voice, gender=gender).vector
        return float(torch.cosine_similarity(seen, heard)[0])

    return LikenessJudge(f"the style encoders of {system}", likeness)


class FactorJudge:
    """Reads sex, age, size and liveliness of what a task made, and knows those of the people.

    Args:
        store: a prepared store of `mini`; its training split teaches the probes.

    Raises:
        DataError: the store knows no hidden factors, or has no training split.
    """

    name = "the hidden factors"

    def __init__(self, store: Store) -> None:
        """Fit the two probes."""
        people = known_people(store)
        names = sorted(people)
        table = np.array([people[name] for name in names])  # (K, 4)
        self._mean, self._scale = table.mean(axis=0), table.std(axis=0) + 1e-9
        self.known: Mapping[str, Array] = dict(
            zip(names, (table - self._mean) / self._scale, strict=True)
        )
        faces, voices, seen, heard = [], [], [], []
        for item in (i for i in store.items if i.split == "train" and i.speaker in self.known):
            for number in range(item.face_count):
                faces.append(_see(store.face(item, number)))
                seen.append(self.known[item.speaker])
            if item.sample_count:
                voices.append(_spectrum(store.log_mel(item)))
                heard.append(self.known[item.speaker])
        if not faces or not voices:
            raise DataError(
                f"automatic CPR: the training split of {store.path} has {len(faces)} faces and "
                f"{len(voices)} voices; expected both; prepare `mini` again"
            )
        self._face, self._voice = (
            _ridge(np.array(x), np.array(y)) for x, y in ((faces, seen), (voices, heard))
        )

    def read(self, sample: Sample) -> Array:
        """(4,) factors of a sample, standardised over the people."""
        probe, x = (self._face, _see(sample)) if is_face(sample) else (self._voice, _hear(sample))
        return probe(x)

    def prefers(self, triplet: Triplet) -> float:
        """See :class:`Judge`; what the task makes is read, of the rest the factors are known.

        Raises:
            DataError: a person is none of `mini`.
        """
        try:
            led, other = (self.known[name] for name in triplet.people)
        except KeyError as error:
            raise DataError(
                f"automatic CPR: the hidden factors of {error} are not known; expected people of "
                "the same store; judge only triplets of `mini` by them"
            ) from error
        if is_face(triplet.prompt) == TASK_MAKES_FACES[triplet.task]:
            read = self.read(triplet.prompt)
            near, far = (float(np.linalg.norm(read - person)) for person in (led, other))
        else:
            near, far = (float(np.linalg.norm(self.read(candidate) - led))
                         for candidate in (triplet.match, triplet.other))  # fmt: skip
        return _compare(far, near)


def knows_factors(store: Store) -> bool:
    """Whether a store has hidden factors beside it."""
    return (store.path / "factors.json").is_file()


def known_people(store: Store) -> dict[str, tuple[float, ...]]:
    """Sex (-1 or 1), age, size and liveliness (0 to 1) of everybody.

    Raises:
        DataError: they are not known.
    """
    try:
        listed = json.loads((store.path / "factors.json").read_text("utf-8"))["people"]
        people: dict[str, tuple[float, ...]] = {}
        for name, entry in listed.items():
            sex = 2.0 * GENDERS.index(entry["gender"]) - 1.0
            people[name] = (sex, *(float(entry[factor]) for factor in FACTORS[1:]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"hidden factors of {store.path} cannot be read ({error!r}); expected factors.json as "
            "`mini` has it; prepare that corpus again"
        ) from error
    return people


def _see(pixels: Sample) -> Array:
    small = resize_face(pixels, PROBE_PIXELS)
    return np.asarray(small, dtype=np.float64).ravel() / 255.0


def _hear(wave: Sample) -> Array:
    return _spectrum(log_mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))))


def _spectrum(mel: Tensor) -> Array:
    """(160,) mean and deviation of every band over the louder half of a clip, without its level."""
    bands = np.asarray(mel, dtype=np.float64)  # (80, T)
    level = bands.mean(axis=0)
    loud = bands[:, level >= np.median(level)]
    mean = loud.mean(axis=1)
    return np.concatenate([mean - mean.mean(), loud.std(axis=1)])


def _ridge(x: Array, y: Array) -> Callable[[Array], Array]:
    """Fit a linear map of standardised features; return it."""
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    z = (x - mean) / scale
    penalty = RIDGE * len(z) * np.eye(z.shape[1])
    weights = np.linalg.solve(z.T @ z + penalty, z.T @ (y - y.mean(axis=0)))
    middle = y.mean(axis=0)

    def read(features: Array) -> Array:
        return np.asarray((features - mean) / scale @ weights + middle)

    return read


def judges_of(stores: Sequence[Store], converters: Mapping[str, Converter]) -> list[Any]:
    """Every judge that these stores and models allow.

    Args:
        stores: prepared stores.
        converters: models by name.
    """
    known = [store for store in stores if knows_factors(store)]
    exact = [FactorJudge(known[0])] if len(stores) == len(known) == 1 else []
    able = {name: c for name, c in converters.items() if c.has("face") and c.has("voice")}
    return [*exact, *(style_judge(converter, name) for name, converter in able.items())]
