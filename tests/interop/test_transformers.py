"""Checkpoints in `transformers`: its pipeline and auto classes give what `Segmenter` gives."""

import inspect
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, pipeline

from pix2seqd.checkpoint import BUNDLED, Checkpoint, from_pretrained, save_pretrained
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.files import InputError
from pix2seqd.interop.transformers import (
    NO_LABEL,
    OUTSIDE,
    Pix2SeqDConfig,
    Pix2SeqDForUniversalSegmentation,
    Pix2SeqDImageProcessor,
    Pix2SeqDOutput,
    _panoptic,
)
from pix2seqd.panoptic.formats import to_segments
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter

TAXONOMY = Taxonomy.from_coco(
    [{"id": 7, "name": "cat"}, {"id": 4, "name": "lawn", "isthing": 0}, {"id": 9, "name": "dog"}]
)
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((33, 48), (40, 20))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny) -> Path:
    """A random checkpoint with windows, whose last layers are random too."""
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
        results = processor.post_process_panoptic_segmentation(outputs, target_sizes=target_sizes)
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


def theirs(method: str, **options) -> list[dict]:
    """The result of Mask2Former's processor for an image of two things."""
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

    logits = torch.full((1, 2, 4), -9.0)
    logits[0, 0, 1], logits[0, 1, 2] = 9, 9
    masks = torch.full((1, 2, 8, 8), -9.0)
    masks[0, 0, :4], masks[0, 1, 6:] = 9, 9
    outputs = Mask2FormerForUniversalSegmentationOutput(class_queries_logits=logits, masks_queries_logits=masks)
    return getattr(Mask2FormerImageProcessorPil(), method)(outputs, target_sizes=[(8, 8)], **options)


def drawn_outputs() -> Pix2SeqDOutput:
    """A cat (id 1), a lawn (2), another cat (3) and void; the second image is smaller."""
    masks = torch.full((2, 2, 8, 8), OUTSIDE)
    masks[0] = 0
    for image, place, class_, id_ in (
        (0, (slice(0, 2), slice(0, 8)), 1, 1),
        (0, (slice(4, 6), slice(0, 8)), 2, 2),
        (0, (slice(6, 8), slice(2, 5)), 1, 3),
        (1, (slice(0, 4), slice(0, 5)), 0, 0),
        (1, (slice(1, 3), slice(1, 3)), 3, 1),
    ):
        masks[image, :, *place] = torch.tensor([class_, id_])[:, None, None]
    return Pix2SeqDOutput(masks=masks)


PROCESSOR = Pix2SeqDImageProcessor([1])


def test_post_process_semantic_classes_from_0_and_no_label():
    first, second = PROCESSOR.post_process_semantic_segmentation(drawn_outputs())
    assert first.shape == (8, 8) and second.shape == (4, 5)
    assert first.dtype == second.dtype == theirs("post_process_semantic_segmentation")[0].dtype
    assert first[:, 3].tolist() == [0, 0, NO_LABEL, NO_LABEL, 1, 1, 0, 0]
    assert sorted(np.unique(second)) == [NO_LABEL, 2]
    large = PROCESSOR.post_process_semantic_segmentation(drawn_outputs(), [(16, 24), (4, 5)])
    assert torch.equal(large[0], first.repeat_interleave(2, 0).repeat_interleave(3, 1))
    with pytest.raises(ValueError, match="2 images need as many target_sizes, not 1"):
        PROCESSOR.post_process_semantic_segmentation(drawn_outputs(), [(16, 24)])
    with pytest.raises(ValueError, match="one class a pixel"):
        PROCESSOR.post_process_semantic_segmentation(drawn_outputs(), return_segmentation_scores=True)


