"""What things cost here: CPU time of the loader, time of a training step, operations of a network.

Everything is compared inside one process: what is compared takes turns, round after round, so that
other work on the machine falls on all of it alike. Reported are the median, the lowest and the
highest round. CPU time (user and system, one thread) is the figure to trust on a busy machine.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch

from xfavot import config
from xfavot.config import RunConfig
from xfavot.data.batches import Batches
from xfavot.data.manifest import Store
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import F0_FEATURE_FACTOR, XFaVoT
from xfavot.training.cost import measure_step
from xfavot.training.supervised import content_shape

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
        "system": what[0], "task": what[1], "dataset": cfg.data.dataset, "metric": metric,
        "value": 1e3 * middle, "ci_low": None, "ci_high": None, "n": len(seconds),
        "seed": cfg.seed, "lowest": 1e3 * min(seconds), "highest": 1e3 * max(seconds),
        "per_second": 1.0 / middle, "ratio": middle / median(base) if base else None,
    }  # fmt: skip


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
    drawing |= {(FLOATS, task): _drawing(kinds[store, task], device="cpu")
                for store, task in (first, (first[0], first[1] + AUGMENTED))}  # fmt: skip
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
    return [timing(cfg, what, "cpu_ms", seconds, base=shown[whole])
            for what, seconds in shown.items()]  # fmt: skip


def _kinds(stores: Sequence[Store], cfg: RunConfig) -> dict[What, Batches]:
    """Batches at the sizes of the configuration and at half of them, plain and augmented."""
    size, frames = cfg.model.image_size, cfg.model.mel_frames
    return {
        ("prepared store", f"{pixels} px, {length} frames{AUGMENTED * augment}"): Batches(
            stores, split="train", image_size=pixels, mel_frames=length, seed=cfg.seed,
            batch_size=cfg.train.batch_size, augment=augment,
        )
        for (pixels, length), augment in itertools.product(
            ((size, frames), (size // 2, frames // 2)), (False, True)
        )
    }  # fmt: skip


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
    from xfavot.evaluation import on_the_fly

    stores = {store.corpus: store for store in batches.stores}
    roles = batches.batch(0).roles()
    clips = {
        side: [batches.items[row] for name in roles if name.endswith(side)
               for row in roles[name].row.tolist()]
        for side in ("image", "audio")
    }  # fmt: skip
    calls: dict[What, Callable[[], object]] = {}
    faces = [stores[item.corpus].face(item) for item in clips["image"]]
    for pixels in JPEG_PIXELS if faces else ():
        files = on_the_fly.write_faces(faces, folder / str(pixels), pixels=pixels)
        for task, rng in ((FACES, None), (FACES + AUGMENTED, np.random.default_rng(batches.seed))):
            calls[f"JPEG {pixels} px", task] = partial(
                on_the_fly.load_faces, files, size=batches.image_size, rng=rng
            )
    voices = [stores[item.corpus].waveform(item) for item in clips["audio"]]
    if voices:
        calls[WAV] = partial(
            on_the_fly.load_voices, on_the_fly.write_voices(voices, folder),
            frames=batches.mel_frames, standardiser=batches.standardiser,
            rng=np.random.default_rng(batches.seed),
        )  # fmt: skip
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
            preset=preset, seed=cfg.seed, device=cfg.train.device,
            overrides={"model.speakers": SPEAKERS},
        )  # fmt: skip
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
            rows.append({
                "system": name, "task": f"one forward pass at preset {cfg.preset}",
                "dataset": cfg.data.dataset, "metric": "gflop",
                "value": counter.get_total_flops() / 1e9, "ci_low": None, "ci_high": None, "n": 1,
                "seed": cfg.seed,
                "parameters_m": sum(p.numel() for p in network.parameters()) / 1e6,
            })  # fmt: skip
    return rows
