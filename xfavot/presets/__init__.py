"""Presets, configurations and datasets as YAML files."""
