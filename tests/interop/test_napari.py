"""The napari plugin: its manifest, and the labels of a layer; with napari and Qt also the widget."""

import importlib
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pix2seqd.checkpoint import BUNDLED
from pix2seqd.files import InputError
from pix2seqd.interop import napari
from pix2seqd.interop.napari import as_layer, label_planes, lead, load_model
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

MANIFEST = Path(napari.__file__).with_name("napari.yaml")
TAXONOMY = Taxonomy.from_coco([{"id": 1, "name": "cell"}, {"id": 2, "name": "ground", "isthing": 0}])


class Bright:
    """Segments: bright pixels are a cell, the others ground; in a video the cell has id 7."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.read = 0

    def segment(self, kind: str, planes: Iterable[np.ndarray], seed: int) -> Iterator[Panoptic]:
        self.calls.append((kind, seed))
        for plane in planes:
            assert isinstance(plane, np.ndarray)
            self.read += 1
            bright = (plane if plane.ndim == 2 else plane.max(axis=-1)) > 100
            ids = np.where(bright, 7 if kind == "video" else 1, 9)
            yield Panoptic.from_segmentation(ids, {1: 1, 7: 1, 9: 2}, TAXONOMY)

    def images(self, planes: Iterable[np.ndarray], seed: int) -> Iterator[Panoptic]:
        return self.segment("images", planes, seed)

    def video(self, planes: Iterable[np.ndarray], seed: int) -> Iterator[Panoptic]:
        return self.segment("video", planes, seed)


def layer_of(data: Any, rgb: bool = False, **options: Any) -> tuple[Bright, np.ndarray, dict]:
    segmenter = Bright()
    found = list(label_planes(segmenter, data, rgb, **options))  # pyright: ignore
    labels, arguments, kind = as_layer(found, data.shape, rgb, {"name": "x", "scale": (2, 2)})
    assert kind == "labels" and arguments["name"] == "x" and arguments["scale"] == (2, 2)
    return segmenter, labels, arguments


def drawn(*shape: int) -> np.ndarray:
    """Values of an image or a stack with a bright corner."""
    data = np.zeros(shape, np.uint8)
    data[..., :3, :4] = 200
    return data


@pytest.mark.parametrize(
    ("data", "rgb", "kind", "id_"),
    [
        (drawn(8, 9), False, "images", 1),
        (drawn(8, 9).astype(np.uint16) * 200, False, "images", 1),
        (drawn(1, 1, 8, 9), False, "images", 1),
        (drawn(5, 8, 9), False, "video", 7),
        (drawn(1, 5, 8, 9).astype(float), False, "video", 7),
        (np.stack([drawn(8, 9)] * 3, axis=-1), True, "images", 1),
        (np.stack([drawn(5, 8, 9)] * 4, axis=-1), True, "video", 7),
    ],
)
def test_label_planes_grey_rgb_and_stacks(data: np.ndarray, rgb: bool, kind: str, id_: int):
    segmenter, labels, options = layer_of(data, rgb, seed=5)
    assert segmenter.calls == [(kind, 5)]
    shape = data.shape[:-1] if rgb else data.shape
    assert labels.shape == shape and labels.dtype == np.int32
    assert np.array_equal(labels, drawn(*shape) // 200 * id_)
    assert options["features"] == {"index": [0, id_], "category": ["", "cell"]}


@pytest.mark.parametrize(("scores", "warned"), [((2.0, 0.5), 0), ((2.0, 2.0), 1), ((None, 2.0), 0)])
def test_as_layer_warns_if_all_planes_are_unfamiliar(scores: tuple[float | None, ...], warned: int, recwarn):
    empty = Panoptic(np.zeros((4, 5), np.int32), (), TAXONOMY)
    as_layer([replace(empty, ood_score=score) for score in scores], (2, 4, 5), False, {})
    assert ["look unlike those" in str(one.message) for one in recwarn] == [True] * warned


def test_label_planes_with_stuff():
    _, labels, options = layer_of(drawn(8, 9), stuff=True)
    assert np.array_equal(labels, np.where(drawn(8, 9) > 0, 1, 9))
    assert options["features"] == {"index": [0, 1, 9], "category": ["", "cell", "ground"]}


def test_label_planes_reads_one_plane_at_a_time():
    segmenter = Bright()
    planes = label_planes(segmenter, drawn(5, 8, 9))  # pyright: ignore
    next(planes)
    assert segmenter.read == 1


@pytest.mark.parametrize(
    ("shape", "rgb"),
    [((9,), False), ((8, 9), True), ((3, 4, 8, 9), False), ((2, 2, 8, 9, 3), True), ((0, 8, 9), False)],
)
def test_lead_of_what_is_no_stack_is_a_line(shape: tuple[int, ...], rgb: bool):
    with pytest.raises(InputError, match=r"give an image \(y, x\) or a stack") as caught:
        lead(shape, rgb)
    assert "\n" not in str(caught.value) and " x ".join(map(str, shape)) in str(caught.value)


def test_label_planes_of_a_real_model_keep_the_size(pretrained):
    stack = np.random.default_rng(0).integers(0, 2**12, (2, 20, 30), np.uint16)
    found = list(label_planes(Segmenter(pretrained, "cpu", "float32"), stack))
    assert as_layer(found, stack.shape, False, {})[0].shape == (2, 20, 30)


def test_load_model_keeps_the_last_and_refuses_what_is_none(folder):
    assert load_model(str(folder)) is load_model(str(folder))
    with pytest.raises(InputError, match="no checkpoint 'nothing'"):
        load_model("nothing")


def test_manifest_is_where_the_entry_point_says_and_names_what_exists():
    with (MANIFEST.parents[3] / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    package, _, name = project["entry-points"]["napari.manifest"]["pix2seqd"].partition(":")
    assert Path(importlib.import_module(package).__file__ or "").with_name(name) == MANIFEST
    content = yaml.safe_load(MANIFEST.read_text())
    assert content["name"] == project["name"]
    for command in content["contributions"]["commands"]:
        module, _, function = command["python_name"].partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_manifest_is_valid_for_npe2():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    (widget,) = manifest.contributions.widgets
    assert widget.display_name == "pix2seqd" and not widget.autogenerate
    assert widget.command == manifest.contributions.commands[0].id


@pytest.fixture
def viewer(monkeypatch) -> Any:
    """The layers of a viewer, without its window, which needs OpenGL."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("napari")
    pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
    from napari.components import ViewerModel
    from napari.qt import get_qapp

    get_qapp()
    viewer = ViewerModel()
    monkeypatch.setattr("napari.viewer.current_viewer", lambda: viewer)
    return viewer


