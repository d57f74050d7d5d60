"""Statistics of the correspondence preference ratio (CPR): how often people find the right match.

Paper: Sec. 4.3, Fig. 5; the ratio of evaluators who choose the candidate that belongs to the
reference. Chance is one half. What the paper does not tell (intervals, tests, agreement) is A63.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import MEL, log_mel
from xfavot.convert import Converter
from xfavot.convert.inputs import resize_face
from xfavot.data.sample import HELD_OUT_FIRST
from xfavot.data.store import GENDERS, Item, Store
from xfavot.errors import DataError, import_optional

CHANCE = 0.5
LEVEL = 0.95  # of every interval
BOOTSTRAPS = 2000
ONE_SEX, BOTH_SEXES = "one sex", "both sexes"
METRICS = {  # name of a row, and which triplets it counts; "" counts all
    "CPR": "",
    "CPR, two people of one sex": ONE_SEX,
    "CPR, a woman and a man": BOTH_SEXES,
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One answer of one evaluator.

    Args:
        evaluator: who.
        triplet: which question.
        system: what made the triplet.
        task: "a2i" or "i2a".
        sexes: of the two people, "one sex" or "both sexes".
        right: the candidate that belongs to the reference was chosen.
        first: the candidate that the key names first was chosen, which is the right one or not by
            the toss of a coin; agreement between evaluators is measured on it.
    """

    evaluator: str
    triplet: str
    system: str
    task: str
    sexes: str
    right: bool
    first: bool


def cpr_rows(judgements: Iterable[Judgement], *, dataset: str, seed: int) -> list[Row]:
    """Measure the CPR of every system and task.

    Args:
        judgements: every answer.
        dataset: for the rows.
        seed: of the bootstrap.

    Returns:
        Tidy rows, for all triplets and apart for pairs of one and of both sexes. ``ci_low`` and
        ``ci_high`` come from a bootstrap that draws evaluators and triplets, ``wilson_low`` and
        ``wilson_high`` count every answer as independent. ``p`` is the exact two-sided binomial
        test against one half, ``p_holm`` the same corrected over all rows; both count every answer
        as independent. ``alpha`` is Krippendorff's, ``None`` without two answers to one triplet.

    Raises:
        DataError: no answer, or two answers of one evaluator to one triplet.
    """
    answers = list(judgements)
    twice = [key for key, n in Counter((a.evaluator, a.triplet) for a in answers).items() if n > 1]
    if not answers or twice:
        raise DataError(
            f"CPR of {len(answers)} answers, {len(twice)} of them given twice; expected at least "
            "one, and one answer of an evaluator to a triplet; read the answers back again"
        )
    rows = []
    for system, task in dict.fromkeys((a.system, a.task) for a in answers):
        for metric, sexes in METRICS.items():
            group = [a for a in answers if (a.system, a.task) == (system, task)]
            group = [a for a in group if sexes in ("", a.sexes)]
            if group:
                rows.append(_row(group, metric, dataset, seed))
    return corrected(rows)


def _row(answers: Sequence[Judgement], metric: str, dataset: str, seed: int) -> Row:
    right, n, first = sum(a.right for a in answers), len(answers), answers[0]
    named = {"system": first.system, "task": first.task, "dataset": dataset, "seed": seed}
    return {
        **_share({**named, "metric": metric}, right / n, bootstrap(answers, seed=seed), n),
        **binomial(right, n),
        "alpha": alpha(answers),
        "evaluators": len({a.evaluator for a in answers}),
        "triplets": len({a.triplet for a in answers}),
        "interval": "bootstrap",
    }


def _share(named: Row, value: float, interval: tuple[float, float], n: int) -> Row:
    low, high = min(interval[0], value), max(interval[1], value)
    columns = ("system", "task", "dataset", "metric")
    row = {name: named[name] for name in columns}
    return {**row, "value": value, "ci_low": low, "ci_high": high, "n": n, "seed": named["seed"]}


