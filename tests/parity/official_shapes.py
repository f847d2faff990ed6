"""Names and shapes of the official model's variables for any configuration."""

from collections.abc import Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def official_shapes(config: Mapping[str, Any]) -> Shapes:
    """The variables that the official code creates for `config`; the encoder's too where nothing reads it."""
    return {f"{name}:0": shape for name, shape in {**_encoder(config), **_pyramid(config), **_denoiser(config)}.items()}


def _affine(name: str, kernel: tuple[int, ...], bias: tuple[int, ...] | None = None) -> Shapes:
    return {f"{name}/kernel": kernel, f"{name}/bias": bias or kernel[-1:]}


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}/gamma": (channels,), f"{name}/beta": (channels,)}


def _batch_norm(name: str, channels: int) -> Shapes:
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{name}/global_bn/{part}": (channels,) for part in parts}


def _attention(name: str, dim: int, heads: int, memory: int) -> Shapes:
    size = dim // heads
    shapes = _norm(f"{name}/ln", dim)
    for part, inputs in (("query", dim), ("key", memory), ("value", memory)):
        shapes |= _affine(f"{name}/{part}", (inputs, heads, size), (heads, size))
    return shapes | _affine(f"{name}/attention_output", (heads, size, dim))


def _mlp(name: str, dim: int, hidden: int) -> Shapes:
    shapes = _norm(f"{name}/mlp/ffn/ln", dim)
    return shapes | _affine(f"{name}/mlp/ffn/dense1", (dim, hidden)) | _affine(f"{name}/mlp/ffn/dense2", (hidden, dim))


def _suffix(index: int) -> str:
    return f"_{index}" if index else ""


def _widths(config: Mapping[str, Any]) -> list[int]:
    return [int(width * config["model"]["resnet_width_multiplier"]) for width in (64, 128, 256)]


def _encoder(config: Mapping[str, Any]) -> Shapes:
    model, widths = config["model"], _widths(config)
    dim, depths = model["dim_att"], {50: (3, 4, 6), 101: (3, 4, 23)}[model["resnet_depth"]]
    shapes: Shapes = {"rest/resnet/stem_conv2d_fixed_padding/conv2d/kernel": (7, 7, 3, widths[0])}
    shapes |= _batch_norm("rest/resnet/stem_bn_relu", widths[0])
    before = widths[0]
    for group, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for block in range(1, depth + 1):
            name = f"rest/resnet/block_group{group}/block{block}"
            if block == 1:
                shapes[f"{name}/proj_conv2d_fixed_padding/conv2d/kernel"] = (1, 1, before, 4 * width)
                shapes |= _batch_norm(f"{name}/proj_bn_relu", 4 * width)
            for suffix, size, inputs, outputs in (
                ("", 1, before, width),
                ("1", 3, width, width),
                ("2", 1, width, 4 * width),
            ):
                shapes[f"{name}/conv2d_fixed_padding{suffix}/conv2d/kernel"] = (size, size, inputs, outputs)
                shapes |= _batch_norm(f"{name}/bn_relu{suffix}", outputs)
            before = 4 * width
    shapes |= _affine("rest/stem_projection", (before, dim)) | _norm("rest/stem_ln", dim) | _norm("rest/ouput_ln", dim)
    for i in range(model["num_encoder_layers"]):
        name = f"rest/transformer_encoder/transformer_encoder{_suffix(i)}"
        shapes |= _attention(f"{name}/mha", dim, model["num_heads"], dim) | _mlp(name, dim, model["dim_mlp"])
    return shapes


def _pyramid(config: Mapping[str, Any]) -> Shapes:
    model, widths = config["model"], _widths(config)
    stride = model["image_size"][0] // model["msize"][0]
    shapes: Shapes = {}

    def block(number: int, inputs: int, middle: int, outputs: int) -> None:
        name = f"encoder_fuse/upsample_block_{number}"
        shapes.update(_affine(f"{name}/conv1", (1, 1, inputs, middle)) | _norm(f"{name}/group_norm1", middle))
        shapes.update(_affine(f"{name}/conv2", (3, 3, middle, outputs)) | _norm(f"{name}/group_norm2", outputs))

    x = model["dim_att"]
    for number, lateral, lateral_stride in ((2, 4 * widths[1], 8), (1, 4 * widths[0], 4)):
        if lateral_stride >= stride:
            block(number, x, lateral, lateral)
            x = lateral
    if stride < 4:
        block(0, x, model["enc_fuse_dim"], model["enc_fuse_dim"])
    return shapes


