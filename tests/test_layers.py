"""Imports point one way, some parts need no jax, and no file grows past 300 lines."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "enn_finetune"

LAYERS = [
    "types errors files compiling",
    "predictive joint decisions metrics config records checkpoint costs",
    "data models acquisition savings progress shares loader_state",
    "loader features encoding problem sklearn train fitting evaluating session asking online pool "
    "policies experiment scoring sittings predicting labelling",
    "study sharding testbed",
    "scan",
    "bench intended",
    "report demo",
    "cli",
    "__main__",
]
"""A part imports from its own line or from those above it."""

APART = {"data", "models", "acquisition"}
"""Parts of which none imports another."""

WITHOUT_JAX = {"data", "report", "savings", "loader", "loader_state", "shares", "config"}
HEAVY = {"jax", "jaxlib", "flax", "optax", "chex"}

RANK = {part: rank for rank, line in enumerate(LAYERS) for part in line.split()}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def part(module: str) -> str:
    """The part of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: no function bodies, nothing for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import(child)


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Modules that import statements name: ours in full, the others as written."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
    return found


ALL = {name: imported(ast.walk(tree)) for name, tree in TREES.items()}
EAGER = {name: imported(at_import(tree)) for name, tree in TREES.items()}


def test_every_part_has_its_layer():
    homeless = {part(name) for name in FILES if name != PACKAGE} - RANK.keys()
    assert not homeless, f"give these a place in LAYERS: {sorted(homeless)}"


def test_imports_point_one_way():
    upward = [
        f"{importer} imports {name}"
        for importer, names in ALL.items()
        for name in sorted(names)
        if name.startswith(PACKAGE + ".") and RANK.get(part(name), 0) > RANK.get(part(importer), 99)
    ]
    assert not upward, upward


def test_data_models_and_acquisition_do_not_import_one_another():
    across = [
        f"{importer} imports {name}"
        for importer, names in ALL.items()
        for name in sorted(names)
        if name.startswith(PACKAGE + ".")
        and {part(importer), part(name)} <= APART
        and part(importer) != part(name)
    ]
    assert not across, across


def test_no_modules_import_each_other_in_a_circle():
    ours = {name: names & FILES.keys() - {name} for name, names in EAGER.items()}
    graphlib.TopologicalSorter(ours).prepare()  # raises CycleError, which names the circle


def chain_to(packages: set[str], module: str, seen: set[str]) -> list[str]:
    """How importing a module comes to import a package: the modules on the way, or nothing."""
    seen.add(module)
    parents = {module[:end] for end, letter in enumerate(module) if letter == "."}
    for name in sorted(EAGER[module] | parents):
        if name.split(".")[0] in packages:
            return [module, name]
        if name in FILES and name not in seen and (rest := chain_to(packages, name, seen)):
            return [module, *rest]
    return []


def test_parts_that_need_no_jax_do_not_import_it():
    light = [name for name in FILES if part(name) in WITHOUT_JAX]
    chains = [chain for name in light if (chain := chain_to(HEAVY, name, set()))]
    assert not chains, [" imports ".join(chain) for chain in chains]


def test_a_scan_loads_no_tokenizers():
    """It has features: transformers would say on standard error that it finds no PyTorch."""
    names = [name for name in FILES if part(name) in {"scan", "sharding", "acquisition"}]
    chains = [chain for name in names if (chain := chain_to({"transformers"}, name, set()))]
    assert not chains, [" imports ".join(chain) for chain in chains]
    assert chain_to({"transformers"}, f"{PACKAGE}.problem", set()), "the test can fail"


def test_importing_them_leaves_jax_alone_indeed():
    """Other packages could bring it in, which the syntax does not show."""
    light = [name for name in FILES if part(name) in WITHOUT_JAX]
    program = f"import sys, {', '.join(light)}\nprint(*sorted({HEAVY} & sys.modules.keys()))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not found.stdout.split()


def test_no_file_of_the_package_passes_300_lines():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    long = {name: lines for name, lines in lengths.items() if lines > 300}
    assert not long, f"make each a package of the same name: {long}"
