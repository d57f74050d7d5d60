"""What things cost here: CPU time of the loader, time of a training step, operations of a network.

Everything is compared inside one process: what is compared takes turns, round after round, so that
other work on the machine falls on all of it alike. Reported are the median, the lowest and the
highest round. CPU time (user and system, one thread) is the figure to trust on a busy machine.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xfavot import config, presets
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, Vocoder, vocoder
from xfavot.config import RunConfig
from xfavot.data.batches import Batch, Batches, Samples, reflected
from xfavot.data.store import Store
from xfavot.errors import WeightsError, import_optional
from xfavot.image.io import to_float
from xfavot.models import device_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import F0_FEATURE_FACTOR, XFaVoT
from xfavot.training.step import Networks, Updater, place

JPEG_PIXELS = (1024, 256, 128)
JPEG_QUALITY = 95
BATCHES_A_ROUND = 10  # of the store, whose batches are short
STORE, FLOATS = "prepared store", "prepared store, float32 on the CPU"
SPEAKERS = 16  # in the training steps that are timed
STEP_PRESETS = ("smoke", "mini")  # those that any machine can run
SECONDS = 2.0  # of sound
RANDOM = "published size, random weights"
SPEECH_MEAN, SPEECH_STD = -2.0, 0.5  # log10, of the mel that is decoded

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
        row = _row(cfg, what, metric, scale * middle, len(seconds))
        row |= {"lowest": scale * min(seconds), "highest": scale * max(seconds)}
        ratio = middle / median(taken[base]) if base else None
        rows.append(row | {"per_second": 1.0 / middle, "ratio": ratio})
    return rows


def _row(cfg: RunConfig, what: What, metric: str, value: float, n: int) -> Row:
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
    size, frames = cfg.model.image_size, cfg.model.mel_frames
    calls: dict[What, Call] = {}
    with tempfile.TemporaryDirectory() as folder:
        for augment in (False, True):
            batches = Batches(
                stores,
                split="train",
                image_size=size,
                mel_frames=frames,
                seed=cfg.seed,
                batch_size=cfg.train.batch_size,
                augment=augment,
            )
            task = f"{size} px, {frames} frames{', augmented' * augment}"
            calls[STORE, task] = _drawing(batches)
            calls[FLOATS, task] = _drawing(batches, device="cpu")
            if not augment:
                files = _decoding(batches, Path(folder))
                calls |= {(name, task): call for name, call in files.items()}
        taken = take_turns(calls, rounds=rounds)
    for what in taken:
        if what[0] in (STORE, FLOATS):
            taken[what] = [s / BATCHES_A_ROUND for s in taken[what]]
    return timings(cfg, "cpu_ms", taken, base=(FLOATS, f"{size} px, {frames} frames"))


def _drawing(batches: Batches, *, device: str | None = None) -> Call:
    """A call that draws the next batches, and brings them to a device."""
    steps = itertools.count()

    def draw() -> None:
        for step in itertools.islice(steps, BATCHES_A_ROUND):
            batch = batches.batch(step)
            if device is not None:
                batch.to(device)

    return draw


def _decoding(batches: Batches, folder: Path) -> dict[str, Call]:
    """Calls that decode the clips of the first batch from files, as the ancestors' loaders do."""
    soundfile, Image = (
        import_optional(name, extra="data", purpose="comparing with files")
        for name in ("soundfile", "PIL.Image")
    )
    stores = {store.corpus: store for store in batches.stores}
    rows = {name: samples.row.tolist() for name, samples in batches.batch(0).roles().items()}
    faces, voices = (
        [batches.items[row] for name in rows if name.endswith(side) for row in rows[name]]
        for side in ("image", "audio")
    )
    wavs = [folder / f"{number}.wav" for number in range(len(voices))]
    for item, wav in zip(voices, wavs, strict=True):
        soundfile.write(wav, stores[item.corpus].waveform(item), MEL.sample_rate)
    shape: dict[str, Any] = {"frames": batches.mel_frames, "standardiser": batches.standardiser}
    hear = partial(load_voices, wavs, **shape, rng=np.random.default_rng(batches.seed))
    ways: dict[str, Call] = {}
    for pixels in JPEG_PIXELS if faces else ():
        jpegs = [folder / f"{number}_{pixels}.jpg" for number in range(len(faces))]
        for item, jpeg in zip(faces, jpegs, strict=True):
            image = Image.fromarray(stores[item.corpus].face(item))
            resized = image.resize((pixels, pixels), Image.Resampling.BICUBIC)
            resized.save(jpeg, quality=JPEG_QUALITY)
        look = partial(load_faces, jpegs, size=batches.image_size)
        both = partial(lambda look: (look(), hear()), look)
        ways |= {f"JPEG {pixels} px and WAV": both} if voices else {f"JPEG {pixels} px": look}
    return ways or {"WAV": hear}


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


