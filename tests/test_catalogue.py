"""Systems are found by location, read without being imported, and resolved from names and files."""

import subprocess
import sys
from pathlib import Path

import pytest

from ornstein import catalogue

OWN = Path(__file__).parent / "own_system.py"


def test_every_system_of_the_package_can_be_read_and_cited():
    found = catalogue.entries()
    assert {"diffuser", "diffusion_ql", "synther", "td3_bc", "diffusion_cloning"} <= found.keys()
    assert found["diffuser"].role == "planners"
    assert found["diffusion_ql"].role == "policies"
    assert found["synther"].role == "synthesizers"
    for name, entry in found.items():
        assert entry.summary.endswith((".", ":")) or len(entry.summary) > 20, name
        assert entry.presets
        assert entry.source.year > 1980
        assert f"{{{name}," in entry.source.bibtex(name)


def test_what_is_read_as_literals_is_what_the_imported_system_says():
    for name, entry in catalogue.entries().items():
        system = catalogue.resolve(name)
        assert system.source == entry.source
        assert tuple(system.presets) == entry.presets
        assert dict(system.targets) == entry.targets
        assert system.name == name


def test_reading_the_catalogue_imports_neither_torch_nor_a_system():
    code = (
        "import sys; from ornstein import catalogue; catalogue.entries();"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('ornstein.systems.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(ValueError, match=r"unknown system 'difuser', did you mean diffuser"):
        catalogue.find("difuser")
    with pytest.raises(ValueError, match=r"unknown system 'zzzz'; `ornstein list`"):
        catalogue.resolve("zzzz")


def test_hyphens_in_names_are_understood():
    assert catalogue.find("diffusion-ql").name == "diffusion_ql"


def test_a_file_of_ones_own_is_read_and_resolved():
    entry = catalogue.find(str(OWN))
    assert (entry.name, entry.presets, entry.targets) == ("own_system", ("plain", "noisy"), {"plain": 12.5})
    assert entry.source.year == 1988
    system = catalogue.resolve(str(OWN))
    assert system.preset("noisy").jitter == 0.1


HEAD = "SOURCE = Source(title='a', authors='b', year=2000, venue='c')\nPRESETS = {'x': 1}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f(:\n", r"not valid Python"),
        ("x = 1\n", r"needs SOURCE"),
        ("SOURCE = Source('a', 'b', 2000, 'c')\n", r"keyword arguments"),
        ("SOURCE = Source(title=name, authors='b', year=2000, venue='c')\n", r"SOURCE must hold literals"),
        ("SOURCE = Source(title='a', author='b', year=2000, venue='c')\n", r"fields of Source"),
        ("SOURCE = Source(title='a', authors='b', year=2000, venue='c')\n", r"needs PRESETS"),
        (HEAD.replace("{'x': 1}", "{}"), r"needs PRESETS"),
        (HEAD.replace("'x'", "x"), r"needs PRESETS"),
        (HEAD + "TARGETS = {x: 1}\n", r"TARGETS must be a literal"),
    ],
)
def test_a_file_that_is_no_system_is_refused_with_the_reason(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as caught:
        catalogue.find(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD, r"cannot be imported, NameError"),
        ("Source = dict\n" + HEAD, r"defines no SYSTEM"),
        ("Source = dict\n" + HEAD + "SYSTEM = 3\n", r"defines no SYSTEM"),
        ("import nothing_of_that_name\n", r"cannot be imported, ModuleNotFoundError"),
    ],
)
def test_a_file_that_defines_no_system_is_refused(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        catalogue.resolve(str(path))
    assert "ornstein_user.mine" not in sys.modules or "SYSTEM" in told


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"\./nowhere\.py: no such file"):
        catalogue.resolve("./nowhere.py")
