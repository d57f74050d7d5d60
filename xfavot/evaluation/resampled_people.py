"""Bootstrap over people: intervals that do not take the samples of one person for independent.

People are drawn anew with replacement; a sample counts as often as its person was drawn, a pair of
two people as often as the product says, a pair of one person's own samples as often as that person.
The 2.5 % and 97.5 % quantiles of what is measured are the interval (percentile bootstrap).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 1000
FEWEST = 2  # people, below which there is no interval

Array = NDArray[np.float64]


def draws_of(people: int, *, seed: int, draws: int = DRAWS) -> Array:
    """(draws, people): how often each person is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float64)


def quantiles(values: Iterable[float]) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of bootstrapped values; those that are not finite do not count."""
    found = np.array(list(values), dtype=np.float64)
    found = found[np.isfinite(found)]
    if not found.size:
        return None, None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio_interval(
    above: Sequence[float], below: Sequence[float], people: Sequence[str], *, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Interval of a ratio of two sums over samples, such as errors over words; see also the mean.

    Args:
        above, below: of every sample; for a mean, `below` is all ones.
        people: to whom each sample belongs.
        seed: of the draws.

    Returns:
        The interval, or nothing with fewer than two people.
    """
    names = sorted(set(people))
    if len(names) < FEWEST:
        return None, None
    numbers = {name: number for number, name in enumerate(names)}
    code = [numbers[name] for name in people]
    sums = np.zeros((2, len(names)))
    np.add.at(sums[0], code, above)
    np.add.at(sums[1], code, below)
    weight = draws_of(len(names), seed=seed)  # (draws, K)
    top, bottom = weight @ sums[0], weight @ sums[1]
    return quantiles(top[bottom > 0] / bottom[bottom > 0])
