"""Environments: by name, side by side, with normalised scores; mazes and toy tasks with known answers."""
