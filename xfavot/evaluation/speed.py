"""What things cost here: CPU time of the loader, time of a training step, operations of a network.

Everything is compared inside one process: what is compared takes turns, round after round, so that
other work on the machine falls on all of it alike. Reported are the median, the lowest and the
highest round. CPU time (user and system, one thread) is the figure to trust on a busy machine.
"""

from __future__ import annotations

import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot import config
from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, Vocoder, vocoder
from xfavot.config import RunConfig
from xfavot.data.batches import Batch, Batches, Samples, draw_changes, reflected
from xfavot.data.store import Store
from xfavot.errors import DataError, WeightsError
from xfavot.image.io import to_float
from xfavot.models import device_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import F0_FEATURE_FACTOR, XFaVoT
from xfavot.training import checkpoint
from xfavot.training.speech import content_shape
from xfavot.training.step import Networks, Updater

# Faces and voices decoded from files for every batch, as the ancestors' data loaders do


try:
    import soundfile
    from PIL import Image
except ImportError as error:
    raise DataError(
        "comparing with files needs Pillow and soundfile, which are not installed; "
        'run: pip install "xfavot[data]"'
    ) from error

QUALITY = 95  # of the JPEG files


def write_faces(faces: Sequence[NDArray[np.uint8]], folder: Path, *, pixels: int) -> list[Path]:
    """Write faces as JPEG files.

    Args:
        faces: (H, W, 3) each.
        folder: made if it is not there.
        pixels: a side of the files; other faces are resampled, and then compress better than a
            photograph of that size would.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.jpg" for number in range(len(faces))]
    for file, face in zip(files, faces, strict=True):
        image = Image.fromarray(face)
        if image.width != pixels:
            image = image.resize((pixels, pixels), Image.Resampling.BICUBIC)
        image.save(file, quality=QUALITY)
    return files


def write_voices(voices: Sequence[NDArray[np.float32]], folder: Path) -> list[Path]:
    """Write (N,) recordings at 24 kHz as 16-bit WAV files; returns them."""
    files = [folder / f"{number}.wav" for number in range(len(voices))]
    for file, voice in zip(files, voices, strict=True):
        save_waveform(file, voice)
    return files


def load_faces(
    files: Sequence[Path], *, size: int, rng: np.random.Generator | None = None
) -> Tensor:
    """Decode, resize and scale pictures.

    Args:
        files: square pictures of one size.
        size: pixels a side of the result.
        rng: flips and crops half of them at random where given, as the prepared store's batches do.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].
    """
    with Image.open(files[0]) as first:
        side = first.width
    changes = [None] * len(files) if rng is None else draw_changes(rng, len(files), side)
    x = []
    for file, change in zip(files, changes, strict=True):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        if change is not None:
            mirrored, (top, left, height, width) = change
            image = image.crop((left, top, left + width, top + height))
            if mirrored:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        x.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
    return to_float(torch.stack(x))


def load_voices(
    files: Sequence[Path], *, frames: int, standardiser: Standardiser, rng: np.random.Generator
) -> Tensor:
    """Read recordings whole, compute their log mels and cut a piece out of each.

    Args:
        files: mono WAV files at 24 kHz.
        frames: length of the pieces; shorter clips are continued by reflection.
        standardiser: statistics of the bands.
        rng: chooses the pieces.

    Returns:
        (n, 1, 80, frames) float32, standardised.
    """
    x = []
    for file in files:
        wave, _ = soundfile.read(file, dtype="float32")
        mel = _log_mel(torch.from_numpy(wave))  # (80, T)
        if mel.shape[1] < frames:
            mel = mel[:, torch.from_numpy(reflected(mel.shape[1], frames))]
        first = int(rng.integers(mel.shape[1] - frames + 1))
        x.append(standardiser.standardise(mel[:, first : first + frames]))
    return torch.stack(x).unsqueeze(1)


@lru_cache(maxsize=1)
def _filters() -> tuple[Tensor, Tensor]:
    return mel_filterbank(), torch.hann_window(MEL.win)


def _log_mel(wave: Tensor) -> Tensor:
    """(80, T) of (N,), in float32 as the ancestors compute it."""
    filters, window = _filters()
    spectrum = torch.stft(
        wave, MEL.n_fft, MEL.hop, MEL.win, window, center=True, return_complex=True
    ).abs()  # (F, T)
    return (filters @ spectrum).clamp_(min=MEL.floor).log10_()


# What one full training step of a preset costs here: seconds and memory, on random inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Measured cost of training steps."""

    seconds: list[float]  # one a step, the first includes making the optimisers' state
    peak_bytes: int  # of the whole process, resident
    parameters: list[tuple[str, int]]
    terms: dict[str, float]  # of the last step


