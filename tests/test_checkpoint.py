import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pix2seqd import checkpoint
from pix2seqd.checkpoint import _FORMAT_1, BUNDLED, find_backbone, from_pretrained, inflate_for_video, save_pretrained
from pix2seqd.config import InferConfig, MaskConfig, ModelConfig
from pix2seqd.files import InputError

FILES = ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_save_and_from_pretrained_round_trip(pretrained, folder):
    loaded = from_pretrained(folder)
    assert (loaded.data, loaded.infer, loaded.taxonomy) == (pretrained.data, pretrained.infer, pretrained.taxonomy)
    assert loaded.model.config == pretrained.model.config
    assert not loaded.model.training
    state = loaded.model.state_dict()
    for name, value in pretrained.model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert sorted(path.name for path in folder.iterdir()) == FILES
    images, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16)
    assert torch.equal(loaded.model.infer(images, noise, 3), pretrained.model.infer(images, noise, 3))


def test_save_pretrained_bfloat16_halves_the_file(pretrained, folder, tmp_path):
    save_pretrained(pretrained, tmp_path / "half", torch.bfloat16)
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "half")]
    assert sizes[1] < 0.55 * sizes[0]
    state = from_pretrained(tmp_path / "half").model.state_dict()
    for name, value in pretrained.model.state_dict().items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], value.bfloat16().float()), name


