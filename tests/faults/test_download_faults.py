"""Corpora and weights on their way: servers, disks and files that are not as they should be."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import tarfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.conftest import Patch, refuses
from tests.faults.loopback import BODY, HALF, PAGE, Loopback, Malicious, file, pack, sha256, status
from xfavot import presets
from xfavot.data import corpora
from xfavot.data.corpora import Download, describe, download, offer
from xfavot.data.readers.layouts import scan
from xfavot.errors import ConfigError, DataError, WeightsError
from xfavot.evaluation import external
from xfavot.weights import fetched


def offering(monkeypatch: Patch, corpus: str, entry: Download) -> None:
    """Let a corpus be fetched from elsewhere."""
    known = replace(describe(corpus), download=entry)
    monkeypatch.setattr(corpora, "describe", lambda name: known)


def zip_of(*names: str) -> bytes:
    return pack("zip", *((name, f"content of {name}".encode()) for name in names))


GRID = {
    "alignments.zip": zip_of("alignments/s1/bbaf2n.align"),
    "audio_25k.zip": zip_of("audio_25k/s1/bbaf2n.wav"),
    "s1.zip": zip_of("s1/bbaf2n.mpg", "s1/bbaf3s.mpg"),
    "s20.zip": zip_of("prwx1a.mpg"),  # no folder in it
}
LISTING = [
    {"key": name, "size": len(body), "checksum": f"md5:{hashlib.md5(body).hexdigest()}"}
    for name, body in GRID.items()
]


@pytest.fixture
def grid(web: Loopback, monkeypatch: Patch) -> Loopback:
    for name, body in GRID.items():
        web.serve(f"/api/records/7/files/{name}/content", file(body))
    url = web.serve("/api/records/7", file(json.dumps({"files": LISTING}).encode()))
    known = describe("grid").download
    assert known is not None
    assert known.record == "https://zenodo.org/api/records/3625687"
    offering(monkeypatch, "grid", replace(known, record=url))
    return web


def clips(corpus: str, source: Path) -> list[str]:
    return [*scan(corpus, source, 0).clips]


def test_grid_from_a_record(grid: Loopback, tmp_path: Path, monkeypatch: Any) -> None:
    lines: list[str] = []
    path = "/api/records/7/files/s20.zip/content"
    grid.serve(path, status(404))
    match = r"s20\.zip could not be fetched"
    refuses(DataError, match, download, "grid", tmp_path, on_log=lines.append)
    grid.serve(path, file(GRID["s20.zip"]))
    root = download("grid", tmp_path)  # goes on
    assert root == tmp_path / "grid"
    assert clips("grid", root) == clips("grid", tmp_path)
    assert clips("grid", root) == ["s1/bbaf2n", "s1/bbaf3s", "s20/prwx1a"]
    assert (root / "alignments" / "s1" / "bbaf2n.align").is_file()
    assert not (tmp_path / "archives" / "grid" / "audio_25k.zip").exists()
    text = "\n".join(lines)
    assert text.index("Licence: CC BY 4.0") < text.index("3 of 3 archives") < text.index("s1.zip: ")
    asked = [found for found, _ in grid.requests]
    assert {found: asked.count(found) for found in asked} == {**dict.fromkeys(asked, 1), path: 2}
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    assert download("grid", tmp_path, on_log=lines.append) == root
    assert any("0 of 3 archives to fetch, 0 bytes" in line for line in lines)


@pytest.mark.parametrize(
    "listing", ["[]", "not json", '{"files": [{}]}', json.dumps({"files": LISTING[:2]})]
)
def test_a_record_of_no_use_is_asked_again(listing: str, grid: Loopback, tmp_path: Path) -> None:
    good = grid.acts["/api/records/7"]
    grid.serve("/api/records/7", file(listing.encode()))
    refuses(DataError, r"api/records/7 gave no listing that is of use", download, "grid", tmp_path)
    grid.serve("/api/records/7", *good)
    assert len(clips("grid", download("grid", tmp_path))) == 3


def test_archives_unpack_where_readers_are(web: Loopback, tmp_path: Path, monkeypatch: Any) -> None:
    for corpus, names, clip in (
        ("vctk", ("wav48/p225/p225_001.flac", "speaker-info.txt"), "p225/p225_001"),
        ("celeba_hq", ("celeba_hq/train/female/1.jpg",), "train/female/1.jpg"),
    ):
        url = web.serve(f"/{corpus}", file(zip_of(*names)))
        with monkeypatch.context() as patch:
            offering(patch, corpus, Download(url=url, file=f"{corpus}.zip"))
            root = download(corpus, tmp_path)
        assert clips(corpus, root) == clips(corpus, tmp_path) == [clip]


def test_a_disk_that_is_too_small(web: Loopback, tmp_path: Path, monkeypatch: Patch) -> None:
    entry = Download(url=web.serve("/v", file(BODY)), file="v.zip", bytes=10_000_000_000)
    offering(monkeypatch, "vctk", entry)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 19_900_000_000))
    refuses(DataError, r"has 19\.9 GB free; expected about 20 GB", download, "vctk", tmp_path)
    assert web.requests == []


def test_what_can_be_fetched_and_what_must_be_asked_for(tmp_path: Path) -> None:
    offered = {name for name in presets.names("corpora") if describe(name).download}
    assert offered == {"grid", "vctk", "celeba_hq"}
    text = offer("vctk")
    for word in ("VCTK-Corpus-0.92.zip (11.7 GB, sha256:f962", "CC BY 4.0", "Cite: Yamagishi"):
        assert word in text
    for corpus in ("lrs3", "lip2wav", "voxceleb"):
        assert describe(corpus).how in offer(corpus)
        refuses(DataError, "cannot be fetched; expected one that its", download, corpus, tmp_path)
    refuses(ConfigError, "vctkk", download, "vctkk", tmp_path)
    assert not list(tmp_path.iterdir())


OTHER = BODY[:-1] + b"x"
BASE = {"title": "T", "purpose": "for tests", "licence": "L 1.0", "terms": "https://x.test/terms"}
Describe = Callable[..., None]
get = partial(fetched.path, "net", download=True)


@pytest.fixture
def described(tmp_path: Path, monkeypatch: Patch) -> Describe:
    """Return a function that describes a set, in place of the package's own table."""
    monkeypatch.setattr(presets, "FOLDER", tmp_path / "presets")
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "cache"))
    folder = tmp_path / "presets" / "weights"
    folder.mkdir(parents=True)

    def write(name: str = "net", **entries: Any) -> None:
        text = yaml.safe_dump({**BASE, "file": "net.pth", **entries})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")

    return write


