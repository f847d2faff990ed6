"""Results in the format of the Cell Tracking Challenge: a label image per frame, and a list of tracks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pix2seqd.files import InputError, write_atomically
from pix2seqd.images.tiff import write_labels
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.runs import mapped

MAX_LABEL = 2**16 - 1
DIGITS = 3
"""Fewest digits of a frame's number in the names of the files."""


class CtcWriter:
    """Writes `maskTTT.tif` (uint16, 0 = background) and `res_track.txt` (a line "L B E P" per label) into a folder.

    All things are written, also those seen in few frames. TTT, B and E count frames from 0; frames that are left out
    get an empty mask. In this format a label is in every frame from B to E. Where an object is not seen for a while,
    its track is cut: it goes on under a new label, with the old one as its parent P. Where a cell divides, its label
    ends, and both daughters have it as their parent.

    TTT has three digits, and more as soon as there are more than 1000 frames; the files are renamed then, because
    other programs sort them by name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._frames = 0
        """Number of masks written."""
        self._digits = DIGITS
        self._labels: dict[int, int] = {}
        """Track → its present label."""
        self._lines: list[list[int]] = []
        """L, B, E and P of each label; label k is line k - 1."""

    def write(self, number: int, panoptic: Panoptic, parents: Mapping[int, int]) -> None:
        """Add a frame, counted from 1, whose segment ids are those of tracks.

        `parents` are the cells that divided: id of each daughter that starts a track → id of her mother. More than
        65,535 labels are an `InputError`.
        """
        frame = number - 1
        while self._frames < frame:
            self._write_mask(np.zeros(panoptic.segmentation.shape, np.uint16))
        labels, lines = {}, []
        for segment in panoptic.things:
            label = self._labels.get(segment.id, 0)
            if not label or self._lines[label - 1][2] != frame - 1 or segment.id in parents.values():
                parent = label or self._labels.get(parents.get(segment.id, 0), 0)
                label = len(self._lines) + len(lines) + 1
                lines.append([label, frame, frame, parent])
            labels[segment.id] = label
        if len(self._lines) + len(lines) > MAX_LABEL:
            raise InputError(
                f"up to frame {number} there are more than the {MAX_LABEL:,} tracks of the Cell Tracking Challenge's "
                "format; cut the clip into parts, or leave out --also ctc"
            )
        self._write_mask(mapped(panoptic.segmentation, labels, np.uint16))
        self._lines += lines  # after the mask, so that they agree whenever the process is interrupted
        for label in labels.values():
            self._lines[label - 1][2] = frame
        self._labels |= labels

    def save(self) -> None:
        """Write `res_track.txt` with the frames so far."""
        with write_atomically(self._folder / "res_track.txt") as temporary:
            temporary.write_text("".join(" ".join(map(str, line)) + "\n" for line in self._lines), encoding="ascii")

    def _write_mask(self, labels: np.ndarray) -> None:
        digits = max(DIGITS, len(str(self._frames)))
        if digits > self._digits:
            for frame in range(self._frames):
                self._path(frame).rename(self._folder / f"mask{frame:0{digits}d}.tif")
            self._digits = digits
        with write_atomically(self._path(self._frames)) as temporary:
            write_labels(temporary, labels)
        self._frames += 1

    def _path(self, frame: int) -> Path:
        return self._folder / f"mask{frame:0{self._digits}d}.tif"