def test_post_process_instance_keys_and_types_equal_mask2former():
    from transformers.models.mask2former.image_processing_pil_mask2former import convert_segmentation_to_rle

    method = "post_process_instance_segmentation"
    found = PROCESSOR.post_process_instance_segmentation(drawn_outputs())[0]
    assert {key: type(value) for key, value in found["segments_info"][0].items()} == {
        key: type(value) for key, value in theirs(method)[0]["segments_info"][0].items()
    }
    assert found["segmentation"].dtype == theirs(method)[0]["segmentation"].dtype
    assert found["segmentation"][:, 3].tolist() == [0, 0, -1, -1, -1, -1, 1, 1]
    assert [(info["id"], info["label_id"]) for info in found["segments_info"]] == [(0, 0), (1, 0)], "no stuff"
    maps = PROCESSOR.post_process_instance_segmentation(drawn_outputs(), return_binary_maps=True)[0]["segmentation"]
    assert maps.dtype == theirs(method, return_binary_maps=True)[0]["segmentation"].dtype
    assert [torch.equal(one == 1, found["segmentation"] == number) for number, one in enumerate(maps)] == [True, True]
    runs = PROCESSOR.post_process_instance_segmentation(drawn_outputs(), return_coco_annotation=True)[0]["segmentation"]
    assert runs == convert_segmentation_to_rle(found["segmentation"])[1:], "theirs has the background too"
    with pytest.raises(ValueError, match="not both"):
        PROCESSOR.post_process_instance_segmentation(
            drawn_outputs(), return_coco_annotation=True, return_binary_maps=True
        )


def test_post_process_panoptic_fuses_labels_and_keeps_scores_from_the_threshold():
    found = PROCESSOR.post_process_panoptic_segmentation(drawn_outputs(), label_ids_to_fuse={0})[0]
    assert [(info["id"], info["was_fused"]) for info in found["segments_info"]] == [(1, True), (2, False)]
    assert found["segmentation"][:, 3].tolist() == [1, 1, 0, 0, 2, 2, 1, 1]
    none = PROCESSOR.post_process_panoptic_segmentation(drawn_outputs(), threshold=1.1)[0]
    assert none["segments_info"] == [] and not none["segmentation"].any()


@pytest.mark.parametrize("kind", ["panoptic", "instance", "semantic"])
def test_post_process_parameters_are_those_of_mask2former(kind: str):
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    name = f"post_process_{kind}_segmentation"
    ours, others = (
        list(inspect.signature(getattr(cls, name)).parameters)
        for cls in (Pix2SeqDImageProcessor, Mask2FormerImageProcessorPil)
    )
    assert ours == others


def test_post_process_of_a_loss_is_a_line():
    with pytest.raises(ValueError, match="the outputs hold no masks"):
        PROCESSOR.post_process_panoptic_segmentation(Pix2SeqDOutput(loss=torch.zeros(())))


