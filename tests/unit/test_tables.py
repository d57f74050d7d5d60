"""The paper's tables: what is read, what stands beside what, what is missing and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import refuses
from xfavot import report
from xfavot.errors import DataError
from xfavot.parameters import Tables
from xfavot.report import tables
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
    assert "manifest" in cell(rows, system="Fragment-VC", metric=NISQA)["missing"]


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