def refused(match: str, name: str = "net") -> None:
    """Expect that a fetch is refused with the set's name and leaves nothing that looks whole."""
    named = rf"(?s)^weights {name} \(T\): .*{match}"
    refuses(WeightsError, named, fetched.path, name, download=True)
    assert not (fetched.root() / name / "net.pth").exists()


def test_a_file_comes_once_and_only_when_asked_for(web: Loopback, described: Describe) -> None:
    url = web.serve("/a", file(BODY, cut=HALF), status(503))
    described(url=url, bytes=len(BODY), checksum=sha256(BODY))
    refuses(WeightsError, "nothing is fetched unasked", fetched.path, "net")
    assert not web.requests
    refused("503.*are kept for the next run")
    web.serve("/a", file(BODY))
    log: list[str] = []
    path = get(on_log=log.append)
    assert path == fetched.root() / "net" / "net.pth"
    assert path.read_bytes() == BODY
    assert web.ranges()[-1] == f"bytes={HALF}-"
    assert log[:2] == [f"net: T, 1.05 MB, from {url}", "net: licence: L 1.0; https://x.test/terms"]
    count = len(web.requests)
    assert get() == fetched.path("net") == path
    assert len(web.requests) == count


def test_another_file_is_refused_and_stays(web: Loopback, described: Describe) -> None:
    described(url=web.serve("/a", file(OTHER)), checksum=sha256(BODY))
    match = f"is {sha256(OTHER)}; expected {sha256(BODY)};"
    refused(match)
    path, match = fetched.root() / "net" / "net.pth", f"{match}.*remove it and run python"
    path.write_bytes(OTHER)  # by hand
    for fetching in (False, True):
        refuses(WeightsError, match, fetched.path, "net", download=fetching)
    assert path.read_bytes() == OTHER
    path.unlink()
    web.serve("/a", file(BODY))
    assert get().read_bytes() == BODY