@pytest.fixture(scope="module")
def segment(folder):
    return pipeline("image-segmentation", model=str(folder))


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("subtask", [None, "panoptic", "instance", "semantic"])
def test_pipeline_subtask_and_batches_of_several_sizes(segment, expected, subtask: str | None, batch_size: int):
    found = segment([*IMAGES, IMAGES[0]], batch_size=batch_size, **({"subtask": subtask} if subtask else {}))
    for image, results, wanted in zip([*IMAGES, IMAGES[0]], found, [*expected, expected[0]], strict=True):
        infos = [info for info in wanted["segments_info"] if subtask != "instance" or not info["was_fused"]]
        classes = sorted({info["label_id"] for info in infos})
        labels = classes if subtask == "semantic" else [info["label_id"] for info in infos]
        assert [one["label"] for one in results] == [("cat", "lawn", "dog")[label] for label in labels]
        assert {one["mask"].size for one in results} == {(image.shape[1], image.shape[0])}
        covered = np.sum([np.asarray(one["mask"]) // 255 for one in results], axis=0)
        assert np.array_equal(covered, np.isin(wanted["segmentation"], [info["id"] for info in infos]))


def test_pipeline_reads_files_as_segment_does_and_refuses_another_subtask(segment, folder, tmp_path):
    deep = (np.arange(33 * 48).reshape(33, 48) * 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    wanted = Segmenter.from_pretrained(folder).image(tmp_path / "deep.png")
    found = segment(str(tmp_path / "deep.png"))
    assert [(np.asarray(one["mask"]) > 0).sum() for one in found] == [one.area for one in wanted.segments]
    with pytest.raises(ValueError, match="Subtask depth is not supported"):
        segment(str(tmp_path / "deep.png"), subtask="depth")


def test_pipeline_passes_options_on_and_refuses_unknown_ones(segment, expected):
    cats = [info for info in expected[0]["segments_info"] if info["label_id"] == 0]
    assert 0 < len(cats) < len(expected[0]["segments_info"])
    assert [one["label"] for one in segment(IMAGES[0], classes=["cat"])] == ["cat"] * len(cats)
    with pytest.raises(ValueError, match="no option 'clases'"):
        segment(IMAGES[0], clases=["cat"])


def test_pipeline_of_local_files_only(folder, expected):
    """An argument of `pipeline` itself, which goes on to the class of the pipeline."""
    found = pipeline("image-segmentation", model=str(folder), local_files_only=True, batch_size=1)(IMAGES[0])
    assert len(found) == len(expected[0]["segments_info"])


def test_model_warns_of_unfamiliar_images(folder, monkeypatch):
    model, inputs = Pix2SeqDForUniversalSegmentation.from_pretrained(folder), PROCESSOR(IMAGES, return_tensors="pt")
    segmented = Segmenter.images

    def scored(*arguments, **options):
        found = segmented(*arguments, **options)
        return (replace(one, ood_score=score) for one, score in zip(found, (2.0, 0.5), strict=True))

    monkeypatch.setattr(Segmenter, "images", scored)
    with pytest.warns(UserWarning, match="1 of 2 images look unlike those that the model is made for"):
        model(**inputs)


def test_pipeline_of_other_models_is_that_of_transformers():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    torch.manual_seed(0)
    small = SegformerConfig(
        depths=[1, 1], hidden_sizes=[8, 8], num_encoder_blocks=2, sr_ratios=[2, 1], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 1], mlp_ratios=[1, 1], decoder_hidden_size=8,
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(small).eval()
    processor = SegformerImageProcessorPil(size={"height": 32, "width": 32})
    found = pipeline("image-segmentation", model=model, image_processor=processor)(Image.fromarray(IMAGES[0]))
    assert {one["label"] for one in found} <= {"LABEL_0", "LABEL_1"} and found


def test_config_names_the_classes_both_ways(folder):
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == {0: "cat", 1: "lawn", 2: "dog"}
    assert config.label2id == {"cat": 0, "lawn": 1, "dog": 2}
    assert config.num_labels == 3


def test_config_save_pretrained_is_read_again(folder, tmp_path):
    AutoConfig.from_pretrained(folder).save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.id2label == AutoConfig.from_pretrained(folder).id2label
    assert again.model == json.loads((folder / "config.json").read_text())["model"]


def test_model_from_config_has_random_weights_and_segments(folder):
    torch.manual_seed(0)
    model = AutoModelForUniversalSegmentation.from_config(AutoConfig.from_pretrained(folder)).eval()
    outputs = model(**PROCESSOR(IMAGES, return_tensors="pt"))
    assert outputs.masks.shape == (2, 2, 40, 48)


def test_model_state_has_the_names_of_the_file(folder):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    assert model.state_dict().keys() == load_file(folder / "model.safetensors").keys()
    changed = {name: value + 1 for name, value in model.state_dict().items()}
    assert model.load_state_dict(changed).missing_keys == []
    assert all(torch.equal(value, changed[name]) for name, value in model.state_dict().items())


def test_model_to_dtype_is_the_precision_and_leaves_the_weights(folder):
    inputs = PROCESSOR(IMAGES, return_tensors="pt")
    wanted = AutoModelForUniversalSegmentation.from_pretrained(folder, dtype=torch.bfloat16)(**inputs).masks
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for change in (
        lambda: model.to(torch.bfloat16),
        lambda: model.to("cpu", dtype=torch.bfloat16),
        lambda: model.float().bfloat16(),
        lambda: model.to(device="cpu", dtype=torch.bfloat16),
    ):
        model.precision = "float32"
        assert change() is model and model.precision == "bfloat16"
    assert torch.equal(model(**inputs).masks, wanted)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    plain = AutoModelForUniversalSegmentation.from_pretrained(folder, dtype="float32")(**inputs).masks
    assert torch.equal(model.to(torch.float32)(**inputs).masks, plain)


@pytest.mark.parametrize("change", ["half", "double"])
def test_model_other_precision_is_a_line(folder, change: str):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    with pytest.raises(ValueError, match="dtype must be auto, float32 or bfloat16, not float") as caught:
        getattr(model, change)()
    assert "\n" not in str(caught.value)
    model.type(torch.float16)  # a door of torch that we do not close
    with pytest.raises(ValueError, match=r"the weights must be float32, not torch\.float16"):
        model(**PROCESSOR(IMAGES, return_tensors="pt"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "move", [lambda m: m.to("cuda"), lambda m: m.cuda(), lambda m: m.to(device="cuda", dtype=None)]
)
def test_model_to_a_device_that_is_not_there_is_a_line(folder, move):
    with pytest.raises(InputError, match=r"cannot move the model to .*cuda") as caught:
        move(AutoModelForUniversalSegmentation.from_pretrained(folder))
    assert "\n" not in str(caught.value)


def labelled() -> list[dict]:
    """Images of several sizes with a red cat, a blue dog and void; maps of segments and the segments' classes."""
    examples = []
    for height, width in ((33, 48), (40, 34), (36, 36)):
        segments = np.zeros((height, width), int)
        segments[2:12, 3:14], segments[15:25, 10:28] = 70, 9
        image = np.zeros((height, width, 3), np.uint8)
        image[segments == 70, 0], image[segments == 9, 2] = 255, 255
        examples.append({"image": image, "segments": segments, "classes": {70: 0, 9: 2}})
    return examples


def collate(examples: list[dict]) -> dict:
    columns = ([example[key] for example in examples] for key in ("image", "segments", "classes"))
    return dict(PROCESSOR(*columns, return_tensors="pt"))


def test_processor_maps_become_labels():
    labels = collate(labelled())["labels"]
    assert labels.dtype == torch.int64 and labels.shape == (3, 2, 40, 48)
    assert labels[0, 0, 5, 5] == 1 and labels[0, 0, 20, 20] == 3, "classes from 1"
    assert len(torch.unique(labels[0, 1])) == 3
    assert not labels[2, :, 36:].any() and not labels[2, :, :, 36:].any()
    first = labelled()[0]
    panoptic = Panoptic.from_segmentation(first["segments"], {70: 1, 9: 3}, TAXONOMY)
    again = PROCESSOR(first["image"], panoptic, return_tensors="pt")["labels"]
    assert torch.equal(again[:, 0], labels[:1, 0, :33])
    zero = PROCESSOR(first["image"], first["segments"], {0: 1, 70: 0, 9: 2})["labels"]
    assert zero.min() > 0, "0 is a segment if it has a class"


@pytest.mark.parametrize(
    ("maps", "classes", "message"),
    [
        (np.ones((33, 47), int), {1: 0}, "segmentation map 0 is 47 x 33, but its image is 48 x 33"),
        (np.ones((33, 48)), {1: 0}, "must be integers"),
        (np.ones((33, 48, 3), int), {1: 0}, "must be integers"),
        (np.ones((33, 48), int), None, "give instance_id_to_semantic_id"),
        (np.ones((33, 48), int), {2: 0}, "segment 1 has no class"),
        (np.ones((33, 48), int), {1: -1}, "segment 1 has class -1"),
        (np.full((33, 48), -1), {1: 0}, "segment -1 has no class"),
        (np.ones((33, 48), int), [{1: 0}, {1: 0}], "1 images need as many segmentation maps"),
    ],
)
def test_processor_maps_that_do_not_fit_are_a_line(maps, classes, message: str):
    with pytest.raises(ValueError, match=message):
        PROCESSOR(IMAGES[0], maps, classes)


def test_model_labels_give_a_loss_with_gradients_and_the_next_masks_are_of_the_new_weights(folder):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder, dtype="float32")
    inputs = {key: value for key, value in collate(labelled()).items() if key != "labels"}
    before = model(**inputs).masks
    model.train()
    outputs = model(**collate(labelled()))
    assert outputs.masks is None and outputs.loss.shape == ()
    outputs.loss.backward()
    assert all(weights.grad is not None for weights in model.parameters())
    torch.optim.SGD(model.parameters(), 1.0).step()
    after = model(**inputs).masks
    assert not torch.equal(after, before)
    assert model.training and model.network.pixel_encoder.training, "segmenting leaves the mode as it was"
    assert torch.equal(after, model(**inputs).masks)


def test_model_in_training_loses_the_statistics_of_earlier_weights(folder, tmp_path):
    from pix2seqd.images.familiarity import Familiarity

    model = AutoModelForUniversalSegmentation.from_pretrained(folder, dtype="float32")
    dim = 2 * model.checkpoint.model.config.encoder.map_dim
    model.checkpoint = replace(model.checkpoint, familiarity=Familiarity(torch.zeros(dim), torch.eye(dim), 1))
    for place, kept in (("evaluated", True), ("trained", False)):
        model.train(not kept)
        model(**collate(labelled()))
        model.save_pretrained(tmp_path / place)
        assert (from_pretrained(tmp_path / place).familiarity is not None) == kept


def test_model_labels_of_the_mask_and_of_the_image_give_the_same_loss(tiny):
    torch.manual_seed(0)
    checkpoint = Checkpoint(Pix2SeqD(tiny), TAXONOMY, DataConfig(size=(32, 48)), InferConfig())
    torch.nn.init.normal_(checkpoint.model.mask_decoder.conv_out.weight)
    model = Pix2SeqDForUniversalSegmentation(Pix2SeqDConfig(), checkpoint).eval()
    small = torch.zeros(1, 2, 16, 24, dtype=torch.long)
    small[0, :, 2:9, 3:17] = torch.tensor([3, 5])[:, None, None]
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    image = torch.randint(256, (1, 3, 32, 48), dtype=torch.uint8)
    losses = []
    for labels in (small, large):
        torch.manual_seed(1)
        losses.append(model(image, labels=labels).loss.item())
    assert losses[0] == losses[1] > 0
    empty = torch.zeros_like(small)
    torch.manual_seed(1)
    assert model(image, labels=empty).loss.item() != losses[0]


@pytest.mark.parametrize("class_", [1, 2])
def test_model_labels_id_of_two_classes_is_two_segments_and_stuff_is_one(class_: int):
    mask = np.zeros((2, 6, 8), int)
    mask[:, :3] = [[[3]], [[5]]]
    mask[0, 4:], mask[1, 4, :4], mask[1, 4, 4:], mask[1, 5] = class_, 5, 9, 9
    found = _panoptic(mask, TAXONOMY)
    assert np.array_equal(found.class_map(), mask[0])
    sizes = [(segment.name, segment.area) for segment in found.segments]
    assert sizes == [*([("lawn", 16)] if class_ == 2 else [("cat", 4), ("cat", 12)]), ("dog", 24)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(1, 2, 32, 48), "labels must be integers of shape"),
        (torch.zeros(1, 32, 48, dtype=torch.long), "labels must be integers of shape"),
        (torch.full((1, 2, 32, 48), 4), "labels have class 4, but the model knows the classes 1 to 3"),
        (torch.tensor([1, 0])[None, :, None, None].expand(1, 2, 32, 48), "a class without an id"),
        (torch.tensor([0, 1])[None, :, None, None].expand(1, 2, 32, 48), "a class without an id"),
    ],
)
def test_model_labels_that_do_not_fit_are_a_line(folder, labels, message: str):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    with pytest.raises(ValueError, match=message) as caught:
        model(torch.zeros(1, 3, 32, 48, dtype=torch.uint8), labels=labels)
    assert "\n" not in str(caught.value)


VALUES = torch.zeros(1, 3, 32, 48, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((VALUES.float(),), {}, "pixel_values must be uint8"),
        ((VALUES[0],), {}, "pixel_values must be uint8"),
        ((VALUES[:0],), {}, "pixel_values must be uint8"),
        (([1],), {}, "pixel_values must be uint8 .* not a list"),
        ((VALUES, torch.ones(1, 5, 5)), {}, r"pixel_mask must be \[1, 32, 48\]"),
        ((VALUES, torch.zeros(1, 32, 48)), {}, "1 somewhere in each image"),
        ((VALUES,), {"stepps": 1}, "the model has no option 'stepps'; known: .*steps"),
        ((VALUES,), {"labels": [1]}, "labels must be integers of shape .* not a list"),
    ],
)
def test_model_arguments_of_another_kind_are_a_line(folder, arguments, options: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        AutoModelForUniversalSegmentation.from_pretrained(folder)(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(3,), (0, 5), (4, -1)])
def test_post_process_size_that_is_none_is_a_line(size: tuple[int, ...]):
    with pytest.raises(ValueError, match="is not a height and a width"):
        PROCESSOR.post_process_semantic_segmentation(drawn_outputs(), [size, size])


