import numpy as np
from PIL import Image

from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.evaluation.figures import loss_weights, noisy_masks

SAMPLE = Shapes(1, (60, 80), seed=3)[0]


def columns(image: Image.Image, rows: int, count: int, side: int) -> list[list[np.ndarray]]:
    """The images of a grid, 60 x 80 pixels scaled to a longer side of `side`, row by row."""
    height, width = side * 3 // 4, side
    pixels = np.asarray(image).astype(float)
    left = pixels.shape[1] - count * (width + 6)
    return [
        [pixels[6 + y * (height + 6) :, left + x * (width + 6) :][:height, :width] for x in range(count)]
        for y in range(rows)
    ]


def test_noisy_masks_small_scale_loses_mask_at_smaller_t():
    times = (0.0, 0.3, 0.7)
    shown = columns(noisy_masks(SAMPLE, 64, (1.0, 0.1), times), 2, 3, 64)
    assert np.allclose(shown[0][0], shown[1][0], atol=2), "without noise, the scale has no effect"

    def like_the_mask(row: int, time: int) -> float:
        return np.corrcoef(shown[row][0].ravel(), shown[row][time].ravel())[0, 1]

    for row in (0, 1):
        assert 1 > like_the_mask(row, 1) > like_the_mask(row, 2)
    for time in (1, 2):
        assert like_the_mask(0, time) > like_the_mask(1, time) + 0.1


def test_loss_weights_contrast_grows_with_exponent():
    ((image, *maps),) = columns(loss_weights(SAMPLE, 64, (0.0, 0.2, 0.6)), 1, 4, 64)
    assert image.std() > 5
    assert maps[0].std(axis=(0, 1)).max() == 0
    assert 0 < maps[1].std() < maps[2].std()


def test_noisy_masks_reproducible():
    assert noisy_masks(SAMPLE, 40).tobytes() == noisy_masks(SAMPLE, 40).tobytes()
