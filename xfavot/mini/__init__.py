"""The embedded corpus: drawn faces and synthesised voices."""
