"""Writing the output folder of `pix2seqd segment`: images, segmentations and overlays."""

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pix2seqd.files import InputError, printable, write_atomically
from pix2seqd.images.load import Source, absolute
from pix2seqd.panoptic.folder import FOLDERS, Entry, PanopticFolder, entries, put
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

WRITER = "written by pix2seqd segment"
"""Mark in `info.description`, so that no other data set is mistaken for a result and overwritten."""


def make_folders(out: Path, names: tuple[str, ...] = FOLDERS) -> None:
    """Make the folders of an output and check that they can be written to.

    Raises:
        InputError: they cannot be made or written to.
    """
    with writing(out):
        for name in names:
            (out / name).mkdir(parents=True, exist_ok=True)
    for folder in (out, *(out / name for name in names)):
        check_writable(folder)


def check_writable(folder: Path) -> None:
    """Check, before the work starts, that its result can be written.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    with writing(folder):
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of the system in the block into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another --out") from error


class PanopticWriter:
    """Writes a folder that is a data set in COCO panoptic format; a context manager.

    | path | content |
    |---|---|
    | `images/NAME` | the image, byte for byte |
    | `panoptic/STEM.png` | id of each pixel's segment = R + 256 G + 65536 B |
    | `panoptic.json` | images, categories, annotations; each image also has `source` and `settings`, and `unfamiliar` |
    | `overlay/STEM.png` | the segments drawn over the image |

    NAME and STEM are those of the image's file. If another image in the folder has the same stem (`a.png` and `a.jpg`,
    or `a.png` of two folders), `-2`, `-3`, ... is appended. Existing entries are kept; an image that is written again
    replaces its own entry only. Every file is written atomically. `panoptic.json` is written again from time to time,
    and at the end, also after an error. Several processes may write into one folder; each adds its own entries, one
    process at a time (`pix2seqd.panoptic.folder`).
    """

    def __init__(
        self, out: Path, taxonomy: Taxonomy, settings: Mapping[str, Any], sources: Iterable[Path] = ()
    ) -> None:
        """Open a new or an existing folder.

        Args:
            out: the folder.
            taxonomy: the categories of everything in it.
            settings: what the results depend on besides the image, as JSON values.
            sources: the images that are going to be written, as far as known; their order decides the STEMs.

        Raises:
            InputError: the folder cannot be written to, it has a `panoptic.json` that is broken, that this command did
                not write, or that has other categories, or another process writes the same images with other settings.
        """
        make_folders(out)
        self._out, self._settings = out, dict(settings)
        self._new: dict[str, Entry] = {}
        self._save_after = 0.0
        with ExitStack() as stack:
            self._folder = stack.enter_context(PanopticFolder(out, taxonomy, WRITER, self._settings, is_exclusive=True))
            self._entries = entries(self._folder.read())
            self._stems = self._folder.stems({absolute(source): printable(source.stem) for source in sources})
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:
            if self._new:
                self._save()

    def is_done(self, source: Path) -> bool:
        """Whether the unchanged file was segmented with these settings and all its output files still exist."""
        image, annotation = self._entries.get(absolute(source), ({}, {}))
        if not image or image["settings"] != self._settings or image["source"] != _identity(source):
            return False
        names = (image["file_name"], annotation["file_name"], annotation["file_name"])
        return all((self._out / folder / name).is_file() for folder, name in zip(FOLDERS, names, strict=True))

    def entry(self, source: Path) -> Entry:
        """The records of an image that was written."""
        return self._entries[absolute(source)]

    def segments(self, source: Path) -> list[dict[str, Any]]:
        """The `segments_info` of an image that was written."""
        return self.entry(source)[1]["segments_info"]

    def unfamiliar(self, sources: Iterable[Path]) -> list[Path]:
        """Those of the files whose image looks unlike what the model was trained on."""
        return [source for source in sources if self._entries.get(absolute(source), ({},))[0].get("unfamiliar")]

    def write(self, source: Path, image: Source, panoptic: Panoptic) -> None:
        """Add an image or replace its entry.

        Args:
            source: the file.
            image: its content, as `load_image` takes or gives it.
            panoptic: its segmentation.

        Raises:
            InputError: writing failed, e.g. because the disk is full.
        """
        self.add(source, write_files(self._out, self.stem(source), source, image, panoptic, self._settings))

    def add(self, source: Path, entry: Entry) -> None:
        """Add the records of an image whose files are written."""
        self._new[absolute(source)] = self._entries[absolute(source)] = entry
        if time.monotonic() >= self._save_after:
            self._save()

    def stem(self, source: Path) -> str:
        """STEM of an image."""
        if absolute(source) not in self._stems:
            self._stems |= self._folder.stems({absolute(source): printable(source.stem)})
        return self._stems[absolute(source)]

    def _save(self) -> None:
        started = time.monotonic()
        with self._folder.changing() as content:
            put(content, self._new)
            self._entries = entries(content)
        self._new = {}
        now = time.monotonic()
        self._save_after = now + 20 * (now - started)  # saving takes at most 5 % of the time


def write_files(
    out: Path, stem: str, source: Path, image: Source, panoptic: Panoptic, settings: Mapping[str, Any]
) -> Entry:
    """Write the three files of one image; returns its records, in which the image's number is 0.

    Raises:
        InputError: writing failed, e.g. because the disk is full.
    """
    name = stem + printable(source.suffix)
    with write_atomically(out / "images" / name) as temporary:
        shutil.copyfile(source, temporary)
    with write_atomically(out / "panoptic" / f"{stem}.png") as temporary:
        panoptic.to_png().save(temporary, format="PNG")
    with write_atomically(out / "overlay" / f"{stem}.png") as temporary:
        panoptic.overlay(image).save(temporary, format="PNG")
    height, width = panoptic.segmentation.shape
    record = {
        "id": 0,
        "file_name": name,
        "width": width,
        "height": height,
        **familiarity(panoptic),
        "source": _identity(source),
        "settings": dict(settings),
    }
    return record, panoptic.annotation(0, f"{stem}.png")


def familiarity(panoptic: Panoptic) -> dict[str, Any]:
    """What the record of an image says about how the image looks to the model; empty if that is not known."""
    if panoptic.strangeness is None:
        return {}
    return {"unfamiliar": panoptic.unfamiliar, "strangeness": round(panoptic.strangeness, 3)}


def _identity(source: Path) -> dict[str, Any]:
    """Path, size and time of a file, which show whether it has changed; empty if it is missing."""
    try:
        status = source.stat()
    except OSError:
        return {}
    return {"path": absolute(source), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
