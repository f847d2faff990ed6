"""The plugin for napari: a widget that labels an image layer. `napari.yaml` beside this file tells napari of it."""

import math
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.config import bundled_names
from pix2seqd.files import InputError, require
from pix2seqd.panoptic.panoptic import UNLIKE, Panoptic
from pix2seqd.segmenter import Segmenter

POSITION = ("scale", "translate", "rotate", "shear", "affine", "units")
"""What places a layer among the others."""
LayerData = tuple[np.ndarray, dict[str, Any], str]
"""A layer as napari takes it from plugins: values, arguments of the layer's class, and its kind."""


def make_widget() -> Any:
    """The widget "pix2seqd": choose an image layer and a model; a Labels layer is added when the result is there.

    Raises:
        InputError: napari is not installed.
    """
    require("the widget in napari", "napari", "napari", "magicgui")
    import napari.layers  # pyright: ignore[reportMissingImports]
    import napari.qt.threading  # pyright: ignore[reportMissingImports]
    import napari.types  # pyright: ignore[reportMissingImports]
    import napari.utils.notifications  # pyright: ignore[reportMissingImports]
    from magicgui import magicgui  # pyright: ignore[reportMissingImports]

    models = bundled_names()

    @magicgui(
        call_button="Segment",
        image={"tooltip": "Grey or RGB; a stack is labelled plane by plane, and things keep their label"},
        model={"choices": models, "tooltip": "nuclei-video is for stacks over time"},
        folder={"mode": "d", "label": "own model", "tooltip": "Folder of a checkpoint; empty: the model above"},
        stuff={"label": "also stuff", "tooltip": "Label background and other stuff too, not only things"},
        seed={"min": 0, "max": 2**31 - 1, "tooltip": "The same seed gives the same result"},
    )
    def pix2seqd(
        image: napari.layers.Image,
        model: str = "nuclei-fast",
        folder: Path | None = None,
        stuff: bool = False,
        seed: int = 0,
    ) -> napari.qt.threading.FunctionWorker[napari.types.LayerDataTuple]:
        name = model if folder is None else str(folder)

        def work() -> Any:
            # Errors are raised here, because napari shows those of a button as a page of Python.
            if image is None:
                raise InputError("there is no image layer; open an image first")
            data = image.data[0] if image.multiscale else image.data
            position = {key: getattr(image, key) for key in POSITION}
            found = []
            for plane in label_planes(load_model(name), data, image.rgb, stuff, seed):
                found.append(plane)
                yield
            return as_layer(found, data.shape, image.rgb, {"name": f"{image.name} {name}", **position})

        button = pix2seqd.call_button  # pyright: ignore[reportFunctionMemberAccess]
        # magicgui enables the button when this function returns, which is before the worker's "started" arrives.
        connect: dict[str, Any] = {"started": lambda: setattr(button, "enabled", False)}
        connect["finished"] = lambda: setattr(button, "enabled", True)
        connect["warned"] = lambda given: napari.utils.notifications.show_warning(str(given[0]))  # 0.9 loses them
        planes = 0 if image is None else math.prod(image.data.shape[: image.ndim - 2])
        progress = {"total": planes, "desc": "pix2seqd"}
        return napari.qt.threading.create_worker(work, _connect=connect, _progress=progress)

    return pix2seqd


@lru_cache(maxsize=1)
def load_model(name: str) -> Segmenter:
    """A checkpoint by a bundled name, a folder or a hub id; the last one is kept."""
    return Segmenter.from_pretrained(name)


def lead(shape: tuple[int, ...], rgb: bool) -> tuple[int, ...]:
    """The axes of a layer before y, x (and red, green, blue); an `InputError` if several are longer than 1."""
    axes = shape[: len(shape) - 2 - rgb]
    if len(shape) < 2 + rgb or 0 in shape or sum(length > 1 for length in axes) > 1:
        shown = " x ".join(map(str, shape))
        raise InputError(f"the layer has {shown} values; give an image (y, x) or a stack of images (t or z, y, x)")
    return axes


def label_planes(
    segmenter: Segmenter, data: Any, rgb: bool = False, stuff: bool = False, seed: int = 0
) -> Iterator[Panoptic]:
    """Segment the planes of a layer one by one.

    Args:
        segmenter: the model.
        data: `[h, w]` or `[planes, h, w]` of any number type, with red, green and blue last if `rgb`; more axes of
            length 1 do not matter. An array of NumPy, Dask or Zarr: one plane at a time is read.
        rgb: whether the last axis is colour.
        stuff: give stuff labels too, not only things.
        seed: seed of the noise.

    Returns:
        One segmentation for each plane. In a stack an id means the same thing in all planes (`Segmenter.video`).

    Raises:
        InputError: the layer is neither an image nor a stack of images, or it cannot be read as one.
    """
    axes = lead(data.shape, rgb)
    planes = (np.asarray(data[index]) for index in np.ndindex(axes))
    found = segmenter.video(planes, seed=seed) if math.prod(axes) != 1 else segmenter.images(planes, seed=seed)
    return (panoptic if stuff else panoptic.select(lambda segment: segment.isthing) for panoptic in found)


def as_layer(found: list[Panoptic], shape: tuple[int, ...], rgb: bool, options: dict[str, Any]) -> LayerData:
    """A Labels layer of the segmentations of all planes of an image layer, whose data have this `shape`.

    Returns:
        Labels, int32 of the image's shape without colour, 0 = no segment; the arguments of the layer: `options` (name
        and position), and a table of the labels' categories; "labels".

    Warns (napari shows it) if all planes look unlike the images that the model is made for.
    """
    if all(panoptic.unfamiliar for panoptic in found):
        warnings.warn(f"the images of the layer {UNLIKE}", stacklevel=2)
    labels = np.stack([panoptic.segmentation for panoptic in found]).reshape(shape[: len(shape) - rgb])
    segments = {segment.id: segment for panoptic in found for segment in panoptic.segments}
    table: dict[str, Any] = {"index": [0, *segments], "category": ["", *(s.name for s in segments.values())]}
    return labels, {**options, "features": table}, "labels"
