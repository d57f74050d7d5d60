"""The paper's tables: what is read, what stands beside what, how they are kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import subprocess
from collections import Counter
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
from xfavot.files import whole, whole_folder, write_whole
from xfavot.parameters import Tables
from xfavot.report import Provenance, tables
from xfavot.report.tables import Evaluations

FID, NISQA = tables.FID, tables.NISQA
Rows = list[dict[str, Any]]


def row(**changes: Any) -> dict[str, Any]:
    known = dict(system="xfavot", task="a2a", dataset="mini", metric=NISQA, value=3.25, n=140)
    return known | dict(seed=0, ci_low=None, ci_high=None, direction="", sex="") | changes


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def run(
    root: Path, rows: Rows, name: str = "r1", preset: str = "mini", at: int = 9, **changes: Any
) -> Path:
    folder = root / name
    file = folder / "evaluation" / "evaluation.csv"
    write(file, rows)
    os.utime(file, (at, at))
    config = {"name": name, "configuration": "xfavot", "preset": preset, "train": {}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    how = {"step": 3500, "conversions": 24} | changes
    file.with_suffix(".json").write_text(json.dumps(how), encoding="utf-8")
    return folder


def compared(item: str, root: Path, dataset: str = "mini") -> Rows:
    return tables.compared(item, tables.read(root, (dataset,)), dataset=dataset)


def cell(rows: Rows, **asked: str) -> dict[str, Any]:
    (found,) = [one for one in rows if all(one[name] == value for name, value in asked.items())]
    return found


def test_published_numbers_are_those_of_the_paper() -> None:
    published = {tuple(c.values())[:5]: c["value"] for c in tables.PUBLISHED}
    for *key, value in (
        ("table3", "fragment_vc", "a2a", "celebahq_vctk", NISQA, 3.00),
        ("table3", "adain_cvc", "i2a", "celebahq_vctk", tables.SPKSIM, None),
        ("table3", "ground_truth", "", "grid", tables.WER, 0.30),
        ("table4", "joint", "a2i", "grid", FID, 107.2),
        ("table4", "dual_no_xm", "a2i", "grid", tables.LPIPS, 0.036),
        ("table5", "joint_xm", "i2a", "grid", NISQA, 4.69),
    ):
        assert published[tuple(key)] == value
    counts = Counter(cell["table"] for cell in tables.PUBLISHED)
    assert [counts[f"table{n}"] for n in (2, 3, 4, 5)] == [24, 36, 18, 21]
    for one in tables.PUBLISHED:
        assert one["status"].startswith(("STATED", "INFERRED", "UNKNOWN", "not printed"))
        assert (one["value"] is None) == one["status"].startswith(("UNKNOWN", "not printed"))
        assert one["source"]
        if one["table"] == "table2" and one["value"]:
            assert (one["dataset"], one["status"][:8]) == ("grid", "INFERRED")


def test_without_runs_every_cell_is_there_with_its_reason() -> None:
    for item in tables.ITEMS:
        rows = tables.compared(item, Evaluations(), dataset="mini")
        assert rows
        assert all(one["value"] is None and one["missing"] for one in rows)
    rows = tables.compared("table3", Evaluations(), dataset="mini")
    found = cell(rows, system="XFaVoT", task="a2a", metric=NISQA)
    assert (found["published_grid"], found["published_celebahq_vctk"]) == (4.65, 4.56)
    assert "train.ipynb -p configuration xfavot" in found["missing"]
    assert "-p system fragment_vc" in cell(rows, system="Fragment-VC", metric=NISQA)["missing"]
    faces = tables.compared("table2", Evaluations(), dataset="mini")
    assert "-p system sgsim" in cell(faces, system="SGSIM", metric=FID)["missing"]


def test_measured_values_stand_beside_the_published(tmp_path: Path) -> None:
    rows = [
        row(system="r1", definition="", ci_low=3.0, ci_high=3.5),
        row(direction="female to male", value=9.0),
        row(metric="nisqa_tts", value=2.0),
        row(system="ground truth", task="sources", value=4.0, definition="as rated"),
        row(dataset="grid", value=1.0),
    ]
    run(tmp_path, rows)
    found = tables.read(tmp_path, ("mini",))
    assert (found.tier, len(found.rows)) == ("reduced", 4)
    rows = tables.compared("table3", found, dataset="mini")
    ours = cell(rows, system="XFaVoT", task="a2a", metric=NISQA)
    assert (ours["value"], ours["ci_low"], ours["n"]) == (3.25, 3.0, 140)
    assert ours["evaluation"].startswith("r1, step 3500, sha256 ")
    assert (ours["published_grid"], ours["missing"]) == (4.65, None)
    assert cell(rows, system="ground truth", metric=NISQA)["value"] == 4.0
    assert cell(rows, metric="nisqa_tts")["value"] == 2.0
    assert not [one for one in rows if one["value"] in (9.0, 1.0)]
    assert "definition" not in rows[0]
    apart = tables.compared(tables.EVERY, found, dataset="mini")
    assert [(one["value"], one["direction"]) for one in apart] == [(9.0, "female to male")]


def test_reasons_of_the_evaluation_come_first_and_name_no_folder(tmp_path: Path) -> None:
    folder = run(tmp_path, [row(metric="word_error", value=0.5)])
    said = (
        "weights nisqa are not in /home/me/.cache/xfavot/nisqa.tar (1 MB) or ~/w/nisqa.tar; "
        "expected them; fetch https://example.org/a/b.tar or see notebooks/evaluate.ipynb"
    )
    reasons = [
        {"system": "XFaVoT", "task": "a2a", "metric": NISQA, "reason": said},
        {"system": "xfavot", "task": "i2a", "metric": "all", "reason": "nobody has both"},
    ]
    for count, of_faces in ((1, "has no such row"), (2, "nobody has both")):
        write(folder / "evaluation" / "missing.csv", reasons[:count])
        rows = compared("table3", tmp_path)
        assert cell(rows, system="XFaVoT", task="a2a", metric=NISQA)["missing"] == (
            "weights nisqa are not in nisqa.tar (1 MB) or nisqa.tar; "
            "fetch https://example.org/a/b.tar or see notebooks/evaluate.ipynb"
        )
        assert of_faces in cell(rows, system="XFaVoT", task="i2a", metric=NISQA)["missing"]
    assert tables.public("a; b; run this, or pass that, or get ...") == "a; run this"


def test_reasons_of_another_dataset_count_for_nothing(tmp_path: Path) -> None:
    run(tmp_path, [row(dataset="grid")], preset="smoke")
    other = run(tmp_path, [row()], name="r2", dataset="mini")
    why = {"system": "xfavot", "task": "a2a", "metric": NISQA, "reason": "not here"}
    write(other / "evaluation" / "missing.csv", [why])
    found = tables.read(tmp_path, ("grid",))
    assert (found.tier, len(found.rows), found.missing) == ("smoke", 1, [])
    assert len(tables.read(tmp_path, ("mini",)).missing) == 1


def test_a_later_system_of_voices_leaves_the_real_faces_in(tmp_path: Path) -> None:
    faces = row(system="ground truth", task="faces", metric=FID, value=5.0)
    voices = row(system="ground truth", task="sources", value=4.0)
    run(tmp_path, [row(), faces, voices], name="r1", at=1)
    later = [row(system="adain_vc"), {**voices, "value": 4.5}]
    run(tmp_path, later, name="r2", at=2)
    rows = tables.read(tmp_path, ("mini",)).rows
    real = {one["task"]: one["value"] for one in rows if one["system"] == "ground_truth"}
    assert (real, len(rows)) == ({"faces": 5.0, "sources": 4.5}, 4)


def test_seeds_of_one_run_are_averaged(tmp_path: Path) -> None:
    """By people each, then over seeds; another budget, or an older one of a seed, is left out."""
    real = row(system="ground truth", task="sources", value=4.0)
    for name, seed, value, steps, at in (
        *(("a0_old", 0, 9.0, 2000, 1), ("a1", 1, 2.0, 2000, 2), ("a0", 0, 1.0, 2000, 3)),
        *(("a2", 2, 6.0, 2000, 4), ("b0", 0, 7.0, 500, 0)),
    ):
        both = [row(value=value, ci_low=value - 1, ci_high=value + 2), real]
        file = run(tmp_path, both, name=name, at=at) / "config.json"
        known = json.loads(file.read_text("utf-8")) | {"seed": seed, "train": {"steps": steps}}
        known |= {"pretrain": {"teacher": ""}} if seed else {}  # a setting that came later
        file.write_text(json.dumps(known), encoding="utf-8")
    found = tables.read(tmp_path, ("mini",))
    one, truth = found.rows
    assert (one["value"], one["ci_low"], one["ci_high"], one["n"]) == (3.0, 2.0, 5.0, 140)
    assert (one["seeds"], one["least"], one["most"]) == ("0, 1, 2", 1.0, 6.0)
    assert [part.split(",")[0] for part in one["evaluation"].split("; ")] == ["a0", "a1", "a2"]
    assert (truth["value"], "seeds" in truth) == (4.0, False)
    assert any("of b0: a later file" in line for line in found.left_out)
    rows = tables.compared("table3", found, dataset="mini")
    assert cell(rows, system="XFaVoT", task="a2a", metric=NISQA)["most"] == 6.0


def test_tiers_are_never_mixed_and_the_latest_counts(tmp_path: Path) -> None:
    run(tmp_path, [row(value=1.0)], name="old", at=1)
    run(tmp_path, [row(value=2.0)], name="new", at=2)
    run(tmp_path, [row(value=3.0)], name="test", preset="smoke", at=3)
    found = tables.read(tmp_path, ("mini",))
    assert [(one["value"], one["evaluation"][:4]) for one in found.rows] == [(2.0, "new,")]
    assert "xfavot in evaluation.csv of old: a later file has them" in found.left_out
    assert any("of test is of tier smoke" in one for one in found.left_out)
    # less than the paper's steps or counts is reduced
    for step, count, tier in (
        (19_999, 0, "reduced"),
        (20_000, 24, "reduced"),
        (20_000, 0, "paper"),
    ):
        run(tmp_path, [row()], name="whole", preset="paper", at=4, step=step, conversions=count)
        found = tables.read(tmp_path, ("mini",))
        assert (found.tier, [one["evaluation"][:6] for one in found.rows]) == (tier, ["whole,"])


def test_scores_of_any_system_are_read_and_preferences_apart(tmp_path: Path) -> None:
    preference = row(metric="automatic CPR, by x", task="i2a", value=0.5)
    rows = [row(system="AdaIN-VC"), row(system="mine", value=2.5), preference]
    write(tmp_path / "external" / "scores.csv", rows)
    rows = compared("table3", tmp_path)
    assert cell(rows, system="AdaIN-VC", metric=NISQA)["value"] == 3.25
    assert cell(rows, system="mine")["value"] == 2.5
    study = tables.read(tmp_path, ("mini",), study=True)
    rows = tables.compared("correspondence", study, dataset="mini")
    assert [one["value"] for one in rows if one["value"] is not None] == [0.5]
    assert "cpr_study" in cell(rows, system="XFaVoT", task="i2a", metric="CPR")["missing"]


def test_verification_stands_beside_other_work(tmp_path: Path) -> None:
    metric, of = "verification AUC, all pairs", {"task": "verification"}
    forth = row(**of, metric="R@1", value=0.25, direction="face to voice")
    back = row(**of, metric="R@1", value=0.5, direction="voice to face")
    folder = run(tmp_path, [row(**of, metric=metric, value=0.7), forth, back])
    rows = compared("verification", tmp_path)
    assert cell(rows, system="XFaVoT", metric=metric)["value"] == 0.7
    other = cell(rows, system="Vclip")
    assert (other["value"], other["published_voxceleb"]) == (None, 0.8963)
    assert [one["value"] for one in rows if one["metric"] == "R@1"] == [0.25, 0.5]
    for task, wanted in (("i2i", "no such row"), ("verification", "why")):
        told = {"system": "xfavot", "metric": "all", "reason": "why", "task": task}
        write(folder / "evaluation" / "missing.csv", [told])
        rows = compared("verification", tmp_path)
        assert wanted in cell(rows, system="XFaVoT", metric="R@5")["missing"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path, [row()])
    whole = (folder / "evaluation" / "evaluation.csv").read_text("utf-8")
    for file, text, message in (
        ("evaluation/evaluation.csv", whole[:-20], "cannot be read"),
        ("evaluation/evaluation.csv", f"{whole.splitlines()[0]}\n", "it has no row"),
        ("evaluation/evaluation.csv", whole + "a,b,c\n", "cannot be read"),
        ("evaluation/evaluation.csv", whole.replace("3.25", "nan"), "row 1: .*'value': 'nan'"),
        ("config.json", "{", "config.json is missing or damaged"),
        ("config.json", "[1]", "config.json is missing or damaged"),
        ("config.json", '{"train": false}', "config.json is damaged"),
        ("config.json", '{"seed": [0]}', "config.json is damaged"),
        ("evaluation/missing.csv", "system,metric,reason\nxfavot,,\n", "missing.csv cannot"),
    ):
        before = (folder / file).read_bytes() if (folder / file).exists() else b""
        (folder / file).write_text(text, "utf-8")
        refuses(DataError, message, tables.read, tmp_path, ("mini",))
        (folder / file).write_bytes(before)


def test_a_cell_without_value_is_written_only_with_its_reason(tmp_path: Path) -> None:
    cfg = Tables.resolve(dataset="grid", out=str(tmp_path))
    origin = report.collect(report.begin(), cfg.run, tier="reduced", stores=[], notebook="tables")
    assert origin["data"] == [report.NO_DATA]
    rows = tables.compared("table5", Evaluations(), dataset="grid")
    table = report.read_table(report.write_table("t", rows, provenance=origin, root=tmp_path))
    assert table.rows[0]["value"] is None
    assert table.rows[0]["published_grid"] == 4.62
    with pytest.raises(DataError, match="'value': None"):
        report.require_columns("here", {**rows[0], "missing": None})
    refuses(DataError, r"'value': 1\.0", report.require_columns, "here", {**rows[0], "value": 1.0})


# Tables and figures on disk: what is written and refused, nothing is half there


def origin(tier: str = "reduced") -> Provenance:
    """What is printed below a table."""
    device = {"cpu": "a processor", "threads": 1}
    made: Provenance = {"tier": tier, "git_revision": "a" * 40, "git_dirty": True, "device": device}
    return made | {"started_at": "2026-01-02T03:04:05+00:00"}


def entry(**changes: Any) -> dict[str, Any]:
    fields = dict(system="ours", task="a2i", dataset="mini", metric="fid", value=12.3456789012)
    return fields | dict(ci_low=None, ci_high=None, n=20, seed=0) | changes


def written(root: Path, *rows: dict[str, Any], tier: str = "reduced") -> Path:
    return report.write_table("t", rows, provenance=origin(tier), root=root, caption="Faces.")


def test_a_table_is_read_back_with_every_digit(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()  # as a workflow makes it
    rows = [
        entry(value=1 / 3, ci_low=np.float64(0.3), ci_high=0.4, note="a | b"),
        entry(system="peer", value=np.int64(5), n=np.int64(3), seed="0, 1", good=True),
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


SHORT = {k: v for k, v in entry().items() if k != "dataset"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([entry(), entry(value=math.nan)], "row 2: .*value is nan; expected finite numbers"),
        ([entry(), entry(value="12")], "row 2: .*'value': '12'"),
        ([entry(n=0)], "row 1: .*'n': 0"),
        ([entry(ci_low=1.0)], "row 1: .*'ci_low': 1.0, 'ci_high': None"),
        ([entry(ci_low=13.0, ci_high=14.0)], "row 1: .*inside both bounds"),
        ([SHORT], "row 1: dataset missing; expected all of"),
        ([], "t: no row"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    refuses(DataError, message, written, tmp_path, *rows)
    assert not list(tmp_path.iterdir())


def test_a_higher_tier_is_never_replaced_by_a_lower_one(tmp_path: Path) -> None:
    for tier, value in (("smoke", 1.0), ("reduced", 2.0), ("reduced", 3.0), ("paper", 4.0)):
        written(tmp_path, entry(value=value), tier=tier)
        assert report.read_table(tmp_path / "t").rows[0]["value"] == value
    with pytest.raises(DataError, match=r"tier 'paper', this one is of tier 'reduced'.*delete"):
        written(tmp_path, entry(value=5.0))
    assert report.read_table(tmp_path / "t").rows[0]["value"] == 4.0


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    written(tmp_path, entry(value=1.0))
    before = (tmp_path / "t" / "t.json").read_bytes()
    write, rename = Path.write_bytes, Path.rename

    def full(self: Path, content: bytes) -> int:
        if self.name == "t.json":
            raise OSError(28, "No space left on device")
        return write(self, content)

    def stuck(self: Path, target: Path) -> Path:
        if self.name == ".t.draft":  # the old one has made room
            raise OSError(5, "Input/output error")
        return rename(self, target)

    faults: Any = (("write_bytes", full, "No space"), ("rename", stuck, "Input"))
    for name, fault, message in faults:
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, fault)
            refuses(DataError, message, written, tmp_path, entry(value=2.0))
    assert (tmp_path / "t" / "t.json").read_bytes() == before
    assert report.read_table(tmp_path / "t").rows[0]["value"] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_edited_files_are_noticed(tmp_path: Path) -> None:
    folder = written(tmp_path, entry())
    text = (folder / "t.csv").read_text()
    (folder / "t.csv").write_text(text.replace("12.3", "11.3"))
    with pytest.raises(DataError, match=r"t\.csv is missing or not the file that was written"):
        report.read_table(folder)
    (folder / "t.json").write_text("{")
    refuses(DataError, r"t\.json is missing or damaged", written, tmp_path, entry())
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
    text = (written(tmp_path, entry(), tier="smoke") / "t.md").read_text()
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


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    with whole_folder(folder) as draft:
        (draft / "a").write_text("old")
    (tmp_path / ".table.before").mkdir()  # a killed process left it
    with pytest.raises(KeyError), whole_folder(folder, replace=True):
        raise KeyError
    with whole_folder(folder, replace=True) as draft:
        (draft / "b").write_text("new")
        refuses(OSError, "not empty", draft.rename, folder)
        assert [file.name for file in folder.iterdir()] == ["a"]
    assert [file.name for file in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_system_that_is_compared_and_ablated_stands_in_both_tables() -> None:
    whole = {"metric": "frechet, judge", "task": "i2i", "direction": "mean", "sex": ""}
    for system, items in (
        ("xfavot", ("table2", "table4")),
        ("joint_xm", ("table4",)),
        ("sgsim", ("table2",)),
        ("companion", ("table2",)),
    ):
        assert tables._items({"system": system, **whole}) == items
