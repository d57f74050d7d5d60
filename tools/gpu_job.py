"""A training for a GPU that is lent for minutes, on a machine with torch and little else.

The machine needs this repository, torch, numpy, safetensors, pyyaml, tqdm, tensorboard and
opencv-headless, and no network. Everything travels in files of at most 16 MB.

    python -m tools.gpu_job pack data/mini PACK        here: a store, its faces as small as trained
    python -m tools.gpu_job train PACK OUT --minutes 9 there: checks itself, trains, saves, returns
    python -m tools.gpu_job join OUT runs              here: the run, to go on with or to convert by
    python -m tools.gpu_job speed OUT                  there: time of the steps of preset paper

`train` goes on where the same call stopped, if `--work` is still there. The audio stays here:
training reads mels alone. In the pack faces are WebP without loss, mels whole steps of 1/128.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import io
import json
import lzma
import platform
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from xfavot import config, training
from xfavot.config import RunConfig
from xfavot.data.batches import Batch
from xfavot.data.store import HEAD, MANIFEST, QUARANTINE, Store
from xfavot.errors import DataError, TrainingError
from xfavot.evaluation import speed
from xfavot.models import device_of
from xfavot.training import Session, checkpoint, loop, passes
from xfavot.training.passes import Networks

PART_BYTES = 16_000_000
PACK_BYTES = 50_000_000
MEL_STEPS = 128  # a log10; float16 holds them exactly, and its own steps above 4 are half as large
FACES_A_FILE = 96
LOSSLESS = 101  # of OpenCV's WebP
MARGIN_S = 10.0  # kept for what is not measured
SAVE_EVERY_S = 60.0
CHECKED_STEPS = 5
PEAK_SIDE = {"cuda": 8192}  # of the square matrices whose product is the measured peak
PEAK_SIDE_CPU = 1024

Array = NDArray[Any]


# Folders in files of at most 16 MB


def split(folder: Path, out: Path, name: str) -> int:
    """Write a folder as `name.tar.000`, ... and `name.json` with their digest; returns bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, arcname=".")
    data = packed.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(data), PART_BYTES)
    for old in out.glob(f"{name}.tar.*"):
        old.unlink()
    for number, start in enumerate(starts):
        (out / f"{name}.tar.{number:03}").write_bytes(data[start : start + PART_BYTES])
    said = {"parts": len(starts), "sha256": hashlib.sha256(data).hexdigest()}
    (out / f"{name}.json").write_text(json.dumps(said))
    return len(data)


def join(parts: Path, name: str, folder: Path) -> Path:
    """Put together what :func:`split` wrote; the folder appears whole.

    Raises:
        DataError: a part is missing or damaged.
    """
    said = json.loads((parts / f"{name}.json").read_text())
    files = [parts / f"{name}.tar.{number:03}" for number in range(said["parts"])]
    data = b"".join(file.read_bytes() for file in files if file.exists())
    if hashlib.sha256(data).hexdigest() != said["sha256"]:
        raise DataError(
            f"{parts}: the {said['parts']} parts of {name} are not what was packed; expected "
            f"sha256 {said['sha256']}; copy them again"
        )
    draft = folder.with_name(f".{folder.name}.new")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(draft, filter="data")
    draft.rename(folder)
    return folder


# A store for the way


def zigzag(values: Array) -> Array:
    """Whole numbers as their absolute values, twice, the negative ones odd: small ones end in 0."""
    return np.where(values < 0, -2 * values - 1, 2 * values).astype(np.uint16)


