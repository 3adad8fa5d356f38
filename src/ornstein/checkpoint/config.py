"""Configurations as JSON and back: frozen dataclasses of plain values, nested as deep as wanted."""

import dataclasses
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def encode(value: Any) -> Any:
    """A configuration as JSON: dataclasses become objects with the key `$type`, tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"$type": name} | {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: encode(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"a configuration cannot hold {value!r} of type {type(value).__name__}; "
        "use numbers, strings, tuples, mappings by strings, or dataclasses of these"
    )


def decode(value: Any, expected: type | None = None) -> Any:
    """The configuration that `encode` wrote; lists become tuples.

    Only dataclasses of `ornstein`, `expected` itself and dataclasses beside it in its module are ever built.
    """
    if not (isinstance(value, dict) and "$type" in value):
        if expected is not None:
            raise ValueError(f"expected a configuration of {expected.__qualname__}, found {value!r}")
        return _items(value, {})
    name = str(value["$type"])
    homes = {} if expected is None else {name.partition(":")[0]: expected.__module__}
    return _dataclass(value, _find(name, homes) if expected is None else expected, homes)


def _items(value: Any, homes: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return tuple(_items(item, homes) for item in value)
    if not isinstance(value, dict):
        return value
    if "$type" in value:
        return _dataclass(value, _find(str(value["$type"]), homes), homes)
    return {key: _items(item, homes) for key, item in value.items()}


def _dataclass(value: Mapping[str, Any], kind: type, homes: Mapping[str, str]) -> Any:
    """A value of a dataclass from its fields, of which none may be unknown or needed and missing."""
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}
    given = {key: _items(item, homes) for key, item in value.items() if key != "$type"}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(
            f"configuration of {kind.__qualname__} has the unknown field {unknown[0]!r}; it knows {', '.join(known)}"
        )
    none = dataclasses.MISSING
    needed = [name for name, field in known.items() if field.default is none and field.default_factory is none]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"configuration of {kind.__qualname__} lacks the field {missing[0]!r}")
    return kind(**given)


def _find(name: str, homes: Mapping[str, str]) -> type:
    """The dataclass of this name; `homes` says under which name a user's own module is known in this process."""
    module, _, attribute = name.partition(":")
    if module in homes:
        home = sys.modules.get(homes[module])
    elif module.startswith("ornstein."):
        try:
            home = import_module(module)
        except ImportError:
            home = None
    else:
        raise ValueError(f"configuration names the type {name!r}; only dataclasses of ornstein are loaded from a file")
    kind = getattr(home, attribute, None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"configuration names {name!r}, which is no dataclass of this version of ornstein")
    return kind
