"""The house: rooms lie on floors, imports point down, no circle, no hall with too many doors. docs/rooms.md is the map."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ecg_batch"
MOST_MODULES = 20
# From the ground up: a room may use those on lower floors, and not its neighbours on the same floor.
FLOORS = (
    ("ecg_batch", "errors", "keys", "settings", "strict_yaml", "progress", "files", "sums", "pool", "leads", "statements")
    + ("rhythm_words", "bundled", "remote", "arrow", "zarr_layout"),
    ("kernels",),
    ("signal", "draws"),
    ("request", "models"),
    ("donors",),
    ("dataset",),
    ("reading", "synthesis"),
    ("export", "plot", "run"),
    ("evaluation", "report"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@cache
def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    names = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(part for part in name.parts if part != "__init__") or "ecg_batch": path for name, path in names.items()}


@cache
def imported(name: str) -> frozenset[str]:
    """The modules that a module imports, at its top, inside functions, or for types alone."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ecg_batch":
            parent = node.module.removeprefix("ecg_batch").removeprefix(".")
            for alias in node.names:
                inner = f"{parent}.{alias.name}".removeprefix(".")
                found.add(inner if inner in modules() else parent or "ecg_batch")
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("ecg_batch.") for alias in node.names if alias.name.startswith("ecg_batch.")}
    return frozenset(found & modules().keys())


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_room_has_its_floor():
    assert {room(name) for name in modules()} <= FLOOR.keys(), "a new room: give it a floor, here and in docs/rooms.md"


def test_no_import_points_up_or_to_a_neighbour():
    wrong = [
        f"{name} imports {other}"
        for name in modules()
        for other in imported(name)
        if room(name) != room(other) and FLOOR[room(other)] >= max(FLOOR[room(name)], 1)
    ]
    assert not wrong


def test_there_is_no_circle_of_imports():
    try:
        tuple(TopologicalSorter({name: imported(name) - {name} for name in modules()}).static_order())
    except CycleError as error:
        raise AssertionError(f"circle: {' <- '.join(error.args[1])}") from None


def test_no_room_is_a_hall():
    counts = {}
    for path in modules().values():
        counts[path.parent] = counts.get(path.parent, 0) + (path.name != "__init__.py")
    assert max(counts.values()) <= MOST_MODULES, {str(folder): count for folder, count in counts.items()}
