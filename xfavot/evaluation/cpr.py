"""The correspondence preference ratio (CPR): how often the candidate that belongs is preferred.

Paper: Sec. 4.3, Fig. 5; the ratio of evaluators who choose the candidate that belongs to the
reference. Chance is one half. What the paper leaves open (intervals, tests, agreement) is A63.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import MEL, log_mel
from xfavot.convert import Converter, Task
from xfavot.convert.converter import resize_face
from xfavot.data.sample import HELD_OUT_FIRST
from xfavot.data.store import GENDERS, Store
from xfavot.errors import DataError, import_optional, refusing
from xfavot.evaluation.conversions import Sample as Part
from xfavot.evaluation.rows import LEVEL

CHANCE = 0.5
BOOTSTRAPS = 2000
ONE_SEX, BOTH_SEXES = "one sex", "both sexes"
METRICS = {  # name of a row, and which triplets it counts; "" counts all
    "CPR": "",
    "CPR, two people of one sex": ONE_SEX,
    "CPR, a woman and a man": BOTH_SEXES,
}

Row = dict[str, Any]
Stores = Sequence[Store]


def cpr_rows(answers: Iterable[Row], *, dataset: str, seed: int) -> list[Row]:
    """Measure the CPR of every system and task.

    Args:
        answers: ``evaluator``; ``triplet``, the question; ``system`` and ``task``, what made it;
            ``sexes`` of the two people, "one sex" or "both sexes"; ``right``, whether the candidate
            that belongs to the reference was chosen; ``first``, whether the one that the key names
            first was chosen, which is the right one or not by the toss of a coin: agreement is
            measured on it.
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
    frame = pd.DataFrame(answers, columns=[*_NAMED, "evaluator", "triplet", "right", "first"])
    twice = int(frame.duplicated(["evaluator", "triplet"]).sum())
    if frame.empty or twice:
        raise DataError(
            f"CPR of {len(frame)} answers, {twice} of them given twice; expected at least one, and "
            "one answer of an evaluator to a triplet; read the answers back again"
        )
    return corrected(_rows(frame, dataset=dataset, seed=seed))


_NAMED = ("system", "task", "sexes")


def _rows(votes: pd.DataFrame, *, dataset: str, seed: int, rater: str = "") -> list[Row]:
    """One row a system, task and metric; ``right`` may be one half where a computer has voted."""
    rows = []
    for (system, task), own in votes.groupby(["system", "task"], sort=False):
        for metric, sexes in METRICS.items():
            cast = own[own["sexes"] == sexes] if sexes else own
            if cast.empty:
                continue
            value, n = float(cast["right"].mean()), len(cast)
            test = binomial(int((cast["right"] == 1).sum()), n)
            low, high = test["wilson_low"], test["wilson_high"]
            more: Row = {"triplets": n, "interval": "Wilson"}
            if not rater:
                low, high = bootstrap(cast, seed=seed)
                more = {
                    "alpha": nominal_alpha(cast.groupby("triplet")["first"].agg(list)),
                    "evaluators": cast["evaluator"].nunique(),
                    "triplets": cast["triplet"].nunique(),
                    "interval": "bootstrap",
                }
            named = {"system": system, "task": task, "dataset": dataset}
            named["metric"] = f"automatic {metric}, by {rater}" if rater else metric
            bounds = {"ci_low": min(low, value), "ci_high": max(high, value)}
            rows.append({**named, "value": value, **bounds, "n": n, "seed": seed, **test, **more})
    return rows


def binomial(right: int, n: int) -> Row:
    """Wilson's interval of a share and the exact two-sided test against one half.

    Args:
        right: answers that are right.
        n: answers.

    Returns:
        ``wilson_low``, ``wilson_high``, ``p``, and ``p_holm`` as for a single test.

    Raises:
        DataError: SciPy is not installed.
    """
    stats = import_optional("scipy.stats", extra="metrics", purpose="the statistics of CPR")
    test = stats.binomtest(right, n, CHANCE)
    interval, p = test.proportion_ci(LEVEL, method="wilson"), float(test.pvalue)
    bounds = {"wilson_low": float(interval.low), "wilson_high": float(interval.high)}
    return {**bounds, "p": p, "p_holm": p}


