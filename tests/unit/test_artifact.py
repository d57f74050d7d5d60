"""Tables and figures on disk: what is written, what is refused, that nothing is half there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Patch, refuses
from tests.unit.store_factory import make_store
from xfavot import config, report
from xfavot.errors import DataError
from xfavot.files import whole, write_whole
from xfavot.report import Provenance


def origin(tier: str = "reduced") -> Provenance:
    """What is printed below a table."""
    device = {"cpu": "a processor", "threads": 1}
    made: Provenance = {"tier": tier, "git_revision": "a" * 40, "git_dirty": True, "device": device}
    return made | {"started_at": "2026-01-02T03:04:05+00:00"}


def row(**changes: Any) -> dict[str, Any]:
    fields = dict(system="ours", task="a2i", dataset="mini", metric="fid", value=12.3456789012)
    return fields | dict(ci_low=None, ci_high=None, n=20, seed=0) | changes


def written(root: Path, *rows: dict[str, Any], tier: str = "reduced") -> Path:
    return report.write_table("t", rows, provenance=origin(tier), root=root, caption="Faces.")


def test_a_table_is_read_back_with_every_digit(tmp_path: Path) -> None:
    rows = [
        row(value=1 / 3, ci_low=np.float64(0.3), ci_high=0.4, note="a | b"),
        row(system="peer", value=np.int64(5), n=np.int64(3), seed="0, 1", good=True),
    ]
    folder = written(tmp_path, *rows)
    assert {f.suffix for f in folder.iterdir()} == {".csv", ".md", ".tex", ".json"}
    table = report.read_table(tmp_path / "t")
    assert table.rows == [rows[0] | {"good": None}, rows[1] | {"note": None}]
    assert list(table.rows[0]) == [*report.COLUMNS, "note", "good"]
    files = table.record["files"]
    assert table.record == origin() | {"schema": 1, "item": "t", "files": files}
    assert set(files) == {f"t.{end}" for end in ("csv", "md", "tex")}
    text = table._repr_markdown_()
    assert text.startswith("Faces.\n\n| system")
    assert "All rows: task a2i, dataset mini, metric fid." in text
    line = next(line for line in text.splitlines() if line.startswith("| ours"))
    cells = [cell.strip() for cell in line.replace("\\|", "/").split("|")[1:-1]]
    assert cells == ["ours", "0.333", "0.300", "0.400", "20", "0", "a / b", ""]
    assert "aaaaaaaa (changed)" in text
    assert "SMOKE" not in text


def test_rounding() -> None:
    values = (0.0, 1234.56, 12.345, 0.0012345, -9.876, 123456, None, "x", True)
    texts = ["0.00", "1235", "12.3", "0.00123", "-9.88", "123456", "", "x", "True"]
    assert [report.rounded(value) for value in values] == texts


SHORT = {k: v for k, v in row().items() if k != "dataset"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(value=math.nan)], "row 2: .*value is nan; expected finite numbers"),
        ([row(), row(value="12")], "row 2: .*'value': '12'"),
        ([row(n=0)], "row 1: .*'n': 0"),
        ([row(ci_low=1.0)], "row 1: .*'ci_low': 1.0, 'ci_high': None"),
        ([row(ci_low=13.0, ci_high=14.0)], "row 1: .*inside both bounds"),
        ([SHORT], "row 1: dataset missing; expected all of"),
        ([], "t: no row"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    refuses(DataError, message, written, tmp_path, *rows)
    assert not list(tmp_path.iterdir())


def test_a_higher_tier_is_never_replaced_by_a_lower_one(tmp_path: Path) -> None:
    for tier, value in (("smoke", 1.0), ("reduced", 2.0), ("reduced", 3.0), ("paper", 4.0)):
        written(tmp_path, row(value=value), tier=tier)
        assert report.read_table(tmp_path / "t").rows[0]["value"] == value
    with pytest.raises(DataError, match=r"tier 'paper', this one is of tier 'reduced'.*delete"):
        written(tmp_path, row(value=5.0))
    assert report.read_table(tmp_path / "t").rows[0]["value"] == 4.0


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    written(tmp_path, row(value=1.0))
    before = (tmp_path / "t" / "t.json").read_bytes()
    write, replace = Path.write_bytes, report.os.replace

    def full(self: Path, content: bytes) -> int:
        if self.name == "t.json":
            raise OSError(28, "No space left on device")
        return write(self, content)

    def stuck(source: Path, target: Path) -> None:
        if source.name.endswith(".new"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    faults: Any = ((Path, "write_bytes", full, "No space"), (report.os, "replace", stuck, "Input"))
    for owner, name, fault, message in faults:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fault)
            refuses(OSError, message, written, tmp_path, row(value=2.0))
    assert (tmp_path / "t" / "t.json").read_bytes() == before
    assert report.read_table(tmp_path / "t").rows[0]["value"] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_edited_files_are_noticed(tmp_path: Path) -> None:
    folder = written(tmp_path, row())
    text = (folder / "t.csv").read_text()
    (folder / "t.csv").write_text(text.replace("12.3", "11.3"))
    with pytest.raises(DataError, match=r"t\.csv is missing or not the file that was written"):
        report.read_table(folder)
    (folder / "t.json").write_text("{")
    refuses(DataError, r"t\.json is missing or damaged", written, tmp_path, row())
    refuses(DataError, "missing or damaged", report.read_table, tmp_path / "nothing")


def test_figures_and_tables_are_stamped_only_for_smoke(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 2))

    def render(kind: str) -> bytes:
        return f"{kind} {''.join(text.get_text() for text in figure.texts)}".encode()

    sketch, data = SimpleNamespace(figure=figure, render=render), [{"x": 1, "y": 0.1 + 0.2}]
    for tier, stamp in (("smoke", b"png SMOKE"), ("reduced", b"png ")):
        given = origin(tier)
        folder = report.write_figure("fig", sketch, data=data, provenance=given, root=tmp_path)
        assert (folder / "fig.png").read_bytes() == stamp
        assert not figure.texts
    assert {f.suffix for f in folder.iterdir()} == {".png", ".pdf", ".csv", ".json"}
    assert (folder / "fig.csv").read_text() == "x,y\n1,0.30000000000000004\n"
    record = json.loads((folder / "fig.json").read_text())
    assert record["files"]["fig.pdf"] == hashlib.sha256(b"pdf ").hexdigest()
    text = (written(tmp_path, row(), tier="smoke") / "t.md").read_text()
    assert text.startswith("**SMOKE: a test of the machinery")


def test_provenance_is_collected(tmp_path: Path, monkeypatch: Patch) -> None:
    store = make_store(tmp_path / "data", corpus="grid", seconds=0.5, image_size=8)
    cfg = config.resolve(dataset="grid", preset="smoke", seed=3, data_root=str(tmp_path / "data"))
    began = report.begin()
    given = {"seed": 3, "data_root": "/home/me", "vocoder": "/w/v", "overrides": {"loss.xm": 0.5}}
    monkeypatch.setattr(report, "injected", lambda: given)
    made = report.collect(began, cfg, tier="smoke", stores=[store], split="val", notebook="train")
    assert (made["seeds"], made["dataset"]) == ([3], "grid")
    assert made["config_id"] == config.config_id(cfg)
    assert made["config"]["train"]["lr"] == cfg.train.lr
    part = {"corpus": "grid", "split": "val", "manifest": store.manifest_hash, "count": 4}
    assert made["data"] == [part]
    assert min(made["wall_s"], made["device"]["threads"] - 1) >= 0
    assert made["started_at"].endswith("+00:00")
    assert made["command"] == (
        "papermill notebooks/train.ipynb out.ipynb -p seed 3 -p overrides '{\"loss.xm\": 0.5}'"
    )
    assert str(tmp_path) not in json.dumps(made), "a folder of this machine"
    elsewhere = dataclasses.replace(cfg, run_root="elsewhere")
    other = report.collect(began, elsewhere, tier="smoke", stores=[], notebook="tables")
    assert (other["lock"], other["config_id"]) == (made["lock"], made["config_id"])
    assert other["data"] == [report.NO_DATA]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_revision_of_the_checkout(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(report, "CHECKOUT", tmp_path)
    assert report._git() == ("", False)
    code, made = tmp_path / "xfavot" / "a.py", tmp_path / "paper_tables" / "t.csv"
    for file in (code, made):
        file.parent.mkdir()
    code.write_text("x = 1\n")
    known = "user.name=x", "user.email=x@example.org", "commit.gpgsign=false"
    git = ["git", *(word for one in known for word in ("-c", one))]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    made.write_text("1\n")  # what is made does not count
    revision, dirty = report._git()
    assert (len(revision), dirty) == (40, False)
    code.write_text("x = 2\n")
    assert report._git() == (revision, True)


def view_of(head: str = "GRID") -> report.View:
    columns = [(head, "FID \N{DOWNWARDS ARROW}", whose) for whose in ("ours", "paper")]
    cells = pd.DataFrame(
        [["12.3", f"{report.EMPTY}lost & gone"], [f"{report.EMPTY}no a_b", None]],
        index=pd.Index(["50 % & more", "XFaVoT, $L_{xm}$"], name="Model"),
        columns=pd.MultiIndex.from_tuples(columns),
    )
    return report.footnoted(cells, "Ten %.")


def test_empty_cells_are_dashes_with_their_reason_below() -> None:
    shown, notes = view_of()
    assert shown.iloc[0].tolist() == ["50 % & more", "12.3", "\N{EN DASH}$^{a}$"]
    assert shown.iloc[1].tolist()[1:] == ["\N{EN DASH}$^{b}$", "\N{EN DASH}$^{c}$"]
    reasons = ["lost & gone", "no a_b", "neither measured nor printed"]
    assert notes[:3] == [f"$^{{{x}}}$ {why}." for x, why in zip("abc", reasons, strict=True)]
    text = report._markdown(view_of(), "Above.", "Foot.")
    assert "| Model | GRID<br>FID \N{DOWNWARDS ARROW}<br>ours |" in " ".join(text.split())
    assert "<sup>a</sup> lost & gone.<br>\n<sup>b</sup> no a_b." in text


def test_latex_compiles_and_escapes_what_it_would_read_as_a_command(tmp_path: Path) -> None:
    text = report._latex(view_of("a_b"), "Table 3: SMOKE, 50 % of {$#|\\~^}.")
    parts = r"50 \% \& more & 12.3 & ", r"XFaVoT, $L_{xm}$ & ", r"\multicolumn{2}{c}{a\_b}"
    more = r"FID $\downarrow$", r"$^{a}$ lost \& gone.\par", r"\setcounter{table}{2}"
    for part in (*parts, *more):
        assert part in text
    if (latex := shutil.which("pdflatex")) is None:
        pytest.skip("no LaTeX here")
    packages = r"\usepackage{booktabs,graphicx}"
    whole = rf"\documentclass{{article}}{packages}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "t.tex").write_text(whole, encoding="utf-8")
    words = [latex, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "Overfull" not in ran.stdout


# A file is written whole or not at all


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
