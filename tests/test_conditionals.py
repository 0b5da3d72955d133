"""Which rows are solved together; what they are told is tested where a Gaussian tells it."""

from tabmae.experts.conditionals import chunk_end


def test_a_chunk_holds_one_side_and_like_sizes() -> None:
    sizes = [0, 0, 1, 4, 5, 6, 20, 24, 25, 26]
    keys = sizes + [31 + size for size in (0, 3, 30)]
    ends = [chunk_end(keys, start, 30) for start in range(len(keys))]
    assert ends == [2, 2, 5, 6, 6, 6, 9, 10, 10, 10, 11, 12, 13]
