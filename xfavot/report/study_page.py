"""One page of the correspondence study: a single HTML file that works offline, on any device.

Everything is inside: faces as JPEG of one size, voices as MP3 of one level, the look and the
script (`study.html`, `study.css`, `study.js`). Nothing in it tells which system made a sample or
which candidate is the right one: samples carry no metadata, and candidates bear tokens whose
meaning is in the key alone. A policy in the page forbids it to load or send anything (A62).
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xfavot.audio.mel import MEL
from xfavot.errors import DataError
from xfavot.evaluation.triplets import Sample, Triplet, is_face
from xfavot.image.io import resize_image

FACE_PIXELS = 256
JPEG_QUALITY = 90
LEVEL_DBFS = -24.0  # root mean square of every voice
PEAK = 0.9
LISTEN_MS = 1000  # of each voice, or its whole, before an answer counts
ANSWER_SECONDS = (
    7.0  # an answer is thought to take beyond listening, for the time told at the start
)
MOST_BYTES = 40_000_000  # of a page; telephones open that


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A sample as it lies in a page: "face" or "voice", the bytes of its file, its length."""

    kind: str
    data: bytes
    seconds: float = 0.0

    def text(self) -> str:
        """Base64."""
        return base64.b64encode(self.data).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A triplet with its samples as files.

    Args:
        prompt, match, other: the samples.
        triplet: where they come from.
    """

    prompt: Clip
    match: Clip
    other: Clip
    triplet: Triplet

    @property
    def seconds(self) -> float:
        """How long its voices last together."""
        return self.prompt.seconds + self.match.seconds + self.other.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A question on one sheet: its id, and token and sample of candidates A and B."""

    id: str
    prompt: Clip
    a: tuple[str, Clip]
    b: tuple[str, Clip]

    def plain(self) -> dict[str, Any]:
        """As the page's script reads it."""
        (token_a, a), (token_b, b) = self.a, self.b
        return {
            "id": self.id,
            "p": {"k": self.prompt.kind, "d": self.prompt.text()},
            "a": {"t": token_a, "k": a.kind, "d": a.text()},
            "b": {"t": token_b, "k": b.kind, "d": b.text()},
        }


def question(triplet: Triplet) -> Question:
    """Turn the samples of a triplet into files.

    Raises:
        DataError: a voice is silent or not finite, or an encoder is missing.
    """
    names = ("prompt", "match", "other")
    clips = {name: encode(getattr(triplet, name)) for name in names}
    return Question(triplet=triplet, **clips)


def encode(sample: Sample) -> Clip:
    """Turn a face into a JPEG of 256 pixels, a voice into an MP3 of -24 dBFS.

    Args:
        sample: (H, W, 3) uint8 or (N,) float32 at 24 kHz.

    Raises:
        DataError: see :func:`question`.
    """
    if is_face(sample):
        return Clip(kind="face", data=_jpeg(sample))
    return Clip(kind="voice", data=_mp3(sample), seconds=len(sample) / MEL.sample_rate)


def _jpeg(pixels: Sample) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    face = Image.fromarray(resize_image(pixels, FACE_PIXELS))
    face.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def _mp3(wave: Sample) -> bytes:
    try:
        import soundfile
    except ImportError as error:
        raise DataError(
            'the study needs soundfile, which is not installed; run: pip install "xfavot[data]"'
        ) from error
    wave = np.asarray(wave, dtype=np.float64)
    level = math.sqrt(float(np.square(wave).mean())) if len(wave) else 0.0
    if not math.isfinite(level) or level < 1e-5:
        raise DataError(
            f"study: a voice of {len(wave)} samples has the level {level:.2g}; expected speech, "
            "finite and above 0.00001; leave out the clip or the model that it comes from"
        )
    gain = min(10 ** (LEVEL_DBFS / 20) / level, PEAK / float(np.abs(wave).max()))
    stream = io.BytesIO()
    try:
        soundfile.write(
            stream, wave * gain, MEL.sample_rate, format="MP3", subtype="MPEG_LAYER_III"
        )
    except (soundfile.LibsndfileError, ValueError) as error:
        raise DataError(
            f"study: this libsndfile cannot write MP3 ({error}); expected 1.1 or later, which the "
            "wheels of soundfile 0.12 and later bring; run: pip install -U soundfile"
        ) from error
    return stream.getvalue()


def write_page(
    path: str | os.PathLike[str],
    *,
    study: str,
    sheet: str,
    questions: Sequence[Shown],
    practice: Shown,
    seconds: float,
    listen_ms: int = LISTEN_MS,
) -> int:
    """Write the page of one evaluator, whole or not at all.

    Args:
        path: the file.
        study: id of the study.
        sheet: number of the page, as text.
        questions: in the order in which they are asked.
        practice: an example that does not count.
        seconds: how long all voices last together.
        listen_ms: how much of each voice has to be heard before an answer counts.

    Returns:
        Bytes written.

    Raises:
        DataError: the page would be too large, or cannot be written.
    """
    data = {
        "study": study, "sheet": sheet, "listen_ms": listen_ms,
        "minutes": max(1, round((seconds + ANSWER_SECONDS * len(questions)) / 60)),
        "practice": practice.plain(), "items": [one.plain() for one in questions],
    }  # fmt: skip
    text = render({
        "sheet": sheet, "style": _file("study.css"), "script": _file("study.js"),
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    })  # fmt: skip
    content, target = text.encode("utf-8"), Path(path)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"study page of {len(questions)} questions has {len(content) / 1e6:.0f} MB; expected "
            f"at most {MOST_BYTES / 1e6:.0f}, which telephones open; ask for fewer triplets"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise DataError(
            f"study page {target} cannot be written ({error}); expected a writable folder with "
            f"{len(content) / 1e6:.0f} MB of free space; free some, or choose another folder"
        ) from error
    return len(content)


def render(values: Mapping[str, str]) -> str:
    """Fill the template; what is filled in is not looked through again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _file("study.html"))


def _file(name: str) -> str:
    return resources.files("xfavot.report").joinpath(name).read_text(encoding="utf-8").rstrip()
