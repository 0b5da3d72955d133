"""Every example is short, runs as a script, says something, and leaves the picture it promises."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_fits_on_a_screen(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = example.read_text()
    assert len(source.splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    # in this process: to load torch anew for each takes as long as most of them
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()
    pictures = {path.name for path in tmp_path.glob("*.png") if path.stat().st_size > 10_000}
    assert pictures == ({f"{example.stem}.png"} if "savefig" in source else set())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6