def test_processor_without_images_is_a_line():
    with pytest.raises(ValueError, match="there are no images"):
        PROCESSOR([])


@pytest.mark.slow
def test_trainer_lowers_the_loss_in_20_steps_and_goes_on_from_its_checkpoint(tiny, tmp_path):
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    data = DataConfig(size=(32, 32), layout="tile", overlap=8, ids="reused")
    save_pretrained(Checkpoint(Pix2SeqD(tiny), TAXONOMY, data, InferConfig(steps=2, min_pixels=0)), tmp_path / "start")

    def trainer(steps: int) -> Trainer:
        options = TrainingArguments(
            str(tmp_path / "out"),
            max_steps=steps,
            per_device_train_batch_size=3,
            learning_rate=3e-3,
            logging_steps=1,
            save_steps=20,
            report_to=[],
            remove_unused_columns=False,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        model = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "start")
        return Trainer(model, options, train_dataset=labelled(), eval_dataset=labelled(), data_collator=collate)

    first = trainer(20)
    first.train()
    losses = [float(entry["loss"]) for entry in first.state.log_history if "loss" in entry]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    assert first.evaluate()["eval_loss"] < losses[0]
    second = trainer(22)
    second.train(resume_from_checkpoint=True)
    assert float(second.state.log_history[20]["loss"]) < 0.85 * losses[0], "the weights were read again"
    assert from_pretrained(tmp_path / "out" / "checkpoint-20").taxonomy == TAXONOMY


