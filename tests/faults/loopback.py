"""A web server on 127.0.0.1 that misbehaves as asked, and the files that it serves.

with Loopback() as web:
    url = web.serve("/a.zip", file(body, cut=1000), file(body))
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BODY = bytes(range(256)) * 4096  # 1 MiB
HALF = len(BODY) // 2
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def pack(ending: str, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """Make an archive of the kind of an ending; `kind` is that of a tar's last member."""
    stream = io.BytesIO()
    if ending == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return stream.getvalue()
    mode: Any = f"w:{ending[4:]}"
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for i, (name, content) in enumerate(entries):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o6777
            if i == len(entries) - 1 and kind != tarfile.REGTYPE:
                info.type, info.size, info.linkname = kind, 0, content.decode()
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@contextmanager
def disk_of(count: int) -> Iterator[None]:
    """Let no file of this process grow over so many bytes, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Malicious:
    """Makes a file when it is unpickled carelessly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Handler(BaseHTTPRequestHandler):
    """Takes the next act of the path asked for; the last one stays."""

    server: Loopback

    def do_GET(self) -> None:
        with self.server.guard:
            self.server.requests.append((self.path, dict(self.headers)))
            acts = self.server.acts.get(self.path, [status(404)])
            act = acts.pop(0) if len(acts) > 1 else acts[0]
        with suppress(BrokenPipeError, ConnectionResetError):  # some clients hang up
            act(self)

    def head(self, code: int, **headers: object) -> None:
        """Send a status and headers; ``Content_Type`` writes the header `Content-Type`."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Act = Callable[[Handler], None]  # answers one request


class Loopback(ThreadingHTTPServer):
    """The server; `requests` holds (path, headers) of all that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.acts: dict[str, list[Act]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.guard, self.closing = threading.Lock(), threading.Event()
        self.root = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, path: str, *acts: Act) -> str:
        """Answer requests for a path, and return its address."""
        self.acts[path] = list(acts)
        return self.root + path

    def ranges(self) -> list[str]:
        """The `Range` of every request so far, ``""`` without."""
        return [headers.get("Range", "") for _, headers in self.requests]

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.shutdown()
        super().__exit__(*error)


def file(
    body: bytes,
    *,
    etag: str = '"one"',
    ranges: bool = True,
    heed_if_range: bool = True,
    shift: int = 0,
    cut: int | None = None,
    stall: bool = False,
    sized: bool = True,
) -> Act:
    """Serve bytes.

    Args:
        body: of the whole file.
        etag: sent with it.
        ranges: heed `Range`; `heed_if_range` only where the ETag fits.
        shift: how far the `Content-Range` of a 206 is off.
        cut: bytes sent in this answer, then the connection ends; `stall` keeps it open and silent.
        sized: send a `Content-Length`.
    """

    def act(handler: Handler) -> None:
        given: dict[str, object] = {"ETag": etag} if etag else {}
        asked = handler.headers.get("Range", "")
        fits = handler.headers.get("If-Range", etag) == etag or not heed_if_range
        start, code = 0, 200
        if asked and ranges and fits:
            start, code = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(body):
                handler.head(416, **given)
                return
            given["Content_Range"] = f"bytes {start + shift}-{len(body) - 1}/{len(body)}"
        if sized:
            given["Content_Length"] = len(body) - start
        handler.head(code, **given)
        handler.wfile.write(body[start:][:cut])
        if stall:
            handler.server.closing.wait(10.0)

    return act


def status(code: int, **headers: object) -> Act:
    """Answer with a status and headers alone."""
    return lambda handler: handler.head(code, Content_Length=0, **headers)
