"""The documentation builds strictly, and every Python block of the hand-written pages runs."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_reference_builds_without_a_fault(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "denoise" in (tmp_path / "reference" / "diffusion.md").read_text()
    assert "weight of the Q term" in (tmp_path / "systems" / "diffusion_ql.md").read_text()


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Blocks of one page run one after the other in an empty directory, with every number of steps cut down."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORNSTEIN_CACHE", str(tmp_path / "cache"))
    code = "\n".join(BLOCK.findall(page.read_text()))
    short = re.sub(r"\b(steps)=\d[\d_]*", r"\1=2", code)
    module = types.ModuleType(page.stem)
    monkeypatch.setitem(sys.modules, page.stem, module)  # where dataclasses look for the names of their annotations
    exec(compile(short, str(page), "exec"), module.__dict__)