def measure_step(cfg: RunConfig, *, steps: int = 1) -> Cost:
    """Run full steps of a configuration on random faces and mels.

    Args:
        cfg: the run; ``model.speakers`` has to be over 0.
        steps: how many.

    Returns:
        The cost; all style sources that the configuration uses are in it.
    """
    device = device_of(cfg.train.device)
    m, b = cfg.model, cfg.train.batch_size
    torch.manual_seed(cfg.seed)
    zero, one = torch.zeros(m.mel_bins), torch.ones(m.mel_bins)
    n = Networks(
        XFaVoT.from_config(m),
        F0Network.from_config(m),
        ContentNetwork.from_config(m, depth=content_shape(m)[0]),
        Standardiser(zero, one),
    )
    updater = Updater(checkpoint.place(n, device), cfg, guidances=("z", "i", "a"), outputs="ia")
    seconds, terms = [], {}
    first = cfg.train.warmup + 1
    for step in range(first, first + steps):
        batch = _random_batch(b, m.image_size, m.mel_bins, m.mel_frames).to(device)
        started = time.perf_counter()
        terms = {k: float(v) for k, v in updater(batch, step).items()}
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(
        seconds=seconds,
        peak_bytes=peak if sys.platform == "darwin" else peak * 1024,
        parameters=n.nets.parameter_table(),
        terms=terms,
    )


def _random_batch(batch_size: int, image_size: int, mel_bins: int, mel_frames: int) -> Batch:
    """Pairs of one speaker a row, women and men in turn."""
    code = torch.arange(batch_size)

    def samples(*shape: int) -> Samples:
        return Samples(x=torch.randn(batch_size, *shape), gender=code % 2, speaker=code, row=code)

    faces = [samples(3, image_size, image_size) for _ in range(3)]
    voices = [samples(1, mel_bins, mel_frames) for _ in range(3)]
    return Batch(
        source_image=faces[0],
        source_audio=voices[0],
        ref_image=faces[1],
        ref_audio=voices[1],
        ref2_image=faces[2],
        ref2_audio=voices[2],
        paired=torch.ones(batch_size, dtype=torch.bool),
    )


JPEG_PIXELS = (1024, 256, 128)
BATCHES_A_ROUND = 10  # of the store, whose batches are short
FACES, AUGMENTED = "faces", ", augmented"
FLOATS = "prepared store, float32 on the CPU"
WAV = ("WAV", "voices")
SPEAKERS = 16  # in the training steps that are timed
STEP_PRESETS = ("smoke", "mini")  # those that any machine can run

K = TypeVar("K")
What = tuple[str, str]  # system and task
Row = dict[str, Any]
Say = Callable[[str], None]


