"""Statistics of the correspondence preference ratio (CPR): how often people find the right match.

Paper: Sec. 4.3, Fig. 5; the ratio of evaluators who choose the candidate that belongs to the
reference. Chance is one half. What the paper does not tell (intervals, tests, agreement) is A63.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError

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
    right, n = sum(a.right for a in answers), len(answers)
    low, high = bootstrap(answers, seed=seed)
    share = right / n
    return {
        "system": answers[0].system, "task": answers[0].task, "dataset": dataset,
        "metric": metric, "value": share, "ci_low": min(low, share), "ci_high": max(high, share),
        "n": n, "seed": seed, **binomial(right, n), "alpha": alpha(answers),
        "evaluators": len({a.evaluator for a in answers}),
        "triplets": len({a.triplet for a in answers}), "interval": "bootstrap",
    }  # fmt: skip


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
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise DataError(
            'the statistics of CPR need SciPy, which is not installed; run: pip install "xfavot'
            '[metrics]"'
        ) from error
    test = binomtest(right, n, CHANCE)
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
        pairs = [[(k, v)] if k != "p" else [(k, v), ("p_holm", value)] for k, v in row.items()]
        done.append(dict(pair for group in pairs for pair in group))
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
    given, right = (np.zeros(_shape(answers)) for _ in range(2))  # (E, T) each
    evaluators, triplets = _codes(answers)
    np.add.at(given, (evaluators, triplets), 1.0)
    np.add.at(right, (evaluators, triplets), [float(a.right) for a in answers])
    rng = np.random.default_rng(seed)
    who, what = (rng.multinomial(n, np.full(n, 1 / n), size=draws) for n in given.shape)
    asked = ((who @ given) * what).sum(axis=1)  # (draws,)
    found = ((who @ right) * what).sum(axis=1)
    shares = found[asked > 0] / asked[asked > 0]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return float(low), float(high)


def _shape(answers: Sequence[Judgement]) -> tuple[int, int]:
    return len({a.evaluator for a in answers}), len({a.triplet for a in answers})


def _codes(answers: Sequence[Judgement]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of evaluator and triplet of every answer."""
    found = []
    for names in ([a.evaluator for a in answers], [a.triplet for a in answers]):
        code = {name: number for number, name in enumerate(dict.fromkeys(names))}
        found.append(np.array([code[name] for name in names], dtype=np.int64))
    return found[0], found[1]


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
