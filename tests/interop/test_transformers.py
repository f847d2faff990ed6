"""Checkpoints in `transformers`: its pipeline and auto classes give what `Segmenter` gives."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, pipeline

import pix2seqd.interop.transformers  # noqa: F401 - registers the checkpoints
from pix2seqd.checkpoint import BUNDLED, Checkpoint, from_pretrained, save_pretrained
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.files import InputError
from pix2seqd.panoptic.formats import to_segments
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

TAXONOMY = Taxonomy.from_coco(
    [{"id": 7, "name": "cat"}, {"id": 4, "name": "lawn", "isthing": 0}, {"id": 9, "name": "dog"}]
)
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((33, 48), (40, 20))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny) -> Path:
    """A random checkpoint with windows, whose last layers are random too."""
    from pix2seqd.pix2seq_d import Pix2SeqD

    torch.manual_seed(0)
    model = Pix2SeqD(tiny).eval()
    torch.nn.init.normal_(model.mask_decoder.conv_out.weight)
    data = DataConfig(size=(32, 32), layout="tile", overlap=8, ids="reused")
    place = tmp_path_factory.mktemp("checkpoint")
    save_pretrained(Checkpoint(model, TAXONOMY, data, InferConfig(steps=2, td=1.0, min_pixels=0)), place)
    return place


@pytest.fixture(scope="module")
def expected(folder) -> list[dict]:
    segmenter = Segmenter.from_pretrained(folder)
    return [to_segments(segmenter.image(image)) for image in IMAGES]


def test_pipeline_gives_the_segments_of_segmenter(folder, expected, caplog):
    with caplog.at_level(logging.WARNING):
        segment = pipeline("image-segmentation", model=str(folder))
    assert "not supported" not in caplog.text
    for image, wanted in zip(IMAGES, expected, strict=True):
        found = segment(Image.fromarray(image))
        infos = wanted["segments_info"]
        assert len(infos) > 1
        assert [(f["label"], f["score"]) for f in found] == [
            (("cat", "lawn", "dog")[info["label_id"]], info["score"]) for info in infos
        ]
        assert 0 < min(f["score"] for f in found) < max(f["score"] for f in found) <= 1
        for one, info in zip(found, infos, strict=True):
            assert np.array_equal(np.asarray(one["mask"]) == 255, wanted["segmentation"] == info["id"])


def test_auto_classes_batch_of_different_sizes(folder, expected):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    outputs = model(**processor(IMAGES, return_tensors="pt"))
    sizes = [image.shape[:2] for image in IMAGES]
    for target_sizes in (None, sizes, torch.tensor(sizes)):
        results = processor.post_process_panoptic_segmentation(outputs, threshold=0.9, target_sizes=target_sizes)
        for result, wanted in zip(results, expected, strict=True):
            assert result["segmentation"].dtype == torch.int32
            assert np.array_equal(result["segmentation"], wanted["segmentation"])
            assert result["segments_info"] == wanted["segments_info"]
    assert not model.training


def test_post_process_keys_and_types_equal_mask2former(folder, expected):
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

    logits = torch.full((1, 2, 4), -9.0)
    logits[0, 0, 1], logits[0, 1, 2] = 9, 9
    masks = torch.full((1, 2, 8, 8), -9.0)
    masks[0, 0, :4], masks[0, 1, 4:] = 9, 9
    outputs = Mask2FormerForUniversalSegmentationOutput(class_queries_logits=logits, masks_queries_logits=masks)
    theirs = Mask2FormerImageProcessorPil().post_process_panoptic_segmentation(
        outputs, label_ids_to_fuse={2}, target_sizes=[(8, 8)]
    )[0]
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    ours = processor.post_process_panoptic_segmentation(model(**processor(IMAGES[0], return_tensors="pt")))[0]
    assert ours.keys() == theirs.keys()
    assert ours["segmentation"].dtype == theirs["segmentation"].dtype
    assert {key: type(value) for key, value in ours["segments_info"][0].items()} == {
        key: type(value) for key, value in theirs["segments_info"][0].items()
    }


def test_post_process_target_sizes_and_forward_options(folder):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder, dtype=torch.float32)
    processor = AutoImageProcessor.from_pretrained(folder)
    outputs = model(**processor(IMAGES[0], return_tensors="pt"), seed=3, steps=1)
    wanted = Segmenter.from_pretrained(folder, dtype="float32").image(IMAGES[0], seed=3, steps=1)
    result = processor.post_process_panoptic_segmentation(outputs, target_sizes=[(66, 96)])[0]["segmentation"]
    assert np.array_equal(result, wanted.segmentation.repeat(2, 0).repeat(2, 1))


def test_forward_min_score_and_classes(folder, expected):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    middle = float(np.median([info["score"] for info in expected[0]["segments_info"]]))
    outputs = model(**processor(IMAGES[0], return_tensors="pt"), min_score=middle, classes=["cat", "lawn"])
    (result,) = processor.post_process_panoptic_segmentation(outputs)
    wanted = [i for i in expected[0]["segments_info"] if i["score"] >= middle and i["label_id"] < 2]
    assert 0 < len(wanted) < len(expected[0]["segments_info"])
    assert result["segments_info"] == wanted
    nothing = model(**processor(IMAGES, return_tensors="pt"), min_score=1.0)
    assert not any(found["segments_info"] for found in processor.post_process_panoptic_segmentation(nothing))


def test_pipeline_save_pretrained_writes_a_checkpoint(folder, expected, tmp_path):
    pipeline("image-segmentation", model=str(folder)).save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).taxonomy == TAXONOMY
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.label_ids_to_fuse == [1]
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


def test_auto_model_damaged_weights_or_float16_is_an_error(folder, tmp_path):
    copy = tmp_path / "copy"
    save_pretrained(from_pretrained(folder), copy)
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        AutoModelForUniversalSegmentation.from_pretrained(copy)
    with pytest.raises(ValueError, match="float16"):
        AutoModelForUniversalSegmentation.from_pretrained(folder, dtype=torch.float16)


@pytest.mark.parametrize("place", sorted(path for path in BUNDLED.iterdir() if path.is_dir()), ids=lambda p: p.name)
def test_auto_classes_load_bundled_checkpoints(place: Path):
    names = [category.name for category in from_pretrained(place).taxonomy.categories]
    assert list(AutoConfig.from_pretrained(place).id2label.values()) == names
    AutoImageProcessor.from_pretrained(place)
