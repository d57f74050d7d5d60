"""Fixtures shared by all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# no test checks addresses in notebooks, and its grammar takes seconds to load
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    """The folder of real samples beside the checkout; tests skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "corpus"
    if not folder.is_dir():
        pytest.skip("no folder of real samples beside the checkout")
    return folder
