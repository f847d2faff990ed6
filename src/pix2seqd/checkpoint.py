"""Checkpoints: a folder of config.json and model.safetensors, loaded strictly and without pickle."""

import difflib
import errno
import hashlib
import itertools
import math
import reprlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from pix2seqd.config import BUNDLED, CARD, DataConfig, InferConfig, ModelConfig, bundled_names
from pix2seqd.files import InputError, read_json, sync_folder, write_atomically, write_json
from pix2seqd.images import familiarity
from pix2seqd.images.familiarity import Familiarity
from pix2seqd.layers import efficientnet_lite
from pix2seqd.panoptic.reused_ids import ID_DISTANCE
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
"""The files of a checkpoint, beside familiarity.safetensors, which not every one has."""
FORMAT = 2
"""Of config.json: settings nest as the model does. Format 1, where they were flat, is read too."""
SECTIONS = ("model", "data", "infer")
"""The settings in config.json."""
MAX_CONFIG = 2**24
"""Bytes of the largest config.json that is read."""
MAX_TENSORS = 2000
"""Tensors of the largest model that is outlined where its file of weights is not known."""
MAX_TABLES = 2**26
"""Numbers that a backbone may compute for itself, beside its weights (codes of positions)."""
PATIENCE = 5.0
"""Seconds to wait for the hub's first answer."""
_FLOATS, _INTEGERS = ("F32", "F16", "BF16", "F64"), ("I64", "I32", "I16", "I8", "U8")
MODEL_TYPE = "pix2seqd"
"""Our name in `transformers` (see `pix2seqd.interop.transformers`)."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and everything needed to use it."""

    model: Pix2SeqD
    taxonomy: Taxonomy
    data: DataConfig
    infer: InferConfig
    name: str = ""
    """The folder, bundled name or hub id it was loaded from; empty if it was not loaded."""
    digest: str = ""
    """SHA-256 of the weights file; empty if it was not loaded."""
    familiarity: Familiarity | None = None
    """Statistics of the training images, for a warning about images that look unlike them; None: no warning."""


