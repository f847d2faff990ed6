"""Videos, folders and cameras ↔ frames; the only module that knows PyAV."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image, ImageSequence

from pix2seqd.files import InputError
from pix2seqd.images.load import Source, decoding, find_images, load_image

if TYPE_CHECKING:
    from av.container import InputContainer

CLOCK = 60_000
"""Ticks per second of the videos that are written: every frame keeps its own time. MPEG-4 knows no 65,536 and more."""
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""Formats that are clips in one file, as FFmpeg names them."""
KEY_SECONDS = 2
"""A killed process loses at most so much of the video that it was writing."""


@dataclass(frozen=True)
class DecodedFrame:
    """One picture of a clip."""

    number: int
    """Its position in the source, from 1; those that could not be read count."""
    image: Image.Image
    time: float
    """Seconds since the first frame."""
    name: str = ""
    """Of its file, in a folder."""


@dataclass(frozen=True)
class FrameStream:
    """What a source holds; the frames are read as they are asked for."""

    frames: Iterator[DecodedFrame]
    total: int | None
    """Frames that it says it has; None: it does not say, or has no end."""
    rate: Fraction
    """Frames per second, as far as they are even."""


@contextmanager
def open_clip(source: str, complain: Callable[[str], None], fps: float) -> Iterator[FrameStream]:
    """Open a video, a TIFF stack, a folder of pictures or a camera.

    Frames that cannot be decoded are left out, and a file that is cut short ends where it ends; `complain` is told.

    Args:
        source: a file, a folder whose pictures are taken in natural order (2 before 10), a number (the camera
            /dev/videoNUMBER) or a device.
        complain: takes one line.
        fps: frames per second of what knows no time: folders and stacks.

    Raises:
        InputError: there is no such thing, or it holds no frame.
    """
    path, rate = Path(source), Fraction(fps).limit_denominator(1000)
    camera = f"/dev/video{source}" if source.isdecimal() and not path.exists() else source
    if path.is_dir():
        paths = sorted(find_images([path]), key=_natural)
        yield FrameStream(_checked(_pictures(((p.name, p) for p in paths), rate, complain), source), len(paths), rate)
    elif path.suffix.lower() in (".tif", ".tiff"):
        load_image(path)  # tells what is wrong with the file, if anything is
        with Image.open(path) as stack:
            total = None
            with suppress(InputError), decoding(source):  # it goes through all pages, of which one may be damaged
                total = getattr(stack, "n_frames", 1)
            yield FrameStream(_checked(_pictures(_pages(stack, source, complain), rate, complain), source), total, rate)
    else:
        with _opened(camera) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or rate
            frames = _decoded(container, camera, rate, complain)
            yield FrameStream(_checked(frames, source), stream.frames or None, rate)


def check_upload(path: Path, most_pixels: int) -> None:
    """Refuse what a stranger sent if it is no clip, has too large frames, or is a playlist that names other files.

    Raises:
        InputError: it is.
    """
    import av

    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with decoding(path.name), Image.open(path) as stack:
                size = stack.width * stack.height
        else:
            options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
            with av.open(str(path), options=options) as container:
                size = max(stream.width * stream.height for stream in container.streams.video)
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is no clip that can be read; give MP4, MOV, WebM, AVI, GIF or TIFF") from error
    if size > most_pixels:
        raise InputError(f"{path.name} has frames of {size:,} pixels, more than {most_pixels:,}; make it smaller")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which numbers count as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _checked(frames: Iterator[DecodedFrame], source: str) -> Iterator[DecodedFrame]:
    """The frames, the first of which must exist."""
    first = next(frames, None)
    if first is None:
        raise InputError(f"{source} holds no frame that can be read; export it again")
    return chain([first], frames)


def _pictures(
    sources: Iterable[tuple[str, Source]], rate: Fraction, complain: Callable[[str], None]
) -> Iterator[DecodedFrame]:
    for number, (name, source) in enumerate(sources, start=1):
        try:
            yield DecodedFrame(number, load_image(source), float((number - 1) / rate), name)
        except InputError as error:
            complain(f"frame {number} is left out: {error}")


def _pages(stack: Image.Image, source: str, complain: Callable[[str], None]) -> Iterator[tuple[str, Source]]:
    """The pages of a TIFF stack, up to one whose place in the file is damaged: nobody knows where the next begins."""
    pages = ImageSequence.Iterator(stack)
    for number in count(1):
        try:
            with decoding(f"{source} ends after page {number - 1}: the next one"):
                page = next(pages, None)
        except InputError as error:
            complain(str(error))
            return
        if page is None:
            return
        yield f"{source}, page {number}", page


@contextmanager
def _opened(source: str) -> Iterator["InputContainer"]:
    import av.error

    camera = source.startswith("/dev/")
    try:
        container = av.open(source, format="v4l2" if camera else None)
    except FileNotFoundError as error:
        cure = "connect it, or give another number" if camera else "check the path"
        raise InputError(f"{source} does not exist; {cure}") from error
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cure = "see whether another program uses it" if camera else "it is no video or cut short; export it again"
        raise InputError(f"cannot open {source} ({reason}): {cure}") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{source} holds no pictures, only other data; give a video")
        yield container


def _decoded(
    container: "InputContainer", source: str, rate: Fraction, complain: Callable[[str], None]
) -> Iterator[DecodedFrame]:
    import av.error

    number, begin = 0, None
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets, None)
            decoded = packet.decode() if packet is not None else []
        except av.error.InvalidDataError as error:
            number += 1
            complain(f"frame {number} of {source} is left out: it is damaged ({error.strerror})")
            continue
        except av.error.FFmpegError as error:  # a camera that was unplugged, a disk that fails
            complain(f"{source} ends after frame {number}: {error.strerror}")
            return
        if packet is None:
            break
        for frame in decoded:
            number += 1
            time = float((number - 1) / rate) if frame.time is None else frame.time
            begin = time if begin is None else begin
            image = frame.to_image()
            # Phones store what they filmed upright on its side.
            yield DecodedFrame(
                number, image.rotate(frame.rotation, expand=True) if frame.rotation else image, time - begin
            )
    if number < container.streams.video[0].frames:
        expected = container.streams.video[0].frames
        complain(f"{source} ends after frame {number} of {expected}: it is cut short; copy or export it again")


class VideoWriter:
    """Writes a video (H.264 in MP4), frame by frame, each at its own time; a context manager.

    What is written can be played at any moment, whatever becomes of the process.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        import av

        self._path = path
        with self._telling():
            # Fragments that become a plain MP4 at the end.
            flags = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
            self._container = av.open(str(path), "w", format="mp4", options=flags)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.options = {"preset": "veryfast", "crf": "18", "bf": "0"} if codec == "libx264" else {"q": "2"}
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = max(1, round(KEY_SECONDS * rate))
        self._stream.codec_context.time_base = Fraction(1, CLOCK)
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._telling():
            if self._last >= 0:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    def write(self, image: Image.Image, time: float) -> None:
        """Add a frame at so many seconds; all have the size of the first.

        Raises:
            InputError: it cannot be written.
        """
        from av import VideoFrame

        if self._last < 0:  # the format wants even sides
            self._stream.width, self._stream.height = (side + side % 2 for side in image.size)
        even = self._stream.width, self._stream.height
        frame = VideoFrame.from_image(image if image.size == even else image.crop((0, 0, *even)))
        self._last = frame.pts = max(self._last + 1, round(time * CLOCK))
        frame.time_base = Fraction(1, CLOCK)
        with self._telling():
            self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        import av.error

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"cannot write {self._path} ({error.strerror}); choose another --out") from error
