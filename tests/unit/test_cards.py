"""Dataset cards: complete, in step with the descriptions, and with the counts of a store."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.unit.store_factory import make_store
from xfavot.data.readers import READERS
from xfavot.data.report import all_cards, card, write_card

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_cards_are_those_of_the_descriptions() -> None:
    committed = (ROOT / "DATASETS.md").read_text(encoding="utf-8")
    assert committed == all_cards(), "run make cards"


def test_every_corpus_says_licence_consent_and_bias() -> None:
    for corpus in READERS:
        text = card(corpus)
        for heading in ("Content", "Licence", "How to get it", "Consent", "Bias and limits"):
            body = text.split(f"**{heading}.** ")[1].split("\n")[0]
            assert len(body) > 8, (corpus, heading)


def test_the_card_of_a_store_counts_what_is_in_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, corpus="grid", genders="ffm", clips=3, faces=2, seconds=2.0)
    text = write_card(store).read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["tags"] == ["face", "voice"]
    assert head["license_name"].startswith("CC BY 4.0")
    assert "| face and voice, female | 2 | 4 | 2 | 0 |" in text  # speakers, train, val, unseen
    assert "| face and voice, male | 1 | 2 | 1 | 0 |" in text
    assert "| speakers | 33 | 3 |" in text  # the paper's beside ours
    assert "faces: 18" in text
    assert "in 9 clips, median 2.00 s; 9 with a transcript" in text
    assert "## Left out\n\nNothing." in text
