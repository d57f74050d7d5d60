"""Hostile and failing servers, full disks: the right file arrives, or nothing and a reason."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from tests.faults.download_factory import (
    BODY,
    HALF,
    PAGE,
    ROOT,
    get,
    patience,
    refused,
    remote,
    sha256,
    small_disk,
)
from tests.faults.loopback import Loopback, file, redirect, status
from xfavot.errors import DataError
from xfavot.fetch import part
from xfavot.fetch.exchange import Redirects, Refused
from xfavot.fetch.remote import Remote, fetch


@pytest.mark.parametrize("fault", [{}, {"reset": True}, {"stall": True}])
@pytest.mark.parametrize("checksum", [sha256(BODY), ""])
def test_a_cut_connection_is_resumed(
    fault: dict[str, Any], checksum: str, web: Loopback, tmp_path: Path
) -> None:
    url = web.serve("/a", file(BODY, cut=HALF, **fault), file(BODY, cut=1000), file(BODY))
    assert get(remote(url, checksum=checksum), tmp_path) == BODY
    first, second, third = web.ranges()
    assert first == ""
    begun = int(second.removeprefix("bytes=").rstrip("-"))
    assert begun == HALF or (fault == {"reset": True} and 0 < begun <= HALF)
    assert third == f"bytes={begun + 1000}-"
    assert web.requests[1][1]["If-Range"] == '"one"'


def test_what_came_is_kept_for_the_next_run(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, cut=HALF), status(503))
    refused(remote(url), tmp_path, r"status 503.*524 kB of it are kept.*run again", kept=HALF)
    web.serve("/a", file(BODY))
    assert get(remote(url), tmp_path) == BODY
    assert web.ranges()[-1] == f"bytes={HALF}-"


FETCHER = """
import sys
from pathlib import Path
from xfavot.fetch.remote import Remote, fetch
fetch(Remote(url=sys.argv[1], name="a.bin", checksum=sys.argv[2]), Path(sys.argv[3]), on_log=print)
"""


def fetcher(url: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", FETCHER, url, sha256(BODY), str(folder)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def test_a_killed_process_is_resumed(web: Loopback, tmp_path: Path) -> None:
    arrived = threading.Event()
    sender = file(BODY, cut=HALF, stall=True)

    def act(handler: Any) -> None:
        threading.Timer(0.3, arrived.set).start()
        sender(handler)

    url = web.serve("/a", act, file(BODY))
    with subprocess.Popen(fetcher(url, tmp_path), env=environment()) as process:
        assert arrived.wait(20.0)
        process.send_signal(signal.SIGKILL)
    assert 0 < (tmp_path / "a.bin.part").stat().st_size <= HALF
    assert get(remote(url), tmp_path) == BODY
    assert web.ranges()[1] not in ("", "bytes=0-")


def test_two_processes_fetch_once(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY))
    command = fetcher(url, tmp_path)
    pair = [subprocess.Popen(command, env=environment()) for _ in range(2)]
    assert [process.wait(30) for process in pair] == [0, 0]
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(web.requests) == 1


def test_the_second_waits_for_the_first(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY))
    lines: list[str] = []
    waiting = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        waiting.set()

    with part.alone(tmp_path, lines.append):
        thread = threading.Thread(
            target=fetch, args=(remote(url), tmp_path), kwargs={"on_log": log}
        )
        thread.start()
        assert waiting.wait(5.0)
        assert web.requests == []
    thread.join(10.0)
    assert "another process" in lines[0]
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_server_that_never_gets_further_is_given_up(web: Loopback, tmp_path: Path) -> None:
    halves = [file(BODY, ranges=False, cut=cut) for cut in (HALF, 100, HALF, 100, HALF)]
    url = web.serve("/a", *halves)
    pauses: list[float] = []
    with pytest.raises(DataError, match=r"cut after 100 of 1048576 bytes, 3 tries in a row"):
        fetch(remote(url), tmp_path, patience=patience(pauses))
    assert pauses == [2.0, 2.0, 4.0]  # the first try brought something
    assert len(web.requests) == 4


def test_nobody_listens(web: Loopback, tmp_path: Path) -> None:
    refused(remote("http://127.0.0.1:9/a"), tmp_path, r"127\.0\.0\.1:9/a the connection failed")


@pytest.mark.parametrize(
    "second",
    [
        file(BODY, ranges=False),
        file(BODY, shift=7),
        file(BODY, shift=-HALF),
        file(BODY, etag='"two"'),
        file(BODY, etag='"two"', heed_if_range=False),
        file(BODY, etag="", heed_if_range=False, headers={"Last-Modified": "today"}),
    ],
    ids=["range ignored", "offset off", "from 0", "changed", "changed unheeded", "unmarked"],
)
def test_an_answer_that_does_not_continue_starts_anew(
    second: Callable[[Any], None], web: Loopback, tmp_path: Path
) -> None:
    url = web.serve("/a", file(bytes(len(BODY)), cut=HALF), second, file(BODY, ranges=False))
    assert get(remote(url, checksum=""), tmp_path) == BODY


def test_a_changed_length_starts_anew(web: Loopback, tmp_path: Path) -> None:
    longer = BODY + b"more"
    again = file(longer, heed_if_range=False)
    url = web.serve("/a", file(bytes(len(BODY)), cut=HALF), again, file(longer))
    assert get(remote(url, checksum=""), tmp_path) == longer
    assert web.ranges() == ["", f"bytes={HALF}-", ""]


def test_without_mark_or_checksum_a_part_is_not_continued(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(bytes(len(BODY)), etag="", cut=HALF), file(BODY, etag=""))
    assert get(remote(url, checksum=""), tmp_path) == BODY
    assert web.ranges() == ["", ""]


def test_a_weak_etag_is_no_mark(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, etag='W/"one"', cut=HALF), file(BODY))
    assert get(remote(url), tmp_path) == BODY
    assert "If-Range" not in web.requests[1][1]
    assert web.ranges()[1] == f"bytes={HALF}-"  # the checksum will tell


@pytest.mark.parametrize("size", [0, len(BODY)])
def test_a_part_that_is_complete_needs_no_bytes(size: int, web: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(BODY)
    url = web.serve("/a", file(BODY))
    assert get(remote(url, size=size), tmp_path) == BODY
    assert web.ranges() == [f"bytes={len(BODY)}-"]  # answered by 416


def test_a_part_longer_than_the_file_starts_anew(web: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(BODY + b"more")
    url = web.serve("/a", file(BODY))
    assert get(remote(url), tmp_path) == BODY


@pytest.mark.parametrize("known", [{}, {"size": len(BODY)}])
def test_a_length_that_promises_too_much(
    known: dict[str, int], web: Loopback, tmp_path: Path
) -> None:
    url = web.serve("/a", file(BODY, more=100), file(BODY))
    assert get(remote(url, **known), tmp_path) == BODY  # type: ignore[arg-type]


def test_a_length_that_promises_too_little(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, more=-100), file(BODY))
    assert get(remote(url, size=len(BODY)), tmp_path) == BODY
    url = web.serve("/b", file(BODY, more=-100))
    short = Remote(url=url, name="b.bin", checksum=sha256(BODY))
    refused(short, tmp_path, r"expected sha256:\w+; it was removed")


def test_more_bytes_than_the_file_has(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY + b"more", sized=False))
    refused(remote(url, size=len(BODY), checksum=""), tmp_path, "bytes or more, expected 1048576")


def test_a_file_without_length(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, sized=False))
    assert get(remote(url, checksum=""), tmp_path) == BODY


def test_wrong_bytes_are_removed(web: Loopback, tmp_path: Path) -> None:
    wrong = bytes(len(BODY))
    url = web.serve("/a", file(wrong))
    match = rf"a file of {sha256(wrong)}, expected {sha256(BODY)}; it was removed.*fetch it by hand"
    refused(remote(url, size=len(BODY)), tmp_path, match)
    web.serve("/a", file(BODY))
    assert get(remote(url, size=len(BODY)), tmp_path) == BODY


def test_a_mirror_may_have_the_right_bytes(web: Loopback, tmp_path: Path) -> None:
    urls = web.serve("/a", file(bytes(len(BODY)))), web.serve("/b", file(BODY))
    assert get(remote(*urls), tmp_path) == BODY
    assert web.ranges() == ["", ""]


@pytest.mark.parametrize(
    ("kind", "body"), [("text/html; charset=utf-8", b"Sign in"), ("application/zip", b"\n" + PAGE)]
)
def test_a_page_in_place_of_the_file(kind: str, body: bytes, web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(body, kind=kind))
    refused(remote(url, checksum=""), tmp_path, "a web page in place of the file")
    assert len(web.requests) == 1


@pytest.mark.parametrize("kind", ["text/html", "application/zip"])
def test_a_page_on_resuming_costs_nothing(kind: str, web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, cut=HALF), file(PAGE, ranges=False, kind=kind))
    refused(remote(url), tmp_path, "a web page", kept=HALF)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_goes_to_the_mirror(code: int, web: Loopback, tmp_path: Path) -> None:
    urls = web.serve("/a", status(code)), web.serve("/b", file(BODY))
    assert get(remote(*urls), tmp_path) == BODY
    assert [path for path, _ in web.requests] == ["/a", "/b"]


def test_a_mirror_goes_on_where_the_first_was_cut(web: Loopback, tmp_path: Path) -> None:
    first = web.serve("/a", file(BODY, cut=HALF), status(404))
    second = web.serve("/b", file(BODY, etag='"another"'))
    assert get(remote(first, second), tmp_path) == BODY
    assert web.ranges()[-1] == f"bytes={HALF}-"
    assert "If-Range" not in web.requests[-1][1]


def test_all_addresses_and_reasons_are_told(web: Loopback, tmp_path: Path) -> None:
    urls = web.serve("/a", status(403)), web.serve("/b", status(500))
    match = r"/a answers with status 403 .*/b answers with status 500 .*3 tries.*by hand.*a\.bin"
    refused(remote(*urls), tmp_path, match)


def test_busy_servers_are_waited_for(web: Loopback, tmp_path: Path) -> None:
    soon = formatdate(4e9, usegmt=True)
    busy = status(503, Retry_After="3"), status(429, Retry_After="86400"), status(503)
    url = web.serve("/a", *busy, status(503, Retry_After=soon), file(BODY))
    pauses: list[float] = []
    fetch(remote(url), tmp_path, patience=patience(pauses, tries=9))
    assert pauses == [3.0, 5.0, 5.0, 5.0]  # asked for, bounded, doubled twice and bounded, bounded


def test_redirects(web: Loopback, tmp_path: Path) -> None:
    there = web.serve("/there", file(BODY, cut=HALF), file(BODY))
    url = web.serve("/a", redirect("/there"), redirect(there))
    assert get(remote(url), tmp_path) == BODY
    assert web.requests[-1][0] == "/there"
    assert web.ranges()[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/a", "/a", "http://[1"])
def test_redirects_that_are_not_followed(where: str, web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", redirect(where))
    refused(remote(url), tmp_path, "redirect")


def test_no_redirect_from_https_to_http() -> None:
    here, headers = Request("https://a.org/b"), {}
    with pytest.raises(Refused, match="from https to http"):
        Redirects().redirect_request(here, io.BytesIO(), 302, "", headers, "http://a.org/b")
    followed = Redirects().redirect_request(
        Request("http://a.org/b"), io.BytesIO(), 302, "", headers, "https://a.org/b"
    )
    assert followed is not None


def test_a_proxy_of_the_environment_is_used(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", web.root)
    web.serve("http://corpus.invalid/a", file(BODY))
    assert get(remote("http://corpus.invalid/a"), tmp_path) == BODY


def test_a_disk_that_fills_up_keeps_the_part(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))
    try:
        with pytest.raises(DataError, match=r"a\.bin\.part cannot be written.*free some.*kept"):
            fetch(remote(url, size=len(BODY)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a.bin.part").stat().st_size == HALF
    assert get(remote(url), tmp_path) == BODY
    assert web.ranges() == ["", f"bytes={HALF}-"]


def test_a_disk_too_small_is_told_first(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_disk(monkeypatch, 1000)
    url = web.serve("/a", file(BODY))
    refused(remote(url, checksum=""), tmp_path, r"has 1 kB free; expected 1\.05 MB for a\.bin")


def test_a_folder_that_cannot_be_made(web: Loopback, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        fetch(remote(web.serve("/a", file(BODY))), tmp_path / "taken" / "below")


def test_a_wrong_file_in_place_is_not_overwritten(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY))
    for content, match in (
        (b"mine", "has 4 bytes; expected 1048576"),
        (BODY[::-1], "expected sha"),
    ):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(DataError, match=f"{match}.*remove .*run again"):
            fetch(remote(url, size=len(BODY)), tmp_path)
        assert (tmp_path / "a.bin").read_bytes() == content
    (tmp_path / "a.bin").write_bytes(PAGE)
    with pytest.raises(DataError, match="is a web page"):
        fetch(remote(url, checksum=""), tmp_path)
    assert web.requests == []


def test_offline_names_the_address_and_the_place(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.serve("/a", file(BODY))
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    refused(remote(url), tmp_path, rf"fetch {url} elsewhere and put it at {tmp_path}/a\.bin")
    assert web.requests == []
    (tmp_path / "a.bin").write_bytes(BODY)  # by hand
    assert get(remote(url), tmp_path) == BODY
    monkeypatch.setenv("XFAVOT_OFFLINE", "0")
    (tmp_path / "a.bin").unlink()
    assert get(remote(url), tmp_path) == BODY


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"url": "ftp://a.org/b"}, "expected http"),
        ({"url": "http:///b"}, "expected http"),
        ({"url": "http://a.org/b c"}, "expected http"),
        ({"mirrors": ("file:///etc/passwd",)}, "expected http"),
        ({"name": "../b"}, "expected a plain one"),
        ({"name": ".."}, "expected a plain one"),
        ({"name": ""}, "expected a plain one"),
        ({"name": "a.part"}, "expected a plain one"),
        ({"size": -1}, "expected 0 or more bytes"),
        ({"checksum": "sha256:abc"}, "64 hex"),
        ({"checksum": "crc:" + "0" * 8}, "64 hex"),
    ],
)
def test_what_is_no_remote_file(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        Remote(**{"url": "https://a.org/b", "name": "b", **fields})


def test_credentials_are_refused_and_not_repeated() -> None:
    with pytest.raises(DataError, match="holds a user name") as caught:
        Remote(url="https://me:secret@a.org/b", name="b")
    assert "secret" not in str(caught.value)
