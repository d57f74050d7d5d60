"""Cross-modal verification against scikit-learn, the bootstrap, retrieval by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from xfavot.errors import DataError
from xfavot.evaluation import rows as bootstrap
from xfavot.evaluation.matching import StyleSpace, cross_modal_rows, hits, pair_rows, roc_measures

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_area_is_that_of_scikit_learn(ties: bool, weighed: bool) -> None:
    rng = np.random.default_rng(0)
    same = rng.random(3000) < 0.1
    score = rng.normal(size=3000) + same
    score = np.round(score, 1) if ties else score
    weight = rng.integers(0, 4, 3000).astype(float) if weighed else None
    *_, (area, equal) = roc_measures(score, same, [] if weight is None else [weight])
    assert area == pytest.approx(
        metrics.roc_auc_score(same, score, sample_weight=weight), abs=1e-12
    )
    false, true, _ = metrics.roc_curve(same, score, sample_weight=weight, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    nearest = np.argmin(np.abs(grid - (1 - np.interp(grid, false, true))))
    assert equal == pytest.approx(grid[nearest], abs=2e-5)


def test_curve_by_hand() -> None:
    score, same = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    whole, nothing = roc_measures(score, same, [np.array([0.0, 1.0, 0.0, 1.0])])
    assert whole == (0.75, 0.5)
    assert np.isnan(nothing).all()
    assert roc_measures(np.zeros(4), same) == [(0.5, 0.5)]
    assert roc_measures(np.array([1.0, 0.0]), np.array([True, False])) == [(1.0, 0.0)]
    for bad, kinds in (([0.1, 0.2], [True] * 2), ([0.1, 0.2], [False] * 2), ([np.nan, 1], [1, 0])):
        with pytest.raises(DataError, match="pairs of one person"):
            roc_measures(np.array(bad), np.array(kinds, bool))


def test_recall_at_k_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.5, 0.1]] * 3)
    who = torch.tensor([0, 1, 2])
    for k, found in ((1, [True, False, False]), (2, [True, True, False]), (9, [True] * 3)):
        assert hits(similarity, who, k=k).tolist() == found
    allowed = torch.tensor([[True, True, True], [False, True, True], [True, False, True]])
    for k, found in ((1, [True, True, False]), (2, [True] * 3)):
        assert hits(similarity, who, allowed, k=k).tolist() == found
    assert hits(similarity.expand(4, -1, -1), who).shape == (4, 3)


def people_of(count: int, each: int) -> tuple[list[str], dict[str, str]]:
    """The names of so many samples of so many people, and their sex, in turn."""
    who = [f"p{number:02}" for number in range(count) for _ in range(each)]
    return who, {name: "fm"[int(name[1:]) % 2] for name in who}


def rows_of(faces: torch.Tensor, voices: torch.Tensor, people: int) -> list[dict[str, Any]]:
    """Rows of faces and of as many voices, each person's beside each other."""
    n = len(faces)
    styles = torch.nn.functional.normalize(torch.cat([faces, voices]).double(), dim=1).numpy()
    speaker = np.tile(np.repeat(np.arange(people), n // people), 2)
    kind, (_, gender) = np.repeat(["face", "voice"], n), people_of(people, 1)
    return cross_modal_rows(
        StyleSpace(styles, kind, speaker, [*gender], [*gender.values()]), seed=0
    )


def test_perfect_and_blind_vectors() -> None:
    rng = torch.Generator().manual_seed(0)
    centre = torch.randn(12, 32, generator=rng).repeat_interleave(3, 0)
    good = rows_of(centre, centre, 12)
    value = {(row["direction"], row["metric"]): row["value"] for row in good}
    assert value["", "verification AUC, all pairs"] == 1.0
    assert value["", "verification EER, pairs of one sex"] == 0.0
    assert value["face to voice", "R@1"] == value["voice to face", "R@5 within one sex"] == 1.0
    faces, voices = torch.randn(2, 36, 32, generator=rng)
    for row in rows_of(faces, voices, 12):
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["ci_low"] < row["chance"] + 0.15
        assert row["people"] == 12
    chance = {r["metric"]: r["chance"] for r in good if r["direction"] == "face to voice"}
    assert chance == pytest.approx(
        {"R@1": 1 / 12, "R@5": 5 / 12, "R@1 within one sex": 1 / 6, "R@5 within one sex": 5 / 6}
    )


def test_sex_alone_separates_all_pairs_but_none_of_one_sex() -> None:
    who, gender = people_of(8, 2)
    vector = torch.tensor([[1.0, 0.0] if gender[name] == "f" else [0.0, 1.0] for name in who])
    rows = rows_of(vector, vector, 8)
    value = {row["metric"]: row["value"] for row in rows}
    assert value["verification AUC, all pairs"] > 0.75
    assert value["verification AUC, pairs of one sex"] == 0.5


def test_without_genders_only_all_pairs_and_the_seed_decides_the_interval() -> None:
    score = np.eye(4) + 0.1 * np.arange(16).reshape(4, 4) / 16
    rows = pair_rows(score, list("abcd"), list("abcd"), {}, seed=0)
    names = [f"verification {name}, all pairs" for name in ("AUC", "EER")]
    assert [row["metric"] for row in rows] == names
    assert (rows[0]["value"], rows[0]["n"]) == (1.0, 16)
    score, (who, _) = np.random.default_rng(1).normal(size=(24, 24)), people_of(6, 4)
    low = [pair_rows(score, who, who, {}, seed=s)[0]["ci_low"] for s in (0, 0, 1)]
    assert low[0] == low[1] != low[2]


def test_styles_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="16 scores not finite"):
        rows_of(torch.full((4, 4), torch.nan), torch.zeros(4, 4), 2)


def test_interval_of_a_mean_covers_and_grows_with_likeness_inside_people() -> None:
    rng = np.random.default_rng(0)
    who, _ = people_of(20, 10)
    own = dict(zip(sorted(set(who)), rng.normal(size=20), strict=True))
    widths = []
    for values in ([own[name] for name in who], list(rng.normal(size=200))):  # alike, apart
        found: Any = bootstrap.ratio(
            [(x, 1.0, one) for x, one in zip(values, who, strict=True)], seed=0
        )
        assert found["ci_low"] < np.mean(values) < found["ci_high"]
        widths.append(found["ci_high"] - found["ci_low"])
    assert widths[0] > 2 * widths[1]
    assert bootstrap.ratio([(1, 2, "a"), (2, 8, "a")], seed=0)["ci_low"] is None
    assert bootstrap.ratio([(1, 2, "a"), (2, 8, "b")], seed=0)["value"] == 0.3


def test_people_are_drawn_with_replacement() -> None:
    drawn = bootstrap.draws_of(5, seed=0, draws=40)
    assert Counter(drawn.sum(axis=1)) == {5.0: 40}
    assert drawn.min() == 0 < 1 < drawn.max()
