"""Published numbers are the paper's, and what is lost or inferred says so."""

from __future__ import annotations

import pytest

from xfavot.evaluation.voices import NISQA
from xfavot.report import tables
from xfavot.report.tables import PUBLISHED


def test_published_numbers_are_those_of_the_paper() -> None:
    def value(*key: str) -> float | None:
        (found,) = [c for c in PUBLISHED if (c.table, c.system, c.task, c.dataset, c.metric) == key]
        return found.value

    assert value("table3", "fragment_vc", "a2a", "celebahq_vctk", NISQA) == 3.00
    assert value("table3", "adain_cvc", "i2a", "celebahq_vctk", tables.SPKSIM) is None
    assert value("table3", "ground_truth", "", "grid", tables.WER) == 0.30
    assert value("table4", "joint", "a2i", "grid", tables.FID) == 107.2
    assert value("table4", "dual_no_xm", "a2i", "grid", tables.LPIPS) == 0.036
    assert value("table5", "joint_xm", "i2a", "grid", NISQA) == 4.69
    assert [len(tables.of(f"table{n}")) for n in (2, 3, 4, 5)] == [24, 36, 18, 21]


def test_lost_numbers_say_so_and_inferred_ones_too() -> None:
    for one in PUBLISHED:
        assert one.status
        assert one.status.startswith(("STATED", "INFERRED", "UNKNOWN", "not printed"))
        assert (one.value is None) == one.status.startswith(("UNKNOWN", "not printed"))
    table2 = tables.of("table2")
    assert {one.dataset for one in table2 if one.value is not None} == {"grid"}
    assert all(one.status.startswith("INFERRED") for one in table2 if one.value is not None)
    assert not [one for one in tables.of("correspondence") if one.value is not None]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("AdaIN-VC", "adain_vc"),
        ("adain_vc", "adain_vc"),
        ("Ground truth", "ground_truth"),
        ("XFaVoT", "xfavot"),
        ("another", "another"),
    ],
)
def test_systems_are_known_by_either_name(name: str, key: str) -> None:
    assert tables.key_of(name) == key
