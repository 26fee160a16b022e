"""What a run is told: frozen dataclasses filled from TOML and `key=value` overrides, and hashed."""

from enn_finetune.config.bench import BenchConfig, BenchFile, load_bench
from enn_finetune.config.contradictions import proxied, warnings
from enn_finetune.config.intended import IntendedConfig, IntendedFile, SpuriousTask, load_intended
from enn_finetune.config.reading import (
    ConfigError,
    PlainDict,
    PlainValue,
    build,
    differences,
    flatten,
    keys,
    load,
)
from enn_finetune.config.schema import Config
from enn_finetune.config.testbed import TestbedConfig, load_testbed

__all__ = [
    "BenchConfig",
    "BenchFile",
    "Config",
    "ConfigError",
    "IntendedConfig",
    "IntendedFile",
    "PlainDict",
    "PlainValue",
    "SpuriousTask",
    "TestbedConfig",
    "build",
    "differences",
    "flatten",
    "keys",
    "load",
    "load_bench",
    "load_intended",
    "load_testbed",
    "proxied",
    "warnings",
]
