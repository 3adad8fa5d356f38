"""The mutation script makes every small slip in signs, operators, operands, comparisons, constants; nothing else."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(scope="module")
def mutants():
    spec = importlib.util.spec_from_file_location("mutants", SCRIPTS / "mutants.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    yield module.mutants
    del sys.modules["mutants"]


def changed(mutants, text: str) -> set[str]:
    return {m.apply(text) for m in mutants("file.py", text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = a + b\n", {"y = (a - b)\n"}),
        ("y = a - b\n", {"y = (a + b)\n", "y = (b - a)\n"}),
        ("y = a * b\n", {"y = (a / b)\n"}),
        ("y = a / b\n", {"y = (a * b)\n", "y = (b / a)\n"}),
        ("y = a ** b\n", {"y = (a * b)\n", "y = (b ** a)\n"}),
        ("y = -x\n", {"y = (x)\n"}),
        ("y = not x\n", {"y = (x)\n"}),
        ("y = a < b\n", {"y = (a >= b)\n"}),
        ("y = a == b\n", {"y = (a != b)\n"}),
        ("y = a and b\n", {"y = (a or b)\n"}),
        ("y = a if c else b\n", {"y = (b if c else a)\n"}),
        ("y = 3\n", {"y = 4\n"}),
        ("y = 0.5\n", {"y = 1.0\n"}),
        ("y = 0.0\n", {"y = 1.0\n"}),
        ("y = True\n", {"y = False\n"}),
        ("y += x\n", {"y -= x\n"}),
        ("y = (a + b) * c\n", {"y = (a - b) * c\n", "y = ((a + b) / c)\n"}),
        ("def f(x, n=2):\n    return x\n", {"def f(x, n=3):\n    return x\n"}),
        ("y = 'é' + b\n", {"y = ('é' - b)\n"}),
    ],
)
def test_each_slip_is_made_once(mutants, text, expected):
    assert {" ".join(one.split()) for one in changed(mutants, text)} == {" ".join(e.split()) for e in expected} or {
        ast.dump(ast.parse(one)) for one in changed(mutants, text)
    } == {ast.dump(ast.parse(e)) for e in expected}


@pytest.mark.parametrize(
    "text",
    [
        '"""Doc with 3 numbers."""\n',
        "from a import b\n",
        "X = Float[Tensor, 3]\n",
        "x: tuple[int, 3]\n",
        "def f(x: Literal[3]) -> Literal[4]: ...\n",
        "__all__ = ['a'] + ['b']\n",
        "raise ValueError('a' + 'b')\n",
        "@cache(3)\ndef f(): ...\n",
        "z = zip(a, b, strict=True)\n",
        "s = f'{x + 1}'\n",
    ],
)
def test_what_changes_no_behaviour_is_left_alone(mutants, text):
    assert changed(mutants, text) == set()


def test_mutants_of_the_package_are_valid_python_and_have_names_of_their_own(mutants):
    for path in (SCRIPTS.parent / "src" / "ornstein" / "diffusion").glob("*.py"):
        text = path.read_text()
        found = mutants(path.name, text)
        assert len({m.key for m in found}) == len(found)
        for mutant in found:
            ast.parse(mutant.apply(text))


def test_what_runs_at_import_is_told_from_what_a_call_runs(mutants):
    text = "a = 1\n\n\ndef f(b=2):\n    c = 3\n    return b\n"
    assert [m.at_import for m in mutants("file.py", text)] == [True, True, False]
