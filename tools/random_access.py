"""How libraries that stream data read a batch of samples drawn at random, beside ranged reads.

    pip install mosaicml-streaming litdata fsspec aiohttp   (an environment of its own)
    python tools/random_access.py FOLDER

A corpus's crops of 40 KB are written to FOLDER in each library's shards of 8 MB, and as one flat
file, as a prepared store has them. Batches of 192 crops (batch size 32: three roles, faces and
voices) are read from there: shards are copied into a cache by the library itself, ranges of the
flat file come from an HTTP server on this machine. Every line says how long the first batch and the
others took, and how many bytes were fetched for each byte that was used.
"""

from __future__ import annotations

import argparse
import http.server
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CROPS, CROP, SHARD = 6_000, 40_960, 8 << 20  # how many; bytes
BATCH, BATCHES = 192, 8


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files of the current folder, and ranges of them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a range, or all."""
        path = Path(self.translate_path(self.path))
        first, last = self.headers.get("Range", f"bytes=0-{path.stat().st_size - 1}")[6:].split("-")
        self.send_response(206)
        self.send_header("Content-Length", str(int(last) - int(first) + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{path.stat().st_size}")
        self.end_headers()
        with path.open("rb") as file:
            file.seek(int(first))
            self.wfile.write(file.read(int(last) - int(first) + 1))


def crops() -> Iterator[bytes]:
    """All crops, of noise."""
    noise = np.random.default_rng(1).integers(0, 255, CROP + CROPS, dtype=np.uint8)
    for start in range(CROPS):
        yield noise[start : start + CROP].tobytes()


def measure(what: str, read: Callable[[Sequence[int]], object], fetched: Callable[[], int]) -> None:
    """Read batches and write a line about it."""
    rng, spent = np.random.default_rng(0), list[float]()
    for _ in range(BATCHES):
        rows, begun = rng.integers(CROPS, size=BATCH).tolist(), time.perf_counter()
        read(rows)
        spent.append(round(1000 * (time.perf_counter() - begun)))
    line: dict[str, Any] = {"what": what, "first_ms": spent[0], "others_ms": spent[1:]}
    line["median_ms"] = statistics.median(line.pop("others_ms"))
    line["fetched_over_used"] = round(fetched() / (BATCHES * BATCH * CROP), 2)
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def mosaicml(root: Path) -> None:
    """Measure mosaicml-streaming."""
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(root / "mds"), columns={"x": "bytes"}, size_limit=SHARD) as writer:
        for crop in crops():
            writer.write({"x": crop})
    cache = root / "mds_cache"
    data = StreamingDataset(remote=str(root / "mds"), local=str(cache), batch_size=1)
    read = lambda rows: [data[i] for i in rows]  # noqa: E731
    measure("mosaicml-streaming", read, lambda: size_of(cache))


def litdata(root: Path) -> None:
    """Measure litdata."""
    from litdata import StreamingDataset
    from litdata.streaming import Cache
    from litdata.streaming.resolver import Dir

    written = Cache(str(root / "lit"), chunk_bytes=SHARD)
    for n, crop in enumerate(crops()):
        written[n] = {"x": crop}
    written.done()
    written.merge()
    cache = root / "lit_cache"
    data = StreamingDataset(input_dir=Dir(path=str(cache), url=f"local:{root / 'lit'}"))
    read = lambda rows: [data[i] for i in rows]  # noqa: E731
    measure("litdata", read, lambda: size_of(cache))


def ranged(root: Path) -> None:
    """Measure ranged reads of a flat file by fsspec."""
    import fsspec

    (root / "flat.bin").write_bytes(b"".join(crops()))
    command = [sys.executable, str(Path(__file__).resolve()), str(root), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{(server.stdout or sys.stdin).readline().strip()}/flat.bin"
        system = fsspec.filesystem("http")
        starts = lambda rows: [CROP * i for i in rows]  # noqa: E731
        ends = lambda rows: [CROP * (i + 1) for i in rows]  # noqa: E731
        read = lambda rows: system.cat_ranges([url] * len(rows), starts(rows), ends(rows))  # noqa: E731
        measure("fsspec, ranges over HTTP", read, lambda: BATCHES * BATCH * CROP)
        server.terminate()


def main() -> None:
    """Measure all that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="empty or new; takes 1 GB")
    parser.add_argument("--serve", action="store_true", help="only serve it over HTTP")
    given = parser.parse_args()
    root = given.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    if given.serve:
        handler = lambda *args: Ranges(*args, directory=str(root))  # noqa: E731
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
    for measured in (ranged, mosaicml, litdata):
        measured(root)


if __name__ == "__main__":
    main()
