"""What things cost here: CPU time of the loader, time of a training step, operations of a network.

Everything is compared inside one process: what is compared takes turns, round after round, so that
other work on the machine falls on all of it alike. Reported are the median, the lowest and the
highest round. CPU time (user and system, one thread) is the figure to trust on a busy machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xfavot import presets
from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank, stft
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, Vocoder, vocoder
from xfavot.config import RunConfig
from xfavot.data.batches import Batches, reflected
from xfavot.data.store import Item, Store
from xfavot.errors import WeightsError, import_optional
from xfavot.image.io import to_float

JPEG_PIXELS = (1024, 256, 128)
JPEG_QUALITY = 95
BATCHES_A_ROUND = 10  # of the store, whose batches are short
STORE, FLOATS = "prepared store", "prepared store, float32 on the CPU"
STEP_PRESETS = ("smoke", "mini")  # those that any machine can run
SECONDS = 2.0  # of sound that a vocoder makes
RANDOM = "published size, random weights"

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


def loader(stores: Sequence[Store], cfg: RunConfig, *, rounds: int = 5) -> dict[What, list[float]]:
    """Time batches of the prepared store beside the same samples decoded from files.

    Store and files are read before they are timed, so all of it comes from the system's page cache.
    The files lie in a temporary folder, which is removed.

    Args:
        stores: with faces, voices or both.
        cfg: sizes and seed; a batch holds three times ``train.batch_size`` faces and as many
            voices.
        rounds: how often everything is timed.

    Returns:
        Seconds of CPU time a batch, one a round, of the store also with augmented faces. The
        store's batches come as they travel to a device, faces as bytes, and once more turned into
        float32 here, which is what reading the files gives.
    """
    shape = f"{cfg.model.image_size} px, {cfg.model.mel_frames} frames"
    calls: dict[What, Call] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task, augment in ((shape, False), (f"{shape}, augmented", True)):
            data = dataclasses.replace(cfg.data, augment=augment)
            batches = Batches(dataclasses.replace(cfg, data=data), stores)
            calls[STORE, task] = partial(_draw, batches, itertools.count())
            calls[FLOATS, task] = partial(_draw, batches, itertools.count(), "cpu")
            if not augment:
                calls |= {(name, task): call for name, call in _files(batches, Path(folder))}
        taken = take_turns(calls, rounds=rounds)
    counts = {what: BATCHES_A_ROUND if "store" in what[0] else 1 for what in taken}
    return {what: [s / counts[what] for s in seconds] for what, seconds in taken.items()}


def _draw(batches: Batches, steps: Iterator[int], device: str = "") -> None:
    """Draw the next batches, and bring them to a device if there is one."""
    for step in itertools.islice(steps, BATCHES_A_ROUND):
        batch = batches.batch(step)
        if device:
            batch.to(device)


def _files(batches: Batches, folder: Path) -> Iterator[tuple[str, Call]]:
    """Yield calls that decode the clips of the first batch from files, as the ancestors do."""
    Image = import_optional("PIL.Image", extra="data", purpose="comparing with files")
    stores = {store.corpus: store for store in batches.stores}
    clips: dict[str, list[Item]] = {"image": [], "audio": []}
    for name, samples in batches.batch(0).roles().items():
        clips[name.rpartition("_")[2]] += [batches.items[n] for n in samples.row.tolist()]
    faces, voices = clips.values()
    wavs = [folder / f"{number}.wav" for number in range(len(voices))]
    for item, wav in zip(voices, wavs, strict=True):
        save_waveform(wav, stores[item.corpus].waveform(item))
    shape: dict[str, Any] = {"frames": batches.mel_frames, "standardiser": batches.standardiser}
    hear = partial(load_voices, wavs, **shape, rng=np.random.default_rng(batches.seed))
    if not faces:
        yield "WAV", hear
    for pixels in JPEG_PIXELS if faces else ():
        jpegs = [folder / f"{number}_{pixels}.jpg" for number in range(len(faces))]
        for item, jpeg in zip(faces, jpegs, strict=True):
            image = Image.fromarray(stores[item.corpus].face(item))
            image.resize((pixels, pixels)).save(jpeg, quality=JPEG_QUALITY)  # bicubic
        look = partial(load_faces, jpegs, size=batches.image_size)
        both = partial(lambda look: (look(), hear()), look)
        yield (f"JPEG {pixels} px and WAV", both) if voices else (f"JPEG {pixels} px", look)


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


def vocoders(on_log: Callable[[str], None]) -> dict[What, Vocoder]:
    """Make everything that can be timed here, by system and task."""
    usual = {DEFAULT: "comes with the package", "griffin_lim": "no weights"}
    made: dict[What, Vocoder] = {(name, said): vocoder(name) for name, said in usual.items()}
    for name in presets.names("vocoders"):
        size = presets.load("vocoders", name)
        try:
            made[name, RANDOM] = untrained(size["generator_type"], size["generator_params"])
        except WeightsError as error:
            on_log(f"{name} is not timed: {error}")
    return made
