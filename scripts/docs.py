"""The reference, built from docstrings into build/docs: one Markdown page per room of the package and one per system.

Strict: a public name without docstring or annotations, a system without source, a dotted name in backticks that does
not exist, or a link of a hand-written page that leads nowhere ends the build. Files are parsed, not imported.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ornstein"
sys.path.insert(0, str(ROOT / "src"))

from ornstein import catalogue  # noqa: E402  (from this tree, not from an installed one)

REFERENCE = re.compile(r"`(ornstein(?:\.\w+)+)`")
LINK = re.compile(r"\]\(([^)#:]+)\)")


def main() -> int:
    """Build all pages; 1 and the list of what is wrong if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="directory of the pages")
    out = parser.parse_args().out
    trees = {name: ast.parse(path.read_text()) for name, path in sorted(modules().items())}
    pages = {f"reference/{room}.md": page for room, page in reference(trees).items()}
    pages |= {f"systems/{entry.name}.md": system_page(entry, trees) for entry in catalogue.entries().values()}
    pages |= {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
    pages["contents.md"] = contents(pages)
    wrong = [*faults(trees), *dangling(pages, trees)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if wrong:
        return 1
    for name, text in pages.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    print(f"{len(pages)} pages in {out}")
    return 0


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, or methods of a class, in the order of the text."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def reference(trees: dict[str, ast.Module]) -> dict[str, str]:
    """One page per room, a section per module."""
    pages: dict[str, list[str]] = {}
    for name, tree in trees.items():
        parts = name.split(".")
        if parts[1:2] == ["systems"] or len(parts) == 1:
            continue
        lines = pages.setdefault(parts[1], [f"# {parts[1]}", ""])
        lines += [f"## {name}", "", ast.get_docstring(tree) or "", ""]
        for node in public(tree):
            lines += described(node, 3)
    return {room: "\n".join(lines).rstrip() + "\n" for room, lines in pages.items()}


def described(node: ast.FunctionDef | ast.ClassDef, level: int) -> list[str]:
    """The signature and docstring of a function, or of a class, its fields and its methods."""
    lines = [
        f"{'#' * level} {node.name}",
        "",
        "```python",
        signature(node),
        "```",
        "",
        ast.get_docstring(node) or "",
        "",
    ]
    if isinstance(node, ast.ClassDef):
        for method in public(node):
            if ast.get_docstring(method):
                lines += described(method, level + 1)
    return lines


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """The head of a definition as it stands in the file, with the fields of a class."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"def {node.name}({ast.unparse(node.args)}){returns}"
    bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
    fields = [f"    {ast.unparse(field)}" for field in node.body if isinstance(field, ast.AnnAssign)]
    return "\n".join([f"class {node.name}{bases}:", *(fields or ["    ..."])])


def system_page(entry: catalogue.Entry, trees: dict[str, ast.Module]) -> str:
    """What a system is, how it is trained, its settings, its presets with the paper's numbers, and its source."""
    tree = trees[f"ornstein.systems.{entry.role}.{entry.name}"]
    source = entry.source
    lines = [f"# {entry.name}", "", ast.get_docstring(tree) or "", "", "## Train", "", "```sh"]
    lines += [f"ornstein train {entry.name} --data FILE --out runs/{entry.name} --task {entry.presets[0]}", "```", ""]
    lines += ["## Settings", "", "| option | default | meaning |", "|---|---|---|"]
    lines += [f"| `--{name.replace('_', '-')}` | `{value}` | {note} |" for name, value, note in settings(entry)]
    lines += ["", "## Tasks", "", "| preset | paper |", "|---|---|"]
    lines += [f"| {task} | {entry.targets.get(task, '')} |" for task in entry.presets]
    others = [f"| ({task}) | {value} |" for task, value in entry.targets.items() if task not in entry.presets]
    lines += [*others, "", "## Source", "", "```bibtex", source.bibtex(entry.name), "```"]
    return "\n".join(lines) + "\n"


def settings(entry: catalogue.Entry) -> Iterator[tuple[str, str, str]]:
    """Name, default and comment of each field of the configuration."""
    text = entry.path.read_text()
    config = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == "Config")
    for field in config.body:
        if isinstance(field, ast.AnnAssign) and field.value is not None:
            comment = text.splitlines()[(field.end_lineno or field.lineno) - 1][field.end_col_offset or 0 :]
            note = re.sub(r"^\s*#\s*(noqa:\s*\w+.*)?", "", comment).strip()
            yield ast.unparse(field.target), ast.unparse(field.value), note.replace("|", "\\|")


def contents(pages: dict[str, str]) -> str:
    """The list of all pages by their first heading."""
    titles = {
        name: next((x[2:] for x in text.splitlines() if x.startswith("# ")), name) for name, text in pages.items()
    }
    return "# Contents\n\n" + "\n".join(f"- [{titles[name]}]({name})" for name in sorted(pages)) + "\n"


def faults(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Public names without docstring, arguments without annotation, results without type."""
    for name, tree in trees.items():
        for node in public(tree):
            for item in (node, *(public(node) if isinstance(node, ast.ClassDef) else ())):
                stub = isinstance(item, ast.FunctionDef) and isinstance(item.body[-1], ast.Expr) and len(item.body) == 1
                if not ast.get_docstring(item) and not stub:
                    yield f"{name}:{item.lineno}: {item.name} has no docstring"
                if isinstance(item, ast.FunctionDef) and item.returns is None:
                    yield f"{name}:{item.lineno}: {item.name} does not say what it returns"


def dangling(pages: dict[str, str], trees: dict[str, ast.Module]) -> Iterator[str]:
    """Dotted names in backticks and links between pages that lead nowhere."""
    for page, text in pages.items():
        for name in REFERENCE.findall(text):
            if not exists(name, trees):
                yield f"{page}: `{name}` does not exist"
        for link in LINK.findall(text):
            here = (Path(page).parent / link).as_posix()
            if here not in pages and not (ROOT / "docs" / link).exists():
                yield f"{page}: the link {link} leads nowhere"


def exists(name: str, trees: dict[str, ast.Module]) -> bool:
    """Whether a dotted name is a module, or a definition or value of one."""
    if name in trees:
        return True
    home, _, attribute = name.rpartition(".")
    if home in trees:
        names = {n.name for n in ast.walk(trees[home]) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        names |= {n.id for n in ast.walk(trees[home]) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        names |= {a.asname or a.name for n in trees[home].body if isinstance(n, ast.ImportFrom) for a in n.names}
        strings = {n.value for n in ast.walk(trees[home]) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        return attribute in names or (home == "ornstein" and attribute in strings)
    outer, _, inner = home.rpartition(".")
    return bool(outer) and outer in trees and exists(home, trees) and bool(inner)


if __name__ == "__main__":
    sys.exit(main())
