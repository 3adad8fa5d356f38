"""One update of a learner, or of many seeds of it: gradients, optimiser steps, averages, and how they are run."""

from ornstein.update.capture import Captured, PerSeed, gather
from ornstein.update.descent import learning_rate
from ornstein.update.life import Diverged
from ornstein.update.seeds import OneByOne, Together
from ornstein.update.update import Mode, Update

__all__ = ["Captured", "Diverged", "Mode", "OneByOne", "PerSeed", "Together", "Update", "gather", "learning_rate"]
