"""Results, commands and parameter names stay what they were (tests/golden/golden.py)."""

import json

import golden
import numpy as np
import pytest


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_masks_of_the_bundled_checkpoints(name):
    """Other processors round otherwise, which may move an outline by a pixel but no segment."""
    with np.load(golden.MASKS) as stored:
        before = {key: stored[key] for key in stored if key.startswith(f"{name}/")}
    now = dict(golden.masks(name))
    assert now.keys() == before.keys()
    for key, mask in before.items():
        assert now[key].shape == mask.shape, key
        assert len(np.unique(now[key])) == len(np.unique(mask)), key
        assert (now[key] == mask).mean() > 0.998, key


def test_options_of_every_command():
    stored = json.loads(golden.CONTRACT.read_text())["options"]
    now = golden.options()
    for command, options in stored.items():
        assert set(options) <= set(now[command]), command


def test_parameter_names_and_shapes():
    assert golden.shapes() == json.loads(golden.CONTRACT.read_text())["shapes"]
