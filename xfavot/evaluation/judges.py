"""Judges: small classifiers of real faces and voices that read what a converted one shows.

They are trained on the real training split alone, at the model's size, independently of the model,
and say beside every figure how well they read real samples not trained on. Augmentation (shift,
blur, noise, colour, level) keeps them from depending on details that a generator does not render.
Training is in `judge_training.py`; this file holds the networks and their measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xfavot.audio.mel import Standardiser
from xfavot.evaluation.people import Faces, Voices

FACE_WIDTHS = (16, 32, 48, 64, 96, 96)  # channels after each halving
VOICE_WIDTHS = (16, 32, 48, 64)
FACE_LEAST = 4  # pixels a side at the bottom
DROPOUT = 0.2
AT_ONCE = 128  # samples


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a judge reads from n samples."""

    speaker: Tensor  # (n, K) logits
    gender: Tensor  # (n, 2) logits
    pose: Tensor  # (n, 2) yaw and pitch; (n, 0) from voices
    features: Tensor  # (n, C) what the logits are linear in


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    """Halve both axes."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class FaceJudge(nn.Module):
    """Reads speaker, gender and pose from a face.

    Speaker and gender come from averages over places, so that they do not depend on the pose; pose
    comes from a trunk of its own that keeps the places.
    """

    def __init__(self, *, image_size: int, speakers: int) -> None:
        """Make the layers; `image_size` is a power of two from 16 on."""
        super().__init__()
        depth = (image_size // FACE_LEAST).bit_length() - 1
        widths = (3, *FACE_WIDTHS[:depth])
        self.who = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        self.where = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        self.drop = nn.Dropout(DROPOUT)
        self.speaker = nn.Linear(widths[-1], speakers)
        self.gender = nn.Linear(widths[-1], 2)
        self.pose = nn.Linear(widths[-1] * FACE_LEAST**2, 2)

    def forward(self, x: Tensor) -> Reading:
        """Read faces (n, 3, H, W) in [-1, 1]."""
        features = self.who(x).mean((2, 3))  # (n, C)
        dropped = self.drop(features)
        pose = self.pose(self.drop(self.where(x).flatten(1)))
        return Reading(self.speaker(dropped), self.gender(dropped), pose, features)


class VoiceJudge(nn.Module):
    """Reads speaker and gender from a crop of a log10 mel-spectrogram.

    Standardises by statistics of its own, so it does not depend on the model's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, speakers: int, mel_bins: int = 80) -> None:
        """Make the layers; the statistics are set by :meth:`calibrate`."""
        super().__init__()
        widths = (1, *VOICE_WIDTHS)
        self.who = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        features = VOICE_WIDTHS[-1] * -(-mel_bins // 2 ** len(VOICE_WIDTHS))
        self.drop = nn.Dropout(DROPOUT)
        self.speaker = nn.Linear(features, speakers)
        self.gender = nn.Linear(features, 2)
        self.register_buffer("mean", torch.zeros(mel_bins))
        self.register_buffer("std", torch.ones(mel_bins))

    def calibrate(self, statistics: Standardiser) -> None:
        """Take over the statistics of real training mels."""
        self.mean.copy_(statistics.mean)
        self.std.copy_(statistics.std)

    def forward(self, log_mel: Tensor) -> Reading:
        """Read crops (n, 80, T), log10."""
        x = (log_mel - self.mean[:, None]) / self.std[:, None]
        features = self.who(x.unsqueeze(1)).mean(3).flatten(1)  # (n, C M / 16), mean over time
        dropped = self.drop(features)
        nothing = features.new_zeros(len(features), 0)
        return Reading(self.speaker(dropped), self.gender(dropped), nothing, features)


@dataclass(frozen=True, slots=True, eq=False)
class Judges:
    """The two judges with their own accuracy on real samples not trained on, by name.

    ``accuracy`` holds `face/speaker`, `face/gender`, `voice/speaker`, `voice/gender` (shares) and
    `face/pose` (mean absolute error of yaw and pitch, absent where pose is unknown).
    """

    face: FaceJudge
    voice: VoiceJudge
    accuracy: dict[str, float]
    key: str


@torch.no_grad()
def read(judge: nn.Module, x: Tensor) -> Reading:
    """Let a judge read samples (n, ...) in portions; the result is on the samples' device."""
    parts = [judge(part) for part in torch.split(x, AT_ONCE)]
    names = ("speaker", "gender", "pose", "features")
    return Reading(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def share(logits: Tensor, codes: Tensor) -> float:
    """Share of rows (n, K) whose largest logit is that of the code (n,)."""
    return float((logits.argmax(1) == codes).float().mean())


def own_accuracy(
    face: FaceJudge, voice: VoiceJudge, faces: Faces, voices: Voices
) -> dict[str, float]:
    """How well judges read real samples; see :class:`Judges`."""
    seen, heard = read(face, faces.x), read(voice, voices.log_mel)
    found = {
        "face/speaker": share(seen.speaker, faces.speaker),
        "face/gender": share(seen.gender, faces.gender),
        "voice/speaker": share(heard.speaker, voices.speaker),
        "voice/gender": share(heard.gender, voices.gender),
    }
    known = faces.pose.isfinite().all(1)
    if bool(known.any()):
        found["face/pose"] = float((seen.pose - faces.pose)[known].abs().mean())
    return found