def corrected(rows: Sequence[Row]) -> list[Row]:
    """Correct ``p_holm`` over all the rows."""
    adjusted = holm([row["p"] for row in rows])
    return [{**row, "p_holm": p} for row, p in zip(rows, adjusted, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for how many there are, by Holm's step-down method.

    Args:
        p: of every test.

    Returns:
        Corrected ones, in the same order.
    """
    values, order = np.array(p), np.argsort(p, kind="stable")
    steps = np.minimum(1.0, values[order] * np.arange(len(p), 0, -1))
    values[order] = np.maximum.accumulate(steps)
    return [float(value) for value in values]


def bootstrap(answers: pd.DataFrame, *, seed: int) -> tuple[float, float]:
    """Interval of the share of right answers when both evaluators and triplets are drawn anew.

    Answers of one evaluator, and answers to one triplet, belong together; counting them as
    independent would make the interval too narrow.

    Args:
        answers: at least one; not every evaluator need have answered everything.
        seed: of the draws.

    Returns:
        The 2.5 % and 97.5 % quantile.
    """
    codes = tuple(pd.factorize(answers[name])[0] for name in ("evaluator", "triplet"))
    given, right = (np.zeros([code.max() + 1 for code in codes]) for _ in range(2))  # (E, T)
    np.add.at(given, codes, 1.0)
    np.add.at(right, codes, answers["right"].to_numpy(dtype=float))
    rng = np.random.default_rng(seed)
    e, t = (rng.multinomial(n, np.full(n, 1 / n), size=BOOTSTRAPS) for n in given.shape)
    asked = ((e @ given) * t).sum(axis=1)  # (draws,)
    shares = ((e @ right) * t).sum(axis=1)[asked > 0] / asked[asked > 0]
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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


# The questions


TASKS = ("a2i", "i2a")  # an audio-guided face, an image-guided voice
TRUTH = "ground truth"
LONGEST_SECONDS = 6.0  # of a voice
SHORTEST_SECONDS = 0.5

Sample = NDArray[Any]  # a face, (H, W, 3) uint8, or a voice, (N,) float32 at 24 kHz


@dataclass(frozen=True, slots=True, eq=False)
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
    def samples(self) -> tuple[Sample, Sample, Sample]:
        """Prompt, match and other."""
        return self.prompt, self.match, self.other

    @property
    def sexes(self) -> str:
        """Whether the two people are of "one sex" or "both sexes"."""
        return ONE_SEX if self.genders[0] == self.genders[1] else BOTH_SEXES


def sample_of(part: Part, kind: str) -> Sample:
    """Read the "face" of a clip, (H, W, 3) uint8; or its "voice", (N,) float32, six seconds."""
    if kind == "face":
        return part.store.face(part.item, part.face)
    return part.store.waveform(part.item)[: int(LONGEST_SECONDS * MEL.sample_rate)]


def is_face(sample: Sample) -> bool:
    """Whether a sample is a face; else it is a voice."""
    return sample.ndim == 3


def split_of(stores: Stores) -> str:
    """Return the first of val, unseen and train with faces and voices of two people each.

    Args:
        stores: prepared stores.

    Returns:
        Its name; "train" if none has.
    """
    for split in HELD_OUT_FIRST:
        if all(len(_parts(stores, split, kind)) > 1 for kind in ("face", "voice")):
            return split
    return HELD_OUT_FIRST[-1]


def ground_truth(stores: Stores, *, task: str, form: str, count: int, seed: int) -> list[Triplet]:
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
    rng = np.random.default_rng([seed, TASKS.index(task), 1])
    people = _parts(stores, split_of(stores), "face", "voice")
    kinds = ("face", "voice") if (task, form) == ("i2a", "outputs") else ("voice", "face")
    made = []
    for a, b in _pairs(people, count, rng) if len(people) > 1 else ():
        prompt = _draw(people[a], rng)
        apart = [part for part in people[a] if part.item.id != prompt.item.id]
        match, other = _draw(apart or people[a], rng), _draw(people[b], rng)
        genders = match.item.gender, other.item.gender
        shown = sample_of(prompt, kinds[0]), sample_of(match, kinds[1]), sample_of(other, kinds[1])
        made.append(Triplet(TRUTH, task, *shown, people=(a, b), genders=genders))
    return made


def converted(
    maker: Converter, stores: Stores, *, system: str, task: str, form: str, count: int, seed: int
) -> Iterator[Triplet]:
    """Convert a source after two references of different people, again and again.

    Args:
        maker: the model.
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
    references = _parts(stores, split, guidance)
    sources = [
        (who, part) for who, parts in _parts(stores, split, output).items() for part in parts
    ]
    if len(references) < 2 or not sources:
        names = ", ".join(store.corpus for store in stores)
        raise DataError(
            f"study, task {task}: split {split!r} of {names} has {len(references)} people with a "
            f"{guidance} as reference and {len(sources)} {output}s to convert; expected two "
            f"people and one {output} at least, of known gender; prepare more clips"
        )
    for a, b in _pairs(references, count, rng):
        first, second = _draw(references[a], rng), _draw(references[b], rng)
        strangers = [part for who, part in sources if who not in (a, b)]
        source = _draw(strangers or [part for _, part in sources], rng)
        own, other = (_convert(maker, source, one, task) for one in (first, second))
        shown = sample_of(first, guidance), own, other
        if task == "i2a" and form == "faces":
            shown = own, sample_of(first, "face"), sample_of(second, "face")
        genders = first.item.gender, second.item.gender
        yield Triplet(system, task, *shown, (a, b), genders, source.item.id)


def _convert(converter: Converter, source: Part, reference: Part, task: str) -> Sample:
    face, voice = (source, reference) if task == "a2i" else (reference, source)
    seen, heard, gender = sample_of(face, "face"), sample_of(voice, "voice"), reference.item.gender
    if task == "a2i":
        guided: dict[str, Any] = {"voice_reference": heard, "gender": gender}
        return converter.convert_face(seen, aligned=True, **guided).image
    guided = {"face_reference": seen, "reference_aligned": True, "gender": gender}
    return converter.convert_voice(heard, **guided).waveform.clip(-1.0, 1.0)  # as from a file


def _draw(parts: Sequence[Part], rng: np.random.Generator) -> Part:
    part = parts[int(rng.integers(len(parts)))]
    return part._replace(face=int(rng.integers(max(1, part.item.face_count))))


def _parts(stores: Stores, split: str, *kinds: str) -> dict[str, list[Part]]:
    """Clips of a split with all of these kinds, by person of known gender.

    A picture of nobody known stands for a person of its own, unless it must have a voice, too.
    """
    shortest = SHORTEST_SECONDS * MEL.sample_rate
    people: dict[str, list[Part]] = defaultdict(list)
    for store in stores:
        for item in (i for i in store.items if i.split == split and i.gender in GENDERS):
            has = {"face": item.face_count > 0, "voice": item.sample_count >= shortest}
            person = item.speaker or ("" if len(kinds) > 1 else item.id)
            if person and all(has[kind] for kind in kinds):
                people[person].append(Part(store, item))
    return people


def _pairs(
    people: Mapping[str, Sequence[Part]], count: int, rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Yield the reference and the other one: of one sex and of both in turn, all evenly."""
    names = sorted(people)
    gender = {name: people[name][0].item.gender for name in names}
    asked, met = Counter[str](), Counter[tuple[str, str]]()
    for turn in range(count):
        order = [names[i] for i in rng.permutation(len(names))]
        first = min(order, key=asked.__getitem__)
        order.remove(first)
        alike = turn % 2 == 0  # whether it is the turn of two people of one sex
        ranks = [((gender[n] == gender[first]) is not alike, met[first, n]) for n in order]
        other = order[ranks.index(min(ranks))]
        asked[first] += 1
        met[first, other] += 1
        yield first, other


# Answers of a computer


FACTORS = ("sex", "age", "size", "liveliness")
PROBE_PIXELS = 16  # a side of the faces that the probe sees
RIDGE = 0.1  # share of the features' number

Array = NDArray[np.float64]
Rater = Callable[[Triplet], float]  # by how much the match fits better than the other candidate


def raters_of(stores: Stores, converters: Mapping[str, Converter]) -> dict[str, Rater]:
    """Every rater that these stores and models allow, by its name in the rows.

    Args:
        stores: prepared stores.
        converters: models by name.
    """
    raters = {}
    if len(stores) == 1 and (stores[0].path / "factors.json").is_file():
        raters["the hidden factors"] = factor_rater(stores[0])
    for name, converter in converters.items():
        both = {Task.A2A, Task.I2A} <= {*converter.tasks}  # it encodes voices and faces
        if both and converter.has("face") and converter.has("voice"):
            raters[f"the style encoders of {name}"] = style_rater(converter)
    return raters


def automatic_rows(
    triplets: Sequence[Triplet], raters: Mapping[str, Rater], *, dataset: str, seed: int
) -> list[Row]:
    """Measure the CPR of every system and task by every rater.

    Args:
        triplets: what was made.
        raters: by name; rows are named after them.
        dataset, seed: for the rows.

    Returns:
        Rows like those of :func:`cpr_rows`, with Wilson's interval. An undecided triplet counts
        half in the value, and as wrong in interval and test.
    """
    rows = []
    for name, rater in raters.items():
        margins = [rater(triplet) for triplet in triplets]
        votes = pd.DataFrame([{k: getattr(t, k) for k in _NAMED} for t in triplets])
        votes["right"] = [(margin > 0) + 0.5 * (margin == 0) for margin in margins]
        rows += _rows(votes, dataset=dataset, seed=seed, rater=name)
    return corrected(rows)


def style_rater(converter: Converter) -> Rater:
    """Rate by the cosine of the styles that a model's own encoders give to face and voice.

    The encoders get the gender of the person whom the prompt follows, for both candidates alike.
    """

    def margin(triplet: Triplet) -> float:
        gender = triplet.genders[0]
        prompt, match, other = (
            converter.style_of_face(sample, aligned=True, gender=gender).vector
            if is_face(sample)
            else converter.style_of_voice(sample, gender=gender).vector
            for sample in triplet.samples
        )
        fits, odd = (float(torch.cosine_similarity(prompt, one)[0]) for one in (match, other))
        return fits - odd

    return margin


def factor_rater(store: Store) -> Rater:
    """Rate by sex, age, size and liveliness: read of what a task made, known of the rest.

    Two probes, ridge regressions of standardised features, learn them from the training split.

    Args:
        store: a prepared store of `mini`.

    Raises:
        DataError: the hidden factors of its people are not known, or it has no training split.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = known_people(store)
    items = [item for item in store.items if item.split == "train"]
    faces = [(_see(store.face(i, n)), i.speaker) for i in items for n in range(i.face_count)]
    voices = [(_spectrum(store.log_mel(i)), i.speaker) for i in items if i.sample_count]
    if not faces or not voices:
        raise DataError(
            f"automatic CPR: the training split of {store.path} has {len(faces)} faces and "
            f"{len(voices)} voices; expected both; prepare `mini` again"
        )
    probes = []
    for examples in (faces, voices):
        features, people = zip(*examples, strict=True)
        probe = make_pipeline(StandardScaler(), Ridge(alpha=RIDGE * len(examples)))
        probes.append(probe.fit(np.stack(features), known.loc[list(people)].to_numpy()))

    def distance(sample: Sample, person: str) -> float:
        probe, x = (probes[0], _see(sample)) if is_face(sample) else (probes[1], _hear(sample))
        return float(np.linalg.norm(probe.predict(x[None])[0] - known.loc[person]))

    def margin(triplet: Triplet) -> float:
        own, other = triplet.people
        if is_face(triplet.prompt) == (triplet.task == "a2i"):  # the prompt is what was made
            return distance(triplet.prompt, other) - distance(triplet.prompt, own)
        return distance(triplet.other, own) - distance(triplet.match, own)

    return margin


def known_people(store: Store) -> pd.DataFrame:
    """Sex, age, size and liveliness of everybody in a store, a row a person, standardised.

    Raises:
        DataError: they are not known.
    """
    what = f"hidden factors of {store.path} cannot be read"
    advice = "expected factors.json as `mini` has it; prepare that corpus again"
    faults = (OSError, ValueError, KeyError, TypeError, AttributeError)
    with refusing(faults, DataError, what, advice):
        people = json.loads((store.path / "factors.json").read_text("utf-8"))["people"]
        table = pd.DataFrame.from_dict(people, orient="index").sort_index()
        table["sex"] = [2.0 * GENDERS.index(gender) - 1.0 for gender in table["gender"]]
        table = table[[*FACTORS]].astype(float)
        if unknown := {item.speaker for item in store.items} - {*table.dropna().index}:
            raise ValueError(f"nothing of {min(unknown)}")
    return (table - table.mean()) / (table.std(ddof=0) + 1e-9)


def _see(pixels: Sample) -> Array:
    return np.asarray(resize_face(pixels, PROBE_PIXELS), dtype=np.float64).ravel() / 255.0


def _hear(wave: Sample) -> Array:
    return _spectrum(log_mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))))


def _spectrum(mel: Tensor) -> Array:
    """(160,) mean and deviation of every band over the louder half of a clip, without its level."""
    bands = np.asarray(mel, dtype=np.float64)  # (80, T)
    level = bands.mean(axis=0)
    loud = bands[:, level >= np.median(level)]
    mean = loud.mean(axis=1)
    return np.concatenate([mean - mean.mean(), loud.std(axis=1)])