def save_pretrained(pretrained: Checkpoint, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint folder: config.json, model.safetensors, preprocessor_config.json, each atomically.

    Only `transformers` needs the last of them. The folder is made if need be; the weights get the precision `dtype`. If
    the checkpoint has statistics of its training images, they are written too, as familiarity.safetensors.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder} ({error.strerror}); choose a writable place") from error
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in pretrained.model.state_dict().items()
    }
    with write_atomically(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    stuff = [i for i, category in enumerate(pretrained.taxonomy.categories) if not category.isthing]
    processor = {"image_processor_type": "Pix2SeqDImageProcessor", "label_ids_to_fuse": stuff}
    write_json(folder / "preprocessor_config.json", processor)
    config = {
        "pix2seqd": FORMAT,
        "model_type": MODEL_TYPE,
        "model": pretrained.model.config.to_dict(),
        "data": pretrained.data.to_dict(),
        "infer": pretrained.infer.to_dict(),
        "categories": pretrained.taxonomy.to_coco(),
    }
    write_json(folder / "config.json", config)
    familiarity.write(pretrained.familiarity, folder)


def from_pretrained(name: str | Path, trust_size: bool = False) -> Checkpoint:
    """Load a checkpoint, in eval mode and float32.

    Args:
        name: a folder, the name of a bundled checkpoint ("nuclei"), or a repository id of the Hugging
            Face hub ("owner/name"), looked for in this order. What was downloaded once is used without
            asking the hub again; `hf download owner/name` refreshes it.
        trust_size: take a model of any size. Otherwise sizes in config.json have limits (SECURITY.md), so that a
            stranger's checkpoint cannot exhaust the machine.

    Raises:
        InputError: not found, not a checkpoint of this package, damaged, or config and weights do not fit. All of
            config.json, and the tensors that it asks for, are checked before memory is taken (limits: `config`, and
            the size of the weights' file). A file that was replaced meanwhile.
    """
    folder = find_folder(str(name))
    versions = _versions(folder)
    config = read_json(folder / "config.json", MAX_CONFIG)
    _check_version(config, folder / "config.json")
    weights = folder / "model.safetensors"
    found = _headers(weights)
    settings, outline = read_settings(config, folder / "config.json", len(found), trust_size)
    _check_headers(weights, found, outline)
    model = Pix2SeqD(settings.model)
    _load_weights(model, weights)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    statistics = familiarity.read(folder, settings.model.encoder.map_dim)
    if _versions(folder) != versions:
        raise InputError(
            f"{folder} was written to while it was read; try again, or wait for the training that does this"
        )
    return Checkpoint(model.eval(), settings.taxonomy, settings.data, settings.infer, str(name), digest, statistics)


def _versions(folder: Path) -> list[tuple[int, int]]:
    """Numbers and times of the files of a checkpoint, which change when one is replaced."""
    found = []
    for name in (*FILES, familiarity.FILE):
        with suppress(OSError):  # one that is missing or cannot be read is said by who reads it
            found.append((folder / name).stat())
    return [(file.st_ino, file.st_mtime_ns) for file in found]


class Settings(NamedTuple):
    """What a config.json says."""

    model: ModelConfig
    data: DataConfig
    infer: InferConfig
    taxonomy: Taxonomy


def settings_of(name: str) -> Settings:
    """What the config.json of a checkpoint says, without its weights; errors are those of `from_pretrained`."""
    path = find_folder(name) / "config.json"
    return read_settings(read_json(path, MAX_CONFIG), path)[0]


def read_settings(
    config: Any, where: str | Path, tensors: int = MAX_TENSORS, trust_size: bool = False
) -> tuple[Settings, Pix2SeqD]:
    """All of a config.json, checked, and an outline of its model: the tensors have shapes, but take no memory.

    `where` names the file in messages; `tensors` is how many the file of weights has. A model of more than twice as
    many is not built, which takes long, unless `trust_size`. A part that is missing, unknown, of another kind or out of
    range is an `InputError`.
    """
    _check_version(config, where)
    try:
        _check_sections(config)
        config = _from_format_1(config) if config["pix2seqd"] == 1 else config
        model = ModelConfig.from_dict(config["model"], trust_size)
        data = DataConfig.from_dict(config["data"], trust_size)
        infer = InferConfig.from_dict(config["infer"], trust_size)
        taxonomy = Taxonomy.from_coco(config["categories"])
        return Settings(model, data, infer, taxonomy), _outline(model, data, math.inf if trust_size else tensors)
    except ValueError as error:
        raise InputError(f"{where} is not understood: {error}") from error


def _check_version(config: Any, where: str | Path) -> None:
    """Raise an `InputError` for what is not the content of a config.json of this package, or of an unknown format."""
    version = config.get("pix2seqd") if isinstance(config, dict) else None
    if type(version) is not int or version not in (1, FORMAT):
        raise InputError(f"{where} is not of a pix2seqd checkpoint (format 1 or {FORMAT})")


def _check_sections(config: dict[str, Any]) -> None:
    """Raise a `ValueError` for a config.json that lacks one of its parts, or has one of another kind."""
    for part, kind, what in (*((part, dict, "section") for part in SECTIONS), ("categories", list, "list")):
        if not isinstance(config.get(part), kind):
            raise ValueError(f"it has no {what} {part!r}")


def _outline(config: ModelConfig, data: DataConfig, tensors: float) -> Pix2SeqD:
    """The model of a config, without memory for its tensors; a `ValueError` if there is none, or not of this size.

    `tensors` is how many the file of weights has. No model of many more is built, not even in outline, which would take
    long. Infinity: a model of any size is.
    """
    limit, counted, thread = 2 * tensors + 1000, itertools.count(1), threading.get_ident()

    def count(module: torch.nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        if threading.get_ident() == thread and next(counted) > limit:
            raise ValueError(f"it asks for more than twice the {tensors} tensors of model.safetensors")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            model = Pix2SeqD(config)
        check_size(model, data.size)
    except Exception as error:  # whatever goes wrong in there comes from the configuration
        raise ValueError(" ".join(str(error).split())[:500]) from error
    finally:
        for hook in hooks:
            hook.remove()
    saved = set(model.state_dict())
    besides = sum(buffer.numel() for name, buffer in model.named_buffers() if name not in saved)
    if besides > MAX_TABLES and math.isfinite(tensors):
        raise ValueError(f"its backbone computes tables of {besides:,} numbers; they may have {MAX_TABLES:,}")
    return model


def check_size(model: Pix2SeqD, size: tuple[int, int]) -> None:
    """Raise a `ValueError` for a size of images that is not a multiple of `coarsest_cell`."""
    step = coarsest_cell(model)
    if any(n % step for n in size):
        raise ValueError(f"data.size {list(size)} does not suit the model; give multiples of {step}")


def coarsest_cell(model: Pix2SeqD) -> int:
    """The number of pixels of which the sides of the networks' input are multiples."""
    config = model.config
    return math.lcm(config.mask.stride * config.decoder.cell, model.pixel_encoder.backbone.strides[-1])


_FORMAT_1 = {
    **{f"model.{name}": f"model.mask.{name}" for name in ("bits", "classes", "max_instances", "scale")},
    "model.mask_stride": "model.mask.stride",
    "model.name_cell": "model.mask.init_id_cell",
    **{
        f"model.{name}": f"model.encoder.{name}"
        for name in ("backbone", "stem_pool", "image_mean", "image_std", "drop_path")
    },
    **{f"model.encoder_{name}": f"model.encoder.{name}" for name in ("dim", "layers", "heads", "mlp_dim", "dropout")},
    "model.fuse_dim": "model.encoder.map_dim",
    **{
        f"model.{name}": f"model.decoder.{name}"
        for name in (
            *("dim", "multipliers", "res_blocks", "kernel_size", "condition_on_map", "condition_on_tokens"),
            *("past_frames", "time_scaling", "normalize_noisy", "head", "bit_logits"),
        )
    },
    **{f"model.decoder_{name}": f"model.decoder.{name}" for name in ("layers", "head_dim", "dropout")},
    "model.decoder_dim": "model.decoder.transformer_dim",
    "model.mask_patch": "model.decoder.patch",
    "infer.enlarge": "infer.input_scale",
    "infer.afresh": "infer.unconditioned_share",
}
"""Settings that had another name in format 1 → their path now."""
_REMOVED = {"data.id_distance": ID_DISTANCE, "infer.diameter": 0, "infer.seams": "join", "infer.t_start": 1}
"""Settings of format 1 that are none any more, with the value that holds now."""


def _from_format_1(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json of format 1 as format 2 has it; a `ValueError` if a removed setting has another value than now."""
    converted: dict[str, Any] = {"categories": config["categories"], **{part: {} for part in SECTIONS}}
    nested = {path.rpartition(".")[0] for path in _FORMAT_1.values()} - set(SECTIONS)
    for part in SECTIONS:
        for key, value in config[part].items():
            before = f"{part}.{key}"
            if before in nested:
                raise ValueError(f"{before} is a section of format {FORMAT}, but the file says format 1")
            if before in _REMOVED:
                if value != _REMOVED[before]:
                    shown = reprlib.repr(value)
                    raise ValueError(f"{before} {shown} is gone, only {_REMOVED[before]!r} is left; write that there")
                continue
            *sections, name = _FORMAT_1.get(before, before).split(".")
            target = converted
            for section in sections:
                target = target.setdefault(section, {})
            target[name] = value
    return converted


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each tensor of a safetensors file, whose size is that of the file; no tensor is read."""
    with _reading(path), safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 # it is not a dictionary
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}


def _check_headers(path: Path, found: dict[str, tuple[tuple[int, ...], str]], model: Pix2SeqD) -> None:
    """Raise an `InputError` unless a file has a model's names, shapes and types, before memory is taken for either."""
    expected = model.state_dict()
    if wrong := sorted(set(found) ^ set(expected)):
        whose = "lacks" if wrong[0] in expected else "has an unknown"
        raise InputError(f"{path} {whose} {wrong[0][:200]!r}: it does not belong to the config.json beside it")
    for name, value in expected.items():
        shape, kind = found[name]
        if shape != value.shape:
            wanted = tuple(value.shape)
            raise InputError(f"{path}: {name!r} has shape {shape}, but config.json beside it asks for {wanted}")
        if kind not in (_FLOATS if value.is_floating_point() else _INTEGERS):
            raise InputError(f"{path}: {name!r} has numbers of type {kind}; weights are F32, F16, BF16 or F64")


def _load_weights(model: Pix2SeqD, path: Path) -> None:
    """Load weights into a model that `_check_headers` found to be theirs; an `InputError` if some are not finite."""
    model.load_state_dict(read_tensors(path))
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name!r} has values that are not finite float32 numbers; copy the file again")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; an `InputError` if it is missing or damaged. Pickles are never opened."""
    with _reading(path):
        return load_file(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; a checkpoint needs config.json and model.safetensors")
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not safetensors ({error}); copy it again") from error


def find_folder(name: str) -> Path:
    """Folder of the checkpoint of this name, fetched from the hub if need be; an `InputError` if there is none."""
    folder = Path(name)
    is_bundled = name in bundled_names()
    if folder.is_dir() and ((folder / "config.json").is_file() or not is_bundled):
        return folder  # a folder of images may also be called "nuclei"
    if is_bundled:
        return BUNDLED / name
    bundled = ", ".join(bundled_names()) or "none"
    if folder.exists():
        raise InputError(f"{name} is a file; give the folder that holds config.json and model.safetensors")
    if not _is_hub_id(name):
        raise InputError(f"no checkpoint {name!r}: neither a folder nor a bundled name ({bundled})")
    try:
        return _download(name, (*FILES, familiarity.FILE, CARD))
    except OSError as error:
        raise InputError(f"no checkpoint {name!r}: no such folder, not bundled ({bundled}), and {error}") from error


def find_backbone(name: str) -> str:
    """What `pretrained_backbone` takes for this name: itself, or a folder; fetched from the hub if need be.

    Raises:
        InputError: not found; a name that is neither known nor like one of the hub is refused without asking the hub.
    """
    known = list(efficientnet_lite.FACTORS)
    if name in known or Path(name).is_dir():
        return name
    if Path(name).exists():
        raise InputError(f"backbone {name} is a file; give the folder that holds config.json and model.safetensors")
    others = "or a folder of a transformers backbone, or its name on the hub, such as microsoft/resnet-50"
    choices = f"give {', '.join(known)}, {others}"
    if not _is_hub_id(name):
        near = difflib.get_close_matches(name, [*known, "microsoft/resnet-50"], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no backbone {name!r}: neither a folder nor a known name; {hint}{choices}")
    try:
        folder = _download(name, ("config.json", "model*.safetensors", "model.safetensors.index.json"))
    except OSError as error:
        raise InputError(f"no backbone {name!r}: no such folder, and {error}; {choices}") from error
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"backbone {name} has no model.safetensors on the hub, and no other weights are read; {choices}"
        )
    return str(folder)


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _download(name: str, patterns: Sequence[str]) -> Path:
    """Folder of a hub repository in the local cache, downloaded if need be; an `OSError` says why it is not there."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = [try_to_load_from_cache(name, file) for file in FILES[:2]]
        if isinstance(cached[0], str) and isinstance(cached[1], str):
            return Path(cached[0]).parent
        HfApi().model_info(name, timeout=PATIENCE)  # `snapshot_download` waits for minutes where nobody answers
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client passes on any error of its network library
        with suppress(HfHubHTTPError, HFValidationError, OSError):
            return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=True))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise OSError(
                f"it cannot be kept ({error.strerror}); free the disk, or set HF_HOME to another folder"
            ) from error
        answered = isinstance(error, HfHubHTTPError | HFValidationError)
        raise OSError(f"the hub {'says' if answered else 'cannot be reached'}: {reason}") from error


def inflate_for_video(model: Pix2SeqD, past_frames: int = 2) -> Pix2SeqD:
    """A video model, which conditions on past masks, from an image model (§3.4); its first output is the same."""
    video = Pix2SeqD(model.config.replace(decoder={"past_frames": past_frames}))
    transfer(model, video)
    return video.train(model.training)


def transfer(source: Pix2SeqD, target: Pix2SeqD) -> list[str]:
    """Copy weights into a model of other classes, bits, depth or past frames (§4.1, stages).

    Tensors of the same name and shape are copied. The channels of the decoder's first and last layer stand for bits
    and values of the mask; those of an unchanged mask channel are copied. A video model takes the image model's part.

    Returns:
        Names of the target's tensors that keep all or some of their own weights.
    """
    old, new = source.state_dict(), target.state_dict()
    kept = []
    for name, value in new.items():
        of_mask = name.startswith(("mask_decoder.conv_in.", "mask_decoder.conv_out."))
        same = name in old and old[name].shape == value.shape
        if same and (source.config.mask.bits == target.config.mask.bits or not of_mask):
            value.copy_(old[name])
            continue
        kept.append(name)
        if of_mask:
            _copy_channels(source, target, name)
    return kept


def _copy_channels(source: Pix2SeqD, target: Pix2SeqD, name: str) -> None:
    """Copy the channels of the decoder's first or last layer that mean the same in both models."""
    old, new = source.state_dict()[name], target.state_dict()[name]
    if name == "mask_decoder.conv_in.bias":
        if old.shape == new.shape:
            new.copy_(old)
        return
    first = name.startswith("mask_decoder.conv_in.")
    here, there = (_meanings(model, first) for model in (target, source))
    index = {meaning: i for i, meaning in enumerate(there)}
    pairs = [(i, index[meaning]) for i, meaning in enumerate(here) if meaning in index]
    if source.config.decoder.patch != target.config.decoder.patch or not pairs:
        return
    ours, theirs = (torch.tensor(list(side)) for side in zip(*pairs, strict=True))
    axis = 1 if first else 0
    if old.select(axis, 0).shape == new.select(axis, 0).shape:
        new.index_copy_(axis, ours, old.index_select(axis, theirs))
    if first:
        # Past masks that the source lacks have no effect at first.
        new[:, [i for i, meaning in enumerate(here) if meaning[0] == "past" and meaning not in index]] = 0


def _meanings(model: Pix2SeqD, first: bool) -> Sequence[tuple[object, ...]]:
    """What each input channel of the decoder's first layer, or output channel of its last, stands for."""
    config = model.config
    patch = range(config.decoder.patch**2)
    # A bit or value means the same in two models if its mask channel has as many bits in both.
    bits = [("bit", k, n, i) for k, n in enumerate(config.mask.bits) for i in range(n)]
    values = [("value", k, n, v) for k, n in enumerate(config.mask.bits) for v in range(2**n)]
    if not first:
        linear = config.decoder.head == "linear"
        return [(*m, p) for m in (bits if linear else values + bits * config.decoder.bit_logits) for p in patch]
    maps = [("map", i) for i in range(config.encoder.map_dim)]
    past = [("past", f, *m, p) for f in range(config.decoder.past_frames) for m in bits for p in patch]
    return [(*m, p) for m in bits for p in patch] + maps + past
