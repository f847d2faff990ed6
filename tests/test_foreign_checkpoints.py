"""What strangers may write into a checkpoint: it gives a model, or one line that says what is wrong."""

import copy
import json
import os
import random
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from strange_files import places

from pix2seqd.checkpoint import _FORMAT_1, BUNDLED, SECTIONS, Checkpoint, from_pretrained, save_pretrained
from pix2seqd.files import InputError, is_control

NAMES = sorted(path.name for path in BUNDLED.iterdir() if path.is_dir())
CHOICES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 16, 64, 1000, 2**16, 2**31, 2**63, 10**9, 10**30, 10**400),
    *(0.0, -0.5, 0.3, 1.5, 1e-300, 1e308, float("inf"), float("nan")),
    *(
        "",
        "cosine",
        "sigmoid@-3,3,0",
        "cosine@1,2",
        "log@0,0,t",
        "resnet",
        "swin",
        "dinov2",
        "timm_backbone",
        "\x1b[31m",
    ),
    *("x" * 100_000, "a\nb", "\udcff", "é", "../../etc/passwd", "owner/name"),
    *([], [0], [1, 1], [2] * 3, [1] * 100_000, [[1]], [None], [10**9] * 3, {}, {"a": 1}, {"": {}}, [{}]),
]
KEYS = [
    "",
    "x",
    "layers",
    "encoder",
    "depths",
    "num_hidden_layers",
    "attn_implementation",
    "\x1b]0;x\x07",
    "mask",
    "model_type",
]


