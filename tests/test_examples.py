"""Every example is short, runs as a script, says something, and leaves the picture it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_fits_on_a_screen(example: Path, tmp_path: Path) -> None:
    source = example.read_text()
    assert len(source.splitlines()) < 60
    environment = os.environ | {"PYTHONPATH": str(example.parent.parent), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip()
    pictures = {path.name for path in tmp_path.glob("*.png") if path.stat().st_size > 10_000}
    assert pictures == ({f"{example.stem}.png"} if "savefig" in source else set())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6