def pack(source: Path, out: Path, *, size: int) -> None:
    """Write a prepared store for the way, faces at `size` pixels, without audio.

    Raises:
        DataError: it is larger than 50 MB.
    """
    store = Store.open(source)
    with tempfile.TemporaryDirectory() as place:
        draft = Path(place)
        for start in range(0, len(store.faces), FACES_A_FILE):
            faces = store.faces[start : start + FACES_A_FILE]
            small = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in faces]
            settings = [cv2.IMWRITE_WEBP_QUALITY, LOSSLESS]
            _, coded = cv2.imencode(".webp", np.concatenate(small), settings)
            (draft / f"faces_{start:08}.webp").write_bytes(coded.tobytes())
        steps = np.rint(store.mel.astype(np.float32) * MEL_STEPS).astype(np.int32)
        change = np.diff(np.diff(steps, axis=0, prepend=0), axis=1, prepend=0)
        halves = zigzag(change).view(np.uint8).reshape(-1, 2).T
        (draft / "mel.xz").write_bytes(lzma.compress(halves.tobytes()))
        (draft / "f0.xz").write_bytes(lzma.compress(np.asarray(store.f0).tobytes()))
        for name in (HEAD, MANIFEST, QUARANTINE):
            (draft / name).write_bytes((source / name).read_bytes())
        (draft / "packed.json").write_text(json.dumps({"size": size, "faces": len(store.faces)}))
        if (count := split(draft, out, "store")) > PACK_BYTES:
            raise DataError(
                f"{source} packs to {count} bytes; expected at most {PACK_BYTES}; prepare fewer "
                "people or clips"
            )
    unpack(out, draft := Path(out, ".check", source.name))
    back, say = Store.open(draft), Talk(None)
    error = np.abs(back.mel.astype(np.float32) - store.mel.astype(np.float32)).max(initial=0)
    say(f"{source}: {len(back.items)} clips in {count} bytes; mels differ by at most {error:.4f}")
    for file in [*draft.iterdir(), draft, draft.parent]:
        file.rmdir() if file.is_dir() else file.unlink()


