"""Every small slip that a Python file could hold: flipped signs, exchanged operators and operands, changed constants.

A mutant replaces one expression, found on the syntax tree; every line before it keeps its number. Left out: docstrings,
annotations and aliases of types, `__all__`, decorators, imports, f-strings, whole `raise` statements, `strict=` of zip.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.MatMult: ast.Mult,
}  # fmt: skip
SWAPPED = (ast.Sub, ast.Div, ast.Pow, ast.FloorDiv, ast.Mod, ast.MatMult)
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
TYPES = ("Float", "Int", "Bool", "Callable", "Mapping", "Sequence", "Literal", "dict", "list", "tuple", "type")


@dataclass(frozen=True)
class Mutant:
    """One change: its kind, its place (characters `start` to `end` become `new`), and the statement before and after.

    `lines`: those of the statement. `at_import`: it runs when the module is imported, not when a function is called.
    `rank` tells equal changes of equal statements apart.
    """

    file: str
    line: int
    lines: tuple[int, int]
    at_import: bool
    kind: str
    original: str
    mutated: str
    start: int
    end: int
    new: str
    rank: int = 0

    def apply(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.start] + self.new + text[self.end :]

    @property
    def key(self) -> str:
        """A name that stays when other lines of the file change."""
        told = (self.file, self.kind, self.original, self.mutated, str(self.rank))
        return hashlib.sha1("\n".join(told).encode()).hexdigest()[:16]

    def row(self) -> dict[str, Any]:
        """What a report says of it."""
        return {name: getattr(self, name) for name in ("file", "line", "kind", "original", "mutated")}


def mutants(file: str, text: str) -> list[Mutant]:
    """All mutants of a file, in the order of the text."""
    starts = _line_starts(text)
    found = []
    for node, place in _live(ast.parse(text)):
        begin, finish = _span(node, starts, text)
        head, tail = starts[place.first], starts[place.last + 1]
        for kind, changed in _changes(node):
            new = ast.unparse(ast.fix_missing_locations(changed))
            new = new if isinstance(node, ast.stmt | ast.Constant) else f"({new})"
            before = " ".join(text[head:tail].split())
            after = " ".join((text[head:begin] + new + text[finish:tail]).split())
            lines, at_import = (place.first, place.last), not place.called
            found.append(Mutant(file, node.lineno, lines, at_import, kind, before, after, begin, finish, new))
    return _ranked(sorted(found, key=lambda m: (m.start, m.end, m.new)))


def _ranked(found: list[Mutant]) -> list[Mutant]:
    """The mutants with equal changes of equal statements numbered."""
    seen: dict[tuple[str, str, str], int] = {}
    ranked = []
    for mutant in found:
        told = (mutant.kind, mutant.original, mutant.mutated)
        seen[told] = seen.get(told, -1) + 1
        ranked.append(replace(mutant, rank=seen[told]))
    return ranked


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The kind and the changed copy of a node, for each change of it."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "operator", ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, SWAPPED):
            yield "operands", ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield "operator", ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield "sign" if isinstance(node.op, ast.USub) else "negation", node.operand
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            others = [*node.ops[:i], COMPARISONS[type(operator)](), *node.ops[i + 1 :]]
            yield "comparison", ast.Compare(node.left, others, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "logic", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.IfExp):
        yield "condition", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant) and (value := _other(node.value)) is not None:
        yield "constant", ast.Constant(value)


def _other(value: object) -> object:
    """Another value: the opposite truth, the next integer, twice the number."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return (2.0 * value if value else 1.0) if isinstance(value, float) else None


class _Place(NamedTuple):
    """The lines of the statement that an expression belongs to, and whether a call runs it."""

    first: int
    last: int
    called: bool


def _live(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.AugAssign, _Place]]:
    """The expressions whose change would change behaviour, each with the place of its statement."""
    todo: list[tuple[ast.AST, _Place]] = [(child, _Place(0, 0, False)) for child in tree.body]
    while todo:
        node, place = todo.pop()
        if _is_dead(node):
            continue
        if isinstance(node, ast.stmt):
            place = _Place(node.lineno, _header_end(node), place.called)
        if isinstance(node, ast.expr | ast.AugAssign):
            yield node, place
        inside = place._replace(called=True) if isinstance(node, ast.FunctionDef) else place
        todo += [(child, inside if isinstance(child, ast.stmt) else place) for child in _children(node)]


def _header_end(node: ast.stmt) -> int:
    """The last line of a statement, or of its head if it holds a block."""
    body = getattr(node, "body", None)
    end = node.end_lineno or node.lineno
    return max(node.lineno, body[0].lineno - 1) if isinstance(body, list) and body else end


def _is_dead(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if isinstance(node, ast.Assign):
        alias = isinstance(node.value, ast.Subscript) and getattr(node.value.value, "id", "") in TYPES
        return alias or any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _children(node: ast.AST) -> list[ast.AST]:
    """The parts of a node without annotations and decorators."""
    if isinstance(node, ast.FunctionDef):
        return [*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.body]
    if isinstance(node, ast.ClassDef):
        return list(node.body)
    if isinstance(node, ast.AnnAssign):
        return [node.value] if node.value else []
    return list(ast.iter_child_nodes(node))


def _line_starts(text: str) -> dict[int, int]:
    """The character at which each line (from 1) begins, and one past the end."""
    starts, total = {}, 0
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        starts[number] = total
        total += len(line)
    return starts | {len(lines) + 1: total}


def _span(node: ast.expr | ast.AugAssign, starts: dict[int, int], text: str) -> tuple[int, int]:
    """The characters from which and up to which a node stands; columns of the tree count bytes."""

    def place(line: int, column: int) -> int:
        return starts[line] + len(text[starts[line] : starts[line + 1]].encode()[:column].decode())

    return place(node.lineno, node.col_offset), place(node.end_lineno or 0, node.end_col_offset or 0)
