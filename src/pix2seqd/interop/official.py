"""Variables of the official TensorFlow model ↔ our parameters.

TensorFlow stores convolutions as (height, width, in, out), dense layers as (in, out), and attention projections as
(in, heads, dim) or (heads, dim, out).
"""

import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pix2seqd.config import DecoderConfig, EncoderConfig, MaskConfig, ModelConfig, resnet_backbone
from pix2seqd.files import InputError, require
from pix2seqd.pix2seq_d import Pix2SeqD

Layout = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
_RESNET_DEPTHS = {50: (3, 4, 6), 101: (3, 4, 23), 152: (3, 8, 36), 200: (3, 24, 36)}


def load_official(variables: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Pix2SeqD:
    """A model in eval mode with the weights of an official one, whose configuration comes as nested dictionaries.

    The variables have their official names (`denoiser/conv_in/kernel:0`, ...); others are ignored.

    Raises:
        ValueError: a setting that this package lacks; a variable that is missing or has another shape.
    """
    model = Pix2SeqD(model_config(config))
    missing = load_variables(model, variables)
    if not (model.config.decoder.condition_on_map or model.config.decoder.condition_on_tokens):
        missing = [name for name in missing if name.startswith("denoiser/")]  # the encoder is not used
    if missing:
        raise ValueError(f"{len(missing)} official variables are missing, the first is {missing[0]!r}")
    return model.eval()


def load_official_checkpoint(folder: str | Path, config: Mapping[str, Any]) -> tuple[Pix2SeqD, list[str]]:
    """A model with the weights of a TensorFlow checkpoint folder, such as the released Objects365 encoder.

    Needs TensorFlow (`pip install pix2seqd[tf]`).

    Returns:
        The model in eval mode, and the names of the official variables that the folder lacks; the parameters they
        stand for stay random.

    Raises:
        InputError: TensorFlow is not installed, the folder holds no checkpoint, or the checkpoint is damaged or not of
            this model.
        ValueError: a setting that this package lacks.
    """
    model = Pix2SeqD(model_config(config))
    return model.eval(), load_tensorflow_checkpoint(model, folder)


def load_tensorflow_checkpoint(model: Pix2SeqD, folder: str | Path) -> list[str]:
    """Copy the weights of a TensorFlow checkpoint folder into a model; see `load_official_checkpoint`.

    Raises:
        InputError: as there, or a variable has another shape.
    """
    try:
        missing = load_variables(model, read_tensorflow_checkpoint(folder))
    except ValueError as error:
        raise InputError(f"{folder}: {error}; give a Pix2Seq checkpoint of the same configuration") from error
    if len(missing) == len(list(_names(model))):
        raise InputError(
            f"{folder} holds no variable of this model; give a Pix2Seq checkpoint of the same configuration"
        )
    return missing


def read_tensorflow_checkpoint(folder: str | Path) -> dict[str, np.ndarray]:
    """Variables by full name, from the latest checkpoint of a folder; an `InputError` if there is none."""
    require("reading a TensorFlow checkpoint", "tf", "tensorflow")
    import tensorflow as tf  # pyright: ignore[reportMissingImports]
    from tensorflow.core.protobuf import trackable_object_graph_pb2 as graph  # pyright: ignore

    path = tf.train.latest_checkpoint(str(folder))
    if path is None:
        raise InputError(
            f"{folder} holds no TensorFlow checkpoint (no file named 'checkpoint' that points to one); check the path"
        )
    try:
        reader = tf.train.load_checkpoint(path)
        proto = graph.TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        return {
            # Keras names carry the enclosing scopes; the model's own start at one of its three networks.
            _from_network(attribute.full_name) + ":0": reader.get_tensor(attribute.checkpoint_key)
            for node in proto.nodes
            for attribute in node.attributes
            if attribute.full_name and reader.has_tensor(attribute.checkpoint_key)
        }
    except Exception as error:  # TensorFlow and protobuf have errors of their own for what is damaged
        reason = reprlib.repr(str(error))
        raise InputError(f"{folder} is damaged or not of TensorFlow 2 ({reason}); copy it again") from error


def _from_network(name: str) -> str:
    parts = name.split("/")
    starts = [i for i, part in enumerate(parts) if part in ("rest", "encoder_fuse", "denoiser")]
    return "/".join(parts[starts[0] :]) if starts else name


def load_variables(model: Pix2SeqD, variables: Mapping[str, np.ndarray]) -> list[str]:
    """Copy official variables into the model; returns the names of the missing ones.

    A variable of another shape than the parameter, or that holds no numbers, is a `ValueError`.
    """
    state = model.state_dict()
    missing = []
    for ours, official, layout in _names(model):
        if official not in variables:
            missing.append(official)
            continue
        shape, given = tuple(state[ours].shape), np.asarray(variables[official])
        if given.dtype.kind not in "fiu":
            raise ValueError(f"{official} has values of type {given.dtype}, not numbers")
        value = layout(given, shape)
        if value.shape != shape:
            raise ValueError(f"{official} has shape {variables[official].shape}, which does not fit {ours} {shape}")
        state[ours].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return missing


def official_names(model: Pix2SeqD) -> dict[str, str]:
    """Our parameter or buffer name → official variable name."""
    return {ours: official for ours, official, _ in _names(model)}


def model_config(official: Mapping[str, Any]) -> ModelConfig:
    """Our configuration for an official one.

    A setting that this package lacks, or that is missing, of another kind or out of range, is a `ValueError`.
    """
    try:
        return _model_config(official)
    except KeyError as error:
        raise ValueError(f"the official configuration lacks the setting {error.args[0]!r}") from error
    except (TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(f"the official configuration has a setting of another kind: {error}") from error


def _model_config(official: Mapping[str, Any]) -> ModelConfig:
    model, decoder, task = official["model"], official["decoder"], official["task"]
    _refuse_unsupported(model, decoder)
    if not 2 <= task["n_bits_label"] <= 32:
        raise ValueError(f"official setting n_bits_label={task['n_bits_label']!r} is not from 2 to 32")
    stride = model["image_size"][0] // model["msize"][0]
    width = model.get("resnet_width_multiplier", 1)
    hidden_sizes = tuple(4 * int(f * width) for f in (64, 128, 256))
    # If a level of the pyramid has the mask's size, the official code has no last block, which would set the channels.
    level_dims = {4: hidden_sizes[0], 8: hidden_sizes[1], 16: model["dim_att"]}
    conditional = str(model["conditional"])
    map_dim = model["enc_fuse_dim"] if conditional == "none" else level_dims.get(stride, model["enc_fuse_dim"])
    channel_bits = task["n_bits_label"] // 2
    decoder_heads = decoder["transformer_dim"] // decoder["per_head_dim"]
    return ModelConfig(
        encoder=EncoderConfig(
            backbone=resnet_backbone(
                _RESNET_DEPTHS[model["resnet_depth"]], int(64 * width), hidden_sizes, "bottleneck"
            ),
            dim=model["dim_att"],
            layers=model["num_encoder_layers"],
            heads=model["num_heads"],
            mlp_dim=model["dim_mlp"] // model["dim_att"] * model["dim_att"],
            dropout=model["drop_units"],
            drop_path=model["drop_path"],
            map_dim=map_dim,
        ),
        decoder=DecoderConfig(
            dim=decoder["dim"],
            multipliers=tuple(int(m) for m in str(decoder["ch_multipliers"]).split(",")),
            res_blocks=tuple(int(n) for n in str(decoder["n_res_blocks"]).split(",")),
            kernel_size=int(str(decoder["kernel_sizes"]).split(",")[0]),
            transformer_dim=decoder["transformer_dim"],
            layers=decoder["transformer_blocks"],
            head_dim=decoder["transformer_dim"] // decoder_heads,
            dropout=decoder["udrop"],
            condition_on_map="cat" in conditional,
            condition_on_tokens="attn" in conditional,
            past_frames=len(str(task["proceeding_frames"]).split(",")) if task.get("proceeding_frames") else 0,
            time_scaling=model.get("time_scaling", DecoderConfig.time_scaling),  # the published configs lack it
            head="softmax" if decoder["outp_softmax_groups"] else "linear",
        ),
        mask=MaskConfig(
            bits=(channel_bits, channel_bits),
            classes=min(official["dataset"]["num_classes"], 2**channel_bits),
            max_instances=min(task["max_instances_per_image"], 2**channel_bits),
            scale=model["b_scale"],
            stride=stride,
        ),
        schedule=model["train_schedule"],
        loss="l2" if model["pred_type"] == "x" else "cross_entropy",
        p=model["mask_weight_p"],
    )


def _refuse_unsupported(model: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    for where, key, supported in (
        (model, "enc_fuse", ("pyramid_merge",)),
        (model, "enc_fuse_upsample", ("nearest",)),
        (model, "resnet_variant", ("c4",)),
        (model, "resnet_depth", tuple(_RESNET_DEPTHS)),
        (model, "resnet_sk_ratio", (0.0,)),
        (model, "pos_encoding", ("sin_cos",)),
        (model, "drop_att", (0.0,)),
        (model, "self_cond", ("none",)),
        (model, "use_cls_token", (False,)),
        (model, "pred_type", ("x_softmax_xent", "x")),
        (model, "x0_clip", ("auto",)),
        (model, "infer_schedule", (model["train_schedule"],)),
        (model, "l_tile_factors", (1,)),
        (model, "normalize_noisy_input", (False,)),
        (decoder, "arch_name", ("transunet",)),
        (decoder, "u_pos_encoding", ("sin_cos",)),
        (decoder, "in_strides", (1,)),
        (decoder, "in_kernel_size", (1,)),
        (decoder, "out_kernel_size", (1,)),
        (decoder, "transformer_strides", (1,)),
        (decoder, "n_mlp_blocks", (0,)),
        (decoder, "mhsa_resolutions", ("0",)),
        (decoder, "outp_softmax_groups", (0, 2)),
    ):
        if where.get(key, supported[0]) not in supported:
            raise ValueError(f"official setting {key}={where[key]!r} is not supported, only {supported}")
    strides = {image / mask for image, mask in zip(model["image_size"], model["msize"], strict=True)}
    if len(strides) != 1 or max(strides) % 1:
        raise ValueError(f"image size {model['image_size']} is not a whole multiple of mask size {model['msize']}")
    if len(set(str(decoder["kernel_sizes"]).split(","))) != 1:
        raise ValueError(f"official setting kernel_sizes={decoder['kernel_sizes']!r} differs between levels")


def _conv(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return value.transpose(3, 2, 0, 1)


def _projection(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Dense and attention kernels: axes of the inputs come first, then those of the outputs."""
    return value.reshape(shape[1], shape[0]).T if value.size == shape[0] * shape[1] else value


def _plain(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return value.reshape(shape) if value.size == np.prod(shape) else value


Names = Iterator[tuple[str, str, Layout]]


def _layer(ours: str, official: str, kernel: Layout) -> Names:
    yield f"{ours}.weight", f"{official}/kernel:0", kernel
    yield f"{ours}.bias", f"{official}/bias:0", _plain


def _norm(ours: str, official: str) -> Names:
    yield f"{ours}.weight", f"{official}/gamma:0", _plain
    yield f"{ours}.bias", f"{official}/beta:0", _plain


def _batch_norm(ours: str, official: str) -> Names:
    yield from _norm(ours, f"{official}/global_bn")
    yield f"{ours}.running_mean", f"{official}/global_bn/moving_mean:0", _plain
    yield f"{ours}.running_var", f"{official}/global_bn/moving_variance:0", _plain


def _attention(ours: str, norm: str, official: str) -> Names:
    yield from _norm(norm, f"{official}/ln")
    for part, name in (("query", "query"), ("key", "key"), ("value", "value"), ("out", "attention_output")):
        yield from _layer(f"{ours}.{part}", f"{official}/{name}", _projection)


def _transformer_layer(ours: str, official: str, self_attention: str, cross: bool) -> Names:
    yield from _attention(f"{ours}.self_attention", f"{ours}.self_norm", f"{official}/{self_attention}")
    if cross:
        yield from _attention(f"{ours}.cross_attention", f"{ours}.cross_norm", f"{official}/cross_mha")
    yield from _norm(f"{ours}.mlp_norm", f"{official}/mlp/ffn/ln")
    yield from _layer(f"{ours}.mlp.0", f"{official}/mlp/ffn/dense1", _projection)
    yield from _layer(f"{ours}.mlp.3", f"{official}/mlp/ffn/dense2", _projection)


def _keras_name(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _resnet_names(depths: list[int]) -> Names:
    network = "pixel_encoder.backbone.network"
    stem, conv = f"{network}.embedder.embedder", "conv2d_fixed_padding"
    yield f"{stem}.convolution.weight", f"rest/resnet/stem_{conv}/conv2d/kernel:0", _conv
    yield from _batch_norm(f"{stem}.normalization", "rest/resnet/stem_bn_relu")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            ours = f"{network}.encoder.stages.{stage}.layers.{block}"
            official = f"rest/resnet/block_group{stage + 1}/block{block + 1}"
            if block == 0:
                yield f"{ours}.shortcut.convolution.weight", f"{official}/proj_{conv}/conv2d/kernel:0", _conv
                yield from _batch_norm(f"{ours}.shortcut.normalization", f"{official}/proj_bn_relu")
            for i in range(3):
                suffix = str(i) if i else ""
                kernel = f"{official}/{conv}{suffix}/conv2d/kernel:0"
                yield f"{ours}.layer.{i}.convolution.weight", kernel, _conv
                yield from _batch_norm(f"{ours}.layer.{i}.normalization", f"{official}/bn_relu{suffix}")


def _encoder_names(model: Pix2SeqD) -> Names:
    config = model.config
    yield from _resnet_names(config.encoder.backbone["depths"])
    yield from _layer("pixel_encoder.project", "rest/stem_projection", _projection)
    yield from _norm("pixel_encoder.project_norm", "rest/stem_ln")
    for i in range(config.encoder.layers):
        official = f"rest/transformer_encoder/{_keras_name('transformer_encoder', i)}"
        yield from _transformer_layer(f"pixel_encoder.layers.{i}", official, "mha", cross=False)
    yield from _norm("pixel_encoder.out_norm", "rest/ouput_ln")  # sic
    merge = model.pixel_encoder.merge
    blocks = [(f"pixel_encoder.merge.blocks.{i}", 2 - i) for i in range(len(merge.blocks))]
    if merge.last is not None:
        blocks.append(("pixel_encoder.merge.last", 0))
    for ours, number in blocks:
        for i in (1, 2):
            yield from _layer(f"{ours}.conv{i}", f"encoder_fuse/upsample_block_{number}/conv{i}", _conv)
            yield from _norm(f"{ours}.norm{i}", f"encoder_fuse/upsample_block_{number}/group_norm{i}")


def _decoder_names(model: Pix2SeqD) -> Names:
    config, levels = model.config, len(model.config.decoder.multipliers)
    for i in (1, 2):
        yield from _layer(f"mask_decoder.time{i}", f"denoiser/time_emb/dense{i - 1}", _projection)
    for side in ("in", "out"):
        yield from _layer(f"mask_decoder.conv_{side}", f"denoiser/conv_{side}", _conv)
        yield from _norm(f"mask_decoder.norm_{side}", f"denoiser/group_norm_{side}")
    for level in range(levels):
        down, up = model.mask_decoder.down[level], model.mask_decoder.up[levels - 1 - level]
        for ours, official, unit, sample, conv in (
            (f"mask_decoder.down.{level}", f"denoiser/dn_unit_{level}", down, "downsample", "conv_dn"),
            (f"mask_decoder.up.{levels - 1 - level}", f"denoiser/up_unit_{level}", up, "upsample", "conv_up"),
        ):
            if getattr(unit, sample) is not None:
                yield from _layer(f"{ours}.{sample}", f"{official}/{conv}", _conv)
            for i, block in enumerate(unit.blocks):  # type: ignore[arg-type]
                yield from _res_block(block, f"{ours}.blocks.{i}", f"{official}/res_block_{i}")
    if config.decoder.layers:
        yield from _bottleneck_names(config)


def _res_block(block: torch.nn.Module, ours: str, official: str) -> Names:
    if isinstance(block.shortcut, torch.nn.Conv2d):
        yield from _layer(f"{ours}.shortcut", f"{official}/shortcut_layer", _conv)
    yield from _layer(f"{ours}.time", f"{official}/emb_proj", _projection)
    for i in (1, 2):
        yield from _layer(f"{ours}.conv{i}", f"{official}/conv_{i - 1}", _conv)
        yield from _norm(f"{ours}.norm{i}", f"{official}/group_norm_{i - 1}")


def _bottleneck_names(config: ModelConfig) -> Names:
    ours, official = "mask_decoder.transformer", "denoiser/transformer"
    yield from _layer(f"{ours}.time", f"{official}/emb_proj", _projection)
    for side in ("in", "out"):
        yield from _layer(f"{ours}.conv_{side}", f"{official}/trans_conv_{side}", _conv)
        yield from _norm(f"{ours}.norm_{side}", f"{official}/trans_conv_{side}_norm")
    for i in range(config.decoder.layers):
        layer = f"{official}/transformer_decoder/{_keras_name('transformer_decoder_layer', i)}"
        yield from _transformer_layer(f"{ours}.layers.{i}", layer, "self_mha", config.decoder.condition_on_tokens)


def _names(model: Pix2SeqD) -> Names:
    yield from _encoder_names(model)
    yield from _decoder_names(model)
