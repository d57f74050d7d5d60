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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank, stft
from xfavot.config import PRECISIONS, RunConfig
from xfavot.data.batches import Batch, Batches, Samples, reflected
from xfavot.data.store import Item
from xfavot.errors import import_optional
from xfavot.image.io import to_float
from xfavot.models import device_of
from xfavot.models.xfavot import XFaVoT
from xfavot.training import passes, step

JPEG_PIXELS = (1024, 256, 128)
JPEG_QUALITY = 95
BATCHES_A_ROUND = 10  # of the store, whose batches are short
STEP_PRESETS = ("smoke", "mini")  # those that any machine can run
SECONDS = 2.0  # of sound that a vocoder makes

What = tuple[str, str]  # system and task
Call = Callable[[], object]


def precisions(device: str) -> tuple[str, ...]:
    """The precisions that a device computes in; a processor without bf16 takes minutes a step."""
    quick = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return PRECISIONS if device_of(device).type != "cpu" or quick else PRECISIONS[:1]


class Spent(NamedTuple):
    """Seconds of a call."""

    cpu_s: float  # of the process, all its threads
    wall_s: float


def take_turns(
    calls: Mapping[What, Call], *, rounds: int, threads: int = 1
) -> dict[What, list[Spent]]:
    """Time several calls that take turns, after a round that does not count.

    Args:
        calls: what to call, by name.
        rounds: how often.
        threads: of torch.

    Returns:
        What each call took, one a round.
    """
    spent: dict[What, list[Spent]] = {name: [] for name in calls}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for counts in (False, *[True] * rounds):
            for name, call in calls.items():
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                took = Spent(time.process_time() - cpu, time.perf_counter() - wall)
                spent[name] += [took] * counts
    finally:
        torch.set_num_threads(before)
    return spent


def open_step(run: RunConfig, place: torch.device) -> tuple[step.Updater, Batch]:
    """What takes the steps of a run on a device, and a batch of random faces and voices for it.

    Args:
        run: of one modality or both; its networks start from its seed.
        place: the device; on "meta" nothing is computed.
    """
    m, count = run.model, run.train.batch_size
    torch.manual_seed(run.seed)
    heard = step.listeners(run, depth=1)
    n = step.place(passes.Networks(XFaVoT.of_run(run), *heard, Standardiser.neutral()), place)
    outputs = "".join(modality[0] for modality in run.train.modalities)
    updater = step.Updater(n, run, guidances=("z", *outputs), outputs=outputs)
    code = torch.arange(count) % max(m.speakers, 1)  # a speaker a row, women and men in turn
    shapes = {"image": (3, m.image_size, m.image_size), "audio": (1, m.mel_bins, m.mel_frames)}
    roles: dict[str, Any] = {
        f"{role}_{side}": Samples(torch.randn(count, *shape), code % 2, code, code, code)
        if side in run.train.modalities
        else None
        for side, shape in shapes.items()
        for role in ("source", "ref", "ref2")
    }
    batch = Batch(**roles, paired=torch.full((count,), len(outputs) == 2))
    return updater, batch.to(place)


def full_step(run: RunConfig) -> Call:
    """A call that takes the next full step of a run, all losses in it, on random inputs."""
    updater, batch = open_step(run, device_of(run.train.device))
    numbers = iter(range(run.train.warmup + 1, 2**31))  # all losses are there after the warm-up
    return lambda: [float(value) for value in updater(batch, next(numbers)).values()]


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations while it is entered, those of second derivatives too.

    `total`: a multiplication and an addition are two, by the rules of torch's own counter, whose
    hooks on modules do not bear a second derivative.
    """

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Let an operation run, and count it."""
        if args and isinstance(args[0], Tensor) and args[0].is_meta:  # it has no values
            if func is torch.ops.aten._local_scalar_dense.default:
                return 1  # what is asked is true
            if func is torch.ops.aten.nonzero.default:  # so are all rows
                return torch.arange(len(args[0]), device="meta").view(-1, 1)
        result = func(*args, **(kwargs or {}))
        rule = flop_registry.get(func.overloadpacket)
        self.total += int(rule(*args, **(kwargs or {}), out_val=result)) if rule else 0
        return result


def _products(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, None]:
    """As many operations as a BiLSTM's products, at once; on "meta" its steps take seconds."""
    ways = []
    for way in ("", "_reverse"):
        gates = x @ getattr(lstm, f"weight_ih_l0{way}").T  # (B, T, 4 H)
        ways.append(gates[..., : lstm.hidden_size] @ getattr(lstm, f"weight_hh_l0{way}").T)
    return torch.cat([h[..., : lstm.hidden_size] for h in ways], -1), None


def tflop_a_step(run: RunConfig) -> float:
    """10^12 floating-point operations of a full step of a run after the warm-up, R1 in it.

    They are counted; nothing is computed.
    """
    every, counter = run.train.r1_every, Operations()
    with counter:
        with torch.device("meta"):
            updater, batch = open_step(run, torch.device("meta"))
        for lstm in (m for m in updater.n.f0.modules() if isinstance(m, nn.LSTM)):
            vars(lstm)["forward"] = partial(_products, lstm)
        updater.optimizers.clear()  # their work is not counted
        updater.device = torch.device("cpu")  # "meta" has no autocast
        updater(batch, (run.train.warmup // every + 1) * every)
    return counter.total / 1e12


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