def take_turns(
    calls: Mapping[K, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[K, tuple[float, ...]]:
    """Time several calls that take turns, on one thread, after a round that does not count.

    Args:
        calls: what to call, by name.
        rounds: how often.
        clock: seconds; CPU time of the process unless told otherwise.

    Returns:
        Seconds of each call, one a round.
    """
    seconds: dict[K, list[float]] = {name: [] for name in calls}
    with _one_thread():
        for counts in (False, *[True] * rounds):
            for name, call in calls.items():
                started = clock()
                call()
                seconds[name] += [clock() - started] * counts
    return {name: tuple(values) for name, values in seconds.items()}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timing(
    cfg: RunConfig,
    what: What,
    metric: str,
    seconds: Sequence[float],
    *,
    base: Sequence[float] | None = None,
) -> Row:
    """One row of a table of timings.

    Args:
        cfg: for the dataset and the seed.
        what: system and task.
        metric: "cpu_ms" or "wall_ms".
        seconds: one a round.
        base: seconds of the row that this one is compared with, if any.

    Returns:
        Median, lowest and highest in milliseconds, how many a second, and the ratio of medians.
    """
    middle = median(seconds)
    return {
        "system": what[0],
        "task": what[1],
        "dataset": cfg.data.dataset,
        "metric": metric,
        "value": 1e3 * middle,
        "ci_low": None,
        "ci_high": None,
        "n": len(seconds),
        "seed": cfg.seed,
        "lowest": 1e3 * min(seconds),
        "highest": 1e3 * max(seconds),
        "per_second": 1.0 / middle,
        "ratio": middle / median(base) if base else None,
    }


def loader(
    stores: Sequence[Store], cfg: RunConfig, *, rounds: int = 5, on_log: Say | None = None
) -> list[Row]:
    """Time batches of the prepared store beside the same samples decoded from files.

    Store and files are read before they are timed, so all of it comes from the system's page cache.
    The files lie in a temporary folder, which is removed.

    Args:
        stores: with faces, voices or both.
        cfg: sizes and seed; a batch holds three times ``train.batch_size`` faces and as many
            voices.
        rounds: how often everything is timed.
        on_log: told what happens.

    Returns:
        One row for each way. The store's batches come as they travel to a device, faces as bytes,
        and once more turned into float32 here; the ratio is to the latter, at the sizes of ``cfg``,
        since that is what reading the files gives.
    """
    say = on_log or (lambda _: None)
    kinds = _kinds(stores, cfg)
    first = next(iter(kinds))
    whole = (FLOATS, first[1])
    drawing = {what: _drawing(batches) for what, batches in kinds.items()}
    drawing |= {
        (FLOATS, task): _drawing(kinds[store, task], device="cpu")
        for store, task in (first, (first[0], first[1] + AUGMENTED))
    }
    with tempfile.TemporaryDirectory() as folder:
        say("writing the same faces and voices to temporary files")
        decoding = _decoding(kinds[first], Path(folder))
        say(f"timing {len(drawing) + len(decoding)} ways, {rounds} rounds")
        found = take_turns({**drawing, **decoding}, rounds=rounds)
    shown = {what: tuple(s / BATCHES_A_ROUND for s in found[what]) for what in drawing}
    for (system, task), seconds in found.items():
        if task in (FACES, FACES + AUGMENTED) and WAV in found:  # and the voices of that round
            both = [a + b for a, b in zip(seconds, found[WAV], strict=True)]
            shown[f"{system} and WAV", first[1] + task.removeprefix(FACES)] = tuple(both)
    shown |= {what: found[what] for what in decoding}
    return [
        timing(cfg, what, "cpu_ms", seconds, base=shown[whole]) for what, seconds in shown.items()
    ]


def _kinds(stores: Sequence[Store], cfg: RunConfig) -> dict[What, Batches]:
    """Batches at the sizes of the configuration and at half of them, plain and augmented."""
    size, frames = cfg.model.image_size, cfg.model.mel_frames
    return {
        ("prepared store", f"{pixels} px, {length} frames{AUGMENTED * augment}"): Batches(
            stores,
            split="train",
            image_size=pixels,
            mel_frames=length,
            seed=cfg.seed,
            batch_size=cfg.train.batch_size,
            augment=augment,
        )
        for (pixels, length), augment in itertools.product(
            ((size, frames), (size // 2, frames // 2)), (False, True)
        )
    }


def _drawing(batches: Batches, *, device: str | None = None) -> Callable[[], object]:
    """A call that draws the next batches, and brings them to a device."""
    steps = itertools.count()

    def draw() -> None:
        for _ in range(BATCHES_A_ROUND):
            batch = batches.batch(next(steps))
            if device is not None:
                batch.to(device)

    return draw


def _decoding(batches: Batches, folder: Path) -> dict[What, Callable[[], object]]:
    """Calls that decode the clips of the first batch from files."""
    stores = {store.corpus: store for store in batches.stores}
    roles = batches.batch(0).roles()
    clips = {
        side: [
            batches.items[row]
            for name in roles
            if name.endswith(side)
            for row in roles[name].row.tolist()
        ]
        for side in ("image", "audio")
    }
    calls: dict[What, Callable[[], object]] = {}
    faces = [stores[item.corpus].face(item) for item in clips["image"]]
    for pixels in JPEG_PIXELS if faces else ():
        files = write_faces(faces, folder / str(pixels), pixels=pixels)
        for task, rng in ((FACES, None), (FACES + AUGMENTED, np.random.default_rng(batches.seed))):
            calls[f"JPEG {pixels} px", task] = partial(
                load_faces, files, size=batches.image_size, rng=rng
            )
    voices = [stores[item.corpus].waveform(item) for item in clips["audio"]]
    if voices:
        calls[WAV] = partial(
            load_voices,
            write_voices(voices, folder),
            frames=batches.mel_frames,
            standardiser=batches.standardiser,
            rng=np.random.default_rng(batches.seed),
        )
    return calls


def training_steps(cfg: RunConfig, *, rounds: int = 5, on_log: Say | None = None) -> list[Row]:
    """Time full training steps on random inputs, at the presets that any machine can run.

    Args:
        cfg: dataset, seed and device.
        rounds: steps that count, after a first that does not.
        on_log: told what happens.

    Returns:
        One row a preset; wall time with all of torch's threads.
    """
    say = on_log or (lambda _: None)
    found: dict[What, list[float]] = {}
    for preset in STEP_PRESETS:
        say(f"timing {rounds} training steps of preset {preset}")
        run = config.resolve(
            preset=preset,
            seed=cfg.seed,
            device=cfg.train.device,
            overrides={"model.speakers": SPEAKERS},
        )
        task = f"training step, batch {run.train.batch_size}, {run.train.precision}"
        found[f"preset {preset}", task] = measure_step(run, steps=rounds + 1).seconds[1:]
    return [timing(cfg, what, "wall_ms", seconds) for what, seconds in found.items()]


def forward_passes(cfg: RunConfig) -> list[Row]:
    """Count parameters and operations of every network, for one sample; nothing is computed.

    Args:
        cfg: the sizes; without a number of speakers, :data:`SPEAKERS`.

    Returns:
        One row a network: 10^9 floating-point operations (a multiplication and an addition are two)
        of a forward pass, and millions of parameters.
    """
    from torch.utils.flop_counter import FlopCounterMode

    m = cfg.model
    with torch.device("meta"):
        nets = XFaVoT.from_config(m)
        face, voice = (1, 3, m.image_size, m.image_size), (1, 1, m.mel_bins, m.mel_frames)
        x, a, s = torch.empty(face), torch.empty(voice), torch.empty(1, m.style_dim)
        domain = torch.zeros(1, dtype=torch.int64)
        melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
        passes: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]] = {
            "G_I": (nets.G_I, (x, s)),
            "G_A": (nets.G_A, (a, s, melody)),
            "E_I": (nets.E_I, (x, domain)),
            "E_A": (nets.E_A, (a, domain)),
            "D_I": (nets.D_I, (x, domain)),
            "D_A": (nets.D_A, (a, domain)),
            "C_A": (nets.C_A, (a,)),
            "M": (nets.M, (torch.empty(1, m.latent_dim), domain)),
            "F0 network": (F0Network.from_config(m), (a,)),
            "content network": (ContentNetwork.from_config(m, depth=content_shape(m)[0]), (a,)),
        }
        rows = []
        for name, (network, inputs) in passes.items():
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(*inputs)
            rows.append(
                {
                    "system": name,
                    "task": f"one forward pass at preset {cfg.preset}",
                    "dataset": cfg.data.dataset,
                    "metric": "gflop",
                    "value": counter.get_total_flops() / 1e9,
                    "ci_low": None,
                    "ci_high": None,
                    "n": 1,
                    "seed": cfg.seed,
                    "parameters_m": sum(p.numel() for p in network.parameters()) / 1e6,
                }
            )
    return rows


# How fast every vocoder is: seconds of work for a second of sound, on one core, in one run


SECONDS = 2.0  # of sound
RANDOM = "published size, random weights"
SPEECH_MEAN, SPEECH_STD = -2.0, 0.5  # log10, of the mel that is decoded
# Generators of the ParallelWaveGAN project's VCTK models v1 (conf/*.yaml there, 24 kHz, hop 300).
PUBLISHED_SIZES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "multi_band_melgan.v2": (
        "MelGANGenerator",
        {
            "in_channels": 80,
            "out_channels": 4,
            "kernel_size": 7,
            "channels": 384,
            "upsample_scales": [5, 5, 3],
            "stack_kernel_size": 3,
            "stacks": 4,
            "use_weight_norm": True,
            "use_causal_conv": False,
        },
    ),
    "hifigan.v1": (
        "HiFiGANGenerator",
        {
            "in_channels": 80,
            "out_channels": 1,
            "channels": 512,
            "kernel_size": 7,
            "upsample_scales": [5, 5, 4, 3],
            "upsample_kernel_sizes": [10, 10, 8, 6],
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilations": [[1, 3, 5]] * 3,
            "use_additional_convs": True,
            "bias": True,
            "use_weight_norm": True,
        },
    ),
    "parallel_wavegan.v1": (
        "ParallelWaveGANGenerator",
        {
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": 3,
            "layers": 30,
            "stacks": 3,
            "residual_channels": 64,
            "gate_channels": 128,
            "skip_channels": 64,
            "aux_channels": 80,
            "aux_context_window": 2,
            "dropout": 0.0,
            "use_weight_norm": True,
            "upsample_net": "ConvInUpsampleNetwork",
            "upsample_params": {"upsample_scales": [4, 5, 3, 5]},
        },
    ),
}


def real_time_factors(
    cfg: RunConfig, *, rounds: int = 5, seconds: float = SECONDS, on_log: Say | None = None
) -> list[Row]:
    """Time every vocoder on the same random spectrogram.

    Args:
        cfg: dataset and seed, for the rows.
        rounds: how often each is timed, after a round that does not count.
        seconds: of sound, each time.
        on_log: told what happens, and what cannot be timed.

    Returns:
        One row a vocoder: seconds of CPU time on one core for a second of sound, the median, the
        lowest and the highest round; how many times real time; the ratio to the first row.
    """
    say = on_log or (lambda _: None)
    vocoders = _vocoders(say)
    generator = torch.Generator().manual_seed(cfg.seed)
    frames = round(seconds * MEL.sample_rate / MEL.hop) + 1
    mel = SPEECH_MEAN + SPEECH_STD * torch.randn(MEL.n_mels, frames, generator=generator)
    say(f"timing {len(vocoders)} vocoders, {rounds} rounds of {seconds:g} s of sound")
    calls = {what: partial(made, mel) for what, made in vocoders.items()}
    found = take_turns(calls, rounds=rounds)
    base = median(next(iter(found.values())))
    return [
        {
            "system": system,
            "task": task,
            "dataset": cfg.data.dataset,
            "metric": "rtf",
            "value": median(times) / seconds,
            "ci_low": None,
            "ci_high": None,
            "n": len(times),
            "seed": cfg.seed,
            "lowest": min(times) / seconds,
            "highest": max(times) / seconds,
            "per_second": seconds / median(times),
            "ratio": median(times) / base,
        }
        for (system, task), times in found.items()
    ]


def _vocoders(say: Say) -> dict[tuple[str, str], Vocoder]:
    """Everything that can be timed here, by system and task."""
    found: dict[tuple[str, str], Vocoder] = {(DEFAULT, "comes with the package"): vocoder(DEFAULT)}
    found["griffin_lim", "no weights"] = vocoder("griffin_lim")
    for name, (generator, params) in PUBLISHED_SIZES.items():
        try:
            found[name, RANDOM] = untrained(generator, params)
        except WeightsError as error:
            say(f"{name} is not timed: {error}")
    return found
