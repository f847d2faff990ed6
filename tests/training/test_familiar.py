from dataclasses import replace

import numpy as np
import pytest

from pix2seqd.config import DataConfig
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.data.synthetic.shapes_clips import ShapesClips
from pix2seqd.segmenter import Segmenter
from pix2seqd.training import familiar
from pix2seqd.training.familiar import MIN_IMAGES, training_statistics


@pytest.mark.parametrize(
    "data", [DataConfig(size=(32, 48)), DataConfig((32, 48), layout="tile", overlap=8, diameter=12.0)]
)
def test_learn_from_images_and_frames_of_clips(pretrained, data):
    checkpoint = replace(pretrained, data=data)
    known = training_statistics(checkpoint, [(Shapes(40, (32, 48)), 20), (ShapesClips(3, 2, (32, 48)), 20)])
    assert known is not None
    segmenter = Segmenter(replace(checkpoint, familiarity=known), "cpu", "float32")
    own = [segmenter.image(Shapes(3, (32, 48), seed=9)[i].image, steps=1, diameter=data.diameter) for i in range(3)]
    black = segmenter.image(np.zeros((32, 48, 3), np.uint8), steps=1)
    assert black.unfamiliar and black.ood_score > max(found.ood_score for found in own)
    smaller = segmenter.image(np.zeros((31, 48, 3), np.uint8), steps=1)
    assert (smaller.ood_score is None) == (data.layout == "tile"), "an image that is enlarged is judged"


def test_learn_knows_parts_of_images_that_are_shown_as_a_whole(pretrained, monkeypatch):
    checkpoint = replace(pretrained, data=DataConfig(size=(32, 48)))

    def ood_score() -> float:
        known = training_statistics(checkpoint, [(Shapes(40, (32, 48)), 40)])
        segmenter = Segmenter(replace(checkpoint, familiarity=known), "cpu", "float32")
        images = [Shapes(4, (32, 48), seed=9)[i].image for i in range(4)]
        return sum(segmenter.image(image[:, 10:24], steps=1).ood_score or 0.0 for image in images)

    with_parts = ood_score()
    monkeypatch.setattr(familiar, "_CROPS", 0)
    assert with_parts < 0.8 * ood_score()


def test_learn_from_too_few_images_gives_no_statistics(pretrained):
    assert training_statistics(pretrained, [(Shapes(40, (32, 48)), MIN_IMAGES - 1)]) is None
