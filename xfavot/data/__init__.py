"""Corpora, prepared stores and batches."""
