"""What this machine has and lacks for Ornstein: versions, devices, thread counts, and how to install the rest."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

from ornstein import __version__

REQUIRED = ("torch", "numpy", "safetensors", "jaxtyping", "tyro", "rich", "h5py")
EXTRAS = {
    "envs": ("gymnasium", "gymnasium-robotics", "mujoco"),
    "view": ("matplotlib", "pillow"),
    "minari": ("minari",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "dev": ("pytest", "pytest-xdist", "beartype", "scipy", "diffusers", "ruff", "pyright"),
}
"""The optional groups of packages of pyproject.toml and what each brings."""


def diagnose() -> dict[str, Any]:
    """Versions, devices, threads, what is missing and how to install it; `ok`: all that is required is there."""
    versions = {name: version(name) for name in (*REQUIRED, *(name for group in EXTRAS.values() for name in group))}
    lacking = [name for name in REQUIRED if versions[name] is None]
    return {
        "ok": not lacking,
        "ornstein": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": versions,
        "missing": _missing(versions, lacking),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        "torch": _torch() if versions["torch"] else None,
    }


def version(name: str) -> str | None:
    """The installed version of a distribution, None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _missing(versions: dict[str, str | None], lacking: list[str]) -> list[dict[str, str]]:
    """The packages that are not installed, each with what needs it and the command that installs it."""
    missing = [{"package": name, "for": "everything", "install": "pip install ornstein"} for name in lacking]
    for extra, names in EXTRAS.items():
        command = f"pip install 'ornstein[{extra}]'"
        missing += [{"package": n, "for": extra, "install": command} for n in names if versions[n] is None]
    return missing


def _torch() -> dict[str, Any]:
    """What torch sees: devices with their memory, threads, and the compiler that `--mode compiled` would use."""
    import shutil

    import torch

    devices = [{"name": "cpu", "model": platform.processor() or platform.machine()}]
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        devices.append({"name": f"cuda:{i}", "model": f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "model": "Apple GPU"})
    return {
        "cuda": torch.version.cuda,
        "devices": devices,
        "threads": torch.get_num_threads(),
        "compiler": next(
            (name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None
        ),
    }


def report(found: dict[str, Any]) -> str:
    """The diagnosis as text for a terminal."""
    lines = [
        f"ornstein {found['ornstein']}, Python {found['python']} at {found['executable']}",
        f"{found['platform']}, {found['cores']} cores",
        *(f"  {name:20} {number or 'missing'}" for name, number in found["packages"].items()),
    ]
    if torch := found["torch"]:
        lines += [f"device {device['name']}: {device['model']}" for device in torch["devices"]]
        lines.append(
            f"torch uses {torch['threads']} threads" + "".join(f", {k}={v}" for k, v in found["threads"].items() if v)
        )
        lines.append(f"compiler for --mode compiled: {torch['compiler'] or 'none found; install g++ or clang++'}")
    commands = {item["install"]: item["for"] for item in found["missing"]}
    lines += [f"to install what {why} needs: {command}" for command, why in commands.items()] or ["nothing is missing"]
    return "\n".join(lines)
