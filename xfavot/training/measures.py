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
from xfavot.models.f0 import F0Network
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

    frames: int = 0
    wrong_voicing: int = 0
    both_voiced: int = 0
    gross: int = 0
    pairs: list[Tensor] = field(default_factory=list)

    def add(self, f0: Tensor, voicing: Tensor, pitch: Tensor) -> None:
        """Count the frames of one clip: label (T,) Hz, logits (T,), pitch (T,) Hz."""
        voiced, said = f0 > 0, voicing > 0
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
        `val/f0_correlation` (frames voiced in both), `val/f/...`, `val/m/...`, `val/clips`.
    """
    device = next(network.parameters()).device
    found: dict[str, float] = {}
    for split in HELD_OUT:
        scores: dict[str, PitchScore] = {}
        clips = held_out(stores, split, needs="f0")
        for clip in clips:
            x = standardiser.standardise(clip.log_mel())[None, None].to(device)
            out = network(x)
            for group in dict.fromkeys((split, f"{split}/{clip.item.gender}".rstrip("/"))):
                score = scores.setdefault(group, PitchScore())
                score.add(clip.f0(), out.voicing[0].cpu(), out.pitch[0].cpu())
        found |= _flat({group: score.measures() for group, score in scores.items()})
        if clips:
            found[f"{split}/clips"] = float(len(clips))
    return found


@torch.no_grad()
def content_measures(
    network: ContentNetwork, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, float]:
    """Measure the character error of a content network on clips not trained on (greedy CTC).

    Returns:
        For each held-out split that has transcripts: `val/character_error` (edits per character of
        the transcripts) and `val/clips`.
    """
    device = next(network.parameters()).device
    found: dict[str, float] = {}
    for split in HELD_OUT:
        edits = characters = 0
        clips = held_out(stores, split, needs="transcript")
        for clip in clips:
            x = standardiser.standardise(clip.log_mel())[None, None].to(device)
            said = spell(encode(clip.item.transcript))
            edits += edit_distance(said, decode(network(x)[0].cpu()))
            characters += len(said)
        if clips:
            found[f"{split}/character_error"] = edits / characters
            found[f"{split}/clips"] = float(len(clips))
    return found


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
        tracks["network"] = (out.pitch[0] * (out.voicing[0] > 0)).numpy()
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
