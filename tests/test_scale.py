"""Tables larger than memory: sampled and imputed batch by batch, as one table would be."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import config_context
from sklearn.exceptions import NotFittedError

from tabmae import DataError, ParameterError, TabMAE, impute_parquet, sample_parquet
from tabmae.scale import _batches, _opened


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    made = pd.DataFrame(
        {
            "a": x,
            "n": pd.array(rng.integers(0, 9, 500), dtype="Int16"),
            "level": pd.Categorical(np.where(x > 0, "up", "down")),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.round(10 * x), "D"),
        }
    )
    made = made.mask(rng.random(made.shape) < 0.2)
    made.insert(0, "key", [f"row {place}" for place in range(500)])
    return made


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> TabMAE:
    return TabMAE(max_epochs=2, d_token=4, random_state=0).fit(pa.Table.from_pandas(frame.drop(columns="key")))


@pytest.fixture
def source(frame: pd.DataFrame, tmp_path: Path) -> Path:
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "in.parquet", row_group_size=70)
    return tmp_path / "in.parquet"


@pytest.mark.parametrize("batch_rows", [64, 70, 501])
def test_a_file_in_batches_is_what_one_table_would_be(
    model: TabMAE, frame: pd.DataFrame, source: Path, batch_rows: int
) -> None:
    target = source.with_name("out.parquet")
    assert impute_parquet(model, source, target, batch_rows=batch_rows) == 500
    written, whole = pq.read_table(target), pq.read_table(source)
    assert written.schema.equals(whole.schema, check_metadata=True)
    imputed = model.transform(whole.drop_columns("key"))
    assert written["key"].equals(whole["key"])
    for name in imputed.column_names:
        one, other = written[name].cast(imputed[name].type).to_pylist(), imputed[name].to_pylist()
        assert one == (pytest.approx(other, rel=1e-12, abs=1e-12) if name == "a" else other)
        assert written[name].null_count == 0
    found = written.to_pandas()
    known = frame.notna()
    pd.testing.assert_frame_equal(found.astype(object).where(known), frame.astype(object).where(known))
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_file_is_the_same_whatever_transform_gives(model: TabMAE, source: Path, kind: str) -> None:
    impute_parquet(model, source, source.with_name("plain.parquet"))
    asked = deepcopy(model).set_output(transform=kind)
    impute_parquet(asked, source, source.with_name("out.parquet"))
    assert pq.read_table(source.with_name("out.parquet")).equals(pq.read_table(source.with_name("plain.parquet")))
    with config_context(transform_output=kind):
        impute_parquet(model, source, source.with_name("out.parquet"), overwrite=True)
    assert not isinstance(asked.transform(pq.read_table(source).drop_columns("key")), pa.Table)


def test_a_sample_of_a_large_file_takes_little_memory(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _opened(source)
    large = SimpleNamespace(schema=found.schema, to_batches=found.to_batches, count_rows=lambda: 10**12)
    monkeypatch.setattr("tabmae.scale._opened", lambda _: large)
    assert len(sample_parquet(source, 5, random_state=0)) == 0  # of so many rows, none of the 500 that are there


def test_no_more_rows_than_asked_for_are_in_a_batch(source: Path) -> None:
    assert [len(table) for table in _batches(_opened(source), 150)] == [150, 150, 150, 50]
    assert pa.concat_tables(_batches(_opened(source), 33)).equals(pq.read_table(source))


def test_a_folder_of_files_is_one_table(model: TabMAE, frame: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, start in enumerate(range(0, 500, 200)):
        pq.write_table(pa.Table.from_pandas(frame.iloc[start : start + 200]), folder / f"{number}.parquet")
    assert impute_parquet(model, folder, tmp_path / "out.parquet") == 500
    assert pq.read_table(tmp_path / "out.parquet")["key"].to_pylist() == frame["key"].tolist()


def test_a_sample_is_of_different_rows_in_their_order_and_the_same_for_a_seed(source: Path) -> None:
    table = sample_parquet(source, 100, random_state=3)
    places = [int(key.split()[1]) for key in table["key"].to_pylist()]
    assert len(set(places)) == 100 and places == sorted(places) and 150 < np.mean(places) < 350
    assert table.equals(sample_parquet(source, 100, random_state=3))
    assert not table.equals(sample_parquet(source, 100, random_state=4))
    assert sample_parquet(source, 1_000).equals(pq.read_table(source).combine_chunks())


def test_a_target_appears_whole_or_not_at_all(model: TabMAE, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = source.with_name("out.parquet")
    target.write_text("kept")
    with pytest.raises(ParameterError, match=r"`target` must be a new file; .* is there already"):
        impute_parquet(model, source, target)
    calls = []

    def failing(self: TabMAE, table: pa.Table) -> pa.Table:
        calls.append(len(table))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return table

    monkeypatch.setattr(TabMAE, "transform", failing)
    with pytest.raises(KeyboardInterrupt):
        impute_parquet(model, source, target, batch_rows=100, overwrite=True)
    assert calls == [100, 100] and target.read_text() == "kept"
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.parquet", "out.parquet"]


def test_what_cannot_be_read_or_written_is_refused_before_any_work(model: TabMAE, source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`source` must be a Parquet file"):
        impute_parquet(model, tmp_path / "none.parquet", tmp_path / "out.parquet")
    (tmp_path / "text.parquet").write_text("a,b")
    with pytest.raises(DataError, match="`source` must be a Parquet file"):
        sample_parquet(tmp_path / "text.parquet")
    with pytest.raises(ParameterError, match="`target` must be a file in a folder that is there.* Make the folder"):
        impute_parquet(model, source, tmp_path / "none" / "out.parquet")
    with pytest.raises(ParameterError, match="`batch_rows` must"):
        impute_parquet(model, source, tmp_path / "out.parquet", batch_rows=0)
    with pytest.raises(ParameterError, match="`n_rows` must"):
        sample_parquet(source, 0)
    with pytest.raises(NotFittedError):
        impute_parquet(TabMAE(), source, tmp_path / "out.parquet")
    pq.write_table(pq.read_table(source).drop_columns("n"), tmp_path / "few.parquet")
    with pytest.raises(DataError, match=r"must have the columns that the model learnt; it lacks 'n'"):
        impute_parquet(model, tmp_path / "few.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
