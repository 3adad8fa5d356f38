"""Recorded data: episodes, the batches cut from them, normalisers, file formats, and recording from an environment."""
