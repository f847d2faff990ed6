"""Make nuclei-video.gif: `pix2seqd video examples/nuclei.mp4`, image and overlay side by side.

Run it by `python docs/images/nuclei_video.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import av
from PIL import Image

HERE = Path(__file__).parent
CLIP = HERE.parents[1] / "examples" / "nuclei.mp4"


def frames(path: Path) -> list[Image.Image]:
    """All frames of a video."""
    with av.open(str(path)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def main() -> None:
    """Write the animation."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pix2seqd", "video", str(CLIP), "--out", folder], check=True)
        overlays = frames(Path(folder) / "overlay.mp4")
    sheets = []
    for image, overlay in zip(frames(CLIP), overlays, strict=True):
        sheet = Image.new("RGB", (2 * image.width, image.height))
        sheet.paste(image, (0, 0))
        sheet.paste(overlay, (image.width, 0))
        sheets.append(sheet.quantize(96))
    sheets[0].save(HERE / "nuclei-video.gif", save_all=True, append_images=sheets[1:], duration=125, loop=0)


if __name__ == "__main__":
    main()