def map_channels(config: Mapping[str, Any]) -> int:
    """Channels of the feature map beside the noisy mask."""
    model, widths = config["model"], _widths(config)
    stride = model["image_size"][0] // model["msize"][0]
    own = {4: 4 * widths[0], 8: 4 * widths[1]}
    return model["enc_fuse_dim"] if model["conditional"] == "none" else own.get(stride, model["enc_fuse_dim"])


def _res_block(name: str, inputs: int, outputs: int, kernel: int, time: int) -> Shapes:
    shapes = _norm(f"{name}/group_norm_0", inputs) | _norm(f"{name}/group_norm_1", outputs)
    shapes |= _affine(f"{name}/conv_0", (kernel, kernel, inputs, outputs))
    shapes |= _affine(f"{name}/conv_1", (kernel, kernel, outputs, outputs))
    shapes |= _affine(f"{name}/emb_proj", (time, 2 * outputs))
    return shapes | (_affine(f"{name}/shortcut_layer", (1, 1, inputs, outputs)) if inputs != outputs else {})


def _denoiser(config: Mapping[str, Any]) -> Shapes:
    decoder, bits = config["decoder"], config["task"]["n_bits_label"]
    dims = [decoder["dim"] * int(m) for m in decoder["ch_multipliers"].split(",")]
    blocks = [int(n) for n in decoder["n_res_blocks"].split(",")]
    kernel, time = int(decoder["kernel_sizes"].split(",")[0]), 4 * decoder["dim"]
    frames = len(config["task"].get("proceeding_frames", "").split(",")) if "proceeding_frames" in config["task"] else 0
    shapes = _affine("denoiser/time_emb/dense0", (decoder["dim"], time))
    shapes |= _affine("denoiser/time_emb/dense1", (time, time))
    shapes |= _affine("denoiser/conv_in", (1, 1, bits * (1 + frames) + map_channels(config), dims[0]))
    shapes |= _norm("denoiser/group_norm_in", dims[0])
    x, stack = dims[0], [dims[0]]
    for level, dim in enumerate(dims):
        for i in range(blocks[level]):
            shapes |= _res_block(f"denoiser/dn_unit_{level}/res_block_{i}", x, dim, kernel, time)
            x = dim
            stack.append(x)
        if level < len(dims) - 1:
            shapes |= _affine(f"denoiser/dn_unit_{level}/conv_dn", (3, 3, dim, dim))
            stack.append(x)
    if decoder["transformer_blocks"]:
        shapes |= _transformer(config, x, time)
        x = decoder["transformer_dim"]
    for level, dim in reversed(list(enumerate(dims))):
        for i in range(blocks[level] + 1):
            shapes |= _res_block(f"denoiser/up_unit_{level}/res_block_{i}", x + stack.pop(), dim, kernel, time)
            x = dim
        if level:
            shapes |= _affine(f"denoiser/up_unit_{level}/conv_up", (3, 3, dim, dim))
    groups = decoder["outp_softmax_groups"]
    outputs = groups * 2 ** (bits // groups) if groups else bits
    return shapes | _norm("denoiser/group_norm_out", x) | _affine("denoiser/conv_out", (1, 1, x, outputs))


def _transformer(config: Mapping[str, Any], x: int, time: int) -> Shapes:
    model, decoder = config["model"], config["decoder"]
    dim, heads = decoder["transformer_dim"], decoder["transformer_dim"] // decoder["per_head_dim"]
    shapes = _norm("denoiser/transformer/trans_conv_in_norm", x) | _affine("denoiser/transformer/emb_proj", (time, dim))
    shapes |= _affine("denoiser/transformer/trans_conv_in", (1, 1, x, dim))
    shapes |= _norm("denoiser/transformer/trans_conv_out_norm", dim)
    shapes |= _affine("denoiser/transformer/trans_conv_out", (1, 1, dim, dim))
    for i in range(decoder["transformer_blocks"]):
        name = f"denoiser/transformer/transformer_decoder/transformer_decoder_layer{_suffix(i)}"
        shapes |= _attention(f"{name}/self_mha", dim, heads, dim) | _mlp(name, dim, 4 * dim)
        if "attn" in model["conditional"]:
            shapes |= _attention(f"{name}/cross_mha", dim, heads, model["dim_att"])
    return shapes
