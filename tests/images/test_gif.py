"""GIFs with comments in very many parts."""

import io
import time

import pytest
from PIL import Image

from pix2seqd.data.archive import read_png
from pix2seqd.files import InputError
from pix2seqd.images.load import image_size, load_image

PART = b"\x01a"
FRAME = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"


def gif(*blocks: bytes) -> bytes:
    """A GIF of 2 x 2 pixels with a palette and these blocks."""
    return b"GIF89a\x02\0\x02\0\x80\0\0" + bytes(6) + b"".join(blocks) + b";"


def comment(parts: int) -> bytes:
    """A comment of so many bytes, each in a part of its own."""
    return b"!\xfe" + PART * parts + b"\0"


@pytest.mark.parametrize(
    "content",
    [gif(comment(500_000), FRAME), gif(comment(1) * 200_000, FRAME), gif(FRAME, comment(500_000), FRAME)],
    ids=["one", "many", "second frame"],
)
def test_gif_with_comments_of_many_parts_is_refused_in_time(tmp_path, content):
    path = tmp_path / "a.gif"
    path.write_bytes(content)
    for reading in (load_image, image_size, lambda path: read_png(path, ("P", "L"))):
        began = time.process_time()
        with pytest.raises(InputError, match="it has comments of more than 5000 parts"):
            reading(path)
        assert time.process_time() - began < 2


def test_gif_with_usual_comments_is_read():
    frames = [Image.new("P", (4, 4), number) for number in range(5)]
    saved = io.BytesIO()
    frames[0].save(saved, "GIF", save_all=True, append_images=frames[1:], comment=b"a" * 60_000)
    for content in (saved.getvalue(), gif(comment(5000), FRAME), gif((comment(3) + FRAME) * 3000)):
        assert load_image(io.BytesIO(content)).size in ((4, 4), (2, 2))
