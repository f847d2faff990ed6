"""How many images of each set a checkpoint calls unfamiliar:
python benchmarks/unfamiliar.py --model nuclei-fast --own coco:DIR@val --other coco:DIR@val --photos FOLDER --limit 30

Pages of text, noise and flat images are drawn here. Only the scale of an image is estimated and the encoder run, as in
`Segmenter.image`; no mask is generated. `--out` writes the out-of-distribution score of every image as JSON.
"""

import argparse
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pix2seqd.data import open_dataset
from pix2seqd.data.sample import subsample
from pix2seqd.files import write_json
from pix2seqd.images.familiarity import feature_statistics
from pix2seqd.images.load import Source, find_images, load_image
from pix2seqd.segmenter import Segmenter

WORDS = (
    "the",
    "of",
    "and",
    "model",
    "image",
    "noise",
    "bit",
    "segment",
    "nucleus",
    "cell",
    "step",
    "0.85",
    "12 %",
    "result",
)
SIZES = ((400, 300), (640, 480), (600, 800), (256, 256), (800, 500))


def text(number: int) -> Image.Image:
    """A page of text, dark on light or light on dark."""
    draw = random.Random(number)
    width, height = draw.choice(SIZES)
    dark = draw.random() < 0.3
    paper = (draw.randint(0, 40),) * 3 if dark else (draw.randint(225, 255),) * 3
    ink = (draw.randint(180, 255),) * 3 if dark else tuple(draw.randint(0, 80) for _ in range(3))
    page = Image.new("RGB", (width, height), paper)
    pen, size = ImageDraw.Draw(page), draw.choice((10, 12, 14, 18, 24, 32))
    font = ImageFont.load_default(size)
    for top in range(20, height - size - 10, int(size * 1.4)):
        line = ""
        while pen.textlength(line, font) < (width - 80) * (0.5 if draw.random() < 0.02 else 1):
            line += draw.choice(WORDS) + " "
        pen.text((20, top), line, ink, font)
    return page


def noise(number: int) -> np.ndarray:
    """Uniform, grey, sparse or normal noise."""
    draw, shape = np.random.default_rng(number), SIZES[number % len(SIZES)][::-1]
    kinds = (
        lambda: draw.integers(0, 256, (*shape, 3)),
        lambda: draw.integers(0, 256, (*shape, 1)).repeat(3, 2),
        lambda: ((draw.random((*shape, 1)) < 0.05) * 255).repeat(3, 2),
        lambda: draw.normal(128, 30, (*shape, 3)).clip(0, 255),
    )
    return kinds[number % 4]().astype(np.uint8)


def flat() -> list[np.ndarray]:
    """Black, grey, white and red, and gradients."""
    rows, columns = np.mgrid[:300, :400] / 400
    ways = (columns, rows, np.exp(-((rows - 0.4) ** 2 + (columns - 0.5) ** 2) * 20))
    plain = [np.full((300, 400, 3), colour) for colour in (0, 10, 128, 255, (200, 20, 20))]
    return [each.astype(np.uint8) for each in (*plain, *((255 * way)[..., None].repeat(3, 2) for way in ways))]


def variants(image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What a user may do to an image of the model's own kind."""
    height, width = image.shape[:2]
    yield "very dark", (image * 0.08).astype(np.uint8)
    yield "twice as large", np.asarray(Image.fromarray(image).resize((2 * width, 2 * height)))
    yield "half as large", np.asarray(Image.fromarray(image).resize((width // 2, height // 2)))


def labelled(data: str, size: tuple[int, int], limit: int) -> list[np.ndarray]:
    chosen = subsample(open_dataset(data, size), limit)
    return [chosen[i].image for i in range(len(chosen))]


def ood_scores(segmenter: Segmenter, images: Iterable[Source]) -> Iterator[float]:
    """Of each image that is large enough to be judged."""
    known = segmenter.checkpoint.familiarity
    assert known is not None, "the checkpoint has no statistics"
    for image in map(load_image, images):
        if image.width * image.height >= known.min_pixels:
            resized = segmenter.resize(image)
            for window in segmenter.tiling.split(resized, ()):
                segmenter.runner.encode([window])
            yield round(known.ood_score(feature_statistics(resized.moments)), 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei-fast")
    parser.add_argument("--own", action="append", default=[], help="images that the model is made for; their variants")
    parser.add_argument("--other", action="append", default=[], help="other labelled images")
    parser.add_argument("--photos", action="append", default=[], type=Path, help="files, or folders of images")
    parser.add_argument("--drawn", type=int, default=30, help="pages of text; a quarter as many images of noise")
    parser.add_argument("--limit", type=int, default=1000, help="images of each data set")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    segmenter = Segmenter.from_pretrained(given.model, device="cpu")
    size = segmenter.checkpoint.data.size
    sets = {data: lambda data=data: labelled(data, size, given.limit) for data in (*given.own, *given.other)}
    for data in given.own:
        changed = [list(variants(image)) for image in labelled(data, size, min(given.limit, 12))]
        for place, (name, _) in enumerate(changed[0]):
            sets[f"{data}, {name}"] = lambda changed=changed, place=place: [each[place][1] for each in changed]
    if given.photos:
        sets["photographs"] = lambda: find_images(given.photos)
    sets |= {
        "text": lambda: map(text, range(given.drawn)),
        "noise": lambda: map(noise, range(given.drawn // 4)),
        "flat and gradients": flat,
    }
    found = {}
    for name, images in sets.items():
        values = found[name] = list(ood_scores(segmenter, images()))
        if not values:
            print(f"{name}: all images are too small to be judged")
            continue
        share = np.mean(np.array(values) > 1)
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
        print(
            f"{name}: {share:.1%} of {len(values)} flagged; 5, 50, 95 %: {low:.2f} {middle:.2f} {high:.2f}", flush=True
        )
    if given.out:
        write_json(given.out, found)
