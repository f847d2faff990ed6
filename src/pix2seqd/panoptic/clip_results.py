"""Writing the output folder of `pix2seqd video`; it can be read whenever the process ends."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.files import (
    TEMPORARY,
    InputError,
    exclusive_lock,
    json_line,
    leftovers,
    read_json,
    write_atomically,
    write_json,
    write_png,
)
from pix2seqd.images.frames import DecodedFrame, VideoWriter
from pix2seqd.images.tiff import write_label_stack
from pix2seqd.panoptic.collect import Item, merge
from pix2seqd.panoptic.ctc import CtcWriter
from pix2seqd.panoptic.extra_files import (
    FOLDER_FILES,
    NO_FILES,
    PLACES,
    ExtraFiles,
    csv_writer,
    escaped,
    remove_all,
    write_further,
)
from pix2seqd.panoptic.folder import LOCK
from pix2seqd.panoptic.journal import write_lists
from pix2seqd.panoptic.panoptic import Panoptic, rgb_to_id
from pix2seqd.panoptic.parts import find_parts
from pix2seqd.panoptic.results import familiarity, make_folders, writing
from pix2seqd.panoptic.runs import mapped
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.panoptic.tracks import MIN_FRAMES, Track, Tracks, centroid

WRITER = "written by pix2seqd video"
"""Mark in `info.description`, so that no other data set is mistaken for a result and overwritten."""

OUTPUTS = ("overlay.mp4", "panoptic", "labels", "ctc")
"""Files and folders that the command overwrites: a source must not be one of them, or lie in one."""


class ClipWriter(AbstractContextManager["ClipWriter"]):
    """Writes the output folder, whose files docs/video.md describes; a context manager.

    An earlier result of `pix2seqd video` in it is replaced. With `ctc` there is the folder of `CtcWriter` too. With
    `stack` the frames are the depths of a stack, and there are `labels/STACK.tif` and `volumes.csv` instead of
    `tracks.csv`.

    The lists of tracks (`tracks.json`, `tracks.csv`, `volumes.csv`, `track_measures.csv`) have those that were seen in
    at least `min_frames` frames, or in all frames of a shorter clip. Everything else has all segments. `also` names
    further files, for each frame and for the clip (`extra_files.PLACES`, `extra_files.FOLDER_FILES`).

    The annotations of a long clip are kept on the disk, not in memory. Lists and the label stack are written again from
    time to time, and at the end, also after an error.
    """

    def __init__(
        self,
        out: Path,
        taxonomy: Taxonomy,
        settings: Mapping[str, Any],
        rate: Fraction,
        *,
        also: ExtraFiles = NO_FILES,
        min_frames: int = MIN_FRAMES,
        ctc: bool = False,
        stack: str = "",
        plane_distance: float | None = None,
    ) -> None:
        """Open a new or an existing folder; an `InputError` if it cannot be written to or holds other data.

        Args:
            out: the folder.
            taxonomy: the categories of the segments.
            settings: what the results depend on besides the frames, as JSON values.
            rate: frames per second of `overlay.mp4`.
            also: further files.
            min_frames: smallest number of frames of a track in the lists.
            ctc: whether to write the Cell Tracking Challenge's format too.
            stack: name of the label stack, without its suffix, if the frames are depths.
            plane_distance: micrometres from one depth to the next; None: unknown.
        """
        make_folders(out, ())
        self._out, self._taxonomy, self._settings, self._also = out, taxonomy, dict(settings), also
        self._counts: list[Counter[int]] = []
        self._min_frames, self._stack, self._plane_distance = min_frames, stack, plane_distance
        self._images: list[dict[str, Any]] = []
        self._tracks = Tracks(divide=not stack)
        self._save_after = 0.0
        with ExitStack() as files:
            files.enter_context(exclusive_lock(out / LOCK))
            with writing(out):
                _remove_earlier(out)
                for path in _leftovers(out):
                    path.unlink(missing_ok=True)
            make_folders(out, ("panoptic", *also.folders, *["ctc"] * ctc, *["labels"] * bool(stack)))
            self._ctc = CtcWriter(out / "ctc") if ctc else None
            self._annotations, self._rows = (
                files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline="", dir=out))
                for _ in range(2)
            )
            self._video = files.enter_context(VideoWriter(out / "overlay.mp4", rate))
            files.callback(self._save)
            self._save()  # replaces the earlier result
            self._closing = files.pop_all()

    def __exit__(self, *error: Any) -> None:
        with writing(self._out):
            self._closing.__exit__(*error)

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return len(self._images)

    @property
    def min_frames(self) -> int:
        """Smallest number of frames of a track in the lists; less than was asked for if the clip is shorter."""
        return min(self._min_frames, self.frames)

    @property
    def lengths(self) -> list[int]:
        """Number of frames in which each thing was seen so far, also of things that the lists leave out."""
        return [track.seen for track in self._tracks.values() if track.isthing]

    @property
    def unfamiliar(self) -> list[int]:
        """Numbers of the frames so far that look unlike what the model was trained on."""
        return [record["id"] for record in self._images if record.get("unfamiliar")]

    def write(self, frame: DecodedFrame, panoptic: Panoptic) -> None:
        """Add a frame whose segment ids are those of tracks; an `InputError` if it cannot be written."""
        name = f"{frame.number:06d}.png"
        # Slow work comes first, so that Ctrl-C rarely leaves a frame in one file but not in another.
        shown = panoptic.overlay(frame.image)
        png, annotation = panoptic.to_png(), panoptic.annotation(frame.number, name)
        moment = None if self._stack else round(frame.time, 6)  # depths are no times
        record = {"id": frame.number, "file_name": frame.name or name, "time": moment}
        record |= {"width": frame.image.width, "height": frame.image.height, **familiarity(panoptic)}
        paths = self._also.paths(self._out, Path(name).stem)
        write_further(paths, record, panoptic, frame.channels, self._also.pixel_size, frame.image)
        parents = self._tracks.parents(frame.number, panoptic)
        centroids = {segment.id: centroid(panoptic, segment) for segment in panoptic.things}
        write_png(self._out / "panoptic" / name, png)
        if self._ctc:
            self._ctc.write(frame.number, panoptic, parents)
        self._video.write(shown, frame.time)
        self._tracks.add(frame.number, panoptic, centroids, parents)
        self._images.append(record)
        self._counts.append(Counter(segment.category_id for segment in panoptic.segments))
        with writing(self._out):
            print(json_line(annotation), file=self._annotations)
            for segment in panoptic.things:
                centroid_xy = (f"{value:.2f}" for value in centroids[segment.id])
                print(frame.number, record["time"], segment.id, *centroid_xy, segment.area, sep=",", file=self._rows)
        if time.monotonic() >= self._save_after:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        info = {"description": WRITER, "settings": self._settings}
        info |= {"stack": self._stack} if self._stack else {}
        categories = self._taxonomy.to_coco()
        self._annotations.seek(0)
        images = (json_line(image).encode() for image in self._images)
        annotations = (line.rstrip("\n").encode() for line in self._annotations)
        write_lists(self._out / "panoptic.json", {"info": info, "categories": categories}, images, annotations)
        tracks = list(self._tracks.lasting(self.min_frames))
        write_json(self._out / "tracks.json", {"info": info, "tracks": [self._record(*track) for track in tracks]})
        things = {number: track for number, track in tracks if track.isthing}
        if self._stack:
            self._save_stack(things)
        else:
            self._save_rows(things)
        if self._ctc:
            self._ctc.save()
        frames = zip(self._images, self._counts, strict=True)
        items = [Item(f"{image['id']:06d}", image, counts) for image, counts in frames]
        for kind in FOLDER_FILES.keys() & self._also.kinds:
            merge(self._out, kind, items, categories, min_frames=self.min_frames)
        now = time.monotonic()
        self._save_after = now + 20 * (now - started)  # saving takes at most 5 % of the time

    def _record(self, number: int, track: Track) -> dict[str, Any]:
        return {
            "id": number,
            "category_id": track.category_id,
            "name": self._name(track),
            "isthing": int(track.isthing),
            "first_frame": track.first_frame,
            "last_frame": track.last_frame,
            "areas": track.areas,
        }

    def _save_rows(self, things: Mapping[int, Track]) -> None:
        with _csv(self._out / "tracks.csv", "frame", "time", "id", "category", "x", "y", "area", "parent") as rows:
            self._rows.seek(0)
            for line in self._rows:
                frame, time, number, x, y, area = line.rstrip("\n").split(",")
                if track := things.get(int(number)):
                    parent = track.parent if track.parent in things else ""
                    rows.writerow([frame, time, number, escaped(self._name(track)), x, y, area, parent])

    def _save_stack(self, things: Mapping[int, Track]) -> None:
        side, distance = self._also.pixel_size, self._plane_distance
        lengths = {"z_um": distance, "y_um": side, "x_um": side}
        known = [name for name, length in lengths.items() if length]
        voxel = [side * side * distance] if side and distance else []
        names = ("id", "category", "volume", "z", "y", "x", "first_plane", "last_plane", "planes")
        with _csv(self._out / "volumes.csv", *names, *["volume_um3"] * len(voxel), *known) as rows:
            for number, track in things.items():
                volume = sum(track.areas)
                x, y, z = track.moments / volume - (0, 0, 1)
                cells = [f"{z:.2f}", f"{y:.2f}", f"{x:.2f}", track.first_frame, track.last_frame, track.seen]
                cells += [f"{volume * size:.6g}" for size in voxel]
                cells += [
                    f"{at * length:.6g}" for at, length in zip((z, y, x), lengths.values(), strict=True) if length
                ]
                rows.writerow([number, escaped(self._name(track)), volume, *cells])
        if self._images:
            last = self._images[-1]
            shape = last["id"], last["height"], last["width"]
            dtype = np.uint16 if max(self._tracks, default=0) < 2**16 else np.uint32
            with write_atomically(self._out / "labels" / f"{self._stack}.tif") as temporary:
                write_label_stack(temporary, self._planes(shape, dtype), shape, dtype, side, distance)

    def _planes(self, shape: tuple[int, int, int], dtype: type) -> Iterator[np.ndarray]:
        """The planes of the label stack, from the masks on the disk; those that were left out are empty."""
        things = {number: number for number, track in self._tracks.items() if track.isthing}
        for number in range(1, shape[0] + 1):
            path = self._out / "panoptic" / f"{number:06d}.png"
            if path.exists():
                with Image.open(path) as png:
                    yield mapped(rgb_to_id(np.asarray(png)), things, dtype)
            else:
                yield np.zeros(shape[1:], dtype)

    def _name(self, track: Track) -> str:
        return self._taxonomy.category(self._taxonomy.class_of(track.category_id)).name


@contextmanager
def _csv(path: Path, *columns: str) -> Iterator[Any]:
    """A writer of the rows of a table, which replaces `path` in the end."""
    with write_atomically(path) as temporary, csv_writer(temporary) as rows:
        rows.writerow(columns)
        yield rows


def _leftovers(out: Path) -> Iterator[Path]:
    """The temporary files of a process that was killed."""
    for name in ("panoptic.json", "tracks.json", "tracks.csv", "volumes.csv", *chain(*FOLDER_FILES.values())):
        yield from leftovers(out / name)
    for folder in ("panoptic", "labels", "ctc", *(folder for folder, _ in PLACES.values())):
        yield from (out / folder).glob(TEMPORARY)


def _remove_earlier(out: Path) -> None:
    """Remove an earlier result; it may be longer, have other files, and lack the record of its last masks."""
    path = out / "panoptic.json"
    if find_parts(out):
        raise InputError(f"{out} has a result of `pix2seqd segment` in parts; choose another --out")
    if not path.exists():
        return
    content = read_json(path)
    try:
        if content["info"]["description"] != WRITER:
            raise ValueError(content["info"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a result of `pix2seqd video`; choose another --out") from error
    remove_all(out)
    old = [file for file in (out / "panoptic").glob("*.png") if file.stem.isdecimal()]
    old += [file for file in (out / "ctc").glob("mask*.tif") if file.stem.removeprefix("mask").isdecimal()]
    old += [out / "tracks.csv", out / "volumes.csv", out / "ctc" / "res_track.txt"]
    if stack := content["info"].get("stack"):
        old.append(out / "labels" / f"{Path(str(stack)).name}.tif")
    for file in old:
        file.unlink(missing_ok=True)
