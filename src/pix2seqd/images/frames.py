"""Frames of videos, folders and cameras, and writing videos; the only module that imports PyAV."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from pix2seqd.files import InputError, require_regular
from pix2seqd.images.jpeg import check_scans
from pix2seqd.images.load import (
    DEPTHS,
    Channel,
    Note,
    check_pixels,
    decoding,
    describe_axes,
    describe_channels,
    find_images,
    ignore,
    load_channels,
    load_image,
    max_pixels,
    one_channel,
    open_image,
    plane_channels,
    read_plane,
)
from pix2seqd.images.tiff import AXES, Tiff, is_tiff

if TYPE_CHECKING:
    from av.container import InputContainer

CLOCK = 60_000
"""Ticks per second in written videos, fine enough for every frame's own time; MPEG-4 allows at most 65,535."""
UPLOADS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""FFmpeg's names of the formats that the page takes."""
CONTAINERS = (
    f"{UPLOADS},apng,asf,av1,cine,dv,flv,h264,hevc,ivf,live_flv,m4v,mjpeg,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,ser,vc1,wtv,"
    "yuv4mpegpipe"
)
"""FFmpeg's names of the formats that hold a whole clip in one file. All others are refused: FFmpeg also reads playlists
and lists of files, which name further files and addresses."""
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
    read_channels: Callable[[], Iterable[Channel]] | None = field(default=None, repr=False, compare=False)
    """Reads the values that the source holds, while it is open; None: it holds no others than `image` shows."""

    def channels(self) -> Iterable[Channel]:
        """Its channels, as `load_channels` yields them."""
        return load_channels(self.image) if self.read_channels is None else self.read_channels()


StillFrame = tuple[str, Callable[[], Image.Image], Callable[[], Iterable[Channel]]]
"""Name of a frame that is an image of its own, and what reads it and its channels."""


@dataclass(frozen=True)
class FrameStream:
    """The content of a source; frames are read when they are needed."""

    frames: Iterator[DecodedFrame]
    total: int | None
    """Number of frames that the source states; None: it states none, or has no end."""
    rate: Fraction
    """Frames per second, on average."""
    read: Callable[[Iterable[int]], Iterator[DecodedFrame]] | None = None
    """Frames by their numbers, from 1, in any order and as often as needed; None: they come once and in order."""


@contextmanager
def open_clip(
    source: str,
    warn: Note,
    fps: float,
    channel: int | str | None = None,
    note: Note = ignore,
    along: Literal["t", "z"] = "t",
) -> Iterator[FrameStream]:
    """Open a video, an animation, a TIFF stack, a folder of images or a camera.

    Frames that cannot be decoded are left out, and a file that is cut short ends early; both are reported to `warn`.
    The frames of a TIFF stack are its time points or its depths, or its pages if the file names no axis.

    Args:
        source: a file, a folder whose images are taken in natural order (2 before 10), a number (the camera
            /dev/videoNUMBER) or a device.
        warn: called with one line for every such problem.
        fps: frames per second of sources without times: folders and stacks.
        channel: this channel alone, as grey; see `load_image`.
        note: called with one line about the axis of a stack, and about planes and channels that are left out.
        along: the axis of the frames, time or depth. Depths are those of a TIFF stack, or the images of a folder.

    Raises:
        InputError: the source does not exist, holds no frame, no such axis or no such channel, or is one still image.
    """
    path, rate = Path(source), Fraction(fps).limit_denominator(1000)
    camera = f"/dev/video{source}" if source.isdecimal() and not path.exists() else source
    if path.is_dir():
        paths = sorted(find_images([path]), key=_natural)
        images = [(p.name, partial(load_image, p, channel, note), partial(load_channels, p)) for p in paths]
        read, total = partial(_read_images, images, rate, warn), len(paths)
        yield FrameStream(_checked(read(range(1, total + 1)), source), total, rate, read)
    elif (kind := _image_format(path)) == "TIFF":
        load_image(path, channel)  # raises an error that says what is wrong with the file
        with path.open("rb") as file:
            with decoding(source):
                tiff = Tiff(file)
                axis = _axis(tiff, source, along, note)
                describe_channels(tiff, source, channel, note)
            read, total = partial(_read_images, _planes(tiff, axis, source, channel), rate, warn), tiff.axes[axis]
            frames = chain(read(range(1, total + 1)), _check_end(tiff, source, total, warn))
            yield FrameStream(_checked(frames, source), total, rate, read)
    elif kind:
        _check_time(source, along)
        with open_image(path) as animation:
            duration = animation.info.get("duration") or 1000 / float(rate)
            total: int = getattr(animation, "n_frames", 1)
            frames = _animated(animation, total, source, channel, duration, warn)
            yield FrameStream(_checked(frames, source), total, Fraction(1000 / duration).limit_denominator(1000))
    else:
        with _opened(camera) as container:
            _check_time(source, along)
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or rate
            frames = (
                replace(frame, image=one_channel(frame.image, channel))
                for frame in _decoded(container, camera, rate, warn)
            )
            yield FrameStream(_checked(frames, source), stream.frames or None, rate)


