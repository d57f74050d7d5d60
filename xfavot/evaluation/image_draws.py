"""Which sources meet which references when images are scored: the ancestor's draw, from a seed.

Paper, App. B, after StarGAN v2: every source gets ten outputs. Sources come shuffled in batches of
32, the last one as small as it is; each of the ten outputs takes a fresh batch of references of the
target domain, shuffled, incomplete batches dropped, and source i of the batch meets reference i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.errors import DataError

OUTPUTS = 10  # of a source
BATCH = 32  # sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """From one domain to the other.

    Args:
        source, target: the domains, such as "female" and "male".
        sources: how many sources there are.
        references: how many references of the target domain there are; with latent codes in their
            place, how many codes.
        chosen: the references of every source, in place of a draw, where outputs exist already.
    """

    source: str
    target: str
    sources: int
    references: int
    chosen: Sequence[Sequence[int]] = ()

    @property
    def name(self) -> str:
        """Such as "female to male"."""
        return f"{self.source} to {self.target}"


def plan(
    direction: Direction, *, seed: int, outputs: int = OUTPUTS, batch: int = BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """Say batch by batch which sources meet which references.

    Args:
        direction: how many there are, or what was chosen.
        seed: with the direction's name it fixes the draw.
        outputs: K.
        batch: sources at once, and references drawn at once.

    Yields:
        Numbers of sources (n,) and references (n, K).

    Raises:
        DataError: no source, fewer references than a batch, or another number of references chosen
            for some source.
    """
    rng = np.random.default_rng([seed, *direction.name.encode()])
    if direction.chosen:
        counts = [len(own) for own in direction.chosen]
        odd = [n for n, count in enumerate(counts) if count != outputs]
        if odd or len(counts) != direction.sources:
            first = f"the first is source {odd[0]} with {counts[odd[0]]}" if odd else ""
            raise DataError(
                f"{direction.name}: {len(odd)} of {len(counts)} sources have another number of "
                f"references than {outputs} {first}; expected as many for each of "
                f"{direction.sources} sources; complete them, or leave those sources out"
            )
    elif direction.sources < 1 or batch < 1 or direction.references < batch:
        raise DataError(
            f"{direction.name}: {direction.sources} sources, {direction.references} references; "
            f"expected one source, and references for a whole batch of {batch}, since incomplete "
            "ones are dropped; score more images, or pass a smaller batch"
        )
    drawn = _reference_batches(rng, direction.references, batch)
    order = rng.permutation(direction.sources)
    for start in range(0, len(order), batch):
        sources = order[start : start + batch]
        if direction.chosen:
            references = np.array([direction.chosen[n] for n in sources])
        else:
            references = np.stack([next(drawn)[: len(sources)] for _ in range(outputs)], axis=1)
        yield torch.from_numpy(sources), torch.from_numpy(references)


def _reference_batches(
    rng: np.random.Generator, count: int, batch: int
) -> Iterator[NDArray[np.int64]]:
    """Shuffle again and again; of each time only whole batches."""
    while True:
        order = rng.permutation(count)
        yield from order[: count // batch * batch].reshape(-1, batch)
