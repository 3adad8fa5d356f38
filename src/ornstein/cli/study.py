"""`ornstein study NAME`: a claim of the field as an experiment, with its table and figure."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ornstein.catalogue import near
from ornstein.cli import Outcome
from ornstein.cli.options import Positional, parse

STUDIES = {
    "expressiveness": "which policies can hold many modes: Gaussian, mixtures, diffusion, flow",
    "noise_schedule": "schedules and steps of an online diffusion policy against state coverage and return",
}


@dataclass(frozen=True)
class Study:
    """Run a study and write its JSON, table and figure."""

    name: Positional[str]
    """expressiveness or noise_schedule"""
    out: Path = Path("studies")
    """directory of the files"""
    seeds: int = 3
    """how many, from 0 on; tables and figures show their means"""
    quick: bool = False
    """a few updates on small data, to see that it runs"""


def study(words: list[str]) -> Outcome:
    """What the study found."""
    options = parse(Study, words, command="study")
    if options.name not in STUDIES:
        raise ValueError(f"unknown study {options.name!r}{near(options.name, STUDIES)}; there are {', '.join(STUDIES)}")
    if options.seeds < 1:
        raise ValueError(f"--seeds {options.seeds}: give the number of seeds to take means over, at least 1")
    module = import_module(f"ornstein.studies.{options.name}")
    found = module.main(options.out, seeds=options.seeds, quick=options.quick)
    files = sorted(str(path) for path in options.out.glob(f"{options.name}.*"))
    return Outcome({**found, "files": files}, f"wrote {', '.join(files)}")
