"""What a conversion gives: the task, the style that led it, the converted face or voice.

Saved files say that they are synthetic and how they were made: a PNG in its text chunks, a WAV in
its comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfavot import __version__
from xfavot.audio.io import save_waveform
from xfavot.errors import ConfigError
from xfavot.image.io import save_image


class Task(Enum):
    """A conversion, named guidance to output: A voice (audio), I face (image), Z latent code."""

    I2I = "i2i"
    A2I = "a2i"
    Z2I = "z2i"
    A2A = "a2a"
    I2A = "i2a"
    Z2A = "z2a"

    @property
    def guidance(self) -> str:
        """What leads the conversion: "voice", "face" or "latent"."""
        return {"a": "voice", "i": "face", "z": "latent"}[self.value[0]]

    @property
    def output(self) -> str:
        """What is converted: "voice" or "face"."""
        return {"a": "voice", "i": "face"}[self.value[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style vector and where it came from.

    Args:
        vector: (1, S), unitless.
        guidance: "face", "voice" or "latent".
        gender: "f", "m", or "" where a speaker's head of the mapping network gave the style.
        gender_from: "given", "estimated by C_A" or "speaker".
        reference: file or description of the reference.
        seed: seed of the latent code; ``None`` for a face or a voice.
        speaker: speaker whose head was used, or "".
    """

    vector: Tensor
    guidance: str
    gender: str
    gender_from: str
    reference: str
    seed: int | None = None
    speaker: str = ""

    def task(self, output: str) -> Task:
        """Return the task that this style leads to for an output ("face" or "voice")."""
        first = {"voice": "a", "face": "i", "latent": "z"}[self.guidance]
        return Task(f"{first}2{'a' if output == 'voice' else 'i'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFace:
    """A converted face.

    Args:
        task: the task done.
        image: (H, W, 3) uint8.
        source: (H, W, 3) uint8, the source as the networks saw it.
        style: the style that led the conversion.
        provenance: texts written into the file.
    """

    task: Task
    image: NDArray[np.uint8]
    source: NDArray[np.uint8]
    style: Style
    provenance: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a PNG whose text chunks hold the provenance.

        Args:
            path: a name that ends in ``.png``.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
        """
        target = _with_suffix(path, ".png")
        save_image(target, self.image, metadata=dict(self.provenance))
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedVoice:
    """A converted voice.

    Args:
        task: the task done.
        waveform: (N,) float32 at 24 kHz, N as the source's.
        log_mel: (80, T) float32, log10 magnitude, T = N // 300 + 1.
        f0: (T,) float32, Hz, by the checkpoint's own F0 network, 0 where unvoiced.
        source_log_mel, source_f0: the same of the source.
        style: the style that led the conversion.
        provenance: texts written into the file.
    """

    task: Task
    waveform: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    f0: NDArray[np.float32]
    source_log_mel: NDArray[np.float32]
    source_f0: NDArray[np.float32]
    style: Style
    provenance: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a 16-bit WAV whose comment holds the provenance.

        Args:
            path: a name that ends in ``.wav``.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
        """
        target = _with_suffix(path, ".wav")
        save_waveform(target, self.waveform, metadata=dict(self.provenance))
        return target


def _with_suffix(path: str | PathLike[str], suffix: str) -> Path:
    target = Path(fspath(path))
    if target.suffix.lower() != suffix:
        raise ConfigError(
            f"the file to write is {target.name!r}; expected a name that ends in {suffix}"
        )
    return target


def describe(given: Any) -> str:
    """Say what a source or a reference was: the name of a file, or the type and size of data."""
    if isinstance(given, str | PathLike):
        return Path(fspath(given)).name
    shape: Any = getattr(given, "shape", getattr(given, "size", ()))
    return f"{type(given).__name__} of {' x '.join(str(n) for n in shape)}"


def provenance(
    task: Task, style: Style, *, source: Any, checkpoint: str, step: int
) -> dict[str, str]:
    """Texts that a converted file carries; empty ones are left out.

    Args:
        task: what was done.
        style: what led it.
        source: the face or voice that was converted.
        checkpoint: name of the checkpoint.
        step: its training step.
    """
    texts = {
        "software": f"xfavot {__version__}",
        "synthetic": "yes: converted by XFaVoT (arXiv 2302.13838), not a recording",
        "task": f"{task.value} (guidance to output)",
        "checkpoint": checkpoint,
        "step": str(step),
        "source": describe(source),
        "reference": style.reference,
        "gender": f"{style.gender} ({style.gender_from})" if style.gender else "",
        "speaker": style.speaker,
        "seed": "" if style.seed is None else str(style.seed),
    }
    return {key: text for key, text in texts.items() if text}
