"""One HTTP request for (the rest of) a file, and the judgement of what the server answers.

Nothing is written here: an answer that is an error page, another version or another range never
reaches the part on the disk.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from xfavot import __version__
from xfavot.fetch.part import CHUNK_BYTES

PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes that another try may overcome
NETWORK_ERRORS = (OSError, http.client.HTTPException)  # cut, stalled, unreachable, garbled
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<(!doctype )?html)", re.I)


class Again(Exception):
    """This try failed; another may not.

    Args:
        reason: what happened.
        after: seconds that the server asks to wait.
        anew: the next try must ask for the whole file.
    """

    def __init__(self, reason: str, *, after: float = 0.0, anew: bool = False) -> None:
        """Remember the reason; see the class."""
        super().__init__(reason)
        self.after, self.anew = after, anew


class Refused(Exception):
    """This address will not give the file, however often it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server is about to send.

    Attributes:
        offset: the first byte that comes.
        total: bytes of the whole file as the server says; 0 if it does not.
        origin: the address and the server's mark of this version.
        chunks: the bytes.
    """

    offset: int
    total: int
    origin: Mapping[str, Any]
    chunks: Iterator[bytes]


@contextmanager
def ask(
    url: str, *, offset: int, origin: Mapping[str, Any], size: int, page: bool, timeout: float
) -> Iterator[Answer]:
    """Ask for a file from `offset` on.

    Args:
        url: its address.
        offset: bytes that are here already.
        origin: where they came from; if from this address, only the same version continues them.
        size: bytes of the whole file, 0 if unknown.
        page: whether the file may be a web page.
        timeout: seconds of silence after which the connection counts as dead.

    Raises:
        Again: no answer, a cut, a server in trouble, or another part of the file than asked for.
        Refused: not found, forbidden, a page in place of the file.
    """
    request = Request(url, headers={"User-Agent": f"xfavot/{__version__}"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if origin.get("url") == url and origin.get("version"):
            request.add_header("If-Range", str(origin["version"]))
    try:
        response = build_opener(Redirects).open(request, timeout=timeout)
    except HTTPError as error:
        with error:
            total = _unsatisfied(error)
            if not offset or error.code != 416:
                raise _judge_status(error) from error
        if offset != (total or size):
            raise Again(f"has no bytes from {offset} on", anew=True) from error
        yield Answer(offset=offset, total=offset, origin=origin, chunks=iter(()))
        return
    except NETWORK_ERRORS as error:
        raise _judge_network(error) from error
    except ValueError as error:
        raise Refused(f"is, or redirects to, what is no address ({error})") from error
    with response:
        yield _judge(response, url, offset, origin, size, page)


class Redirects(HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Judge the new address."""
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes not in {("http", "http"), ("http", "https"), ("https", "https")}:
            raise Refused(f"redirects from {schemes[0]} to {schemes[1]}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def looks_like_page(head: bytes) -> bool:
    """Say whether a file begins as a web page does."""
    return _PAGE.match(head[:200]) is not None


def _judge(
    response: Any, url: str, offset: int, origin: Mapping[str, Any], size: int, page: bool
) -> Answer:
    """Accept the head of an answer, or raise."""
    headers = response.headers
    kind = headers.get_content_type() if "Content-Type" in headers else ""
    if kind in ("text/html", "application/xhtml+xml") and not page:
        raise Refused("answers with a web page in place of the file")
    version, same = _version(headers), origin.get("url") == url
    if offset and response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if not found or int(found[1]) != offset:
            came = headers.get("Content-Range", "no range")
            raise Again(f"sends {came!r} when asked for bytes from {offset} on", anew=True)
        total = int(found[2]) if found[2] != "*" else 0
        marks = (version, origin.get("version")), (total, origin.get("total"))
        if same and any(new and old and new != old for new, old in marks):
            raise Again("the file has changed on the server", anew=True)
    elif response.status == 200:
        offset, length = 0, headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else 0
    else:
        raise Refused(f"answers with status {response.status}")
    if size and total and total != size:
        raise Again(f"offers {total} bytes, expected {size}", anew=True)
    left = (total or size + 1) - offset if total or size else -1  # one too many shows a lie
    chunks = _chunks(response, left)
    head = next(chunks, b"")
    if not offset and not page and looks_like_page(head):
        raise Refused("answers with a web page in place of the file")
    origin = {"url": url, "version": version, "total": total}
    return Answer(offset=offset, total=total, origin=origin, chunks=chain((head,), chunks))


def _chunks(response: Any, left: int) -> Iterator[bytes]:
    """Yield what comes, at most `left` bytes; -1 is without end."""
    while left:
        try:
            chunk = response.read1(CHUNK_BYTES if left < 0 else min(CHUNK_BYTES, left))
        except NETWORK_ERRORS as error:
            raise _judge_network(error) from error
        if not chunk:
            return
        left -= len(chunk) if left > 0 else 0
        yield chunk


def _version(headers: Message) -> str:
    """Return the server's mark of this version of a file; weak ETags do not name its bytes."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _unsatisfied(error: HTTPError) -> int:
    """Return the file's bytes as a 416 tells them (``bytes */N``), 0 if it does not."""
    found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
    return int(found[1]) if found else 0


def _judge_status(error: HTTPError) -> Exception:
    if error.code in PASSING:
        after = _retry_after(error.headers.get("Retry-After", ""))
        return Again(f"answers with status {error.code} ({error.reason})", after=after)
    return Refused(f"answers with status {error.code} ({error.reason})")


def _judge_network(error: Exception) -> Exception:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Refused(f"the server cannot be trusted ({reason})")
    if isinstance(error, http.client.InvalidURL):
        return Refused(f"is, or redirects to, what is no address ({error})")
    return Again(f"the connection failed ({reason or type(reason).__name__})")


def _retry_after(text: str) -> float:
    """Return the seconds of a ``Retry-After``, which is a number or a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
