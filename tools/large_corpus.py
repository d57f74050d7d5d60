"""What a corpus of VoxCeleb2's size costs: start-up, memory and milliseconds a batch.

    python tools/large_corpus.py FOLDER [--clips 1100000] [--people 6000] [--batch-size 32]

Makes a store of as many clips (8 s, four faces) in FOLDER, if it is not there, whose arrays are
files without content (they take no room on the disk and are read from memory, so that the disk's
own time is not in the figures), and opens it as training does.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from xfavot import __version__, config
from xfavot.audio.mel import MEL
from xfavot.data import store as stores
from xfavot.data.batches import Batches, open_validation
from xfavot.data.store import ARRAYS, COLUMNS, GENDERS, HEAD, INDEX, MANIFEST, SCHEMA, Store

SECONDS, FACES, FACE_SIZE = 8, 4, 128
BATCHES = 50  # of which the median is taken


def simulate(path: Path, clips: int, people: int) -> None:
    """Write a store of clips without content; speakers have about equally many."""
    path.mkdir(parents=True)
    samples = SECONDS * MEL.sample_rate
    frames = samples // MEL.hop + 1
    ends = {"face": clips * FACES, "sample": clips * samples, "frame": clips * frames}
    tails = {"faces": (FACE_SIZE, FACE_SIZE, 3), "landmarks": (5, 2), "mel": (MEL.n_mels,)}
    described = {}
    for name, (dtype, part) in ARRAYS.items():
        shape = (ends[part], *tails.get(name, ()))
        described[name] = {"dtype": dtype, "shape": [*shape]}
        start = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        with (path / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, start)
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            file.truncate(file.tell() + size)
    rng = random.Random(0)
    with (path / MANIFEST).open("w", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip in range(clips):
            person = clip * people // clips
            name = f"id{person:05d}/{rng.getrandbits(64):016x}/{clip % 1000:05d}"
            split = "unseen" if person % 50 == 0 else "val" if clip % 10 == 0 else "train"
            texts = (name, path.name, "av", f"{path.name}/id{person:05d}", GENDERS[person % 2])
            rest = (split, "", f"mp4/{name}.mp4", f"{rng.getrandbits(256):064x}")
            places = (clip * FACES, FACES, clip * samples, samples, clip * frames, frames)
            writer.writerow((*texts, *rest, *places))
    text = (path / MANIFEST).read_bytes()
    person = np.arange(clips) * people // clips
    splits = np.where(np.arange(clips) % 10 == 0, 1, 0)
    sums = np.zeros((3, 1 + 2 * MEL.n_mels))
    sums[0, 0] = clips * frames
    index = {
        "split": np.where(person % 50 == 0, 2, splits).astype(np.int8),
        "gender": (person % 2).astype(np.int8),
        "speaker": person.astype(np.int32),
        "speakers": np.array([f"{path.name}/id{n:05d}" for n in range(people)]),
        "lines": np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1,
        "digest": stores._digest(text, FACE_SIZE),
        "sums": sums,
    }
    for part, count in (("face", FACES), ("sample", samples), ("frame", frames)):
        index[f"{part}_start"] = np.arange(clips, dtype=np.int64) * count
        index[f"{part}_count"] = np.full(clips, count)
    np.savez(path / INDEX, **index)
    head = {"schema": SCHEMA, "corpus": path.name, "created_by": f"xfavot {__version__}"}
    head |= {"seed": 0, "image_size": FACE_SIZE, "mel": MEL.as_dict(), "mel_hash": MEL.hash}
    (path / HEAD).write_text(json.dumps({**head, "items": clips, "arrays": described}))


def say(what: str, begun: float) -> None:
    """Write a line: the seconds since, and what the process holds in memory of its own."""
    status = Path("/proc/self/status").read_text()
    own = int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1024
    sys.stdout.write(f"{what:<24}{time.perf_counter() - begun:8.2f} s  {own:7.0f} MiB of its own\n")
    sys.stdout.flush()


def main() -> None:
    """Make the corpus and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=1_100_000)
    parser.add_argument("--people", type=int, default=6_000)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path, begun = given.folder / "voxceleb", time.perf_counter()
    say("libraries", begun)
    if not path.exists():
        simulate(path, given.clips, given.people)
        say("simulated", begun)
    begun = time.perf_counter()
    opened = [Store.open(path)]
    say(f"open, {len(opened[0].items)} clips", begun)
    cfg = config.resolve(dataset="voxceleb", batch_size=given.batch_size)
    begun = time.perf_counter()
    known = stores.mel_statistics(opened, split="train")
    say("mel statistics", begun)
    begun = time.perf_counter()
    batches = Batches(cfg, opened, standardiser=known)
    say("training batches", begun)
    begun = time.perf_counter()
    validation = open_validation(cfg, opened, batches, print)
    say("validation batches", begun)
    for name, source in (("training", batches), ("validation", validation)):
        source.batch(0)
        spent = []
        for step in range(1, BATCHES + 1):
            begun = time.perf_counter()
            source.batch(step)
            spent.append(1000 * (time.perf_counter() - begun))
        quick, slow = statistics.median(spent), max(spent)
        say(f"{name}: {quick:.1f} ms a batch, at most {slow:.1f}", begun)


if __name__ == "__main__":
    main()