WAYS = {
    "AutoConfig": AutoConfig.from_pretrained,
    "config": Pix2SeqDConfig.from_pretrained,
    "json": lambda place: Pix2SeqDConfig.from_json_file(place / "config.json"),
    "AutoModel": AutoModelForUniversalSegmentation.from_pretrained,
    "pipeline": lambda place: pipeline("image-segmentation", model=str(place)),
}


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def rewrite(place: Path, file: str, change: dict) -> None:
    content = json.loads((place / file).read_text())
    (place / file).write_text(json.dumps({**content, **change}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"size": [2**20, 32]}}, "size must be at most 4096"),
        ({"infer": {"steps": 10**9}}, "steps must be at most 10000"),
        ({"infer": []}, "it has no section 'infer'"),
        ({"categories": [{"id": 1, "name": "\x1b]0;owned\x07"}]}, "printable characters"),
        ({"categories": None}, "it has no list 'categories'"),
        ({"model": {"encoder": {"layers": 10**9}}}, "layers must be at most 1000"),
        ({"model": {"encoder": {"backbone": {"model_type": "swin", "depths": [60_000]}}}}, "tensors"),
        ({"pix2seqd": 3}, "is not of a pix2seqd checkpoint"),
    ],
)
def test_every_way_to_a_config_refuses_what_from_pretrained_refuses(copy, way: str, change: dict, message: str):
    rewrite(copy, "config.json", change)
    with pytest.raises(InputError, match=message) as caught:
        WAYS[way](copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["dtype", "torch_dtype", "__class__", "id2label", "num_labels", "rope_scaling", "per_layer_config", "problem_type"],
)
def test_config_takes_nothing_over_that_was_not_checked(copy, key: str):
    for value in ("os", {"0": {"a": 1}}, 10**30):
        rewrite(copy, "config.json", {key: value})
        config = AutoConfig.from_pretrained(copy)
        assert list(config.id2label.values()) == ["cat", "lawn", "dog"]
        assert getattr(config, key, None) not in ("os", 10**30)


