"""Small synthetic prepared stores for tests.

from tests.unit.store_factory import make_store
store = make_store(tmp_path, corpus="toy", kind="av", genders="ffmm", clips=3)
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xfavot import config
from xfavot.audio.io import PCM_SCALE
from xfavot.audio.mel import MEL, log_mel
from xfavot.data import store as stores
from xfavot.data.batches import Batch, Batches, Samples
from xfavot.data.store import Store
from xfavot.mini.people import TWIN

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
    clips: int | Sequence[int] = 3,
    faces: int = 2,
    seconds: float | Sequence[float] = 1.0,
    splits: Sequence[str] = ("train", "train", "val"),
    known_speakers: bool = True,
    image_size: int = 128,
    transcript: str = "bin blue at f two now",
    twins: int = 0,
    seed: int = 0,
) -> Store:
    """Write and open ``root/corpus``.

    Args:
        root: the data root, usually ``tmp_path``.
        corpus, kind: of the store; "av", "audio" or "image".
        genders: one entry a speaker ("f", "m" or ""); speakers are ``<corpus>/s1`` and so on.
        clips: clips a speaker, one number or one each; clip k is in ``splits[k % len(splits)]``.
        faces: faces a clip; face i of clip k of speaker s has the colour ``colour(s, k, i)`` with a
            brighter left half.
        seconds: length of the clips, one value or one a clip, repeated.
        splits: see ``clips``.
        known_speakers: False leaves the speakers empty.
        image_size: of the stored faces.
        transcript: of every clip with sound.
        twins: further pictures of each speaker, each in the pose of one other's (A96).
        seed: of the noise.
    """
    lengths = [seconds] if isinstance(seconds, int | float) else list(seconds)
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for s, gender in enumerate(genders):
        for k in range(clips if isinstance(clips, int) else clips[s]):
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
                clip["f0"] = np.full(len(clip["waveform"]) // MEL.hop + 1, pitch, np.float32)
            made.append(clip)
        for rank in range(twins):
            name = f"{corpus}/s{s + 1}/{TWIN}{rank}_{s // 2}"
            looks = np.stack([face(colour(s, 20 + rank, 0), image_size)])
            told = {"id": name, "kind": "image", "split": "train", "gender": gender}
            made.append({**told, "speaker": f"{corpus}/s{s + 1}", "source": name, "faces": looks})
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
    sizes = {
        "image_size": 32,
        "mel_frames": 24,
        "batch_size": 8,
        "seed": 0,
        "augment": False,
        "pairs": 0,
        "twins": 0,
        "heads": 0,
    }
    sizes |= {name: changes.pop(name) for name in sizes.keys() & changes}
    given = SimpleNamespace(**sizes, modalities=config.MODALITIES, xm=1.0, speakers=sizes["heads"])
    cfg: Any = SimpleNamespace(model=given, train=given, data=given, loss=given, seed=given.seed)
    return Batches(cfg, stores, **changes)  # type: ignore[arg-type]


def role(batch: Batch, name: str) -> Samples:
    """One role of a batch, which has to be there."""
    samples = getattr(batch, name)
    assert isinstance(samples, Samples)
    return samples


class Pipe(io.BytesIO):
    """A place to write to that cannot seek, so that no length can be written afterwards."""

    def seekable(self) -> bool:
        return False


def encoded(
    form: str,
    codec: str,
    x: NDArray[np.float32],
    rate: int = MEL.sample_rate,
    *,
    pictures: Sequence[NDArray[np.uint8]] = (),
    video: str = "mpeg2video",
    shown: dict[str, str] | None = None,
    drop: tuple[float, float] = (0, 0),
    pipe: bool = False,
    **options: str,
) -> bytes:
    """Encode sound and moving pictures with PyAV.

    Args:
        form: of the container.
        codec: of the sound, with its `options`; "" leaves it out.
        x: (N,) or (C, N) samples at `rate`.
        pictures: (H, W, 3), 25 a second, by the codec `video` with the options `shown`.
        drop: seconds between which the packets of the sound are lost.
        pipe: whether the container cannot go back to write a length.
    """
    av, place, x = pytest.importorskip("av"), Pipe() if pipe else io.BytesIO(), np.atleast_2d(x)
    with av.open(place, "w", format=form) as container:
        layout = "stereo" if len(x) == 2 else "mono"
        moving = container.add_stream(video, rate=25, options=shown) if len(pictures) else None
        sound = codec and container.add_stream(codec, rate=rate, layout=layout, options=options)
        if moving:
            (moving.height, moving.width), moving.pix_fmt = pictures[0].shape[:2], "yuv420p"
            for pixels in pictures:
                container.mux(moving.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(moving.encode(None))
        for start in range(0, x.shape[1] if sound else 0, 1152):
            part = np.ascontiguousarray(x[:, start : start + 1152], np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for packet in sound.encode(frame):
                if not drop[0] <= float(packet.pts * packet.time_base) < drop[1]:
                    container.mux(packet)
        container.mux(sound.encode(None) if sound else [])
        assert moving or sound
    return place.getvalue()


def provenance_of(path: Path) -> dict[str, Any]:
    """Read what `save_waveform` wrote into the comment of a WAV."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as file:
        return dict(json.loads(file.metadata["comment"]))
