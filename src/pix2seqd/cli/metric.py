"""The command `pix2seqd metric`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pix2seqd.files import InputError, is_dir, printable, read_json, read_text, say, write_json

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from pix2seqd.data.coco import CocoAnnotations

Scores = tuple[dict[str, Any], list["Table"]]
"""The scores to write, and the tables to print."""


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
    """Score the predictions of any tool with PQ, J&F or STQ.

    The scores equal those of the official tools. See docs/datasets.md.

    Args:
        kind: pq: panoptic quality of COCO. TRUTH and PREDICTION are JSON files in COCO panoptic format, or folders as
            `pix2seqd segment` writes them; images are matched by their ids. jf: J and F of DAVIS 2017, unsupervised.
            stq: segmentation and tracking quality of KITTI-STEP. For these two, TRUTH and PREDICTION are folders with
            SEQUENCE/FRAME.png, coded as in the data set.
        truth: The ground truth.
        prediction: The prediction. It must have all images, sequences and frames of the truth.
        json: JSON file to write. Scores are from 0 to 1, or null for a category that does not occur.
        truth_pngs: For pq: folder of the truth's PNGs. Default: the path of its JSON without .json.
        prediction_pngs: For pq: folder of the prediction's PNGs. Default: the path of its JSON without .json.
        sequences: For jf and stq: text file with the names of the sequences to score, for example
            DAVIS/ImageSets/2017/val.txt. Default: all folders of the truth.
    """
    from rich.console import Console

    from pix2seqd.panoptic.results import check_files

    check_files(json)
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
        say(f"written to {json}")


def _refuse(kind: str, **options: Path | None) -> None:
    """Refuse options that `kind` does not have."""
    for name, given in options.items():
        if given is not None:
            raise InputError(f"--{name.replace('_', '-')} has no meaning for {kind}; leave it out")


def _panoptic_quality(truth: Path, prediction: Path, truth_pngs: Path | None, prediction_pngs: Path | None) -> Scores:
    from pix2seqd.cli.progress import tracked
    from pix2seqd.metrics.panoptic_quality import PanopticQuality

    true = _annotations(truth, "truth-pngs", truth_pngs)
    # Prediction files of other tools may have no categories.
    defaults = {"categories": true.taxonomy.to_coco()}
    predicted = _annotations(prediction, "prediction-pngs", prediction_pngs, defaults)
    ours, theirs = (list(map(str, side.taxonomy.categories)) for side in (true, predicted))
    if unknown := [category for category in theirs if category not in ours]:
        raise InputError(f"{prediction}: category {unknown[0]} is not in {truth}; predict the categories of the truth")
    predicted.taxonomy = true.taxonomy
    quality = PanopticQuality(true.taxonomy)
    for image_id in tracked(true.image_ids, "scoring"):
        one, other = (side.read(image_id, str(image_id)) for side in (true, predicted))
        with _error_about(f"image {image_id}"):
            quality.update(one, other)
    scores = quality.compute()
    parts = _table(("", "PQ", "SQ", "RQ"), {name: scores[name] for name in ("All", "Things", "Stuff")}, ("n",))
    classes = {row["name"]: row for row in scores["per_class"].values() if row["tp"] + row["fp"] + row["fn"]}
    return scores, [parts, _table(("category", "PQ", "SQ", "RQ"), classes, ("tp", "fp", "fn"))]


def _annotations(
    path: Path, option: str, pngs: Path | None, defaults: dict[str, Any] | None = None
) -> "CocoAnnotations":
    from pix2seqd.data.coco import CocoAnnotations, read_folder

    if path.is_dir():
        _refuse("a folder", **{option: pngs})
        path, content, pngs = read_folder(path)
    else:
        content = read_json(path)
    content = {**(defaults or {}), **content} if isinstance(content, dict) else content
    return CocoAnnotations(path, content, pngs or path.with_suffix(""))


def _region_contour(truth: Path, prediction: Path, names: Sequence[str]) -> Scores:
    import numpy as np

    from pix2seqd.cli.progress import tracked
    from pix2seqd.metrics.overlap import mean_of_present
    from pix2seqd.metrics.region_contour import RegionContour

    metric = RegionContour()
    for name in tracked(names, "scoring"):
        files = _frames(truth / name)
        true, predicted = (
            _read([folder / name / file for file in files], ("L", "P")) for folder in (truth, prediction)
        )
        with _error_about(str(prediction)):
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
    from pix2seqd.cli.progress import tracked
    from pix2seqd.data.kitti_step import TAXONOMY, to_mask
    from pix2seqd.metrics.stq import StepQuality

    metric = StepQuality(TAXONOMY)
    for name in tracked(names, "scoring"):
        for file in _frames(truth / name):
            masks = []
            for path in (truth / name / file, prediction / name / file):
                with _error_about(str(path)):
                    masks.append(to_mask(next(_read([path], ("RGB",)))))
            with _error_about(str(prediction / name / file)):
                metric.update(name, *masks)
    scores = metric.compute()
    rows = {**scores["sequences"], "all": scores}
    classes = {row["name"]: {"IoU": row["iou"]} for row in scores["per_class"].values()}
    return scores, [_table(("category", "IoU"), classes), _table(("sequence", "STQ", "AQ", "SQ"), rows)]


def _sequences(truth: Path, listed: Path | None) -> list[str]:
    """Names of the sequences to score."""
    from pix2seqd.data.archive import children

    if not truth.is_dir():
        raise InputError(f"{truth} is not a folder; give the folder of the sequences")
    try:
        folders = (child.name for child in children(truth) if child.is_dir())
        names = read_text(listed).split() if listed else list(folders)
    except OSError as error:
        raise InputError(f"{truth} cannot be listed ({error.strerror}); check its permissions") from error
    if not names:
        raise InputError(f"{listed or truth} has no sequence; give one folder of PNGs for each")
    return list(dict.fromkeys(names))


def _frames(folder: Path) -> list[str]:
    """File names of the PNGs of a sequence."""
    from pix2seqd.data.archive import children

    if not is_dir(folder):
        raise InputError(f"{folder} does not exist; add it, or leave it out of --sequences")
    if not (names := [file.name for file in children(folder, ".png")]):
        raise InputError(f"{folder} has no PNGs; add the PNGs of the frames")
    return names


def _read(files: Iterable[Path], modes: tuple[str, ...]) -> "Iterator[np.ndarray]":
    import numpy as np

    from pix2seqd.data.archive import read_png

    return (np.asarray(read_png(file, modes)) for file in files)


@contextmanager
def _error_about(what: str) -> Iterator[None]:
    """Put the name of an image or a file before the message of a metric."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{what}: {error}") from error


def _table(heads: Sequence[str], rows: dict[str, dict[str, Any]], counts: Sequence[str] = ()) -> "Table":
    """A table of scores in percent, then of counts; the first head stands above the row names."""
    from rich.table import Column, Table
    from rich.text import Text

    from pix2seqd.metrics import percent

    table = Table(heads[0], *(Column(head, justify="right") for head in (*heads[1:], *counts)))
    for name, row in rows.items():
        values = {key.lower(): value for key, value in row.items()}
        shown = (percent(values[head.lower()]) for head in heads[1:])
        table.add_row(Text(printable(name)), *shown, *(str(row[count]) for count in counts))
    return table
