"""What a run is told: frozen dataclasses filled from TOML and `key=value` overrides, and hashed."""

from enn_finetune.config.bench import BenchConfig, BenchFile, load_bench
from enn_finetune.config.reading import (
    ConfigError,
    PlainDict,
    PlainValue,
    build,
    differences,
    keys,
    load,
)
from enn_finetune.config.schema import Config

__all__ = [
    "BenchConfig",
    "BenchFile",
    "Config",
    "ConfigError",
    "PlainDict",
    "PlainValue",
    "build",
    "differences",
    "keys",
    "load",
    "load_bench",
]