def training_steps(cfg: RunConfig, *, rounds: int = 5) -> list[Row]:
    """Time full training steps on random inputs, at the presets that any machine can run.

    Args:
        cfg: dataset, seed and device.
        rounds: steps that count, after a first that does not.

    Returns:
        One row a preset; wall time with all of torch's threads.
    """
    taken = {}
    for preset in STEP_PRESETS:
        run = config.resolve(
            preset=preset,
            seed=cfg.seed,
            device=cfg.train.device,
            overrides={"model.speakers": SPEAKERS},
        )
        task = f"training step, batch {run.train.batch_size}, {run.train.precision}"
        taken[f"preset {preset}", task] = measure_step(run, steps=rounds + 1)[1:]
    return timings(cfg, "wall_ms", taken)


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


def forward_passes(cfg: RunConfig) -> list[Row]:
    """Count parameters and operations of every network, for one sample; nothing is computed.

    Args:
        cfg: the sizes.

    Returns:
        One row a network: 10^9 floating-point operations (a multiplication and an addition are two)
        of a forward pass, and millions of parameters.
    """
    m, rows = cfg.model, []
    with torch.device("meta"), torch.no_grad():
        nets = XFaVoT(m)
        x = torch.empty(1, 3, m.image_size, m.image_size)
        a, s = torch.empty(1, 1, m.mel_bins, m.mel_frames), torch.empty(1, m.style_dim)
        domain = torch.zeros(1, dtype=torch.int64)
        melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
        passes: dict[str, tuple[torch.nn.Module, tuple[Tensor, ...]]] = {
            "G_I": (nets.G_I, (x, s)),
            "G_A": (nets.G_A, (a, s, melody)),
            "E_I": (nets.E_I, (x, domain)),
            "E_A": (nets.E_A, (a, domain)),
            "D_I": (nets.D_I, (x, domain)),
            "D_A": (nets.D_A, (a, domain)),
            "C_A": (nets.C_A, (a,)),
            "M": (nets.M, (torch.empty(1, m.latent_dim), domain)),
            "F0 network": (F0Network.from_config(m), (a,)),
            "content network": (ContentNetwork.from_config(m), (a,)),
        }
        for name, (network, inputs) in passes.items():
            with FlopCounterMode(display=False) as counter:
                network(*inputs)
            gflop = counter.get_total_flops() / 1e9
            what = (name, f"one forward pass at preset {cfg.preset}")
            millions = sum(p.numel() for p in network.parameters()) / 1e6
            rows.append({**_row(cfg, what, "gflop", gflop, 1), "parameters_m": millions})
    return rows


def real_time_factors(
    cfg: RunConfig,
    *,
    rounds: int = 5,
    seconds: float = SECONDS,
    on_log: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Time every vocoder on the same random spectrogram.

    Args:
        cfg: dataset and seed, for the rows.
        rounds: how often each is timed, after a round that does not count.
        seconds: of sound, each time.
        on_log: receives what cannot be timed.

    Returns:
        One row a vocoder: seconds of CPU time on one core for a second of sound, the median, the
        lowest and the highest round; how many times real time; the ratio to the first row.
    """
    generator = torch.Generator().manual_seed(cfg.seed)
    frames = round(seconds * MEL.sample_rate / MEL.hop) + 1
    mel = SPEECH_MEAN + SPEECH_STD * torch.randn(MEL.n_mels, frames, generator=generator)
    calls = {what: partial(made, mel) for what, made in vocoders(on_log).items()}
    taken = take_turns(calls, rounds=rounds)
    shares = {what: [t / seconds for t in times] for what, times in taken.items()}
    return timings(cfg, "rtf", shares, base=next(iter(shares)))


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
