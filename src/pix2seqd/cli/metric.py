"""The command `pix2seqd metric`: the official metrics for what any tool predicted."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from pix2seqd.files import InputError, read_json, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from pix2seqd.data.coco import CocoAnnotations

T = TypeVar("T")
Scores = tuple[dict[str, Any], list["Table"]]
"""What to write, and what to show."""


def metric(
    kind: Literal["pq", "jf", "stq"],
    truth: Path,
    prediction: Path,
    /,
    *,
    json: Path | None = None,
    truth_pngs: Path | None = None,
    prediction_pngs: Path | None = None,
    sequences: Path | None = None,
) -> None:
    """Score what any tool predicted; equal to the official tools (docs/datasets.md).

    Args:
        kind: pq: panoptic quality of COCO, of two json files in COCO panoptic format. jf: J and F of DAVIS 2017,
            unsupervised, and stq: segmentation and tracking quality of KITTI-STEP, of two folders with
            SEQUENCE/FRAME.png, coded as these data sets are.
        truth: the truth; all its images, sequences and frames must be predicted.
        prediction: the prediction.
        json: JSON file to write, with values 0..1, and null for what does not occur.
        truth_pngs: for pq, folder of the truth's PNGs. Default: beside its json, named as it without .json.
        prediction_pngs: for pq, the same for the prediction.
        sequences: for jf and stq, text file with the names of the sequences to score, such as
            DAVIS/ImageSets/2017/val.txt. Default: all folders of the truth.
    """
    from rich.console import Console

    from pix2seqd.panoptic.results import check_writable

    if json:
        check_writable(json.parent)
    if kind == "pq":
        _refuse(kind, sequences=sequences)
        scores, tables = _panoptic_quality(truth, prediction, truth_pngs, prediction_pngs)
    else:
        _refuse(kind, truth_pngs=truth_pngs, prediction_pngs=prediction_pngs)
        names = _sequences(truth, sequences)
        scores, tables = (_region_contour if kind == "jf" else _step_quality)(truth, prediction, names)
    for table in tables:
        Console().print(table)
    if json:
        write_json(json, scores)
        print(f"written to {json}")


def _refuse(kind: str, **options: Path | None) -> None:
    for name, given in options.items():
        if given is not None:
            raise InputError(f"--{name.replace('_', '-')} means nothing for {kind}; leave it out")


def _panoptic_quality(truth: Path, prediction: Path, truth_pngs: Path | None, prediction_pngs: Path | None) -> Scores:
    from pix2seqd.metrics.panoptic_quality import PanopticQuality

    true = _annotations(truth, truth_pngs)
    # Prediction files of other tools may come without categories; the image ids tell what belongs together.
    predicted = _annotations(prediction, prediction_pngs, {"categories": true.taxonomy.to_coco()})
    ours, theirs = ([(c.id, c.name, c.isthing) for c in side.taxonomy.categories] for side in (true, predicted))
    if strange := [category for category in theirs if category not in ours]:
        number, name, isthing = strange[0]
        category = f"category {number} {name!r} ({'thing' if isthing else 'stuff'})"
        raise InputError(f"{prediction}: {category} is none of {truth}; predict the truth's categories")
    predicted.taxonomy = true.taxonomy
    quality = PanopticQuality(true.taxonomy)
    for image_id in _track(true.image_ids):
        one, other = (side.read(image_id, str(image_id)) for side in (true, predicted))
        with _naming(f"image {image_id}"):
            quality.update(one, other)
    scores = quality.compute()
    parts = _table(("", "PQ", "SQ", "RQ"), {name: scores[name] for name in ("All", "Things", "Stuff")}, ("n",))
    classes = {row["name"]: row for row in scores["per_class"].values() if row["tp"] + row["fp"] + row["fn"]}
    return scores, [parts, _table(("category", "PQ", "SQ", "RQ"), classes, ("tp", "fp", "fn"))]


def _annotations(path: Path, pngs: Path | None, defaults: dict[str, Any] | None = None) -> "CocoAnnotations":
    from pix2seqd.data.coco import CocoAnnotations

    content = read_json(path)
    content = {**(defaults or {}), **content} if isinstance(content, dict) else content
    return CocoAnnotations(path, content, pngs or path.with_suffix(""))


def _region_contour(truth: Path, prediction: Path, names: Sequence[str]) -> Scores:
    from pix2seqd.metrics.overlap import mean_of_present
    from pix2seqd.metrics.region_contour import RegionContour

    metric = RegionContour()
    for name in _track(names):
        files = _frames(truth / name)
        true, predicted = (
            _read([folder / name / file for file in files], ("L", "P")) for folder in (truth, prediction)
        )
        with _naming(str(prediction)):
            metric.update(name, true, predicted)
    scores = metric.compute()
    rows = {
        name: {key: mean_of_present(np.array(list(part[f"{key}_per_object"].values()))) for key in "JF"}
        | {"objects": len(part["objects"])}
        for name, part in scores["sequences"].items()
    }
    overall = _table(("", *scores["global"]), {"all": scores["global"]})
    return scores, [_table(("sequence", "J", "F"), rows, ("objects",)), overall]


def _step_quality(truth: Path, prediction: Path, names: Sequence[str]) -> Scores:
    from pix2seqd.data.kitti_step import TAXONOMY, to_mask
    from pix2seqd.metrics.stq import StepQuality

    metric = StepQuality(TAXONOMY)
    for name in _track(names):
        for file in _frames(truth / name):
            masks = []
            for path in (truth / name / file, prediction / name / file):
                with _naming(str(path)):
                    masks.append(to_mask(next(_read([path], ("RGB",)))))
            with _naming(str(prediction / name / file)):
                metric.update(name, *masks)
    scores = metric.compute()
    rows = {**scores["sequences"], "all": scores}
    classes = {row["name"]: {"IoU": row["iou"]} for row in scores["per_class"].values()}
    return scores, [_table(("category", "IoU"), classes), _table(("sequence", "STQ", "AQ", "SQ"), rows)]


def _sequences(truth: Path, listed: Path | None) -> list[str]:
    """Names of the sequences to score."""
    from pix2seqd.data.archive import children

    if not truth.is_dir():
        raise InputError(f"{truth} is no folder; give the folder of the sequences")
    try:
        folders = (child.name for child in children(truth) if child.is_dir())
        names = listed.read_text(encoding="utf-8").split() if listed else list(folders)
    except (OSError, ValueError) as error:
        raise InputError(f"{listed} cannot be read as text ({error}); give a list of names") from error
    if not names:
        raise InputError(f"{listed or truth} has no sequence; give one folder of PNGs for each")
    return list(dict.fromkeys(names))


def _frames(folder: Path) -> list[str]:
    """Names of the PNGs of a sequence of the truth."""
    from pix2seqd.data.archive import children

    if not folder.is_dir():
        raise InputError(f"{folder} is missing; fetch it")
    if not (names := [file.name for file in children(folder, ".png")]):
        raise InputError(f"{folder} has no PNG; fetch it again")
    return names


def _read(files: Iterable[Path], modes: tuple[str, ...]) -> Iterator[np.ndarray]:
    from pix2seqd.data.archive import read_png

    return (np.asarray(read_png(file, modes)) for file in files)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say what a metric's error is about."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{what}: {error}") from error


def _track(items: Sequence[T]) -> Iterable[T]:
    from rich.console import Console
    from rich.progress import track

    return track(items, "scoring", console=Console(stderr=True), transient=True)


def _table(heads: Sequence[str], rows: dict[str, dict[str, Any]], counts: Sequence[str] = ()) -> "Table":
    """Values by row and column in percent, then counts; the first head is that of the row names."""
    from rich.table import Column, Table
    from rich.text import Text

    from pix2seqd.metrics import percent

    table = Table(heads[0], *(Column(head, justify="right") for head in (*heads[1:], *counts)))
    for name, row in rows.items():
        values = {key.lower(): value for key, value in row.items()}
        shown = (percent(values[head.lower()]) for head in heads[1:])
        table.add_row(Text(name), *shown, *(str(row[count]) for count in counts))
    return table
