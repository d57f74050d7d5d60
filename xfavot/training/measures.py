"""How well the F0 and the content network do on clips that they were not trained on (A36, A37)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import Standardiser
from xfavot.data.manifest import Store
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network, track
from xfavot.training.labels import Clip, clips_of, decode, encode, spell

GROSS_ERROR = 0.2  # relative pitch error that counts as gross
HELD_OUT = ("val", "unseen")
HELD_OUT_CLIPS = 200  # measured at most, evenly spread over the split


def edit_distance(said: str, heard: str) -> int:
    """Count the fewest insertions, deletions and substitutions of characters (Levenshtein).

    >>> edit_distance("place", "lake")
    2
    """
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(heard, start=1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
            diagonal, row[j] = row[j], best
    return row[-1]


@dataclass(slots=True)
class PitchScore:
    """Sums over frames from which the measures of pitch and voicing follow."""

    clips: int = 0
    frames: int = 0
    wrong_voicing: int = 0
    both_voiced: int = 0
    gross: int = 0
    pairs: list[Tensor] = field(default_factory=list)

    def add(self, f0: Tensor, pitch: Tensor) -> None:
        """Count the frames of one clip: label and track (T,) Hz, 0 where unvoiced."""
        voiced, said = f0 > 0, pitch > 0
        both = voiced & said
        self.frames += f0.numel()
        self.wrong_voicing += int((voiced != said).sum())
        self.both_voiced += int(both.sum())
        self.gross += int(((pitch - f0).abs() > GROSS_ERROR * f0)[both].sum())
        self.pairs.append(torch.stack((f0[both], pitch[both])))

    def measures(self) -> dict[str, float]:
        """Return gross pitch error, voicing error (shares) and correlation of F0 in Hz."""
        found = {"voicing_error": self.wrong_voicing / max(self.frames, 1)}
        pairs = torch.cat([torch.zeros(2, 0), *self.pairs], dim=1).double()
        if self.both_voiced > 1 and bool((pairs.std(dim=1) > 0).all()):
            found["gross_pitch_error"] = self.gross / self.both_voiced
            found["f0_correlation"] = float(torch.corrcoef(pairs)[0, 1])
        return found


def held_out(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """List at most 200 clips of a split that carry a label, evenly spread over it."""
    found = clips_of(stores, split, needs=needs)
    return found[:: -(-len(found) // HELD_OUT_CLIPS)] if found else []


@torch.no_grad()
def f0_measures(
    network: F0Network, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, float]:
    """Measure an F0 network against WORLD on clips not trained on, whole clips one by one.

    Returns:
        For each held-out split that has clips, and per sex: `val/gross_pitch_error` (share of
        frames voiced in both that are more than 20 % off), `val/voicing_error` (share of frames),
        `val/f0_correlation` (frames voiced in both), `val/f/...`, `val/m/...`, `val/clips`; with
        several stores also per corpus, `val/vctk/...` and `val/vctk/f/...`.
    """
    device = next(network.parameters()).device
    found: dict[str, float] = {}
    for split in HELD_OUT:
        scores: dict[str, PitchScore] = {}
        for clip in _of_each(stores, split, needs="f0"):
            x = standardiser.standardise(clip.log_mel())[None, None].to(device)
            pitch = track(network(x))[0].cpu()
            wholes = _groups(split, clip, stores)
            sexes = [f"{whole}/{clip.item.gender}" for whole in wholes if clip.item.gender]
            for group in (*wholes, *sexes):
                score = scores.setdefault(group, PitchScore())
                score.add(clip.f0(), pitch)
                score.clips += 1
        found |= _flat({group: score.measures() for group, score in scores.items()})
        found |= {f"{group}/clips": float(score.clips) for group, score in scores.items()}
    return found


@torch.no_grad()
def content_measures(
    network: ContentNetwork, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, float]:
    """Measure the character error of a content network on clips not trained on (greedy CTC).

    Returns:
        For each held-out split that has transcripts: `val/character_error` (edits per character of
        the transcripts) and `val/clips`; with several stores also per corpus, `val/mini/...`.
    """
    device = next(network.parameters()).device
    found: dict[str, float] = {}
    for split in HELD_OUT:
        sums: dict[str, list[int]] = {}
        for clip in _of_each(stores, split, needs="transcript"):
            x = standardiser.standardise(clip.log_mel())[None, None].to(device)
            said = spell(encode(clip.item.transcript))
            edits = edit_distance(said, decode(network(x)[0].cpu()))
            for group in _groups(split, clip, stores):
                counts = sums.setdefault(group, [0, 0, 0])
                sums[group] = [a + b for a, b in zip(counts, (edits, len(said), 1), strict=True)]
        for group, (wrong, characters, clips) in sums.items():
            found[f"{group}/character_error"] = wrong / characters
            found[f"{group}/clips"] = float(clips)
    return found


def _of_each(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """At most 200 clips of every store."""
    return [clip for store in stores for clip in held_out([store], split, needs=needs)]


def _groups(split: str, clip: Clip, stores: Sequence[Store]) -> tuple[str, ...]:
    """Where a clip counts: in its split, and in its corpus's share if there are several."""
    return (split, f"{split}/{clip.store.corpus}") if len(stores) > 1 else (split,)


def in_words(metrics: Mapping[str, float]) -> str:
    """Say measures in one line."""
    shown = [
        f"{name} {value:.0f}" if name.endswith("clips") else f"{name} {value:.3f}"
        for name, value in metrics.items()
    ]
    return ", ".join(shown) or "no clip held out to measure it on"


def _flat(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{group}/{name}": value for group, m in groups.items() for name, value in m.items()}


@torch.no_grad()
def example_tracks(
    clip: Clip, network: F0Network | None, standardiser: Standardiser
) -> dict[str, NDArray[np.float32]]:
    """Return the F0 of one clip in Hz, 0 where unvoiced: WORLD's, and the network's if given."""
    tracks = {"WORLD": clip.f0().numpy()}
    if network is not None:
        out = network(standardiser.standardise(clip.log_mel())[None, None])
        tracks["network"] = track(out)[0].numpy()
    return tracks


@torch.no_grad()
def example_transcripts(
    clips: Iterable[Clip], network: ContentNetwork | None, standardiser: Standardiser
) -> str:
    """Return one line a clip: what is said, and what the network hears if given."""
    lines = []
    for clip in clips:
        line = f"{clip.item.id}: {spell(encode(clip.item.transcript))}"
        if network is not None:
            heard = decode(network(standardiser.standardise(clip.log_mel())[None, None])[0])
            line += f" | heard: {heard}"
        lines.append(line)
    return "\n".join(lines) or "no transcript"
