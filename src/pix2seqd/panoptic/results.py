"""Writing the output folder of `pix2seqd segment`: images, segmentations and overlays."""

import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pix2seqd.files import InputError, printable, require_regular, resolved, write_atomically, write_png
from pix2seqd.images.load import Source, absolute
from pix2seqd.panoptic.folder import FOLDERS, PanopticFolder, identity_of, layout
from pix2seqd.panoptic.journal import Entry
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.parts import locate
from pix2seqd.panoptic.taxonomy import Taxonomy

WRITER = "written by pix2seqd segment"
"""Mark in `info.description`, so that no other data set is mistaken for a result and overwritten."""

_NAMED = 1000
"""Images whose names are taken at a time, so that lists of very many are never in memory twice."""


def make_folders(out: Path, names: tuple[str, ...] = FOLDERS) -> None:
    """Make the folders of an output; an `InputError` if they cannot be made or written to."""
    folders = [out, *(out / name for name in names)]
    with writing(out):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        check_writable(folder)


def check_out(out: Path, shard: int | None) -> None:
    """Raise an `InputError`, before the work starts, if no result in parts of `shard` images can be written here."""
    layout(out, shard)
    check_makeable(out)


def check_makeable(out: Path) -> None:
    """Raise an `InputError`, before the work starts, if a folder that may not exist yet cannot be made."""
    check_writable(next(path for path in (out, *out.absolute().parents) if path.exists()))


def check_writable(folder: Path) -> None:
    """Raise an `InputError`, before the work starts, if a folder does not exist or cannot be written to."""
    with writing(folder):
        tempfile.TemporaryFile(dir=folder).close()