def binomial(right: int, n: int) -> Row:
    """Wilson's interval of a share and the exact two-sided test against one half.

    Args:
        right: answers that are right.
        n: answers.

    Returns:
        ``wilson_low``, ``wilson_high`` and ``p``.

    Raises:
        DataError: SciPy is not installed.
    """
    stats = import_optional("scipy.stats", extra="metrics", purpose="the statistics of CPR")
    test = stats.binomtest(right, n, CHANCE)
    interval = test.proportion_ci(LEVEL, method="wilson")
    return {
        "wilson_low": float(interval.low),
        "wilson_high": float(interval.high),
        "p": float(test.pvalue),
    }


def corrected(rows: Sequence[Row]) -> list[Row]:
    """Add ``p_holm``, corrected over all the rows, after ``p``."""
    adjusted = holm([row["p"] for row in rows])
    done = []
    for row, value in zip(rows, adjusted, strict=True):
        place = list(row).index("p") + 1
        pairs = list(row.items())
        done.append(dict([*pairs[:place], ("p_holm", value), *pairs[place:]]))
    return done


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for how many there are, by Holm's step-down method.

    Args:
        p: of every test.

    Returns:
        Corrected ones, in the same order.
    """
    found, largest = [0.0] * len(p), 0.0
    for place, number in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[number]))
        found[number] = largest
    return found


def bootstrap(
    answers: Sequence[Judgement], *, seed: int, draws: int = BOOTSTRAPS
) -> tuple[float, float]:
    """Interval of the share of right answers when both evaluators and triplets are drawn anew.

    Answers of one evaluator, and answers to one triplet, belong together; counting them as
    independent would make the interval too narrow.

    Args:
        answers: at least one; not every evaluator need have answered everything.
        seed: of the draws.
        draws: how many.

    Returns:
        The 2.5 % and 97.5 % quantile.
    """
    who, what = ([getattr(a, name) for a in answers] for name in ("evaluator", "triplet"))
    codes = tuple(pd.factorize(np.array(names))[0] for names in (who, what))
    given, right = (np.zeros((len({*who}), len({*what}))) for _ in range(2))  # (E, T) each
    np.add.at(given, codes, 1.0)
    np.add.at(right, codes, [float(a.right) for a in answers])
    rng = np.random.default_rng(seed)
    e, t = (rng.multinomial(n, np.full(n, 1 / n), size=draws) for n in given.shape)
    asked = ((e @ given) * t).sum(axis=1)  # (draws,)
    shares = ((e @ right) * t).sum(axis=1)[asked > 0] / asked[asked > 0]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return float(low), float(high)


def alpha(answers: Sequence[Judgement]) -> float | None:
    """Krippendorff's alpha of which candidate was chosen; see :func:`nominal_alpha`."""
    ratings: dict[str, list[bool]] = {}
    for answer in answers:
        ratings.setdefault(answer.triplet, []).append(answer.first)
    return nominal_alpha(ratings.values())


def nominal_alpha(units: Iterable[Sequence[Any]]) -> float | None:
    """Krippendorff's alpha for categories without an order, where ratings may be missing.

    Args:
        units: the ratings of each thing rated, one a rater who rated it.

    Returns:
        1 for full agreement, 0 for that of chance, less where raters contradict each other;
        ``None`` if nothing was rated twice or everybody always chose the same category.
    """
    counts = [Counter(ratings) for ratings in units if len(ratings) > 1]
    total = sum(counts, Counter[Any]())
    n = total.total()
    expected = n * n - sum(count**2 for count in total.values())
    if not expected:
        return None
    disagreed = math.fsum(
        (c.total() ** 2 - sum(k**2 for k in c.values())) / (c.total() - 1) for c in counts
    )
    return 1.0 - (n - 1) * disagreed / expected


