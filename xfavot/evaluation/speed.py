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
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xfavot import presets
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, Vocoder, vocoder
from xfavot.config import RunConfig
from xfavot.data.batches import Batch, Batches, Samples, open_batches, reflected
from xfavot.data.store import Store
from xfavot.errors import WeightsError, import_optional
from xfavot.image.io import to_float
from xfavot.models import device_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training.step import Networks, Updater, place

JPEG_PIXELS = (1024, 256, 128)
JPEG_QUALITY = 95
BATCHES_A_ROUND = 10  # of the store, whose batches are short
STORE, FLOATS = "prepared store", "prepared store, float32 on the CPU"
STEP_PRESETS = ("smoke", "mini")  # those that any machine can run
SECONDS = 2.0  # of sound that a vocoder makes
RANDOM = "published size, random weights"

What = tuple[str, str]  # system and task
Row = dict[str, Any]
Call = Callable[[], object]


def take_turns(
    calls: Mapping[What, Call], *, rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[What, list[float]]:
    """Time several calls that take turns, on one thread, after a round that does not count.

    Args:
        calls: what to call, by name.
        rounds: how often.
        clock: seconds; by default, CPU time of the process.

    Returns:
        Seconds of each call, one a round.
    """
    seconds: dict[What, list[float]] = {name: [] for name in calls}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for counts in (False, *[True] * rounds):
            for name, call in calls.items():
                started = clock()
                call()
                seconds[name] += [clock() - started] * counts
    finally:
        torch.set_num_threads(threads)
    return seconds


def timings(
    cfg: RunConfig, metric: str, taken: Mapping[What, Sequence[float]], *, base: What | None = None
) -> list[Row]:
    """Make the rows of a table of timings.

    Args:
        cfg: for the dataset and the seed.
        metric: "cpu_ms", "wall_ms" or "rtf".
        taken: seconds, one a round, by system and task.
        base: which of them the others are compared with, if any.

    Returns:
        Median, lowest and highest, how many a second, and the ratio of medians.
    """
    rows, scale = [], 1.0 if metric == "rtf" else 1e3
    for what, seconds in taken.items():
        middle = median(seconds)
        bounds = {"lowest": scale * min(seconds), "highest": scale * max(seconds)}
        more = {"per_second": 1.0 / middle, "ratio": middle / median(taken[base]) if base else None}
        rows.append({**row(cfg, what, metric, scale * middle, len(seconds)), **bounds, **more})
    return rows


def row(cfg: RunConfig, what: What, metric: str, value: float, n: int) -> Row:
    """Make a row of a system and task, of the dataset and seed of `cfg`."""
    named = {"system": what[0], "task": what[1], "dataset": cfg.data.dataset, "metric": metric}
    return {**named, "value": value, "ci_low": None, "ci_high": None, "n": n, "seed": cfg.seed}


def loader(stores: Sequence[Store], cfg: RunConfig, *, rounds: int = 5) -> list[Row]:
    """Time batches of the prepared store beside the same samples decoded from files.

    Store and files are read before they are timed, so all of it comes from the system's page cache.
    The files lie in a temporary folder, which is removed.

    Args:
        stores: with faces, voices or both.
        cfg: sizes and seed; a batch holds three times ``train.batch_size`` faces and as many
            voices.
        rounds: how often everything is timed.

    Returns:
        One row for each way, of the store also with augmented faces. The store's batches come as
        they travel to a device, faces as bytes, and once more turned into float32 here; the ratio
        is to the latter, since that is what reading the files gives.
    """
    shape = f"{cfg.model.image_size} px, {cfg.model.mel_frames} frames"
    calls: dict[What, Call] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task, augment in ((shape, False), (f"{shape}, augmented", True)):
            data = dataclasses.replace(cfg.data, augment=augment)
            batches = open_batches(dataclasses.replace(cfg, data=data), stores)
            calls[STORE, task] = partial(_draw, batches, itertools.count())
            calls[FLOATS, task] = partial(_draw, batches, itertools.count(), "cpu")
            if not augment:
                calls |= {(name, task): call for name, call in _files(batches, Path(folder))}
        taken = take_turns(calls, rounds=rounds)
    ours = {
        what: [s / BATCHES_A_ROUND for s in taken[what]] for what in taken if "store" in what[0]
    }
    return timings(cfg, "cpu_ms", taken | ours, base=(FLOATS, shape))


def _draw(batches: Batches, steps: Iterator[int], device: str = "") -> None:
    """Draw the next batches, and bring them to a device if there is one."""
    for step in itertools.islice(steps, BATCHES_A_ROUND):
        batch = batches.batch(step)
        if device:
            batch.to(device)


def _files(batches: Batches, folder: Path) -> Iterator[tuple[str, Call]]:
    """Yield calls that decode the clips of the first batch from files, as the ancestors do."""
    soundfile, Image = (
        import_optional(name, extra="data", purpose="comparing with files")
        for name in ("soundfile", "PIL.Image")
    )
    stores = {store.corpus: store for store in batches.stores}
    roles = batches.batch(0).roles()
    faces, voices = (
        [
            batches.items[n]
            for name in roles
            if name.endswith(side)
            for n in roles[name].row.tolist()
        ]
        for side in ("image", "audio")
    )
    wavs = [folder / f"{number}.wav" for number in range(len(voices))]
    for item, wav in zip(voices, wavs, strict=True):
        soundfile.write(wav, stores[item.corpus].waveform(item), MEL.sample_rate)
    shape: dict[str, Any] = {"frames": batches.mel_frames, "standardiser": batches.standardiser}
    hear = partial(load_voices, wavs, **shape, rng=np.random.default_rng(batches.seed))
    if not faces:
        yield "WAV", hear
    for pixels in JPEG_PIXELS if faces else ():
        jpegs = [folder / f"{number}_{pixels}.jpg" for number in range(len(faces))]
        for item, jpeg in zip(faces, jpegs, strict=True):
            image = Image.fromarray(stores[item.corpus].face(item))
            resized = image.resize((pixels, pixels), Image.Resampling.BICUBIC)
            resized.save(jpeg, quality=JPEG_QUALITY)
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

    filters, window = mel_filterbank(), torch.hann_window(MEL.win)
    x = []
    for file in files:
        wave = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
        spectrum = torch.stft(wave, MEL.n_fft, MEL.hop, MEL.win, window, return_complex=True).abs()
        mel = (filters @ spectrum).clamp_(min=MEL.floor).log10_()  # (80, T)
        if mel.shape[1] < frames:
            mel = mel[:, torch.from_numpy(reflected(mel.shape[1], frames))]
        first = int(rng.integers(mel.shape[1] - frames + 1))
        x.append(standardiser.standardise(mel[:, first : first + frames]))
    return torch.stack(x).unsqueeze(1)


def measure_step(cfg: RunConfig, *, steps: int = 1) -> list[float]:
    """Time full steps of a configuration on random faces and mels.

    Args:
        cfg: the run; ``model.speakers`` has to be over 0.
        steps: how many.

    Returns:
        Seconds of each step; the first makes the optimisers' state. All style sources that the
        configuration uses are in it.
    """
    device, m, count = device_of(cfg.train.device), cfg.model, cfg.train.batch_size
    torch.manual_seed(cfg.seed)
    content = ContentNetwork.from_config(m)
    nets = Networks(XFaVoT(m), F0Network.from_config(m), content, Standardiser.neutral())
    updater = Updater(place(nets, device), cfg, guidances=("z", "i", "a"), outputs="ia")
    code = torch.arange(count)  # a speaker a row, women and men in turn
    shapes = {"image": (3, m.image_size, m.image_size), "audio": (1, m.mel_bins, m.mel_frames)}
    seconds = []
    for step in range(cfg.train.warmup + 1, cfg.train.warmup + 1 + steps):
        samples = {
            f"{role}_{side}": Samples(torch.randn(count, *shape), code % 2, code, code)
            for side, shape in shapes.items()
            for role in ("source", "ref", "ref2")
        }
        batch = Batch(**samples, paired=torch.ones(count, dtype=torch.bool)).to(device)
        started = time.perf_counter()
        _ = [float(value) for value in updater(batch, step).values()]  # all is done
        seconds.append(time.perf_counter() - started)
    return seconds


def vocoders(on_log: Callable[[str], None]) -> dict[What, Vocoder]:
    """Make everything that can be timed here, by system and task."""
    made: dict[What, Vocoder] = {(DEFAULT, "comes with the package"): vocoder(DEFAULT)}
    made["griffin_lim", "no weights"] = vocoder("griffin_lim")
    for name in presets.names("vocoders"):
        size = presets.load("vocoders", name)
        try:
            made[name, RANDOM] = untrained(size["generator_type"], size["generator_params"])
        except WeightsError as error:
            on_log(f"{name} is not timed: {error}")
    return made