def unpack(parts: Path, folder: Path) -> Path:
    """Make the store of a pack, in the form that training reads; it may be there already."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = join(parts, "store", folder.with_name(f".{folder.name}.packed"))
    said, head = (json.loads((draft / n).read_text()) for n in ("packed.json", HEAD))
    described, size = head["arrays"], said["size"]
    coded = [np.frombuffer(f.read_bytes(), np.uint8) for f in sorted(draft.glob("*.webp"))]
    strips = [cv2.imdecode(one, cv2.IMREAD_COLOR) for one in coded]
    faces = np.concatenate(strips or [np.zeros((0, size, 3), np.uint8)])
    halves = np.frombuffer(lzma.decompress((draft / "mel.xz").read_bytes()), np.uint8)
    folded = halves.reshape(2, -1).T.copy().view(np.uint16).astype(np.int32)
    change = np.where(folded % 2, -(folded + 1) // 2, folded // 2)
    change = change.reshape(described["mel"]["shape"])
    arrays = {
        "faces": faces.reshape(-1, size, size, 3),
        "landmarks": np.full((said["faces"], 5, 2), np.nan, np.float32),
        "audio": np.zeros(0, np.int16),
        "mel": (change.cumsum(1).cumsum(0) / MEL_STEPS).astype(np.float16),
        "f0": np.frombuffer(lzma.decompress((draft / "f0.xz").read_bytes()), np.float32),
    }
    for name, array in arrays.items():
        described[name]["shape"] = list(array.shape)
        np.save(draft / f"{name}.npy", array)
    with (draft / MANIFEST).open(encoding="utf-8", newline="") as file:
        rows = [row | {"sample_start": 0, "sample_count": 0} for row in csv.DictReader(file)]
    with (draft / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (draft / HEAD).write_text(json.dumps(head | {"image_size": size}))
    for file in [*draft.glob("*.webp"), *draft.glob("*.xz"), draft / "packed.json"]:
        file.unlink()
    draft.rename(folder)
    return folder


# What is checked first


class Talk:
    """Writes lines to a log and to whoever watches."""

    def __init__(self, path: Path | None) -> None:
        """Append to a file, if there is one."""
        self.path = path

    def __call__(self, message: object) -> None:
        """Write a line; a record of training as JSON."""
        text = message
        if isinstance(message, Mapping):
            record = {k: round(v, 4) if isinstance(v, float) else v for k, v in message.items()}
            text = message.get("message") or json.dumps(record)
        print(text, flush=True)  # noqa: T201
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(f"{text}\n")


def free_mib(device: torch.device) -> float:
    """Memory that is free on a device, MiB."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def describe(device: torch.device, say: Talk) -> None:
    """Say what the machine is."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    say(
        f"torch {torch.__version__}, Python {platform.python_version()}, OpenCV {cv2.__version__}; "
        f"{device} {name}, {free_mib(device):.0f} MiB free, {torch.get_num_threads()} threads"
    )


def r1_by_layer(n: Networks, batch: Batch, output: str) -> tuple[float, list[float]]:
    """R1 as training computes it, and half of <W, dR1/dW> for the first and last layer of D.

    All paths through D lead through either, and R1 is quadratic in each: the three are equal. A
    second derivative that got lost on the way gives less, or 0.
    """
    net = n.nets.D_A if output == "a" else n.nets.D_I
    value = passes.real_terms(n, batch, output, False, r1_due=True)["r1"]
    ends = [net.trunk[0].weight, net.heads.weight]
    value.backward(inputs=list(net.parameters()))
    slopes = [float((w * w.grad).sum().detach()) / 2 if w.grad is not None else 0 for w in ends]
    net.zero_grad()
    return float(value.detach()), slopes


def check_r1(session: Session, say: Callable[[object], None]) -> None:
    """Refuse a torch that loses a second derivative.

    Raises:
        TrainingError: the gradients of R1 are not those of R1.
    """
    batch = session.batch(session.cfg.train.warmup + 1)
    for output in session.updater.outputs:
        value, slopes = r1_by_layer(session.updater.n, batch, output)
        say(f"R1 of D_{output.upper()}: {value:.6g}; by its first and last layer: {slopes}")
        if not np.allclose(slopes, value, rtol=0.01, atol=0) or value == 0:
            raise TrainingError(
                f"R1 of D_{output.upper()} is {value}, by its gradients {slopes}; expected equal "
                "numbers above 0; this torch loses a second derivative: use another version"
            )


def check(cfg: RunConfig, say: Talk) -> tuple[float, float]:
    """Take a few steps of a run beside it, and look whether everything is as it should be.

    Returns:
        Seconds of a step after the warm-up, and seconds that samples and a checkpoint take.

    Raises:
        TrainingError: R1 has no gradient; a term is not finite.
    """
    with (
        tempfile.TemporaryDirectory() as place,
        training.open_session(dataclasses.replace(cfg, run_root=place), on_log=say) as session,
    ):
        check_r1(session, say)
        first = cfg.train.warmup + 1
        seconds = []
        for number in range(first, first + CHECKED_STEPS):
            started = time.monotonic()
            session.update(session.batch(number), number)
            seconds.append(time.monotonic() - started)
        started = time.monotonic()
        session.validate()
        session.sample()
        session.save()
    return float(np.median(seconds[1:])), time.monotonic() - started


# The two jobs


def train(parts: Path, out: Path, *, minutes: float, work: Path, **given: Any) -> Path:
    """Check, train until the minutes are nearly over, and return the run in parts.

    Args:
        parts: of :func:`pack`.
        out: where the parts of the run and the log go.
        minutes: that this call may take in all.
        work: folder of the store and the run; what is there is gone on with.
        given: of :func:`xfavot.config.resolve`.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    say = Talk(out / "log.txt")
    store = Store.open(unpack(parts, work / "data" / "mini"))
    cfg = config.resolve(data_root=str(work / "data"), run_root=str(work / "runs"), **given)
    describe(device_of(cfg.train.device), say)
    say(f"store: {len(store.items)} clips, manifest {store.manifest_hash}, digests right")
    seconds, saving = check(cfg, say)
    end = began + 60 * minutes - 2 * saving - MARGIN_S
    fit = max(int((end - time.monotonic()) / seconds), 0)
    say(f"{seconds:.3f} s a step, {saving:.1f} s for samples and a checkpoint: {fit} steps fit")
    often = max(int(SAVE_EVERY_S / seconds), 1)
    paces = {"checkpoint_every": often, "sample_every": often, "keep_checkpoints": 1}
    cfg = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, **paces))

    def over(number: int) -> bool:
        late = time.monotonic() + seconds > end
        if late:
            say(f"the minutes are nearly over before step {number}")
        return late

    with training.open_session(cfg, resume="auto", on_log=say) as session:
        run = loop.train(session, enough=over)
    if torch.cuda.is_available():
        say(f"peak of the GPU's memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    count = split(run.path, out, run.path.name)
    say(f"step {run.step}: {run.path.name}, {count} bytes; {time.monotonic() - began:.0f} s in all")
    return run.path


def best_of(call: Callable[[], object], device: torch.device, rounds: int) -> list[float]:
    """Seconds of each round of a call, after two that do not count."""
    seconds = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def peak_tflops(device: torch.device, kind: torch.dtype, *, tf32: bool) -> float:
    """10^12 operations a second of the product of two large matrices; TF32 where there is any."""
    side, before = PEAK_SIDE.get(device.type, PEAK_SIDE_CPU), torch.backends.cuda.matmul.allow_tf32
    a, b = torch.randn(2, side, side, device=device, dtype=kind)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return 2 * side**3 / min(best_of(lambda: a @ b, device, 5)) / 1e12
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def steps_of(cfg: RunConfig, say: Talk, rounds: int, peaks: dict[str, float]) -> dict[str, Any]:
    """Time the steps of a run on its device, at a smaller batch where its memory is full."""
    device, t = device_of(cfg.train.device), cfg.train
    one = dataclasses.replace(cfg, train=dataclasses.replace(t, batch_size=1))
    tflop = speed.tflop_a_step(one)
    for count in (t.batch_size >> halving for halving in range(t.batch_size.bit_length())):
        try:
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            run = dataclasses.replace(cfg, train=dataclasses.replace(t, batch_size=count))
            seconds = float(np.median(best_of(speed.full_step(run), device, rounds)))
            break
        except torch.OutOfMemoryError:
            say(f"batch {count} does not fit")
    row = {"preset": cfg.preset, "rule": t.update_rule, "precision": t.precision, "batch": count}
    row |= {"s_per_step": seconds, "tflop_a_sample": tflop, "tflops": tflop * count / seconds}
    row |= {f"share_of_{name}": row["tflops"] / peak for name, peak in peaks.items()}
    if device.type == "cuda":
        row["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    say(row)
    return row


def time_steps(out: Path, *, rounds: int, **given: Any) -> list[dict[str, Any]]:
    """Time full steps by schedule and precision; the rows are written to `speed.json`."""
    out.mkdir(parents=True, exist_ok=True)
    say, rows = Talk(out / "log.txt"), list[dict[str, Any]]()
    device = device_of(given["device"])
    describe(device, say)
    kinds = {"float32": (torch.float32, False), "bf16": (torch.bfloat16, False)}
    kinds = {name: kinds[name] for name in speed.precisions(given["device"])}
    kinds |= {"tf32": (torch.float32, True)} if device.type == "cuda" else {}
    peaks = {name: peak_tflops(device, kind, tf32=tf32) for name, (kind, tf32) in kinds.items()}
    say({f"peak_{name}_tflops": peak for name, peak in peaks.items()})
    given["overrides"] = {"model.speakers": 128} | given.pop("overrides", {})
    for precision in speed.precisions(given["device"]):
        for rule in ("alternate", "fused"):
            over = given["overrides"] | {"train.update_rule": rule}
            cfg = config.resolve(**given | {"precision": precision, "overrides": over})
            rows.append(steps_of(cfg, say, rounds, peaks))
            (out / "speed.json").write_text(json.dumps({"peaks": peaks, "rows": rows}, indent=1))
    return rows


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("pack", "train", "join", "speed"))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_job"))
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of `speed`")
    parser.add_argument("--configuration", default="companion")
    parser.add_argument("--preset", default="", help="mini; paper for `speed`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--batch-size", type=int, default=-1)
    parser.add_argument("--precision", default="")
    parser.add_argument("--overrides", type=json.loads, default={}, help="JSON")
    given = vars(parser.parse_args())
    command, folders, work = (given.pop(name) for name in ("command", "folders", "work"))
    minutes, rounds = given.pop("minutes"), given.pop("rounds")
    if command == "pack":
        size = config.resolve(preset=given["preset"] or "mini").model.image_size
        pack(*folders, size=size)
    elif command == "train":
        train(*folders, minutes=minutes, work=work, **given)
    elif command == "speed":
        given["preset"] = given["preset"] or "paper"
        time_steps(*folders, rounds=rounds, **given)
    else:
        (name,) = {file.stem for file in folders[0].glob("*.json")} - {"speed"}
        checkpoint.locate(join(folders[0], name, folders[1] / name))


if __name__ == "__main__":
    main()