def edit(folder: Path, change: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"]["encoder"].update(layer=2), "no setting 'layer'; did you mean 'layers'"),
        (lambda c: c["data"].update(layout="tiles"), "must be one of resize, tile"),
        (lambda c: c["infer"].update(steps=0), "steps must be 1 or more"),
        (lambda c: c["model"]["encoder"]["backbone"].update(depths="x"), "backbone 'resnet' cannot be built"),
        (lambda c: c["model"]["encoder"]["backbone"].update(model_type="?"), "backbone '\\?' cannot be built"),
        (
            lambda c: c["model"]["encoder"]["backbone"].update(depths=[[1], 1, 1]),
            "a setting is missing, unknown or of another kind",
        ),
        (
            lambda c: c["model"]["encoder"]["backbone"].update(out_features=3),
            "a setting is missing, unknown or of another kind",
        ),
        (
            lambda c: c["model"]["encoder"].update(backbone={"model_type": "vit"}),
            "transformers has no backbone of this",
        ),
        (lambda c: c["categories"].append(7), r"not understood \(7\): a category has an id \(a number\), a name"),
        (lambda c: c["categories"][0].pop("name"), "a category has an id"),
        (lambda c: c["model"]["decoder"].update(dim=64), "has shape .* but config.json beside it asks for"),
        (lambda c: c["model"]["encoder"].update(layers=2), "model.safetensors lacks 'pixel_encoder.layers.1"),
        (lambda c: c["model"]["encoder"].update(layers=0), "model.safetensors has an unknown 'pixel_encoder.layers.0"),
        (lambda c: c.pop("categories"), "is not understood"),
        (lambda c: c.update(model=3), "is not understood"),
        (lambda c: c.update(categories=[]), "at least one category"),
        (lambda c: c["model"].update(mask=3), "is not understood: ModelConfig.mask must be a section of settings"),
        (lambda c: c.update(pix2seqd=True), "is not of a pix2seqd checkpoint"),
        (lambda c: c.update(pix2seqd=2.0), "is not of a pix2seqd checkpoint"),
        (lambda c: c.update(pix2seqd=99), "is not of a pix2seqd checkpoint"),
        (lambda c: c.pop("pix2seqd"), "is not of a pix2seqd checkpoint"),
    ],
)
def test_from_pretrained_wrong_config_is_a_one_line_error(folder, change, message: str):
    edit(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


BEFORE = {
    "nuclei": (MaskConfig(bits=(2, 4), classes=3, max_instances=16, scale=0.2, stride=1), 0, (5, 2, 5, 0.0)),
    "nuclei-fast": (
        MaskConfig(bits=(2, 4), classes=3, max_instances=16, scale=0.2, stride=1, init_id_cell=16),
        0,
        (2, 2, 3, 0.0),
    ),
    "nuclei-video": (MaskConfig(bits=(2, 4), classes=3, max_instances=16, scale=0.2, stride=1), 2, (2, 2, 5, 0.6)),
    "shapes": (MaskConfig(bits=(4, 4), classes=10, max_instances=16, scale=0.12, stride=1), 0, (10, 1, 5, 0.0)),
}
"""Of the bundled checkpoints, as first published: mask, past frames, and steps, input_scale, consensus,
unconditioned_share in use."""


@pytest.mark.parametrize("name", BEFORE)
def test_from_pretrained_format_1(name: str, tmp_path):
    folder = shutil.copytree(BUNDLED / name, tmp_path / "before")
    published = Path(__file__).parent / "golden" / f"{name}-format-1.json"
    if published.exists():  # the bundled weights are newer, and have the same shapes
        shutil.copy(published, folder / "config.json")
    assert json.loads((folder / "config.json").read_text())["pix2seqd"] == 1
    loaded = from_pretrained(folder)
    mask, past_frames, infer = BEFORE[name]
    model = loaded.model.config
    assert model.mask == mask and model.decoder.past_frames == past_frames
    assert (model.encoder.dim, model.encoder.map_dim, model.encoder.stem_pool) == (128, 96, "none")
    assert (model.decoder.dim, model.decoder.transformer_dim, model.decoder.patch) == (64, 192, 4)
    options = loaded.infer
    assert (options.steps, options.input_scale, options.consensus, options.unconditioned_share) == infer
    save_pretrained(loaded, tmp_path / "after")
    assert json.loads((tmp_path / "after" / "config.json").read_text())["pix2seqd"] == 2
    again = from_pretrained(tmp_path / "after")
    assert (again.model.config, again.data, again.infer) == (model, loaded.data, options)


def format_1(place: Path) -> Path:
    return shutil.copytree(BUNDLED / "nuclei", place / "copy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["data"].update(id_distance=9), r"data\.id_distance 9 is gone, only 4 is left"),
        (lambda c: c["infer"].update(seams="known"), r"infer\.seams 'known' is gone, only 'join' is left"),
        (lambda c: c["model"].update(encoder_layer=2), "no setting 'encoder_layer'; did you mean 'encoder.layers'"),
        (lambda c: c["model"].update(fuse_dim=0), "1 or more"),
        (lambda c: c.update(model=3), "is not understood"),
        (lambda c: c.pop("infer"), "is not understood"),
    ],
)
def test_from_pretrained_format_1_refuses_in_one_line(tmp_path, change, message: str):
    folder = format_1(tmp_path)
    edit(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        from_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_every_setting_of_format_1_has_a_path(tmp_path):
    """The table leads from each model setting that the bundled files have, and name_cell, to another one."""
    config = json.loads((BUNDLED / "nuclei-fast" / "config.json").read_text())
    known = {f"model.{name}" for name in ModelConfig.names()} | {f"infer.{name}" for name in InferConfig.names()}
    assert set(_FORMAT_1.values()) <= known and len(set(_FORMAT_1.values())) == len(_FORMAT_1)
    assert {f"model.{key}" for key in config["model"]} - {"model.schedule", "model.loss", "model.p"} <= set(_FORMAT_1)


def damage(folder: Path, kind: str) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    match kind:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "short":
            file.write_bytes(whole[: len(whole) // 2])
        case "header":
            file.write_bytes(whole[:100])
        case "garbage":
            file.write_bytes(b"\xff" * 5000)
        case "folder":
            file.unlink()
            file.mkdir()


@pytest.mark.parametrize("kind", ["missing", "empty", "short", "header", "garbage", "folder"])
def test_from_pretrained_damaged_weights_is_an_error_with_name(folder, kind: str):
    damage(folder, kind)
    with pytest.raises(InputError, match=r"model\.safetensors (does not exist|is damaged or not safetensors)"):
        from_pretrained(folder)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_from_pretrained_does_not_open_a_pickle(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for dump in (lambda path: path.write_bytes(pickle.dumps(Bomb())), lambda path: torch.save({"a": Bomb()}, path)):
        dump(folder / "model.safetensors")
        with pytest.raises(InputError, match="is damaged or not safetensors"):
            from_pretrained(folder)
        assert not Path("exploded").exists()


def test_from_pretrained_weights_of_another_model_is_an_error(folder):
    save_file({"bert.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"does not belong to the config\.json beside it"):
        from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_from_pretrained_broken_config_is_an_error(folder, content: str):
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is not"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["no_such", "./no_such", "/no/such", "a/b/c", "", "..", "~/x"])
def test_from_pretrained_impossible_name_does_not_ask_the_hub(name: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        from_pretrained(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("efficientnet_lite9", "did you mean efficientnet_lite"),
        ("resnet-50x", "did you mean microsoft/resnet-50"),
        ("./nowhere", "neither a folder nor a known name"),
        ("a/b/c", "neither a folder nor a known name"),
        ("weights.pth", "is a file; give the folder"),
    ],
)
def test_find_backbone_impossible_name_does_not_ask_the_hub(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pix2seqd.checkpoint._download", None)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(InputError, match=says) as caught:
        find_backbone(name)
    assert says.startswith(
        "is a file"
    ) or "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, or a folder" in str(caught.value)


def test_find_backbone_folder_and_known_name(tmp_path):
    assert find_backbone(str(tmp_path)) == str(tmp_path)
    assert find_backbone("efficientnet_lite1") == "efficientnet_lite1"


def test_from_pretrained_bundled_name_beside_an_image_folder_of_that_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundled = from_pretrained("nuclei").digest
    (tmp_path / "nuclei").mkdir()
    assert from_pretrained("nuclei").digest == bundled
    shutil.copytree(folder, tmp_path / "shapes")
    assert from_pretrained("shapes").digest == from_pretrained(folder).digest


def test_save_pretrained_impossible_folder_is_an_error_with_name(pretrained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot make the folder .*file"):
        save_pretrained(pretrained, tmp_path / "file" / "checkpoint")


def test_save_pretrained_again_replaces_all_files(pretrained, folder):
    save_pretrained(pretrained, folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    copy = shutil.copytree(folder, folder.parent / "copy")
    assert load_file(copy / "model.safetensors").keys() == pretrained.model.state_dict().keys()


@pytest.mark.parametrize(
    "changes",
    [{}, {"decoder": {"patch": 2}, "mask": {"stride": 1}}, {"encoder": {"map_dim": 256}, "decoder": {"dim": 128}}],
    ids=["plain", "patches", "as wide as the paper's"],
)
def test_inflate_for_video_keeps_the_first_output(tiny, build, changes):
    image = build(tiny.replace(**changes))
    video = inflate_for_video(image, past_frames=2)
    assert video.config.decoder.past_frames == 2
    assert not video.training
    size = 16 * 2 // image.config.mask.stride
    images, noise = torch.rand(2, 3, 32, 32), torch.randn(2, 5, size, size)
    past = torch.randint(0, 4, (2, 2, 2, size, size))
    h = image.pixel_encoder(images)
    for m_image, m_video in zip(image.denoise(h, noise, 3), video.denoise(h, noise, 3, past=past), strict=True):
        assert torch.equal(m_image, m_video)
    video.train().train_loss(images, past[:, 0], past).backward()
    gradient = video.mask_decoder.conv_in.weight.grad
    assert gradient is not None
    new = gradient[:, image.mask_decoder.conv_in.in_channels :]
    assert new.abs().max() > 0, "what is new can be learned"


def test_from_pretrained_files_that_are_replaced_meanwhile_are_not_mixed(folder, pretrained, monkeypatch):
    """`evaluate` beside a training: the digest would be that of other weights."""
    load = checkpoint._load_weights
    monkeypatch.setattr(checkpoint, "_load_weights", lambda *a: (load(*a), save_pretrained(pretrained, folder)))
    with pytest.raises(InputError, match=r"was written to while it was read; try again"):
        from_pretrained(folder)
    monkeypatch.undo()
    assert from_pretrained(folder).digest
