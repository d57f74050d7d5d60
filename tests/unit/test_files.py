"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import refuses
from xfavot.files import whole, write_whole


def test_what_was_there_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "new" / "table.csv"
    for content in ("größer\n", b"\r\n"):
        write_whole(str(target), content)
        assert target.read_bytes() == (content.encode() if isinstance(content, str) else content)
    with whole(target) as draft:
        assert (draft.parent, draft.suffix, draft.name[0]) == (target.parent, ".csv", ".")
        draft.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_keeps_the_old_file_and_removes_the_draft(tmp_path: Path) -> None:
    target = tmp_path / "weights.pt"
    write_whole(target, b"old")
    with pytest.raises(TypeError), whole(target) as draft:
        draft.write_bytes("no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    folder = tmp_path / "folder"
    folder.mkdir()
    refuses(OSError, "folder", write_whole, folder, b"a folder is in the way")
    assert sorted(tmp_path.iterdir()) == [folder, target]