def edited(config: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A copy of a config.json with one to three random changes."""
    config = copy.deepcopy(config)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        every = list(places(config))
        if not every:
            break
        parent, key = draw.choice(every)
        value = parent[key]
        match draw.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(value, list):
                parent[key] = value * draw.choice([0, 2, 3]) + draw.choice([[], [1]])
            case 1 | 2 if type(value) in (int, float):
                parent[key] = draw.choice(
                    [value * 2, -value, value + 1, value * 1000, value / 2, value // 2, str(value)]
                )
            case 3 if isinstance(parent, dict):
                parent[draw.choice(KEYS)] = draw.choice([value, *CHOICES])
            case 4:
                other, there = draw.choice(every)
                parent[key] = copy.deepcopy(other[there]) if draw.random() < 0.5 else [value]
            case _:
                parent[key] = copy.deepcopy(draw.choice(CHOICES))
    return config


def load_in_time(folder: Path) -> Checkpoint | str:
    """The checkpoint, or the line that says why there is none, within 5 s of this process."""
    began = time.process_time()
    try:
        return from_pretrained(folder)
    except InputError as error:
        message = str(error)
        assert not any(map(is_control, message)) and len(message) < 2000, message
        assert str(folder) in message
        return message
    finally:
        assert time.process_time() - began < 5


@pytest.fixture(params=[1, 2], ids=["format 1", "format 2"])
def bundled(request, name: str, tmp_path) -> Path:
    """A bundled checkpoint in one of the formats."""
    folder = tmp_path / "copy"
    if request.param == 1:
        return shutil.copytree(BUNDLED / name, folder)
    save_pretrained(from_pretrained(name), folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "edits", [range(20), pytest.param(range(20, 1000), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_from_pretrained_random_edits_give_a_model_or_a_line(bundled: Path, edits: range):
    config = json.loads((bundled / "config.json").read_text())
    results = []
    for number in edits:
        content = json.dumps(edited(config, random.Random(number)))
        (bundled / "config.json").write_text(content)
        try:
            results.append(load_in_time(bundled))
        except BaseException as error:
            error.add_note(f"edit {number}: {content[:3000]}")
            raise
    refused = sum(isinstance(result, str) for result in results)
    assert len(edits) * 0.3 < refused < len(edits), "some do no harm"


@pytest.mark.parametrize("name", NAMES[:1])
@pytest.mark.parametrize(
    "edits", [range(20), pytest.param(range(20, 400), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_auto_config_random_edits_are_refused_as_by_from_pretrained(bundled: Path, edits: range):
    """Of the keys that are ours; without model_type `transformers` does not know whose file it is."""
    from transformers import AutoConfig

    import pix2seqd.hf  # noqa: F401 - registers the config

    config = json.loads((bundled / "config.json").read_text())
    for number in edits:
        changed = edited({key: config[key] for key in ("pix2seqd", "categories", *SECTIONS)}, random.Random(number))
        content = json.dumps({**changed, "model_type": "pix2seqd"})
        (bundled / "config.json").write_text(content)
        expected = load_in_time(bundled)
        try:
            found = AutoConfig.from_pretrained(bundled)
            assert not isinstance(expected, str) or "model.safetensors" in expected, f"edit {number}: {content[:3000]}"
            assert all(isinstance(name, str) for name in found.id2label.values())
        except InputError as error:
            assert isinstance(expected, str) and str(bundled) in str(error) and "\n" not in str(error)


@pytest.fixture
def nuclei(tmp_path) -> Path:
    return shutil.copytree(BUNDLED / "nuclei", tmp_path / "copy")


def change(folder: Path, path: str, value: Any) -> None:
    """Set a value in config.json by its path."""
    config = place = json.loads((folder / "config.json").read_text())
    *sections, name = (int(part) if part.isdigit() else part for part in path.split("/"))
    for section in sections:
        place = place[section]
    place[name] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model/bits", [2, 4, 8], "bits must have 2 entries, not 3"),
        ("model/bits", [2], "bits must have 2 entries, not 1"),
        ("model/bits", [10**12, 4], "bits must be from 1 to 16"),
        ("model/encoder_heads", 0, "must be 1 or more"),
        ("model/decoder_head_dim", 0, "must be 1 or more"),
        ("model/bits", 2, "bits must be a list, not 2"),
        ("model/bits", [2, True], r"bits\[1\] must be of type int, not True"),
        ("model/bits", ["2", 4], r"bits\[0\] must be of type int, not '2'"),
        ("model/multipliers", [], "multipliers must have 1 to 1000 entries, not 0"),
        ("model/image_mean", [0, 0, [1]], r"image_mean\[2\] must be of type float"),
        ("model/image_std", [1, 0, 1], "image_std must be positive"),
        ("model/kernel_size", -1, "kernel_size must be from 1 to 63"),
        ("model/encoder_layers", 10**9, "layers must be at most 1000"),
        ("model/dim", 2**31, "must be at most 65536"),
        ("model/encoder_dropout", float("nan"), "must be a finite number"),
        ("model/schedule", "linear", "unknown schedule 'linear'"),
        ("model/schedule", "sigmoid@-3,3,0", "does not fall from t = 0 to 1"),
        ("model/schedule", "cosine@0,x,1", "could not convert"),
        ("model/encoder", {}, "model.encoder is a section of format 2, but the file says format 1"),
        ("model/backbone", [], "backbone must be a section of settings"),
        ("model/backbone/model_type", 3, "needs a model_type"),
        ("model/backbone/model_type", "timm_backbone", "'timm_backbone' is not supported"),
        ("model/backbone/attn_implementation", "owner/code", "must not have the setting 'attn_implementation'"),
        ("model/backbone/a", {"b": [{"_attn_implementation_internal": "x/y"}]}, "must not have the setting"),
        ("model/backbone/depths", [1, 1, 10**9], r"backbone\.depths\[2\] must be at most 65536"),
        ("model/backbone/depths", [1, 1, 60_000], "more than twice the .* tensors"),
        ("model/backbone/depths", [[1]] * 30_000, "a backbone may have 20,000 settings"),
        ("data/size", [100, 100], r"data\.size \[100, 100\] does not suit the model; give multiples of"),
        ("data/size", [2**20, 2**20], "size must be at most 4096"),
        ("data/zoom", 1e-9, "zoom must be from 0.01 to 100"),
        ("infer/steps", 10**9, "steps must be at most 10000, .*; --trust-size allows it"),
        ("infer/consensus", 10**9 + 1, "consensus must be at most 999, .*; --trust-size allows it"),
        ("categories/0/name", "\x1b]0;owned\x07", "is not one line of at most 1000 printable characters"),
        ("categories/0/name", "two\nlines", "is not one line of at most 1000 printable characters"),
        ("categories/0/id", 10**30, "is above 2147483647"),
        ("categories/0/id", float("inf"), "category number 1 is not understood"),
        ("categories/0/color", [0, 0, 256], "is not of values 0 to 255"),
        ("categories", {}, "it has no list 'categories'"),
        ("model", {}, "does not belong to the config.json beside it"),
        ("data", [], "it has no section 'data'"),
        ("pix2seqd", "1", "is not of a pix2seqd checkpoint"),
        ("pix2seqd", 1.0, "is not of a pix2seqd checkpoint"),
        ("pix2seqd", [1], "is not of a pix2seqd checkpoint"),
    ],
)
def test_from_pretrained_refuses_a_setting_in_one_line(nuclei: Path, path: str, value: Any, message: str):
    change(nuclei, path, value)
    found = load_in_time(nuclei)
    assert isinstance(found, str)
    with pytest.raises(InputError, match=message):
        from_pretrained(nuclei)


SWIN = {"model_type": "swin", "embed_dim": 16, "depths": [1, 1, 1], "num_heads": [2, 2, 2]}
DINO = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_attention_heads": 2,
    "patch_size": 8,
    "out_features": ["stage1"],
}


@pytest.mark.parametrize(
    "backbone",
    [
        {**SWIN, "depths": [60_000] * 3},
        {**SWIN, "window_size": 60_000},
        {**SWIN, "num_heads": [2, 2, 0]},
        {**SWIN, "hidden_act": "nothing"},
        {**DINO, "num_hidden_layers": 60_000},
        {**DINO, "num_hidden_layers": -1},
        {**DINO, "patch_size": 0},
        {**DINO, "image_size": 60_000, "patch_size": 1},
        {**DINO, "out_features": "stage1"},
        {"model_type": "convnext", "depths": [60_000] * 4, "hidden_sizes": [65_536] * 4},
        {"model_type": "resnet", "depths": [1, 1, 1], "hidden_sizes": [65_536] * 3, "embedding_size": 65_536},
        {"model_type": "bert"},
    ],
)
def test_from_pretrained_costly_backbone_of_transformers_is_refused_in_time(nuclei: Path, backbone: dict[str, Any]):
    from transformers import ConvNextBackbone, Dinov2Backbone, SwinBackbone  # noqa: F401 # takes seconds, not counted

    change(nuclei, "model/backbone", backbone)
    assert isinstance(load_in_time(nuclei), str)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("infer/steps", 10**6),
        ("infer/adaptive", 10**5),
        ("infer/consensus", 10**6 + 1),
        ("data/diameter", 5000),
        ("data/size", [8192, 64]),
        ("model/backbone/num_channels_of_something", 2**20),
    ],
)
def test_from_pretrained_trust_size_lifts_the_limits(nuclei: Path, path: str, value: Any):
    change(nuclei, path, value)
    with pytest.raises(InputError, match=r"must be at most .*; --trust-size allows it"):
        from_pretrained(nuclei)
    trusted = from_pretrained(nuclei, trust_size=True)
    assert trusted.infer.replace(td=3.0).steps == trusted.infer.steps, "settings of a call are still set"


def test_from_pretrained_sizes_are_compared_before_memory_is_taken(nuclei: Path, monkeypatch):
    """A model of 10¹² numbers is refused by its shapes."""
    change(nuclei, "model/encoder_mlp_dim", 2**16)
    change(nuclei, "model/backbone/hidden_sizes", [2**16] * 3)
    taken: list[str] = []
    monkeypatch.setattr(torch.nn.init, "xavier_uniform_", lambda tensor, *_, **__: taken.append(tensor.device.type))
    with pytest.raises(InputError, match="does not belong to the config"):
        from_pretrained(nuclei)
    assert taken and set(taken) == {"meta"}


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.uint8, torch.complex64, torch.float8_e4m3fn])
def test_from_pretrained_weights_that_are_no_real_numbers_are_refused(nuclei: Path, kind: torch.dtype):
    tensors = load_file(nuclei / "model.safetensors")
    name = "mask_decoder.conv_out.bias"
    save_file(
        {**tensors, name: torch.ones_like(tensors[name], dtype=torch.float32).to(kind)}, nuclei / "model.safetensors"
    )
    with pytest.raises(InputError, match=f"{name!r} has numbers of type"):
        from_pretrained(nuclei)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_from_pretrained_weights_that_are_not_finite_are_refused(nuclei: Path, value: float):
    tensors = load_file(nuclei / "model.safetensors")
    name = "mask_decoder.conv_out.bias"
    changed = tensors[name].double()
    changed[-1] = value
    save_file({**tensors, name: changed}, nuclei / "model.safetensors")
    with pytest.raises(InputError, match=f"{name!r} has values that are not finite float32 numbers"):
        from_pretrained(nuclei)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_from_pretrained_other_precisions_are_read(nuclei: Path, kind: torch.dtype):
    tensors = load_file(nuclei / "model.safetensors")
    save_file({name: value.to(kind) for name, value in tensors.items()}, nuclei / "model.safetensors")
    state = from_pretrained(nuclei).model.state_dict()
    assert all(torch.equal(state[name], value.to(kind).float()) for name, value in tensors.items())


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**63, 2**63], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        {"dtype": "\x1b[31m", "shape": [0], "data_offsets": [0, 0]},
    ],
)
def test_from_pretrained_header_that_lies_is_refused_in_one_line(nuclei: Path, entry: dict[str, Any]):
    header = json.dumps({"\x1b]0;owned\x07": entry}).encode()
    (nuclei / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert isinstance(load_in_time(nuclei), str)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "familiarity.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "hole"])
def test_from_pretrained_pipe_device_or_hole_is_refused(nuclei: Path, file: str, kind: str):
    (nuclei / file).unlink()
    if kind == "pipe":
        os.mkfifo(nuclei / file)
    elif kind == "device":
        (nuclei / file).symlink_to("/dev/zero")
    else:
        with (nuclei / file).open("wb") as made:
            made.truncate(2**40)
    assert isinstance(load_in_time(nuclei), str)


def test_every_part_of_config_json_is_checked():
    assert {path.split(".")[0] for path in _FORMAT_1} <= set(SECTIONS)
