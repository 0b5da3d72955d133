from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tabmae.demo import main, read_penguins, score


def test_the_penguins_have_their_own_holes() -> None:
    table = read_penguins()
    assert table.shape == (344, 7)
    assert table.isna().sum().to_dict() == {
        "species": 0,
        "island": 0,
        "culmen_length_mm": 2,
        "culmen_depth_mm": 2,
        "flipper_length_mm": 2,
        "body_mass_g": 2,
        "sex": 11,
    }
    assert table["sex"].dropna().unique().tolist() == ["MALE", "FEMALE"]


def test_skill_is_one_for_the_truth_and_zero_for_the_mean_or_mode() -> None:
    table = pd.DataFrame({"mass": [1.0, 2.0, 3.0, 6.0], "sex": ["f", "f", "m", "m"]})
    hidden = np.array([[False, False], [False, False], [False, False], [True, True]])
    incomplete = table.mask(hidden)
    truth = score(table, incomplete, table, hidden)
    assert truth["skill"].tolist() == [1.0, 1.0]
    simple = score(table, incomplete, incomplete.fillna({"mass": 2.0, "sex": "f"}), hidden)
    assert simple["error"].tolist() == simple["mean or mode"].tolist() == [4.0, 1.0]
    assert simple["skill"].tolist() == [0.0, 0.0]


def test_the_demo_prints_a_line_per_column_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(str(tmp_path / "demo.png"))
    printed = capsys.readouterr().out
    words = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert all(float(words[str(name)][-1]) > 0.1 for name in read_penguins())
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
