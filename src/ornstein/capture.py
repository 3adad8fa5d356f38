"""Another name of `ornstein.update.capture`."""

from ornstein.update.capture import Captured, gather

__all__ = ["Captured", "gather"]
