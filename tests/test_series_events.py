"""Claims about events: what is odd by itself is flagged, beside gaps and others, too, and its neighbours are not."""

import numpy as np
import pytest
from machines import N_FIT, fitted, later, machine, only_event
from numpy.typing import NDArray

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.detecting.events import Event, events_of, joined


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of the first half of `machine`, without network and forecasters; nothing may change it."""
    return fitted(machine().iloc[:N_FIT])


def test_a_spike_beside_a_gap_is_found(model: TimeSeriesMAE) -> None:
    table = later()
    table.iloc[560:600] = np.nan
    table.iloc[603, 1] += 6000
    assert only_event(model.detect(table), table.index[603])["peak"] == table.index[603]


def test_a_missing_stamp_before_odd_ones_hides_none_and_blames_no_other() -> None:
    table = machine()[["flow"]]
    rhythm, new = fitted(table.iloc[:N_FIT], window=96), table.iloc[N_FIT:]
    for place in range(200, 1100, 90):
        for before, n_odd in ((1, 1), (2, 1), (1, 6)):
            odd = new.copy()
            odd.iloc[place : place + n_odd] += 1.5
            whole = rhythm.detect(odd).points["flag"].to_numpy()
            odd.iloc[place - before] = np.nan
            flag = rhythm.detect(odd).points["flag"].to_numpy()
            assert flag[place : place + n_odd].all()
            assert (flag & ~whole).sum() <= 2


def test_two_odd_stamps_within_a_window_are_two_events(model: TimeSeriesMAE) -> None:
    table = later()
    for place, height in ((700, 15_000), (720, -4000)):
        table.iloc[place, 1] += height
    events = model.detect(table).events
    near = events[events["start"].between(*table.index[[690, 730]])]
    assert near["start"].tolist() == near["end"].tolist() == table.index[[700, 720]].tolist()


def test_neighbours_that_an_event_misled_are_not_odd_alone() -> None:
    table = machine(n_steps=2000)[["flow"]]
    model = fitted(table.iloc[:N_FIT])
    odd = table.iloc[N_FIT:].copy()
    odd.iloc[400:436] = odd.iloc[400].item()
    events = model.detect(odd).events
    assert events["start"].between(*odd.index[[300, 536]]).sum() <= 3


def test_steps_may_be_judged_alone(model: TimeSeriesMAE) -> None:
    values = np.random.default_rng(0).normal(size=(300, 3))
    whole = model.detector_.judge(model.model_, values, values, (100, 200)).ratios
    chosen = np.isin(np.arange(300), [3, 50, 99, 100, 221])
    some = model.detector_.ratios(model.model_, values, values, (100, 200), chosen)
    np.testing.assert_allclose(some[chosen], whole[chosen], rtol=1e-4)
    assert np.isnan(some[~chosen]).all()


def bump(n_steps: int, centre: int, height: float, reach: int) -> NDArray[np.float64]:
    distance = np.abs(np.arange(n_steps) - centre)
    found: NDArray[np.float64] = height * np.clip(1 - distance / reach, 0, None)
    return found


def test_an_event_is_cut_to_what_lies_far_off_and_its_neighbourhood_is_its_doing() -> None:
    scores = bump(200, 60, 10, 20) + bump(200, 150, 4, 20)
    ratios = np.ones((200, 2))
    ratios[60, 1], ratios[64, 1], ratios[75, 1], ratios[150, 0] = 8, 5, 6, 9
    found = events_of(scores > 1, scores, ratios, window=20)
    assert found == [Event(60, 64, 60, 10.0, [1]), Event(150, 150, 150, 4.0, [0])]
    assert events_of(scores > 11, scores, ratios, window=20) == []
    edge = events_of(scores < 99, np.ones(200), np.ones((200, 2)), window=5)
    assert [(event.start, event.end) for event in edge] == [(0, 199)]
    missing = np.where(np.isin(np.arange(200), [61, 62])[:, None], np.nan, ratios)
    found = events_of((scores > 1) & ~np.isnan(missing[:, 0]), scores, missing, window=20)
    assert found[0] == Event(60, 64, 60, 10.0, [1])


def test_of_steps_as_odd_as_each_other_the_farthest_is_the_event() -> None:
    scores, ratios = np.full(200, 5.0), np.ones((200, 1))
    ratios[[80, 95, 130], 0] = 9, 2, 6
    odd = np.isin(np.arange(200), [60, 61, 62, 80, 81, 95, 130])
    assert [(e.start, e.end) for e in events_of(odd, scores, ratios, window=60)] == [(80, 80)]
    alone = np.isin(np.arange(200), [80, 130])
    assert [(e.start, e.end) for e in events_of(odd, scores, ratios, 60, alone)] == [(80, 80), (130, 130)]
    ratios[82:130] = np.nan
    assert [(e.start, e.end) for e in events_of(odd, scores, ratios, 60, alone)] == [(80, 130)]
    assert [(e.start, e.end) for e in events_of(odd, scores, ratios, 15, alone)] == [(60, 62), (80, 80), (130, 130)]


def test_events_of_a_channel_with_hardly_a_gap_are_one() -> None:
    ratios = np.ones((200, 2))
    ratios[50:60, 0], ratios[62:70, 0], ratios[61, 1], ratios[72:, 0] = 8, 9, 9, 1
    events = [Event(50, 59, 55, 3.0, [0]), Event(61, 61, 61, 2.0, [1]), Event(62, 69, 65, 4.0, [0])]
    assert joined(events, ratios, window=20) == [Event(50, 69, 65, 4.0, [0, 1])]
    assert joined(events, ratios, window=2) == events, "no gap is longer than a window"
    apart = [Event(50, 59, 55, 3.0, [0]), Event(66, 69, 66, 4.0, [0])]
    assert joined(apart, ratios, window=20) == apart
    assert joined([events[0], events[1]], ratios, window=20) == events[:2]
    chain = [Event(40, 40, 40, 1.0, [0]), Event(44, 44, 44, 1.0, [0]), Event(50, 69, 65, 4.0, [0])]
    assert joined(chain, ratios, window=40) == [Event(40, 69, 65, 4.0, [0, 1])]
    odder = [events[0], Event(61, 61, 61, 9.0, [1]), events[2]]
    assert joined(odder, ratios, window=20) == [Event(50, 69, 65, 4.0, [0, 1]), odder[1]]


@pytest.mark.parametrize("kind", ["drifts", "swings"])
def test_what_comes_by_the_expected_on_its_way_is_one_event_of_its_channel(model: TimeSeriesMAE, kind: str) -> None:
    table = later()
    heat = table["heat"].iloc[700:740]
    odd = heat + np.linspace(0, 20_000, 40) if kind == "drifts" else heat.mean() + 4 * (heat - heat.mean())
    table.iloc[700:740, 1] = odd
    events = model.detect(table).events
    near = events[events["end"].between(*table.index[[690, 750]])]
    assert near["channels"].tolist() == [["heat"]]
    assert near["start"].item() <= table.index[712] and table.index[735] <= near["end"].item() <= table.index[740]


def test_of_channels_that_are_off_together_each_is_named(model: TimeSeriesMAE) -> None:
    table = later()
    table.iloc[700:710, 1] += 9000
    table.iloc[700:710, 2] += 9
    event = only_event(model.detect(table), table.index[705])
    assert set(event["channels"]) == {"heat", "flow"}
