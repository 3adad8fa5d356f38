"""What every system keeps to, checked: `ornstein check`, on a published system or on a user's own.

Everything runs on a handful of generated episodes and a configuration whose sizes are cut down, in seconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ornstein.contract import acting, compiling, learning, storing
from ornstein.contract.case import Broken, prepare
from ornstein.system import System
from ornstein.types import Spaces

__all__ = ["Result", "check"]


@dataclass(frozen=True)
class Result:
    """The outcome of one check, and where it failed, what was found."""

    name: str
    passed: bool
    detail: str = ""


def check(system: System, config: Any = None, *, spaces: Spaces | None = None, quick: bool = True) -> Iterator[Result]:
    """The outcome of each contract check of a system, one after the other, whatever fails.

    `config`: a preset, by default the first. `spaces`: the sizes of the generated task. Without `quick` every loss with
    its gradient and every act are also traced, which takes longer.
    """
    case = prepare(system, config, spaces)
    checks = learning.DECLARED
    if not isinstance(case.trained, Exception):
        checks = checks | learning.TRAINED | storing.CHECKS | acting.checks(case.trained)
        checks = checks if quick else checks | compiling.checks(case.trained)
    yield _outcome("trains on a few episodes", lambda: case.learner)
    for name, examine in checks.items() if case.stages else ():
        yield _outcome(name, lambda examine=examine: examine(case))


def _outcome(name: str, work: Callable[[], object]) -> Result:
    """Whether some work gets through; whatever a system's own code raises is an outcome too."""
    try:
        work()
    except Broken as broken:
        return Result(name, False, str(broken))
    except Exception as error:
        text = " ".join(str(error).split())
        return Result(name, False, f"{type(error).__name__}: {text[:500]}")
    return Result(name, True)
