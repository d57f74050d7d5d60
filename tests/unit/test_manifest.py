"""Lists of outputs: what is read, and every fault that is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from xfavot.convert.converter import Task
from xfavot.errors import DataError
from xfavot.evaluation import manifest

HEADER = "task,source,reference,output,model,transcript,speaker,gender"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("s.wav", "r.wav", "o1.wav", "o2.wav", "face.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "list.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_relative_paths_optional_columns_and_blank_lines(folder: Path) -> None:
    text = (
        f'{HEADER}\r\n\r\n A2A ,s.wav,{folder / "r.wav"},o1.wav, ours ,"hello, you",p1,Female\r\n'
        "z2a,./s.wav,,o2.wav,ours,,,\r\n"
    )
    first, second = manifest.read(write(folder, text))
    assert (first.task, first.model, first.gender) == (Task.A2A, "ours", "f")
    assert first.source == folder / "s.wav"
    assert (first.transcript, first.who) == ("hello, you", "p1")
    assert (second.reference, second.speaker) == (None, "")
    assert second.who == str(folder / "s.wav")
    groups = manifest.groups_of([first, second], dataset="d", size=8)
    names = [(group.system, group.task) for group in groups]
    truth = [("ground truth", "sources"), ("ground truth", "references")]
    assert names == [("ours", "a2a"), ("ours", "z2a"), *truth]


def test_byte_order_mark_and_columns_in_any_order(folder: Path) -> None:
    file = write(
        folder, "Model,output,task,reference,source\nm,o1.wav,a2a,r.wav,s.wav\n", "utf-8-sig"
    )
    (row,) = manifest.read(file)
    assert (row.model, row.output.name, row.transcript) == ("m", "o1.wav", "")


ROW = "a2a,s.wav,r.wav,o1.wav,m,,,\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lacks task; lacks source"),
        (f"{HEADER}\n", "has no row"),
        (HEADER.replace(",", ";") + "\n", "separated by commas"),
        (HEADER.replace(",", "\t") + "\n", "separated by commas"),
        ("task,source,output\n", "lacks reference; lacks model"),
        (f"{HEADER},transcripts\n", r"has 'transcripts' \(did you mean 'transcript'"),
        (f"{HEADER},task\n", "has task twice"),
        (f'{HEADER}\n"a2a,s.wav\n', "cannot be read"),
        (f"{HEADER}\na2b,s.wav,r.wav,o1.wav,m,,,\n", r"line 2 has task 'a2b' \(did you mean"),
        (f"{HEADER}\na2a,s.wav,r.wav,o1.wav,m\n", "line 2 has not 8 cells"),
        (f"{HEADER}\na2a,no.wav,r.wav,o1.wav,m,,,\n", "line 2 has no file at its source .*no.wav"),
        (f"{HEADER}\na2a,s.wav,r.wav,.,m,,,\n", "line 2 has no file at its output"),
        (f"{HEADER}\na2a,s.wav,,o1.wav,m,,,\n", "line 2 names no reference"),
        (f"{HEADER}\nz2a,s.wav,,,m,,,\n", "line 2 names no output"),
        (f"{HEADER}\na2a,s.wav,r.wav,o1.wav,,,,\n", "line 2 names no model"),
        (f"{HEADER}\na2a,s.wav,r.wav,o1.wav,m,,,x\n", "line 2 has gender 'x'"),
        (f"{HEADER}\n{ROW}{ROW}", "line 3 repeats the output o1.wav as line 2"),
        (
            f"{HEADER}\n{ROW}a2a,s.wav,r.wav,./o1.wav,m,,,\n",
            "line 3 repeats the output ./o1.wav as line 2",
        ),
        (
            f"{HEADER}\na2a,s.wav,r.wav,o1.wav,m,,p,f\na2a,s.wav,r.wav,o2.wav,m,,p,m\n",
            "line 3 calls p both as line 2 has it: f and m",
        ),
        (
            f"{HEADER}\na2a,s.wav,r.wav,o1.wav,m,hello,,\na2a,s.wav,r.wav,o2.wav,m,bye,,\n",
            "line 3 has another transcript as line 2 has it: hello and bye",
        ),
    ],
)
def test_faults_are_reported(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        manifest.read(write(folder, text))


def test_many_faults_are_counted(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 6 has task .*; and 3 more"):
        manifest.read(write(folder, f"{HEADER}\n" + "a2x,s.wav,r.wav,o1.wav,m,,,\n" * 8))


def test_no_file_and_no_text(folder: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        manifest.read(folder / "absent.csv")
    with pytest.raises(DataError, match="save it as CSV in UTF-8"):
        manifest.read(write(folder, f"{HEADER}\nü", "utf-16"))
