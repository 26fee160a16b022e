"""Where a benchmark's figures come from: code, machine, versions. Shared by the scripts here."""

import os
import platform
from importlib import metadata
from pathlib import Path

from enn_finetune import records

PACKAGES = ("jax", "flax", "optax", "transformers", "torch", "numpy", "scikit-learn")


def provenance() -> dict[str, object]:
    """Commit, machine and the versions of what is installed, for the JSON line."""
    return {
        "commit": records.commit(),
        "machine": {
            "processor": _processor(),
            "cores": _cores(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()}
        | {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