def test_config_that_is_no_file_or_no_json_is_a_line(copy):
    (copy / "config.json").write_text("[" * 100_000)
    for way in ("config", "json"):
        with pytest.raises(InputError) as caught:
            WAYS[way](copy)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"config\.json is not of a pix2seqd checkpoint"):
        Pix2SeqDConfig.from_dict([])  # pyright: ignore


def test_model_config_of_another_checkpoint_is_refused(folder, copy):
    rewrite(copy, "config.json", {"categories": [{"id": 1, "name": "owned"}]})
    with pytest.raises(InputError, match="the given config has other categories"):
        AutoModelForUniversalSegmentation.from_pretrained(folder, config=AutoConfig.from_pretrained(copy))


@pytest.mark.parametrize("load", [AutoModelForUniversalSegmentation, Pix2SeqDForUniversalSegmentation])
@pytest.mark.parametrize(
    "labels", [{"num_labels": 5}, {"id2label": {0: "a", 1: "b", 2: "c"}}, {"id2label": {0: "cat", 1: "lawn"}}]
)
def test_model_is_not_given_other_classes_in_silence(folder, load, labels: dict):
    """In `transformers` this makes a new head; the config would name classes that the network does not have."""
    with pytest.raises(InputError, match=r"\(cat, lawn, dog\); leave config, id2label and num_labels out") as caught:
        load.from_pretrained(folder, ignore_mismatched_sizes=True, **labels)
    assert "\n" not in str(caught.value)
    names = {0: "cat", 1: "lawn", 2: "dog"}
    assert load.from_pretrained(folder, id2label=names, num_labels=3).config.id2label == names


