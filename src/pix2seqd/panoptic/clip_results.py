"""Writing the output folder of `pix2seqd video`; it can be read whenever the process ends."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from pix2seqd.files import InputError, read_json, write_atomically, write_json
from pix2seqd.images.frames import DecodedFrame, VideoWriter
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.results import familiarity, make_folders, writing
from pix2seqd.panoptic.taxonomy import Taxonomy

WRITER = "written by pix2seqd video"
"""Mark in `info.description`, so that no other data set is mistaken for a result and overwritten."""


@dataclass
class Track:
    """One object over time."""

    first_frame: int
    categories: Counter[int] = field(default_factory=Counter)
    """Category id → number of frames."""
    areas: list[int] = field(default_factory=list)
    """Pixels in each frame from the first to the last in which it was seen."""

    def add(self, number: int, category_id: int, area: int) -> None:
        """Add a frame in which the object was seen; frames since the last one get area 0."""
        self.areas += [0] * (number - self.first_frame - len(self.areas)) + [area]
        self.categories[category_id] += 1


class ClipWriter:
    """Writes a folder; a context manager. An earlier result of `pix2seqd video` in it is replaced.

    | path | content |
    |---|---|
    | `overlay.mp4` | the clip with its segments, a colour per track |
    | `panoptic/NUMBER.png` | id of each pixel's track = R + 256 G + 65536 B |
    | `panoptic.json` | images (with the time in seconds), categories, annotations in COCO panoptic format |
    | `tracks.json` | id, category, first and last frame and areas of each track |

    The annotations of a long clip are kept on the disk, not in memory. Both JSON files are written again from time to
    time, and at the end, also after an error.
    """

    def __init__(self, out: Path, taxonomy: Taxonomy, settings: Mapping[str, Any], rate: Fraction) -> None:
        """Open a new or an existing folder.

        Raises:
            InputError: the folder cannot be written to, or has a `panoptic.json` that this command did not write.
        """
        make_folders(out, ("panoptic",))
        _remove_earlier(out)
        self._out, self._taxonomy, self._settings = out, taxonomy, dict(settings)
        self._images: list[dict[str, Any]] = []
        self._tracks: dict[int, Track] = {}
        self._save_after = 0.0
        with ExitStack() as stack:
            self._annotations = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=out))
            self._video = stack.enter_context(VideoWriter(out / "overlay.mp4", rate))
            stack.callback(self._save)
            self._save()  # replaces the earlier result
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self._out):
            self._closing.__exit__(kind, error, trace)

    @property
    def things(self) -> int:
        """Number of tracks of things so far."""
        kinds = {category.id: category.isthing for category in self._taxonomy.categories}
        return sum(kinds[track.categories.most_common(1)[0][0]] for track in self._tracks.values())

    @property
    def unfamiliar(self) -> list[int]:
        """Numbers of the frames so far that look unlike what the model was trained on."""
        return [record["id"] for record in self._images if record.get("unfamiliar")]

    def write(self, frame: DecodedFrame, panoptic: Panoptic) -> None:
        """Add a frame whose segment ids are those of tracks.

        Raises:
            InputError: writing failed, e.g. because the disk is full.
        """
        name = f"{frame.number:06d}.png"
        # Slow work comes first, so that Ctrl-C rarely leaves a frame in one file but not in another.
        shown = panoptic.overlay(frame.image)
        png, annotation = panoptic.to_coco(frame.number, name)
        with write_atomically(self._out / "panoptic" / name) as temporary:
            Image.fromarray(png).save(temporary, format="PNG")
        self._video.write(shown, frame.time)
        record = {"id": frame.number, "file_name": frame.name or name, "time": round(frame.time, 6)}
        record |= {"width": frame.image.width, "height": frame.image.height, **familiarity(panoptic)}
        self._images.append(record)
        for segment in panoptic.segments:
            track = self._tracks.setdefault(segment.id, Track(frame.number))
            track.add(frame.number, segment.category_id, segment.area)
        with writing(self._out):
            print(json.dumps(annotation, ensure_ascii=False), file=self._annotations)
        if time.monotonic() >= self._save_after:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        info = {"description": WRITER, "settings": self._settings}
        categories = self._taxonomy.to_coco()
        head = json.dumps({"info": info, "images": self._images, "categories": categories}, ensure_ascii=False)
        with write_atomically(self._out / "panoptic.json") as temporary, temporary.open("w", encoding="utf-8") as file:
            self._annotations.seek(0)
            print(head[:-1] + ', "annotations": [', file=file)
            for number, line in enumerate(self._annotations):
                print("," * (number > 0) + line, end="", file=file)
            print("]}", file=file)
        tracks = [self._record(number, self._tracks[number]) for number in sorted(self._tracks)]
        write_json(self._out / "tracks.json", {"info": info, "tracks": tracks})
        now = time.monotonic()
        self._save_after = now + 20 * (now - started)  # saving takes at most 5 % of the time

    def _record(self, number: int, track: Track) -> dict[str, Any]:
        category_id = track.categories.most_common(1)[0][0]
        category = self._taxonomy.category(self._taxonomy.class_of(category_id))
        return {
            "id": number,
            "category_id": category_id,
            "name": category.name,
            "isthing": int(category.isthing),
            "first_frame": track.first_frame,
            "last_frame": track.first_frame + len(track.areas) - 1,
            "areas": track.areas,
        }


def _remove_earlier(out: Path) -> None:
    """Remove all PNGs of an earlier result; it may be longer, and a killed process may not have recorded the last."""
    path = out / "panoptic.json"
    if not path.exists():
        return
    content = read_json(path)
    try:
        if content["info"]["description"] != WRITER:
            raise ValueError(content["info"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a result of `pix2seqd video`; choose another --out") from error
    for png in (out / "panoptic").glob("*.png"):
        if png.stem.isdecimal():
            png.unlink()
