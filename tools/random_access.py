"""How libraries that stream data read a batch of samples drawn at random, beside ranged reads.

    pip install mosaicml-streaming litdata fsspec aiohttp   (an environment of its own)
    python tools/random_access.py FOLDER
    python tools/random_access.py FOLDER --samples 1000000 --size 768 --batch 1024
    pip install "moto[server]" boto3
    python tools/random_access.py FOLDER --s3 ...      # shards in object storage, on loopback

A corpus's crops of 40 KB are written to FOLDER in each library's shards of 8 MB, and as one flat
file, as a prepared store has them. Batches of 192 crops (batch size 32: three roles, faces and
voices) are read from there: shards are copied into a cache by the library itself, ranges of the
flat file come from an HTTP server on this machine, and so does all of it; with `--s3` the shards
lie in a bucket of moto, a server of S3's protocol on this machine. Every line says how long
the first batch and the others took, and how many bytes were fetched for each byte that was used.
The second command is what association reads of a million clips: 512 faces and voices a step.
"""

from __future__ import annotations

import argparse
import http.server
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHARD, BATCHES = 8 << 20, 8  # bytes; how many


@dataclass(frozen=True)
class Corpus:
    """How many samples there are, their bytes, and how many are read at once."""

    samples: int
    size: int
    batch: int

    def __iter__(self) -> Iterator[bytes]:
        """All samples, of noise."""
        noise = np.random.default_rng(1).integers(0, 255, self.size + self.samples, dtype=np.uint8)
        for start in range(self.samples):
            yield noise[start : start + self.size].tobytes()

    def measure(
        self, what: str, read: Callable[[Sequence[int]], object], fetched: Callable[[], int]
    ) -> None:
        """Read batches and write a line about it."""
        rng, spent = np.random.default_rng(0), list[float]()
        for _ in range(BATCHES):
            rows = rng.integers(self.samples, size=self.batch).tolist()
            begun = time.perf_counter()
            read(rows)
            spent.append(round(1000 * (time.perf_counter() - begun)))
        used = BATCHES * self.batch * self.size
        say(
            what=what,
            first_ms=spent[0],
            median_ms=statistics.median(spent[1:]),
            fetched_over_used=round(fetched() / used, 2),
        )


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


class Server(http.server.ThreadingHTTPServer):
    """A server that many may ask at once; of five waiting, it lost some."""

    request_queue_size = 1024


def say(**line: Any) -> None:
    """Write a line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def bucket() -> Iterator[Callable[[Path], str]]:
    """Object storage on loopback, and what puts a folder into it and says where it lies."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    os.environ |= {"S3_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "none")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"])
    client.create_bucket(Bucket="corpus")

    def put(folder: Path) -> str:
        for file in filter(Path.is_file, folder.iterdir()):
            client.upload_file(str(file), "corpus", f"{folder.name}/{file.name}")
        return f"s3://corpus/{folder.name}"

    try:
        yield put
    finally:
        server.stop()


def mosaicml(root: Path, corpus: Corpus, put: Callable[[Path], str] = str) -> None:
    """Measure mosaicml-streaming."""
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(root / "mds"), columns={"x": "bytes"}, size_limit=SHARD) as writer:
        for sample in corpus:
            writer.write({"x": sample})
    cache = root / "mds_cache"
    data = StreamingDataset(remote=put(root / "mds"), local=str(cache), batch_size=1)
    read = lambda rows: [data[i] for i in rows]  # noqa: E731
    corpus.measure("mosaicml-streaming", read, lambda: size_of(cache))


def litdata(root: Path, corpus: Corpus, put: Callable[[Path], str] = "local:{}".format) -> None:
    """Measure litdata."""
    from litdata import StreamingDataset
    from litdata.streaming import Cache
    from litdata.streaming.resolver import Dir

    written = Cache(str(root / "lit"), chunk_bytes=SHARD)
    for n, sample in enumerate(corpus):
        written[n] = {"x": sample}
    written.done()
    written.merge()
    cache = root / "lit_cache"
    url = put(root / "lit")
    known = {"endpoint_url": os.environ["S3_ENDPOINT_URL"]} if url.startswith("s3:") else {}
    data = StreamingDataset(input_dir=Dir(path=str(cache), url=url), storage_options=known)
    read = lambda rows: [data[i] for i in rows]  # noqa: E731
    corpus.measure("litdata", read, lambda: size_of(cache))


def ranged(root: Path, corpus: Corpus) -> None:
    """Measure ranged reads of a flat file by fsspec."""
    import fsspec

    with (root / "flat.bin").open("wb") as file:
        file.writelines(corpus)
    command = [sys.executable, str(Path(__file__).resolve()), str(root), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{(server.stdout or sys.stdin).readline().strip()}/flat.bin"
        system = fsspec.filesystem("http")
        starts = lambda rows: [corpus.size * i for i in rows]  # noqa: E731
        ends = lambda rows: [corpus.size * (i + 1) for i in rows]  # noqa: E731
        read = lambda rows: system.cat_ranges([url] * len(rows), starts(rows), ends(rows))  # noqa: E731
        used = BATCHES * corpus.batch * corpus.size
        corpus.measure("fsspec, ranges over HTTP", read, lambda: used)
        begun = time.perf_counter()
        system.get(url, str(root / "whole.bin"))
        say(what="fsspec, all of it over HTTP", s=round(time.perf_counter() - begun, 1))
        server.terminate()


def main() -> None:
    """Measure all that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="empty or new; takes 1 GB")
    parser.add_argument("--s3", action="store_true", help="shards in object storage on loopback")
    parser.add_argument("--serve", action="store_true", help="only serve it over HTTP")
    parser.add_argument("--samples", type=int, default=6_000)
    parser.add_argument("--size", type=int, default=40_960, help="bytes of one")
    parser.add_argument("--batch", type=int, default=192, help="samples read at once")
    given = parser.parse_args()
    root = given.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    if given.serve:
        handler = lambda *args: Ranges(*args, directory=str(root))  # noqa: E731
        server = Server(("127.0.0.1", 0), handler)
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
    corpus = Corpus(given.samples, given.size, given.batch)
    if given.s3:
        with bucket() as put:
            mosaicml(root, corpus, put)
            litdata(root, corpus, put)
        return
    for measured in (ranged, mosaicml, litdata):
        measured(root, corpus)


if __name__ == "__main__":
    main()
