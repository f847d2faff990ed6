"""Frames of videos, folders and cameras, and writing videos; the only module that imports PyAV."""

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
"""Ticks per second in written videos, fine enough for every frame's own time; MPEG-4 allows at most 65,535."""
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""FFmpeg's names of the formats that hold a whole clip in one file."""
KEY_SECONDS = 2
"""Seconds between key frames; a killed process loses at most so much of the video."""


@dataclass(frozen=True)
class DecodedFrame:
    """One image of a clip."""

    number: int
    """Its position in the source, from 1; frames that could not be read are counted too."""
    image: Image.Image
    time: float
    """Seconds since the first frame."""
    name: str = ""
    """Name of its file if the source is a folder."""


@dataclass(frozen=True)
class FrameStream:
    """The content of a source; frames are read when they are needed."""

    frames: Iterator[DecodedFrame]
    total: int | None
    """Number of frames that the source states; None: it states none, or has no end."""
    rate: Fraction
    """Frames per second, on average."""


@contextmanager
def open_clip(source: str, warn: Callable[[str], None], fps: float) -> Iterator[FrameStream]:
    """Open a video, a TIFF stack, a folder of images or a camera.

    Frames that cannot be decoded are left out, and a file that is cut short ends early; both are reported to `warn`.

    Args:
        source: a file, a folder whose images are taken in natural order (2 before 10), a number (the camera
            /dev/videoNUMBER) or a device.
        warn: called with one line for every such problem.
        fps: frames per second of sources without times: folders and stacks.

    Raises:
        InputError: the source does not exist, or it holds no frame.
    """
    path, rate = Path(source), Fraction(fps).limit_denominator(1000)
    camera = f"/dev/video{source}" if source.isdecimal() and not path.exists() else source
    if path.is_dir():
        paths = sorted(find_images([path]), key=_natural)
        yield FrameStream(_checked(_read_images(((p.name, p) for p in paths), rate, warn), source), len(paths), rate)
    elif path.suffix.lower() in (".tif", ".tiff"):
        load_image(path)  # raises an error that says what is wrong with the file
        with Image.open(path) as stack:
            total = None
            with suppress(InputError), decoding(source):  # counting reads all pages, and one may be damaged
                total = getattr(stack, "n_frames", 1)
            yield FrameStream(_checked(_read_images(_pages(stack, source, warn), rate, warn), source), total, rate)
    else:
        with _opened(camera) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or rate
            frames = _decoded(container, camera, rate, warn)
            yield FrameStream(_checked(frames, source), stream.frames or None, rate)


def check_upload(path: Path, max_pixels: int) -> None:
    """Refuse an uploaded file that is not a clip, has too large frames, or is a playlist that names other files.

    Raises:
        InputError: the file is refused.
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
        raise InputError(
            f"{path.name} is not a clip that can be read; give MP4, MOV, WebM, AVI, GIF or TIFF"
        ) from error
    if size > max_pixels:
        raise InputError(f"{path.name} has frames of {size:,} pixels, more than {max_pixels:,}; make it smaller")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key for natural order: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _checked(frames: Iterator[DecodedFrame], source: str) -> Iterator[DecodedFrame]:
    """The same frames, after a check that there is at least one."""
    first = next(frames, None)
    if first is None:
        raise InputError(f"{source} holds no frame that can be read; export it again")
    return chain([first], frames)


def _read_images(
    sources: Iterable[tuple[str, Source]], rate: Fraction, warn: Callable[[str], None]
) -> Iterator[DecodedFrame]:
    for number, (name, source) in enumerate(sources, start=1):
        try:
            yield DecodedFrame(number, load_image(source), float((number - 1) / rate), name)
        except InputError as error:
            warn(f"frame {number} is left out: {error}")


def _pages(stack: Image.Image, source: str, warn: Callable[[str], None]) -> Iterator[tuple[str, Source]]:
    """The pages of a TIFF stack, up to a damaged entry of its page list; the pages after it cannot be found."""
    pages = ImageSequence.Iterator(stack)
    for number in count(1):
        try:
            with decoding(f"{source} ends after page {number - 1}: the next one"):
                page = next(pages, None)
        except InputError as error:
            warn(str(error))
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
        cure = "see whether another program uses it" if camera else "it is not a video or cut short; export it again"
        raise InputError(f"cannot open {source} ({reason}): {cure}") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{source} holds no images, only other data; give a video")
        yield container


def _decoded(
    container: "InputContainer", source: str, rate: Fraction, warn: Callable[[str], None]
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
            warn(f"frame {number} of {source} is left out: it is damaged ({error.strerror})")
            continue
        except av.error.FFmpegError as error:  # the camera was unplugged, or the disk fails
            warn(f"{source} ends after frame {number}: {error.strerror}")
            return
        if packet is None:
            break
        for frame in decoded:
            number += 1
            time = float((number - 1) / rate) if frame.time is None else frame.time
            begin = time if begin is None else begin
            image = frame.to_image()
            # Phones store upright videos on their side, with a rotation.
            yield DecodedFrame(
                number, image.rotate(frame.rotation, expand=True) if frame.rotation else image, time - begin
            )
    if number < container.streams.video[0].frames:
        expected = container.streams.video[0].frames
        warn(f"{source} ends after frame {number} of {expected}: it is cut short; copy or export it again")


class VideoWriter:
    """Writes a video (H.264 in MP4), frame by frame, each at its own time; a context manager.

    The file can be played at any moment, even if the process is killed.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        import av

        self._path = path
        with self._writing():
            # Fragments, which become a plain MP4 at the end.
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
        with self._writing():
            if self._last >= 0:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    def write(self, image: Image.Image, time: float) -> None:
        """Add a frame.

        Args:
            image: of the same size as the first frame.
            time: seconds since the start of the video.

        Raises:
            InputError: the frame cannot be written.
        """
        from av import VideoFrame

        if self._last < 0:  # the format needs even sides
            self._stream.width, self._stream.height = (side + side % 2 for side in image.size)
        even = self._stream.width, self._stream.height
        frame = VideoFrame.from_image(image if image.size == even else image.crop((0, 0, *even)))
        self._last = frame.pts = max(self._last + 1, round(time * CLOCK))
        frame.time_base = Fraction(1, CLOCK)
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        import av.error

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"cannot write {self._path} ({error.strerror}); choose another --out") from error
