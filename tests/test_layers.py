"""The floors of the house: imports point down, from rooms that are listed here, to packages that are declared."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = (
    (
        *(
            "errors",
            "folders",
            "masks",
            "losses",
            "backbones",
            "optimizer",
            "deadline",
            "schedule",
            "threads",
            "generators",
            "sentinels",
            "schema",
            "windows",
            "stacking",
            "calibration",
            "missingness",
            "metrics",
            "pooling",
        ),
        *(
            "experts",
            "experts.boosting",
            "experts.bridges",
            "experts.candidates",
            "experts.clusters",
            "experts.conditionals",
            "experts.copies",
            "experts.direct",
            "experts.em",
            "experts.gaussian",
            "experts.interpolation",
            "experts.linear",
        ),
        *("experts.neighbours", "experts.seasonal", "experts.stationary", "experts.structural", "experts.trees"),
    ),
    ("tokenizers",),
    ("model", "series_model"),
    ("held_out", "saving"),
    ("training", "estimators.validation"),
    (
        *(
            "estimators",
            "estimators.base",
            "estimators.clocks",
            "estimators.copying",
            "estimators.growing",
            "estimators.members",
            "estimators.parameters",
            "estimators.row_weights",
        ),
        *("estimators.tabular", "estimators.learner"),
    ),
    ("estimators.table", "estimators.series", "estimators.detector", "estimators.supervised"),
    ("evaluation", "tuning", "plotting", "report", "scale"),
    ("__init__", "demo"),
    ("cli",),
    ("__main__",),
)
"""Rooms by floor, lowest first. `__init__` is the shop window, and the command line a customer that asks there."""

HALLS = ("experts", "estimators")
"""Folders of rooms; every other folder is one room, whose files may import each other."""

SIDEWAYS = {
    ("schema", "sentinels"),
    ("windows", "sentinels"),
    ("windows", "schema"),
    ("missingness", "schema"),
    ("experts.boosting", "experts.trees"),
    ("experts.boosting", "threads"),
    ("experts.copies", "experts.candidates"),
    ("experts.copies", "threads"),
    ("experts.trees", "threads"),
    ("experts.em", "experts.conditionals"),
    ("experts.gaussian", "experts.conditionals"),
    ("experts.gaussian", "experts.em"),
    ("experts.direct", "experts.boosting"),
    ("experts.direct", "experts.trees"),
    ("estimators.base", "estimators.clocks"),
    ("estimators.base", "estimators.copying"),
    ("estimators.base", "estimators.growing"),
    ("estimators.base", "estimators.members"),
    ("estimators.copying", "estimators.growing"),
    ("estimators.copying", "estimators.members"),
    ("estimators.growing", "estimators.members"),
    ("estimators.base", "estimators.parameters"),
    ("estimators.learner", "estimators.base"),
    ("estimators.learner", "estimators.copying"),
    ("estimators.learner", "estimators.members"),
    ("estimators.learner", "estimators.parameters"),
    ("estimators.learner", "estimators.row_weights"),
    ("estimators.learner", "estimators.tabular"),
    ("estimators.tabular", "estimators.parameters"),
    ("report", "plotting"),
}
"""Imports within a floor: (from, to). Besides, every room may import `errors`."""

RESERVED = {
    "click": ("cli",),
    "jinja2": ("report",),
    "matplotlib": ("plotting", "demo"),
    "optuna": ("tuning",),
    "polars": (),
}
"""Packages that only these rooms import, in functions too where the package may be absent."""

MODULE_NAMES = {"scikit-learn": "sklearn"}


def room_of(module: str) -> str | None:
    """Give the room of a module of the package, by its dotted name without `tabmae.`; None where none is listed."""
    rooms = {room for floor in FLOORS for room in floor}
    parts = module.split(".")
    name = ".".join(parts[: 2 if parts[0] in HALLS else 1])
    return name if name in rooms else None


def floor_of(room: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if room in floor)


def declared_packages() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]}
    return {MODULE_NAMES.get(name, name) for name in names}


def imported(node: ast.AST) -> list[str]:
    """Give the dotted names that an import statement may load, with the names that it takes from a module."""
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {statement for block in blocks for statement in block.body}


def violations(path: str, source: str) -> Iterator[str]:
    """Tell what is wrong with the imports of the file at `path`, relative to the package."""
    room = room_of(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    if room is None:
        yield f"{path} has no floor"
        return
    tree = ast.parse(source)
    top = {*tree.body, *(for_types_only(tree) if room == "__init__" else ())}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{path} has a relative import"
            continue
        for name in imported(node):
            package = name.split(".")[0]
            if node not in top and room not in RESERVED.get(package, ()):
                yield f"{path} imports {name} below the top of the file"
            if package == "tabmae":
                yield from wrong_direction(path, room, name)
            elif package in RESERVED:
                if room not in RESERVED[package]:
                    yield f"{path} imports {package}, reserved for {RESERVED[package]}"
            elif package not in sys.stdlib_module_names | declared_packages():
                yield f"{path} imports {package}, which is not declared"


def wrong_direction(path: str, room: str, name: str) -> Iterator[str]:
    inner = name.split(".")[1:]
    candidates = [".".join(inner), ".".join(inner[:-1])]
    target = next((found for found in map(room_of, filter(None, candidates)) if found), None)
    if target is None and len(inner) <= 1:
        target = "__init__"
    if target is None or target in HALLS:
        yield f"{path} imports {name}, which has no floor"
    elif target not in (room, "errors") and (room, target) not in SIDEWAYS:
        if floor_of(target) > floor_of(room):
            yield f"{path} imports {target} upwards"
        elif floor_of(target) == floor_of(room):
            yield f"{path} imports {target} sideways"


FILES = sorted(path.relative_to(ROOT / "tabmae").as_posix() for path in (ROOT / "tabmae").rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_imports_point_down(path: str) -> None:
    assert list(violations(path, (ROOT / "tabmae" / path).read_text())) == []


def test_no_room_stands_on_two_floors() -> None:
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert {room for pair in SIDEWAYS for room in pair} <= set(rooms)
    assert all(floor_of(one) == floor_of(other) for one, other in SIDEWAYS)


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("masks.py", "from tabmae.model import MaskedAutoencoder", "masks.py imports model upwards"),
        ("masks.py", "import tabmae.model", "masks.py imports model upwards"),
        ("masks.py", "from tabmae import model", "masks.py imports model upwards"),
        ("masks.py", "from tabmae import TabMAE", "masks.py imports __init__ upwards"),
        ("masks.py", "import tabmae", "masks.py imports __init__ upwards"),
        ("masks.py", "from tabmae.losses import squared", "masks.py imports losses sideways"),
        ("schema/column.py", "from tabmae.missingness import ampute", "schema/column.py imports missingness sideways"),
        (
            "experts/trees.py",
            "from tabmae.experts.gaussian import Gaussian",
            "experts/trees.py imports experts.gaussian sideways",
        ),
        (
            "estimators/series.py",
            "from tabmae.estimators import table",
            "estimators/series.py imports estimators.table sideways",
        ),
        (
            "estimators/parameters.py",
            "from tabmae.estimators import base",
            "estimators/parameters.py imports estimators.base sideways",
        ),
        (
            "estimators/__init__.py",
            "from tabmae.estimators.table import TabMAE",
            "estimators/__init__.py imports estimators.table upwards",
        ),
        ("demo.py", "from tabmae import TabMAE", "demo.py imports __init__ sideways"),
        ("masks.py", "from .errors import listed", "masks.py has a relative import"),
        ("masks.py", "from . import errors", "masks.py has a relative import"),
        ("masks.py", "def f():\n    import math", "masks.py imports math below the top of the file"),
        (
            "masks.py",
            "try:\n    import math\nexcept ImportError:\n    pass",
            "masks.py imports math below the top of the file",
        ),
        (
            "masks.py",
            "if TYPE_CHECKING:\n    from tabmae.errors import listed",
            "masks.py imports tabmae.errors.listed below the top of the file",
        ),
        ("training.py", "import optuna", "training.py imports optuna, reserved for ('tuning',)"),
        ("demo.py", "import seaborn", "demo.py imports seaborn, which is not declared"),
        ("masks.py", "import benchmarks.cells", "masks.py imports benchmarks, which is not declared"),
        ("masks.py", "from tabmae.utils.shapes import f", "masks.py imports tabmae.utils.shapes.f, which has no floor"),
        (
            "masks.py",
            "from tabmae.experts.forest import f",
            "masks.py imports tabmae.experts.forest.f, which has no floor",
        ),
        ("utils.py", "", "utils.py has no floor"),
        ("experts/forest.py", "", "experts/forest.py has no floor"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str, message: str) -> None:
    assert list(violations(path, source)) == [message]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("masks.py", "import math\nimport torch.nn.functional as F\nfrom sklearn.base import clone"),
        ("masks.py", "from tabmae.errors import listed"),
        ("schema/__init__.py", "from tabmae.schema.column import Column\nfrom tabmae.schema import column"),
        (
            "model.py",
            "from tabmae import masks\nfrom tabmae.experts import gaussian\nfrom tabmae.tokenizers.cells import Guess",
        ),
        ("estimators/table.py", "from tabmae.estimators import base"),
        ("estimators/table/encoder.py", "from tabmae.estimators.table.imputer import TabMAE"),
        ("estimators/base.py", "from tabmae.estimators.parameters import check_parameters"),
        ("tuning.py", "def tune():\n    import optuna"),
        (
            "__init__.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tabmae.evaluation import evaluate",
        ),
    ],
)
def test_a_right_import_passes(path: str, source: str) -> None:
    assert list(violations(path, source)) == []


def loaded_after(statement: str) -> set[str]:
    """Give the top-level packages that a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


def test_the_shop_window_loads_nothing_but_the_standard_library() -> None:
    assert loaded_after("import tabmae") & {"numpy", "pandas", "sklearn", "torch", *RESERVED} == set()


def test_no_room_of_the_estimators_loads_a_reserved_package() -> None:
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in FILES]
    rooms = {room for room in map(room_of, modules) if room and floor_of(room) < floor_of("evaluation")}
    assert rooms >= {"masks", "schema", "estimators.table"}
    assert loaded_after("\n".join(f"import tabmae.{room}" for room in sorted(rooms))) & set(RESERVED) == set()
