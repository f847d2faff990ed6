"""Make nuclei.mp4: the nuclei of nuclei.png, as segmented by the bundled checkpoint, in synthetic motion.

Run it with `python examples/make_clip.py`.
"""

import tempfile
from fractions import Fraction
from pathlib import Path

from PIL import Image

from pix2seqd import Segmenter
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.data.synthetic.nuclei_clips import NucleiClips
from pix2seqd.images.frames import VideoWriter
from pix2seqd.images.load import load_image
from pix2seqd.panoptic.results import PanopticWriter

HERE = Path(__file__).parent
RATE = Fraction(8)


def main() -> None:
    """Write the clip."""
    source = HERE / "nuclei.png"
    segmenter = Segmenter.from_pretrained("nuclei")
    with tempfile.TemporaryDirectory() as folder:
        with PanopticWriter(Path(folder), segmenter.taxonomy, {}) as writer:
            writer.write(source, load_image(source), segmenter.image(source))
        clip = NucleiClips(CocoPanoptic.open(folder, ""), 1, 32, (256, 256), seed=1)[0]
    with VideoWriter(HERE / "nuclei.mp4", RATE) as video:
        for number, sample in enumerate(clip.frames):
            video.write(Image.fromarray(sample.image), float(number / RATE))


if __name__ == "__main__":
    main()
