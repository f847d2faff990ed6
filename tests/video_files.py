"""Read and rewrite video files."""

from fractions import Fraction
from pathlib import Path

import av

from pix2seqd.images.frames import open_clip

RATE = Fraction(10)


def read(source: Path | str) -> tuple[list, list[str]]:
    """Frames and complaints."""
    complaints: list[str] = []
    with open_clip(str(source), complaints.append, 10) as clip:
        return list(clip.frames), complaints


def faststart(path: Path, source: Path) -> Path:
    """The same video with its index in front, as on the web, so that a truncated file can be opened."""
    with av.open(source) as old, av.open(path, "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return path
