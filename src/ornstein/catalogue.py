"""The systems by location: what they are, read as literals without an import, and the value behind a name or a file."""

import ast
import difflib
import sys
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

from ornstein.source import Source

SYSTEMS = Path(__file__).parent / "systems"
"""The folder of published systems, one folder per role that diffusion plays in them."""


@dataclass(frozen=True)
class Entry:
    """What `ornstein list` and `ornstein cite` say of a system; everything is a literal in its file."""

    name: str
    role: str
    path: Path
    summary: str
    source: Source
    presets: tuple[str, ...]
    targets: dict[str, str | float]


def entries(root: Path = SYSTEMS) -> dict[str, Entry]:
    """Every system under `root` by its name, ordered by role and name."""
    return {name: read(path) for name, path in paths(root).items()}


def paths(root: Path = SYSTEMS) -> dict[str, Path]:
    """The file of every system under `root` by its name, ordered by role and name."""
    return {path.stem: path for path in sorted(root.glob("*/*.py")) if not path.name.startswith("_")}


def read(path: Path) -> Entry:
    """The entry of one system's file; the file is parsed, never run."""
    tree = _parse(path)
    return Entry(
        name=path.stem,
        role=path.parent.name,
        path=path,
        summary=(ast.get_docstring(tree) or "").partition("\n")[0],
        source=_source(path, _assigned(tree, "SOURCE")),
        presets=_keys(path, _assigned(tree, "PRESETS")),
        targets=_targets(path, _assigned(tree, "TARGETS")),
    )


def find(name: str) -> Entry:
    """The entry of a published system, or of a user's own file if the name is a path; only that file is read."""
    if is_file(name):
        return read(_existing(name))
    known = paths()
    wanted = name.replace("-", "_")
    if wanted not in known:
        raise ValueError(
            f"unknown system {name!r}{near(wanted, known)}; `ornstein list` shows all, a file is given as ./{wanted}.py"
        )
    return read(known[wanted])


def resolve(name: str) -> Any:
    """The SYSTEM of a published system or of a user's own file (`./mine.py`), by importing it."""
    if not is_file(name):
        entry = find(name)
        return import_module(f"ornstein.systems.{entry.role}.{entry.name}").SYSTEM
    path = _existing(name)
    _parse(path)
    system = getattr(_run(path), "SYSTEM", None)
    if type(system).__name__ != "System":
        raise ValueError(f"{path}: defines no SYSTEM; end the file with SYSTEM = System(...)")
    return system


def is_file(name: str) -> bool:
    """Whether a system is named by its file rather than by its name."""
    return name.endswith(".py") or "/" in name


def near(name: str, known: Any) -> str:
    """The known names most like `name`, as the middle of an error message; empty if there are none."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f", did you mean {' or '.join(matches)}?" if matches else ""


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(
            f"{name}: no such file; give the path of a system's file, or a name that `ornstein list` shows"
        )
    return path


def _run(path: Path) -> ModuleType:
    """The module of a user's file, named `ornstein_user.<file>`, so that no file can take the place of a package."""
    name = f"ornstein_user.{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: not importable; a system is a Python file that ends in .py")
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path}: cannot be imported, {type(error).__name__}: {error}") from error
    return module


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: not valid Python ({error})") from error


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """The expression that a module assigns to `name` at top level."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return node.value
    return None


def _source(path: Path, node: ast.expr | None) -> Source:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError(
            f"{path}: needs SOURCE = Source(title=..., ...) with keyword arguments at top level, for citing"
        )
    try:
        return Source(**{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: SOURCE must hold literals only, with the fields of Source ({error})") from error


def _keys(path: Path, node: ast.expr | None) -> tuple[str, ...]:
    keys = node.keys if isinstance(node, ast.Dict) else [None]
    if not keys or not all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys):
        raise ValueError(f"{path}: needs PRESETS = {{'task': Config(...), ...}} with literal names at top level")
    return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))


def _targets(path: Path, node: ast.expr | None) -> dict[str, str | float]:
    if node is None:
        return {}
    try:
        return dict(ast.literal_eval(node))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: TARGETS must be a literal mapping of task to number ({error})") from error
