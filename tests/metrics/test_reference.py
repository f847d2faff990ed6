"""The fixtures hold what the official tools read and wrote."""

import numpy as np
import pytest


@pytest.mark.parametrize("name", ["pq", "jf"])
def test_fixture_equals_the_files_of_the_official_tools(reference, official_files, name):
    stored, official = reference(name), official_files(name)
    assert stored.records == official.records
    assert stored.maps.keys() == official.maps.keys()
    assert all(np.array_equal(stored.maps[key], value) for key, value in official.maps.items())