def _image_format(path: Path) -> str | None:
    """Format of a TIFF or an animation; None: a video, GIF included. A still image is an `InputError`."""
    if path.exists() and not path.is_file():  # a camera; a pipe is refused when it is opened as a video
        return None
    if path.is_file():
        with decoding(str(path)), path.open("rb") as file:
            if is_tiff(file):
                return "TIFF"
    if path.suffix.lower() in (".tif", ".tiff"):
        load_image(path)  # raises an error that says what is wrong with the file
    try:
        with decoding(str(path)), open_image(path) as image:
            kind, frames = image.format, getattr(image, "n_frames", 1)
    except Exception:  # it may be a video, or a camera
        return None
    if frames == 1 or kind == "MPO":  # the other images of an MPO are previews, or another view
        raise InputError(_STILL.format(path))
    return None if kind == "GIF" else kind


_STILL = "{0} is one still image, not a clip; use `pix2seqd segment`, or give a video or a folder of frames"


def _check_time(source: str, along: str) -> None:
    """Refuse depths of a video, an animation or a camera."""
    if along == "z":
        raise InputError(
            f"{source} has one axis, time, and no depth (Z); leave out --along z, or give a TIFF stack or a folder"
        )


_GO_ALONG = {"t": "`pix2seqd video FILE` goes along its time points", "z": DEPTHS}


def _axis(tiff: Tiff, source: str, along: Literal["t", "z"], note: Note) -> str:
    """The axis whose planes are the frames, after a note that names it."""
    wanted, other, frames, part = ("T", "z", "frames", "plane") if along == "t" else ("Z", "t", "planes", "image")
    if not tiff.axes:
        raise InputError("it is one still image, not a clip; use `pix2seqd segment`")
    axis = next((axis for axis in (wanted, "I") if axis in tiff.axes), None)
    if axis is None:
        cure = f"{_GO_ALONG[other]}; " if other.upper() in tiff.axes else ""
        raise InputError(
            f"it has no {'time' if along == 't' else 'depth'} axis ({describe_axes(tiff.axes)}); {cure}for its first "
            f"plane use `pix2seqd segment`, or save it with the axis {wanted}, or its planes as images in a folder"
        )
    rest = {letter: length for letter, length in tiff.axes.items() if letter != axis}
    left_out = f"; of each the first {part} is taken ({describe_axes(rest)})" if rest else ""
    left_out += f"; {DEPTHS}" if along == "t" and "Z" in rest else ""
    note(f"{source}: its {tiff.axes[axis]} {frames} are taken along {AXES[axis]}{left_out}")
    return axis


def _planes(tiff: Tiff, axis: str, source: str, channel: int | str | None) -> list[StillFrame]:
    """The frames of a stack."""

    def read(number: int) -> Image.Image:
        with tiff.reading, decoding(f"{source}, page {number + 1}"):
            return read_plane(tiff, {axis: number}, channel)

    def channels(number: int) -> list[Channel]:
        with tiff.reading, decoding(f"{source}, page {number + 1}"):
            return list(plane_channels(tiff, {axis: number}))

    return [
        (f"{source}, page {number + 1}", partial(read, number), partial(channels, number))
        for number in range(tiff.axes[axis])
    ]


def _check_end(tiff: Tiff, source: str, total: int, warn: Note) -> Iterator[DecodedFrame]:
    """No more frames, but a message if the list of a stack's pages breaks off."""
    with tiff.reading:
        is_cut = tiff.is_cut
    if is_cut:
        warn(f"{source} ends after page {total}: the next one is cut short or damaged; export it again")
    yield from ()


