"""Training: what a run is, the only training loop, and how an interrupted run goes on exactly where it was."""

from ornstein.fit.ledger import digest
from ornstein.fit.loop import fit
from ornstein.fit.run import Run
from ornstein.update import Diverged, PerSeed

__all__ = ["Diverged", "PerSeed", "Run", "digest", "fit"]
