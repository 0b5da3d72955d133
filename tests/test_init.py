import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tabmae


def test_every_public_name_is_found_and_listed() -> None:
    assert {*tabmae.__all__, "__version__"} <= set(dir(tabmae))
    for name in tabmae.__all__:
        assert getattr(tabmae, name).__name__ == name


def test_types_and_rooms_name_the_same() -> None:
    source = Path(tabmae.__file__).read_text()
    typed = {
        alias.name: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tabmae.")
        for alias in node.names
    }
    assert typed == tabmae._ROOMS
    assert sorted([*typed, "load"]) == sorted(tabmae.__all__)


def test_an_unknown_name_is_refused_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="module 'tabmae' has no attribute 'TabMAF'"):
        _ = tabmae.TabMAF


def test_the_change_log_begins_with_this_version() -> None:
    text = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    found = re.search(r"^## (\S+)", text, re.MULTILINE)
    assert found is not None
    assert found[1] == tabmae.__version__


def test_a_saved_model_loads_in_a_process_that_has_asked_for_nothing_else(tmp_path: Path) -> None:
    model = tabmae.TabMAE(max_epochs=1, experts=(), random_state=0).fit(
        [[1.0, 2.0], [2.0, None], [3.0, 1.0], [1.0, 0.0]]
    )
    model.save(tmp_path / "model")
    ask = "import sys, tabmae; print(tabmae.load(sys.argv[1]).n_features_in_)"
    found = subprocess.run(
        [sys.executable, "-c", ask, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "2"