TASKS = ("a2i", "i2a")  # an audio-guided face, an image-guided voice
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
    for split in HELD_OUT_FIRST:
        if all(len(_parts(stores, modality, split)) > 1 for modality in ("face", "voice")):
            return split
    return HELD_OUT_FIRST[-1]


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
                system=TRUTH,
                task=task,
                people=(a, b),
                prompt=prompted(prompt),
                match=shown(match),
                other=shown(other),
                genders=(match.item.gender, other.item.gender),
            )
        )
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
        DataError: fewer than two people as references, or nobody to convert.
    """
    split = split_of(stores)
    rng = np.random.default_rng([seed, TASKS.index(task), 2])
    output, guidance = ("face", "voice") if task == "a2i" else ("voice", "face")
    references = _parts(stores, guidance, split)
    sources = [part for parts in _parts(stores, output, split).values() for part in parts]
    if len(references) < 2 or not sources:
        names = ", ".join(store.corpus for store in stores)
        raise DataError(
            f"study, task {task}: split {split!r} of {names} has {len(references)} people with a "
            f"{guidance} as reference and {len(sources)} {output}s to convert; expected two people "
            f"and one {output} at least, of known gender; prepare more clips"
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
            system=system,
            task=task,
            prompt=prompt,
            match=match,
            other=other,
            people=(a, b),
            genders=(first.item.gender, second.item.gender),
            source=source.item.id,
        )


def _convert(converter: Converter, source: Part, reference: Part, task: str) -> Sample:
    gender = reference.item.gender
    if task == "a2i":
        voice = reference.voice()
        return converter.convert_face(
            source.face(), aligned=True, voice_reference=voice, gender=gender
        ).image
    made = converter.convert_voice(
        source.voice(), face_reference=reference.face(), reference_aligned=True, gender=gender
    ).waveform
    return made.clip(-1.0, 1.0)  # as it is heard from a file


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
    """Yield the reference and the other one: of one sex and of both in turn, all evenly."""
    names = sorted(people)
    gender = {name: people[name][0].item.gender for name in names}
    asked: Counter[str] = Counter()
    others: Counter[tuple[str, str]] = Counter()
    for turn in range(count):
        order = [names[i] for i in rng.permutation(len(names))]
        first = min(order, key=lambda name: asked[name])

        def unwanted(name: str, first: str = first, turn: int = turn) -> tuple[bool, int]:
            alike = gender[name] == gender[first]
            return alike is (turn % 2 == 1), others[first, name]

        other = min((name for name in order if name != first), key=unwanted)
        asked[first] += 1
        others[first, other] += 1
        yield first, other


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
            own = [(t, vote) for t, vote in votes if (t.system, t.task) == (system, task)]
            for metric, sexes in METRICS.items():
                cast = [vote for t, vote in own if sexes in ("", t.sexes)]
                if cast:
                    test = binomial(sum(vote == 1.0 for vote in cast), len(cast))
                    named = {"system": system, "task": task, "dataset": dataset, "seed": seed}
                    named["metric"] = f"automatic {metric}, by {judge.name}"
                    interval = (test["wilson_low"], test["wilson_high"])
                    row = _share(named, float(np.mean(cast)), interval, len(cast))
                    rows.append({**row, **test, "triplets": len(cast), "interval": "Wilson"})
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
        """Fit the two probes, ridge regressions of standardised features."""
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

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
            make_pipeline(StandardScaler(), Ridge(alpha=RIDGE * len(x))).fit(x, y)
            for x, y in ((faces, seen), (voices, heard))
        )

    def read(self, sample: Sample) -> Array:
        """(4,) factors of a sample, standardised over the people."""
        probe, x = (self._face, _see(sample)) if is_face(sample) else (self._voice, _hear(sample))
        return np.asarray(probe.predict(x[None])[0])

    def prefers(self, triplet: Triplet) -> float:
        """See :class:`Judge`; what the task makes is read, of the rest the factors are known.

        Raises:
            DataError: a person is none of `mini`.
        """
        try:
            own, other = (self.known[name] for name in triplet.people)
        except KeyError as error:
            raise DataError(
                f"automatic CPR: the hidden factors of {error} are not known; expected people of "
                "the same store; judge only triplets of `mini` by them"
            ) from error
        if is_face(triplet.prompt) == TASK_MAKES_FACES[triplet.task]:
            read = self.read(triplet.prompt)
            near, far = (float(np.linalg.norm(read - person)) for person in (own, other))
        else:
            near, far = (
                float(np.linalg.norm(self.read(candidate) - own))
                for candidate in (triplet.match, triplet.other)
            )
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
