"""Experiments that anyone can repeat: `python -m recipes.<name>` trains, measures and writes `results/<name>.json`."""