def wait_until(condition: Any) -> None:
    """Let Qt work until something holds, for a minute at most."""
    import time

    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing came"
        QApplication.processEvents()
        time.sleep(0.01)


@pytest.mark.slow
def test_widget_adds_a_labels_layer(viewer, folder):
    from pix2seqd.interop.napari import make_widget

    stack = np.random.default_rng(0).integers(0, 255, (2, 20, 30), np.uint8)
    viewer.add_image(stack, name="cells", scale=(5, 2, 2))
    widget = make_widget()
    assert set(widget.model.choices) == {path.name for path in BUNDLED.iterdir() if path.is_dir()}
    widget.folder.value, widget.stuff.value = folder, True
    widget.call_button.native.click()
    wait_until(lambda: not widget.call_button.enabled)
    wait_until(lambda: len(viewer.layers) == 2 and widget.call_button.enabled)
    labels = viewer.layers[1]
    assert labels._type_string == "labels" and labels.data.shape == stack.shape
    assert tuple(labels.scale) == (5, 2, 2) and labels.name.startswith("cells")
    assert labels.data.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "message"),
    [(None, "there is no image layer; open an image first"), ((2, 2, 8, 9), "the layer has 2 x 2 x 8 x 9 values")],
)
def test_widget_without_a_fitting_layer_says_so(viewer, monkeypatch, shape: tuple[int, ...] | None, message: str):
    from pix2seqd.interop.napari import make_widget

    errors: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: errors.append(error))
    if shape:
        viewer.add_image(drawn(*shape))
    widget = make_widget()
    assert widget.folder.line_edit.value == ""
    widget.call_button.native.click()
    wait_until(lambda: errors and widget.call_button.enabled)
    assert len(errors) == 1 and str(errors[0]).startswith(message)


@pytest.mark.slow
def test_widget_shows_that_an_image_is_unfamiliar(viewer, monkeypatch):
    from napari.utils.notifications import notification_manager

    from pix2seqd.interop.napari import make_widget

    monkeypatch.setattr(napari, "label_planes", lambda *_: iter([Panoptic(np.zeros((8, 9), int), (), TAXONOMY, 2.0)]))
    viewer.add_image(drawn(8, 9))
    shown = len(notification_manager.records)
    make_widget().call_button.native.click()
    wait_until(lambda: len(viewer.layers) == 2 and len(notification_manager.records) > shown)
    assert "look unlike those" in notification_manager.records[-1].message
