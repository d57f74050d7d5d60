"""What things cost here: CPU time of the loader, time of a training step, operations of a network.

Everything is compared inside one process: what is compared takes turns, round after round, so that
other work on the machine falls on all of it alike. Reported are the median, the lowest and the
highest round. CPU time (user and system, one thread) is the figure to trust on a busy machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank, stft
from xfavot.data.batches import Batches, reflected
from xfavot.data.store import Item
from xfavot.errors import import_optional
from xfavot.image.io import to_float

JPEG_PIXELS = (1024, 256, 128)
JPEG_QUALITY = 95
BATCHES_A_ROUND = 10  # of the store, whose batches are short
STEP_PRESETS = ("smoke", "mini")  # those that any machine can run
SECONDS = 2.0  # of sound that a vocoder makes

What = tuple[str, str]  # system and task
Call = Callable[[], object]


def take_turns(
    calls: Mapping[What, Call], *, rounds: int, wall: bool = False
) -> dict[What, list[float]]:
    """Time several calls that take turns, after a round that does not count.

    Args:
        calls: what to call, by name.
        rounds: how often.
        wall: wall time with all of torch's threads, not CPU time of the process on one thread.

    Returns:
        Seconds of each call, one a round.
    """
    seconds: dict[What, list[float]] = {name: [] for name in calls}
    clock, threads = time.perf_counter if wall else time.process_time, torch.get_num_threads()
    torch.set_num_threads(threads if wall else 1)
    try:
        for counts in (False, *[True] * rounds):
            for name, call in calls.items():
                started = clock()
                call()
                seconds[name] += [clock() - started] * counts
    finally:
        torch.set_num_threads(threads)
    return seconds


@contextmanager
def files(batches: Batches) -> Iterator[dict[str, Call]]:
    """Write the clips of the first batch to files, to be decoded as the ancestors do.

    The files lie in a temporary folder, which is removed at the end; since they have just been
    written, they come from the system's page cache.

    Args:
        batches: of faces, voices or both.

    Yields:
        Calls that decode them, by name: JPEG of several sizes, WAV, or both kinds together.
    """
    Image = import_optional("PIL.Image", extra="data", purpose="comparing with files")
    stores = {store.corpus: store for store in batches.stores}
    clips: dict[str, list[Item]] = {"image": [], "audio": []}
    for name, samples in batches.batch(0).roles().items():
        clips[name.rpartition("_")[2]] += [batches.items[n] for n in samples.row.tolist()]
    faces, voices = clips.values()
    rng, looks = np.random.default_rng(batches.seed), dict[str, Call]()
    with tempfile.TemporaryDirectory() as folder:
        wavs = [Path(folder, f"{number}.wav") for number in range(len(voices))]
        for item, wav in zip(voices, wavs, strict=True):
            save_waveform(wav, stores[item.corpus].waveform(item))
        for pixels in JPEG_PIXELS if faces else ():
            jpegs = [Path(folder, f"{number}_{pixels}.jpg") for number in range(len(faces))]
            for item, jpeg in zip(faces, jpegs, strict=True):
                image = Image.fromarray(stores[item.corpus].face(item))
                image.resize((pixels, pixels)).save(jpeg, quality=JPEG_QUALITY)  # bicubic
            looks[f"JPEG {pixels} px"] = partial(load_faces, jpegs, size=batches.image_size)
        shape: dict[str, Any] = {"frames": batches.mel_frames, "rng": rng}
        hear = partial(load_voices, wavs, standardiser=batches.standardiser, **shape)
        if wavs and looks:
            yield {f"{one} and WAV": partial(_both, look, hear) for one, look in looks.items()}
        else:
            yield looks or {"WAV": hear}


def _both(look: Call, hear: Call) -> tuple[object, object]:
    return look(), hear()


def load_faces(files: Sequence[Path], *, size: int) -> Tensor:
    """Decode, resize and scale pictures.

    Args:
        files: pictures.
        size: pixels a side of the result.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].
    """
    from PIL import Image

    images = (Image.open(file).convert("RGB") for file in files)
    small = [np.asarray(one.resize((size, size), Image.Resampling.BILINEAR)) for one in images]
    return to_float(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous())


def load_voices(
    files: Sequence[Path], *, frames: int, standardiser: Standardiser, rng: np.random.Generator
) -> Tensor:
    """Read recordings whole, compute their log mels in float32 and cut a piece out of each.

    Args:
        files: mono WAV files at 24 kHz.
        frames: length of the pieces; shorter clips are continued by reflection.
        standardiser: statistics of the bands.
        rng: chooses the pieces.

    Returns:
        (n, 1, 80, frames) float32, standardised.
    """
    import soundfile

    filters, x = mel_filterbank(), []
    for file in files:
        wave = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
        mel = (filters @ stft(wave).abs()).clamp_(min=MEL.floor).log10_()  # (80, T)
        if mel.shape[1] < frames:
            mel = mel[:, torch.from_numpy(reflected(mel.shape[1], frames))]
        first = int(rng.integers(mel.shape[1] - frames + 1))
        x.append(standardiser.standardise(mel[:, first : first + frames]))
    return torch.stack(x).unsqueeze(1)
