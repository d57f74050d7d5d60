"""Retrieval between faces and voices by their styles: is the right person the nearest one?

Each style comes from the encoder's head of the sample's own gender, as the method defines. The
choice of head alone can tell women from men, so retrieval within one gender is given beside it,
where it cannot help.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from xfavot.evaluation.rows import Row, row

GOAL = 0.95
DRAWS = 500  # of one query and one gallery sample a speaker


def recall(
    similarity: Tensor, query: Tensor, gallery: Tensor, allowed: Tensor | None = None, *, k: int = 1
) -> float:
    """R@k: share of queries with their speaker among the k most similar gallery entries.

    Args:
        similarity: (..., Q, G).
        query: (Q,) speaker codes.
        gallery: (G,) speaker codes.
        allowed: (Q, G) bool, entries that may be found; default all.
        k: entries that are looked at.
    """
    return float(hits(similarity, query, gallery, allowed, k=k).float().mean())


def hits(
    similarity: Tensor, query: Tensor, gallery: Tensor, allowed: Tensor | None = None, *, k: int = 1
) -> Tensor:
    """(..., Q) bool, whether each query finds its speaker; see :func:`recall`."""
    right = gallery == query[:, None]  # (Q, G)
    if allowed is not None:
        similarity, right = similarity.masked_fill(~allowed, -torch.inf), right & allowed
    nearest = similarity.argmax(-1, keepdim=True)  # (..., Q, 1)
    if k > 1:
        nearest = similarity.topk(min(k, len(gallery)), dim=-1).indices  # (..., Q, k)
    return right.expand_as(similarity).gather(-1, nearest).any(-1)


def means(style: Tensor, speaker: Tensor, count: int) -> Tensor:
    """(K, S) unit mean of the unit styles (n, S) of every speaker."""
    total = style.new_zeros(count, style.shape[1]).index_add_(0, speaker, style)
    return functional.normalize(total, dim=1)


def draw_each(speaker: Tensor, count: int, draws: int, rng: torch.Generator) -> Tensor:
    """(draws, K) rows, one of every speaker, drawn evenly from codes (n,)."""
    columns = []
    for code in range(count):
        rows = (speaker == code).nonzero().squeeze(1)
        columns.append(rows[torch.randint(len(rows), (draws,), generator=rng)])
    return torch.stack(columns, dim=1)


def retrieval(
    styles: Mapping[str, Tensor],
    speakers: Mapping[str, Tensor],
    gender: Tensor,
    *,
    seed: int,
) -> list[Row]:
    """Measure face-to-voice and voice-to-face R@1 by cosine.

    Args:
        styles: "face" and "voice", (n, S) each.
        speakers: the codes (n,) of both.
        gender: (K,) of every speaker.
        seed: of the draws.

    Returns:
        Rows for a gallery of speakers' mean styles and for one of single samples, over all speakers
        and within one gender. On the CPU.
    """
    count = len(gender)
    unit = {name: functional.normalize(s.cpu(), dim=1) for name, s in styles.items()}
    everyone = torch.arange(count)
    one_sex = gender[:, None] == gender[None]  # (K, K)
    chance = 1 / count
    chance_within = float((1 / one_sex.sum(1)).mean())
    rng = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for query, gallery in (("face", "voice"), ("voice", "face")):
        who = speakers[query]
        to_means = unit[query] @ means(unit[gallery], speakers[gallery], count).T  # (n, K)
        q = unit[query][draw_each(who, count, DRAWS, rng)]  # (D, K, S)
        g = unit[gallery][draw_each(speakers[gallery], count, DRAWS, rng)]
        to_single = q @ g.transpose(1, 2)  # (D, K, K)
        task, within = f"{query} to {gallery}", " within one sex"
        for name, similarity, codes, n in (
            ("gallery of means", to_means, who, len(who)),
            ("gallery of single samples", to_single, everyone, DRAWS * count),
        ):
            found = recall(similarity, codes, everyone)
            rows.append(row(task, "", f"R@1, {name}", found, n, chance=chance, goal=GOAL))
            found = recall(similarity, codes, everyone, one_sex[codes])
            rows.append(row(task, "", f"R@1{within}, {name}", found, n, chance=chance_within))
    return rows