def test_what_nobody_publishes_is_what_first_came(web: Loopback, described: Describe) -> None:
    described(url=web.serve("/a", file(BODY)))
    path = get()
    sums = path.with_name("SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(BODY).hexdigest()}  net.pth\n"
    assert fetched.path("net") == path
    path.write_bytes(OTHER)
    for fetching in (False, True):
        match = r"net\.pth are not what first came.*remove /"
        refuses(WeightsError, match, fetched.path, "net", download=fetching)


def test_another_version_of_a_package(
    web: Loopback, described: Describe, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "brings").mkdir()
    (tmp_path / "brings" / "__init__.py").touch()
    (tmp_path / "brings" / "net.pth").write_bytes(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    known = {"package": "brings", "inside": "net.pth", "install": "pip install brings"}
    known |= {"checksum": sha256(BODY)}
    described(**known)
    match = "another version of brings is installed: pip install"
    refuses(WeightsError, match, fetched.path, "net")
    described(**known, url=web.serve("/a", file(BODY)))
    assert get() == fetched.root() / "net" / "net.pth"  # the right one, from its address


def test_an_archive_gives_the_folder_with_the_weights(web: Loopback, described: Describe) -> None:
    parts = [(f"exp/net/{name}", b"w") for name in ("checkpoint.pkl", "config")]
    body = pack("tar.gz", *parts, ("R", b""))
    described(url=web.serve("/a", file(body)), file="net.tar.gz", holds="checkpoint*.pkl")
    folder = get()
    assert folder == fetched.root() / "net" / "exp" / "net"
    assert {path.name for path in folder.iterdir()} == {"checkpoint.pkl", "config"}
    assert not (fetched.root() / "archives" / "net.tar.gz").exists()
    assert fetched.path("net") == get() == folder
    assert len(web.requests) == 1
    (folder / "config").write_bytes(b"d")
    match = "exp/net/config are not what first came"
    refuses(WeightsError, match, fetched.path, "net")
    hostile = pack("tar.gz", ("checkpoint.pkl", b"w"), ("../out", b"x"))
    for name, content, match in (
        ("empty", pack("tar.gz", ("README", b"r")), r"empty\.tar\.gz holds no \*\.pkl"),
        ("evil", hostile, "out"),
    ):
        url = web.serve(f"/{name}", file(content))
        described(name, url=url, file=f"{name}.tar.gz", holds="*.pkl")
        refused(match, name)
    assert not (fetched.root() / "out").exists()
    assert not (fetched.root() / "evil").exists()


def test_a_record_tells_size_and_checksum(web: Loopback, described: Describe) -> None:
    body = pack("tar.gz", ("meta", b"m"))
    md5 = f"md5:{hashlib.md5(body).hexdigest()}"
    entry = {"key": "net.tar.gz", "size": len(body), "checksum": md5}
    record = web.serve("/r", file(json.dumps({"files": [entry]}).encode()))
    web.serve("/r/files/net.tar.gz/content", file(OTHER[: len(body)]), file(body))
    described(record=record, file="net.tar.gz", holds="meta")
    refused("md5:")  # the first answer is another file of the same size
    assert get() == fetched.root() / "net"


def test_a_malformed_description(described: Describe, monkeypatch: Patch) -> None:
    two = {"url": "https://x.test/a", "record": "https://x.test/r"}
    for entries in ({}, two, {"package": "p"}, {"ulr": "a"}):
        described(**entries)
        match = r"weights/net\.yaml.*(expected|did you mean 'url')"
        refuses(ConfigError, match, fetched.describe, "net")
    for entries, match in (
        ({"titel": "x"}, "titel is not a setting; did you mean 'title'"),
        ({"paper": {"speaker": 3}}, "'speaker' is unknown; did you mean 'speakers'"),
        ({"download": {"url": "u", "bytes": "3"}}, "expected int"),
        ({}, "missing .* 'title'"),
    ):
        monkeypatch.setattr(presets, "load", Mock(return_value=entries))
        refuses(ConfigError, match, describe, "grid")


@pytest.mark.parametrize("form", ["zip", "old", "plain", "plain 2"])
def test_a_malicious_pickle_is_named_and_not_run(form: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "nisqa.tar"
    if form.startswith("plain"):
        path.write_bytes(pickle.dumps(Malicious(mark), protocol=2 if form[-1] == "2" else 4))
    else:
        torch.save({"args": Malicious(mark)}, path, _use_new_zipfile_serialization=form == "zip")
    match = "nothing was run" if form == "plain" else r"names '\w+\.system'.*was not run"
    refuses(WeightsError, match, external.read, path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malicious(mark)))  # it would have worked
    assert mark.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forms_that_cannot_be_read_safely(tmp_path: Path) -> None:
    script, tar, page = tmp_path / "a.pt", tmp_path / "b.tar", tmp_path / "c.pth"
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), script)
    with tarfile.open(tar, "w") as archive:
        archive.add(script, "pickle")
    page.write_bytes(PAGE)
    for path, match in ((script, "TorchScript"), (tar, "legacy .tar"), (page, "web page")):
        refuses(WeightsError, f"{match}.*nothing was run", external.read, path)


@pytest.mark.parametrize("keep", [0, 5, 400, -1])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_truncated_checkpoint(form: str, keep: int, tmp_path: Path) -> None:
    path, state = tmp_path / "a.pth", {"w": torch.ones(500)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    refuses(WeightsError, r"damaged|cannot be read", external.read_state, path)
