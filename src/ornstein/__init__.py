"""Ornstein: diffusion models that plan, act and imagine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ornstein.data.episodes import Episodes
    from ornstein.fit import Run
    from ornstein.source import Source
    from ornstein.system import System, load
    from ornstein.types import Spaces

__version__ = "0.1.0"

_HOMES = {
    "load": "ornstein.system",
    "System": "ornstein.system",
    "Run": "ornstein.fit",
    "Episodes": "ornstein.data.episodes",
    "Spaces": "ornstein.types",
    "Source": "ornstein.source",
}
__all__ = ["Episodes", "Run", "Source", "Spaces", "System", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import ornstein` stays quick and loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ornstein' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}")
    return getattr(import_module(_HOMES[name]), name)
