"""The embedded corpus: drawn faces and synthesised voices."""

from __future__ import annotations
