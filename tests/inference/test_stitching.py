from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pix2seqd.inference.stitching import window_size, windows


@given(st.integers(1, 2000), st.integers(1, 8), st.integers(4, 32), st.data())
def test_windows_of_the_smallest_size_cover_the_length(length: int, parts: int, unit: int, data: st.DataObject):
    largest = parts * unit
    overlap = data.draw(st.integers(0, largest - 1))
    size = window_size(length, largest, overlap, unit)
    starts = windows(length, size, overlap)
    assert size % unit == 0 and unit <= size <= largest
    assert len(starts) <= len(windows(length, largest, overlap))
    assert starts[0] == 0 and starts[-1] + size >= length
    assert len(starts) == 1 or starts[-1] + size == length
    assert all(0 < b - a <= size - overlap for a, b in pairwise(starts))


def test_window_size_two_windows_where_three_quarters_suffice():
    assert window_size(364, 320, 48, 64) == 256
    assert window_size(300, 320, 48, 64) == 320
    assert window_size(256, 320, 48, 64) == 256
    assert window_size(1, 320, 48, 64) == 64
