"""Figures, widgets and progress for notebooks."""
