"""Small synthetic prepared stores for tests.

from tests.unit.store_factory import make_store
store = make_store(tmp_path, corpus="toy", kind="av", genders="ffmm", clips=3)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xfavot.audio.io import PCM_SCALE
from xfavot.audio.mel import MEL, log_mel
from xfavot.data import store as stores
from xfavot.data.batches import Batch, Batches, Samples
from xfavot.data.store import Store

PITCH_HZ = {"f": 210.0, "m": 115.0, "": 160.0}
TEXTS = ("id", "kind", "split", "speaker", "gender", "transcript", "source", "sha256")


def write_store(
    path: Path, clips: Iterable[Mapping[str, Any]], *, image_size: int = 128, seed: int = 0
) -> Store:
    """Write and open a store whose corpus is called like its folder.

    Args:
        path: its folder.
        clips: any of `TEXTS`; `faces`, `landmarks`, `waveform` (float or
            int16), `mel` (80, T) and `f0`, as far as the kind has them and they matter.
        image_size: of the faces.
        seed: recorded.
    """
    made = (({name: clip.get(name, "") for name in TEXTS}, arrays_of(clip)) for clip in clips)
    return stores.write_store(path, made, image_size=image_size, seed=seed)


def arrays_of(clip: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a clip as a store has them; mel and "not estimated" filled in."""
    arrays: dict[str, NDArray[Any]] = {}
    if "faces" in clip:
        unknown = np.full((len(clip["faces"]), 5, 2), np.nan, np.float32)
        arrays |= {"faces": clip["faces"], "landmarks": clip.get("landmarks", unknown)}
    if "waveform" in clip:
        pcm = clip["waveform"]
        if pcm.dtype != np.int16:
            pcm = np.clip(np.rint(pcm * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
        unknown = np.full(len(pcm) // MEL.hop + 1, np.nan, np.float32)
        mel = clip.get("mel")
        if mel is None:
            mel = log_mel(torch.from_numpy(pcm.astype(np.float32) / np.float32(PCM_SCALE))).numpy()
        arrays |= {"audio": pcm, "mel": mel.T.astype(np.float16), "f0": clip.get("f0", unknown)}
    return arrays


def make_store(
    root: Path,
    *,
    corpus: str = "toy",
    kind: str = "av",
    genders: Sequence[str] = ("f", "m", "f", "m"),
    clips: int = 3,
    faces: int = 2,
    seconds: float | Sequence[float] = 1.0,
    splits: Sequence[str] = ("train", "train", "val"),
    known_speakers: bool = True,
    image_size: int = 128,
    transcript: str = "bin blue at f two now",
    seed: int = 0,
) -> Store:
    """Write and open ``root/corpus``.

    Args:
        root: the data root, usually ``tmp_path``.
        corpus, kind: of the store; "av", "audio" or "image".
        genders: one entry a speaker ("f", "m" or ""); speakers are ``<corpus>/s1`` and so on.
        clips: clips a speaker; clip k belongs to ``splits[k % len(splits)]``.
        faces: faces a clip; face i of clip k of speaker s has the colour ``colour(s, k, i)`` with a
            brighter left half.
        seconds: length of the clips, one value or one a clip, repeated.
        splits: see ``clips``.
        known_speakers: False leaves the speakers empty.
        image_size: of the stored faces.
        transcript: of every clip with sound.
        seed: of the noise.
    """
    lengths = [seconds] if isinstance(seconds, int | float) else list(seconds)
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for s, gender in enumerate(genders):
        for k in range(clips):
            clip: dict[str, Any] = {
                "id": f"{corpus}-s{s + 1}-{k}",
                "kind": kind,
                "speaker": f"{corpus}/s{s + 1}" if known_speakers else "",
                "gender": gender,
                "split": splits[k % len(splits)],
                "transcript": "" if kind == "image" else transcript,
                "source": f"s{s + 1}/clip{k}",
                "sha256": f"{s:032x}{k:032x}",
            }
            if kind != "audio":
                clip["faces"] = np.stack([face(colour(s, k, i), image_size) for i in range(faces)])
                clip["landmarks"] = np.full((faces, 5, 2), image_size / 2, np.float32)
            if kind != "image":
                pitch = PITCH_HZ[gender] * (1 + 0.03 * s)
                clip["waveform"] = tone(pitch, lengths[k % len(lengths)], rng)
                frames = len(clip["waveform"]) // MEL.hop + 1
                clip["f0"] = np.full(frames, pitch, np.float32)
            made.append(clip)
    return write_store(root / corpus, made, image_size=image_size, seed=seed)


def colour(speaker: int, clip: int, face_number: int) -> tuple[int, int, int]:
    """The colour by which a test recognises a face."""
    return (speaker * 10) % 240, (clip * 10) % 240, (face_number * 10) % 240


def face(rgb: tuple[int, int, int], size: int) -> NDArray[np.uint8]:
    """(size, size, 3) one colour, 10 steps brighter in the left half."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = rgb
    image[:, : size // 2] += 10
    return image


def tone(pitch_hz: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N,) five harmonics with a little noise, peak below 1."""
    time = np.arange(round(seconds * MEL.sample_rate)) / MEL.sample_rate
    wave = sum(np.sin(2 * np.pi * pitch_hz * h * time) / h for h in range(1, 6))
    return (0.2 * wave + 0.005 * rng.standard_normal(len(time))).astype(np.float32)


def make_batches(stores: list[Store], **changes: object) -> Batches:
    """Batches of the factory's stores, small unless told otherwise."""
    settings = {"split": "train", "image_size": 32, "mel_frames": 24, "batch_size": 8, "seed": 0}
    return Batches(stores, **(settings | changes))  # type: ignore[arg-type]


def role(batch: Batch, name: str) -> Samples:
    """One role of a batch, which has to be there."""
    samples = getattr(batch, name)
    assert isinstance(samples, Samples)
    return samples


def provenance_of(path: Path) -> dict[str, Any]:
    """Read what `save_waveform` wrote into the comment of a WAV."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as file:
        return dict(json.loads(file.metadata["comment"]))
