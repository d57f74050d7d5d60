"""Tables 1 and 6 to 9: what training and the modules are, and how the printed tables differ."""

from __future__ import annotations

import pytest

from tests.unit.test_tables import cell
from xfavot.config import ModelConfig
from xfavot.losses.objective import TABLE_1
from xfavot.report import tables

TOTALS = {
    "G_I": 43_206_403,
    "G_A": 45_972_993,
    "E_I": 20_799_744,
    "E_A": 13_835_840,
    "D_I": 20_735_106,
    "D_A": 13_836_866,
    "C_A": 13_836_866,
    "M": 107_500_672,
}


def test_table_1_is_the_structure_that_drives_training() -> None:
    rows = tables.table_1()
    assert len(rows) == len(TABLE_1)
    for made, line in zip(rows, TABLE_1, strict=True):
        assert (made["system"], made["task"]) == (line.encoder, line.data)
        assert (made["L_xm"], made["heads"]) == ("yes" if line.xm else "no", ", ".join(line.heads))
    assert [one["status"] == "STATED" for one in rows].count(True) == 1


@pytest.mark.parametrize("item", tables.MODULES)
def test_parameters_of_the_layers_add_up(item: str) -> None:
    rows = tables.module_table(item, ModelConfig(speakers=0))
    for name in tables.MODULES[item]:
        own = [one for one in rows if one["system"] == name]
        assert sum(one["value"] for one in own[:-1]) == own[-1]["value"] == TOTALS[name]
        assert [one["task"] for one in own] == [
            *(f"layer {n}" for n in range(1, len(own))),
            "whole module",
        ]


def test_layers_say_how_the_printed_table_differs() -> None:
    model = ModelConfig(speakers=128)
    rows = tables.module_table("table7", model)
    differs = {one["task"]: one["published"] for one in rows[:-1] if one["published"] != "the same"}
    assert differs == {
        "layer 1": "Conv 1x1 (A21)",
        "layer 8": "",
        "layer 12": "not printed (A17)",
        "layer 17": "",
        "layer 18": "",
    }
    assert cell(rows, task="layer 11")["output"] == "640 x 5 x 48"
    eights = tables.module_table("table8", model)
    assert {one["published"] for one in eights if one.get("layer") == "ResBlk"} == {"with IN (A18)"}
    assert tables.modules(model)[-1]["value"] == 279_724_490