def _animated(
    animation: Image.Image, total: int, source: str, channel: int | str | None, duration: float, warn: Note
) -> Iterator[DecodedFrame]:
    """The frames of an animated image, each at its own time; a frame without a duration lasts `duration` ms."""
    time = 0.0
    for number in range(1, total + 1):
        try:
            with decoding(f"{source} ends after frame {number - 1}: the next one"):
                animation.seek(number - 1)
                image = load_image(animation, channel)
        except InputError as error:
            warn(str(error))
            return
        yield DecodedFrame(number, image, time)
        time += (animation.info.get("duration") or duration) / 1000


def check_upload(path: Path, max_area: int) -> None:
    """Raise an `InputError` for an upload that is no clip, has frames of more pixels, or names other files."""
    import av

    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with decoding(path.name), path.open("rb") as stack:
                tiff = Tiff(stack)
                check_pixels(*tiff.size)
                size = math.prod(tiff.size)
        else:
            with av.open(str(path.absolute()), options=_only(UPLOADS)) as container:
                size = max(stream.width * stream.height for stream in container.streams.video)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path.name} is not a clip that can be read; give MP4, MOV, WebM, AVI, GIF or TIFF"
        ) from error
    if size > max_area:
        raise InputError(f"{path.name} has frames of {size:,} pixels, more than {max_area:,}; make it smaller")


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
    sources: Sequence[StillFrame], rate: Fraction, warn: Note, numbers: Iterable[int]
) -> Iterator[DecodedFrame]:
    """The frames with these numbers, from 1, in this order; those that cannot be read are reported and left out."""
    for number in numbers:
        name, read, channels = sources[number - 1]
        try:
            yield DecodedFrame(number, read(), float((number - 1) / rate), name, channels)
        except InputError as error:
            warn(f"frame {number} is left out: {error}")


def _only(formats: str) -> dict[str, str]:
    """Options of FFmpeg that keep it to these formats, and to files of this machine."""
    return {"format_whitelist": formats, "protocol_whitelist": "file"}


@contextmanager
def _opened(source: str) -> Iterator["InputContainer"]:
    import av.error

    camera, path = source.startswith("/dev/"), Path(source).absolute()
    if not path.exists() and "://" in source:
        raise InputError(f"{source} is an address, not a file; download it and give the file")
    if not path.exists():
        cure = "connect it, or give another number" if camera else "check the path"
        raise InputError(f"{source} does not exist; {cure}")
    try:
        if camera:
            container = av.open(source, format="v4l2")
        else:
            require_regular(path)
            container = av.open(str(path), options=_only(CONTAINERS))  # no name that begins as an address does
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cure = "see whether another program uses it" if camera else "it is not a video or cut short; export it again"
        raise InputError(f"cannot open {source} ({reason}): {cure}") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{source} holds no images, only other data; give a video")
        stream = container.streams.video[0]
        with decoding(source):
            check_pixels(stream.width, stream.height)
        stream.codec_context.options = {"max_pixels": str(max_pixels())}  # later frames may be larger
        yield container


def _decoded(container: "InputContainer", source: str, rate: Fraction, warn: Note) -> Iterator[DecodedFrame]:
    import av.error

    number, begin, cut = 0, None, False
    jpeg = container.streams.video[0].codec_context.name == "mjpeg"
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets, None)
            if packet is not None and jpeg:
                with decoding(source):
                    check_scans(bytes(packet))
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
        if packet.size:
            cut = packet.is_corrupt  # its data end early
        for frame in decoded:
            number += 1
            time = float((number - 1) / rate) if frame.time is None else frame.time
            begin = time if begin is None else begin
            image = frame.to_image()
            # Phones store upright videos on their side, with a rotation.
            yield DecodedFrame(
                number, image.rotate(frame.rotation, expand=True) if frame.rotation else image, time - begin
            )
    # A trimmed video counts the frames that are cut away, and an AVI those that were dropped; neither is cut short.
    stream = container.streams.video[0]
    if cut or max((entry.pos + entry.size for entry in stream.index_entries), default=0) > container.size > 0:
        expected = f" of {stream.frames}" if stream.frames else ""
        warn(f"{source} ends after frame {number}{expected}: it is cut short; copy or export it again")


class VideoWriter(AbstractContextManager["VideoWriter"]):
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

    def __exit__(self, *error: Any) -> None:
        with self._writing():
            if self._last >= 0:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    def write(self, image: Image.Image, time: float) -> None:
        """Add a frame of the first one's size at a time, in seconds; an `InputError` if it cannot be written."""
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