@pytest.mark.parametrize("option", [{"load_in_8bit": True}, {"state_dict": {"a": 1}}, {"output_loading_info": True}])
def test_model_option_that_asks_for_another_model_is_a_line(folder, option: dict):
    with pytest.raises(ValueError, match=rf"takes no {next(iter(option))}: .*; leave it out"):
        AutoModelForUniversalSegmentation.from_pretrained(folder, **option)
    assert AutoModelForUniversalSegmentation.from_pretrained(folder, load_in_8bit=False, low_cpu_mem_usage=True)


def test_model_torch_dtype_is_the_older_name_of_dtype(folder):
    for load in (AutoModelForUniversalSegmentation, Pix2SeqDForUniversalSegmentation):
        assert load.from_pretrained(folder, torch_dtype=torch.bfloat16).precision == "bfloat16"
        with pytest.raises(ValueError, match="float16"):
            load.from_pretrained(folder, torch_dtype="float16")


@pytest.mark.parametrize(("given", "device"), [("cpu", "cpu"), ({"": "meta"}, "meta"), (torch.device("meta"), "meta")])
def test_model_device_map_is_where_the_model_goes(folder, given, device: str):
    assert AutoModelForUniversalSegmentation.from_pretrained(folder, device_map=given).device.type == device


def test_model_device_map_auto_and_of_several_devices(folder):
    place = AutoModelForUniversalSegmentation.from_pretrained(folder, device_map="auto").device.type
    assert place == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="must name one device for the whole model"):
        AutoModelForUniversalSegmentation.from_pretrained(folder, device_map={"network": 0, "rest": "cpu"})
    with pytest.raises(InputError, match="cannot move the model to 'nowhere'"):
        AutoModelForUniversalSegmentation.from_pretrained(folder, device_map="nowhere")


@pytest.mark.parametrize("value", ["ab", {"a": 1}, [True], [-1], [10**30], [[]], [0.5], None])
def test_processor_settings_of_a_stranger(copy, value):
    rewrite(copy, "preprocessor_config.json", {"label_ids_to_fuse": value, "preprocess": 3, "save_pretrained": 1})
    with pytest.raises(InputError, match="label_ids_to_fuse must be a list of class numbers from 0"):
        AutoImageProcessor.from_pretrained(copy)
    rewrite(copy, "preprocessor_config.json", {"label_ids_to_fuse": [1]})
    assert AutoImageProcessor.from_pretrained(copy)(IMAGES)["pixel_values"].shape == (2, 3, 40, 48)


def test_save_pretrained_does_not_upload_in_silence(folder, tmp_path):
    with pytest.raises(ValueError, match=r"give the folder to pix2seqd\.hub\.push_to_hub"):
        AutoModelForUniversalSegmentation.from_pretrained(folder).save_pretrained(tmp_path / "x", push_to_hub=True)
    assert not (tmp_path / "x").exists()


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
