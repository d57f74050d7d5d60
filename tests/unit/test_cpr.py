"""CPR: intervals, tests and agreement against published and hand-computed values."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest

from xfavot.errors import DataError
from xfavot.evaluation import cpr

pytest.importorskip("scipy")


def answer(evaluator: str, triplet: str, right: bool, **changes: Any) -> dict[str, Any]:
    fields = {"system": "xfavot", "task": "a2i", "sexes": "one sex", "first": right} | changes
    return {"evaluator": evaluator, "triplet": triplet, "right": right, **fields}


def test_wilson_and_the_exact_test_are_the_textbook_ones() -> None:
    found = cpr.binomial(8, 10)
    assert found["wilson_low"] == pytest.approx(0.4902, abs=1e-4)
    assert found["wilson_high"] == pytest.approx(0.9433, abs=1e-4)
    assert found["p"] == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert cpr.binomial(5, 10)["p"] == pytest.approx(1.0)


def test_holm_steps_down_and_never_below_an_earlier_one() -> None:
    assert cpr.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert cpr.holm([0.5, 0.9]) == [1.0, 1.0]
    assert cpr.holm([]) == []


def test_alpha_is_that_of_krippendorffs_worked_examples() -> None:
    a, b = "0100000010", "1110010000"  # two observers, two categories: alpha 0.095
    assert cpr.nominal_alpha(zip(a, b, strict=True)) == pytest.approx(0.095, abs=5e-4)
    four = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[x for x in unit if x != "."] for unit in zip(*four, strict=True)]
    assert cpr.nominal_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_knows_full_agreement_contradiction_and_nothing_to_compare() -> None:
    assert cpr.nominal_alpha([[True, True], [False, False]]) == 1.0
    assert cpr.nominal_alpha([[True, False]] * 4) == pytest.approx(-0.75)
    assert cpr.nominal_alpha([[True], [False]]) is None
    assert cpr.nominal_alpha([[True, True]]) is None


def test_bootstrap_is_wide_where_evaluators_differ_and_not_the_answers() -> None:
    grid = [(e, t) for e in range(6) for t in range(30)]
    # three always right, three never
    split = pd.DataFrame([answer(str(e), str(t), e < 3) for e, t in grid])
    low, high = cpr.bootstrap(split, seed=0)
    wilson = cpr.binomial(90, 180)
    assert low < 0.2 < wilson["wilson_low"]
    assert high > 0.8 > wilson["wilson_high"]
    mixed = pd.DataFrame([answer(str(e), str(t), (e + t) % 2 == 0) for e, t in grid])
    narrow = cpr.bootstrap(mixed, seed=0)
    assert 0.35 < narrow[0] < 0.5 < narrow[1] < 0.65
    assert cpr.bootstrap(mixed, seed=0) == narrow
    assert cpr.bootstrap(pd.DataFrame([answer("1", "1", True)]), seed=0) == (1.0, 1.0)


def test_rows_count_systems_tasks_and_sexes_apart() -> None:
    answers = [
        answer(str(e), f"{task}{t}", t != 0, task=task, sexes="one sex" if t % 2 else "both sexes")
        for e, task, t in itertools.product(range(3), ("a2i", "i2a"), range(4))
    ]
    answers.append(answer("3", "x", True, system="ground truth"))
    rows = cpr.cpr_rows(answers, dataset="mini", seed=4)
    found = {(r["system"], r["task"], r["metric"]): r for r in rows}
    whole = found["xfavot", "a2i", "CPR"]
    assert (whole["value"], whole["n"], whole["evaluators"], whole["triplets"]) == (0.75, 12, 3, 4)
    assert found["xfavot", "i2a", "CPR, two people of one sex"]["value"] == 1.0
    assert found["xfavot", "i2a", "CPR, a woman and a man"]["value"] == 0.5
    assert found["ground truth", "a2i", "CPR"]["n"] == 1
    assert ("ground truth", "a2i", "CPR, a woman and a man") not in found
    assert whole["alpha"] == 1.0
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] and r["p_holm"] >= r["p"] for r in rows)
    assert {(r["dataset"], r["seed"]) for r in rows} == {("mini", 4)}


def test_no_answer_and_an_answer_given_twice_are_refused() -> None:
    with pytest.raises(DataError, match="CPR of 0 answers"):
        cpr.cpr_rows([], dataset="mini", seed=0)
    with pytest.raises(DataError, match="1 of them given twice"):
        cpr.cpr_rows([answer("1", "t", True), answer("1", "t", False)], dataset="mini", seed=0)
