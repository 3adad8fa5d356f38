"""Freed memory stays with the process, unless the user has said otherwise."""

import os
import platform
import subprocess
import sys

import pytest

CHURN = """
import resource, sys
from ornstein.memory import keep_freed
said = keep_freed() if sys.argv[1] == "keep" else False
def churn():
    blocks = [bytearray(300_000) for _ in range(100)]
    for block in blocks:
        block[::4096] = b"x" * len(block[::4096])
for _ in range(3):
    churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    churn()
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def churn(word: str, **environment: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CHURN, word]
    done = subprocess.run(command, env=clean | environment, check=True, capture_output=True, text=True)
    said, faults = done.stdout.split()
    return said == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc lets a process keep the memory that it freed")
def test_freed_memory_is_taken_again_without_fetching_its_pages():
    said, kept = churn("keep")
    _, given_back = churn("leave")
    assert said
    assert kept < given_back / 5


def test_the_settings_of_the_user_stand():
    assert churn("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] is False
    assert churn("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] is False
