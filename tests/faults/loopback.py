"""A web server on 127.0.0.1 that misbehaves as told.

with Loopback() as web:
    url = web.serve("/a.zip", file(body, cut=1000), file(body))
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]  # answers one request


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

    def head(self, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Loopback(ThreadingHTTPServer):
    """The server; `requests` holds (path, headers) of all that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.acts: dict[str, list[Act]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.guard, self.closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, path: str, *acts: Act) -> str:
        """Answer requests for a path, and return its address."""
        self.acts[path] = list(acts)
        return self.root + path

    def ranges(self) -> list[str]:
        """The `Range` of every request so far, ``""`` without."""
        return [headers.get("Range", "") for _, headers in self.requests]

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.shutdown()
        super().__exit__(*error)


def file(
    body: bytes,
    *,
    etag: str = '"one"',
    kind: str = "application/octet-stream",
    ranges: bool = True,
    heed_if_range: bool = True,
    shift: int = 0,
    more: int = 0,
    cut: int | None = None,
    reset: bool = False,
    stall: bool = False,
    sized: bool = True,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Act:
    """Serve bytes.

    Args:
        body: of the whole file.
        etag, kind, headers: sent with it.
        ranges: heed `Range`; `heed_if_range` only where the ETag fits.
        shift: how far the `Content-Range` of a 206 is off.
        more: bytes announced beyond what is sent (negative: fewer).
        cut: bytes sent in this answer, then the connection ends; `reset` ends it rudely, `stall`
            keeps it open and silent.
        sized: send a `Content-Length`.
        status: of a whole answer.
    """

    def act(handler: Handler) -> None:
        given = {"Content-Type": kind, **({"ETag": etag} if etag else {}), **(headers or {})}
        asked = handler.headers.get("Range", "")
        fits = handler.headers.get("If-Range", etag) == etag or not heed_if_range
        start, code = 0, status
        if asked and ranges and fits:
            start, code = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(body):
                handler.head(416, {**given, "Content-Range": f"bytes */{len(body)}"})
                return
            span = f"bytes {start + shift}-{len(body) - 1}/{len(body)}"
            given["Content-Range"] = span
        payload = body[start:]
        if sized:
            given["Content-Length"] = str(len(payload) + more)
        handler.head(code, given)
        handler.wfile.write(payload[:cut])
        if stall:
            handler.server.closing.wait(10.0)
        if reset:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()

    return act


def status(code: int, **headers: str) -> Act:
    """Answer with a status alone; ``Retry_After="1"`` writes the header `Retry-After`."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.head(code, {**given, "Content-Length": "0"})


def redirect(url: str) -> Act:
    """Send elsewhere."""
    return status(302, Location=url)
