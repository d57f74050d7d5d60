"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from xfavot.files import whole, write_whole


def test_text_and_bytes_replace_what_was_there_and_leave_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "table.csv"
    write_whole(target, "größer\n")
    assert target.read_bytes() == "größer\n".encode()
    write_whole(str(target), b"\r\n")
    assert target.read_bytes() == b"\r\n"
    assert [path.name for path in target.parent.iterdir()] == ["table.csv"]


def test_the_draft_lies_beside_the_file_and_ends_as_it_does(tmp_path: Path) -> None:
    with whole(tmp_path / "face.png") as draft:
        assert draft.parent == tmp_path
        assert draft.suffix == ".png"
        assert draft.name.startswith(".")
        draft.write_bytes(b"pixels")
    assert (tmp_path / "face.png").read_bytes() == b"pixels"
    assert not draft.exists()


def test_a_failure_keeps_the_old_file_and_removes_the_draft(tmp_path: Path) -> None:
    target = tmp_path / "weights.pt"
    write_whole(target, b"old")
    with pytest.raises(TypeError), whole(target) as draft:
        draft.write_bytes("no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(folder, b"a folder is in the way")
    assert sorted(tmp_path.iterdir()) == [folder, target]
