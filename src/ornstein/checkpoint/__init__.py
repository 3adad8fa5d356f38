"""Checkpoints: plain directories of JSON and safetensors, written whole or not at all, loaded strictly or not at all.

Nothing in a checkpoint is executable: tensors are safetensors, the rest is JSON, and a configuration can only name
dataclasses of this package or of the system that it is loaded for.
"""

from ornstein.checkpoint.config import decode, encode
from ornstein.checkpoint.files import read_json, read_tensors, replacing, write_json, write_tensors
from ornstein.checkpoint.store import FORMAT, Saved, best, locate, point, read, restore, rewind, steps, write

__all__ = [
    "FORMAT",
    "Saved",
    "best",
    "decode",
    "encode",
    "locate",
    "point",
    "read",
    "read_json",
    "read_tensors",
    "replacing",
    "restore",
    "rewind",
    "steps",
    "write",
    "write_json",
    "write_tensors",
]