def check_files(*paths: Path | None) -> None:
    """Raise an `InputError`, before the work starts, if files cannot be written or two are the same."""
    given = [path for path in paths if path]
    for path in given:
        require_regular(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file to write")
        check_writable(path.parent)
    if repeated := [path for path, n in Counter(map(resolved, given)).items() if n > 1]:
        raise InputError(f"two results would be written to {repeated[0]}; give two names")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of the system in the block into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another --out") from error


class PanopticWriter(AbstractContextManager["PanopticWriter"]):
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
    and at the end, also after an error; what is new since the last time is in a journal. Several processes may write
    into one folder; each adds its own entries, one process at a time (`pix2seqd.panoptic.folder`).

    With `shard` the folder has parts, `part-00000/` and so on, each with all of this for `shard` images.
    """

    def __init__(
        self,
        out: Path,
        taxonomy: Taxonomy,
        settings: Mapping[str, Any],
        sources: Iterable[Path] = (),
        *,
        shard: int | None = None,
        folders: tuple[str, ...] = FOLDERS,
    ) -> None:
        """Open a new or an existing folder; an `InputError` if it cannot be written to or holds other results.

        Args:
            out: the folder.
            taxonomy: the categories of everything in it.
            settings: what the results depend on besides the image, as JSON values.
            sources: the images that are going to be written, as far as known; their order decides the STEMs.
            shard: number of images of a part; None: no parts.
            folders: the folders of the files of images.
        """
        layout(out, shard)
        make_folders(out, ())
        self._out, self._settings, self._folders = out, dict(settings), folders
        self._parts: set[str] = set()
        self._save_after = 0.0
        with ExitStack() as stack:
            folder = PanopticFolder(out, taxonomy, WRITER, self._settings, is_exclusive=True, shard=shard)
            self._folder = stack.enter_context(folder)
            remaining = iter(sources)
            while some := list(islice(remaining, _NAMED)):
                self._name(some)
            self._closing = stack.pop_all()

    def __exit__(self, *error: Any) -> None:
        with self._closing:
            self._save()

    @property
    def parts(self) -> list[Path]:
        """The folders with results of this process: the parts, or the folder itself."""
        return [self._out / part for part in sorted(self._parts)]

    def is_done(self, source: Path) -> bool:
        """Whether the unchanged file was segmented with these settings and all its output files still exist."""
        identity = _identity(source)
        recorded = self._folder.recorded.get(identity["path"]) if identity else None
        if recorded is None or not recorded.has_settings or recorded.identity != identity_of({"source": identity}):
            return False
        # Without `Path`, which takes most of the time where many images are done.
        part, _, stem = recorded.name.rpartition("/")
        folder = os.path.join(self._out, part)  # noqa: PTH118
        names = zip(FOLDERS, (stem + recorded.suffix, f"{stem}.png", f"{stem}.png"), strict=True)
        return all(os.path.isfile(os.path.join(folder, kind, name)) for kind, name in names)  # noqa: PTH113, PTH118

    def also(self, source: Path) -> Mapping[str, Any]:
        """The further files of an image that was written, by its record: kind → pixel size (`ExtraFiles.record`)."""
        return self._folder.recorded[absolute(source)].also

    def entries(self, sources: Iterable[Path]) -> Iterator[tuple[Path, Entry]]:
        """The records of images that were written, one at a time, part by part."""
        by_key = {absolute(source): source for source in sources}
        self._save_after = math.inf  # what is read is not replaced meanwhile
        try:
            yield from ((by_key[key], entry) for key, entry in self._folder.stored(by_key))
        finally:
            self._save_after = 0.0

    def segments(self, source: Path) -> list[dict[str, Any]]:
        """The `segments_info` of an image that was written."""
        (_, (_, annotation)) = next(self.entries([source]))
        return annotation["segments_info"]

    def unfamiliar(self, sources: Iterable[Path]) -> list[Path]:
        """The files whose image is unlike those that the model was trained on (out of distribution)."""
        recorded = ((source, self._folder.recorded.get(absolute(source))) for source in sources)
        return [source for source, about in recorded if about and about.is_unfamiliar]

    def write(self, source: Path, image: Source, panoptic: Panoptic) -> None:
        """Write the files of an image, whose content is `image`, and add or replace its entry."""
        self.add(source, write_files(*locate(self._out, self.stem(source)), source, image, panoptic, self._settings))

    def add(self, source: Path, entry: Entry) -> None:
        """Add the records of an image whose files are written."""
        self._folder.add(absolute(source), entry)
        if time.monotonic() >= self._save_after:
            self._save()

    def stem(self, source: Path) -> str:
        """STEM of an image; in a result in parts, the part comes first (`parts.locate`)."""
        key = absolute(source)
        name = self._folder.stem(key)
        if name is None or name.rpartition("/")[0] not in self._parts:
            name = self._name([source])[key]
        return name

    def _name(self, sources: Iterable[Path]) -> Mapping[str, str]:
        """Take the names of images and make their folders; the names by key."""
        named = self._folder.stems({absolute(source): printable(source.stem) for source in sources})
        for part in {name.rpartition("/")[0] for name in named.values()} - self._parts:
            make_folders(self._out / part, self._folders)
            self._parts.add(part)
        return named

    def _save(self) -> None:
        started = time.monotonic()
        self._folder.save()
        now = time.monotonic()
        # Saving takes at most 5 % of the time, of all processes together.
        self._save_after = now + 20 * (now - started) * self._folder.writers


def write_files(
    out: Path, stem: str, source: Path, image: Source, panoptic: Panoptic, settings: Mapping[str, Any]
) -> Entry:
    """Write the three files of one image into a folder; returns its records, in which the image's number is 0.

    An `InputError` says that writing failed, e.g. because the disk is full.
    """
    name = stem + printable(source.suffix)
    with write_atomically(out / "images" / name) as temporary:
        shutil.copyfile(source, temporary)
    for folder, draw in {"panoptic": panoptic.to_png, "overlay": partial(panoptic.overlay, image)}.items():
        write_png(out / folder / f"{stem}.png", draw())
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
    """The keys of an image's record that say whether it is unlike the training images; empty if that is not known."""
    if panoptic.ood_score is None:
        return {}
    return {"unfamiliar": panoptic.unfamiliar, "ood_score": round(panoptic.ood_score, 3)}


def _identity(source: Path) -> dict[str, Any]:
    """Path, size and time of a file, which show whether it has changed; empty if it is missing."""
    try:
        status = source.stat()
    except OSError:
        return {}
    return {"path": absolute(source), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
