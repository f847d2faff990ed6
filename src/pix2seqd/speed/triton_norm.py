"""Triton kernels for CUDA: GroupNorm with SiLU, and softmax to bits.

PyTorch's GroupNorm returns another memory layout than convolutions read, and autocast computes it in float32; each
operation reads and writes the whole map. Here a normalisation with scale, shift and SiLU reads the map twice and writes
it once, in the map's precision and layout. The gradient does the same. All sums are float32.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
import torch
import triton
import triton.language as tl
from torch import Tensor

from pix2seqd.analog_bits import ExpectedBits
from pix2seqd.layers.norms import GroupNorm

_TILE = 8192
"""Numbers that one program holds in registers."""
_PARTS = 512
"""Maximum number of programs that share an example's moments; one program combines their results."""


class TritonGroupNorm(GroupNorm):
    """`GroupNorm` with time and SiLU as one operation, and its gradient as another."""

    def forward(self, input: Tensor, time: Tensor | None = None, silu: bool = False) -> Tensor:
        """As `GroupNorm.forward`; the result is channels last."""
        return group_norm(input, *self.affine_map(time), self.num_groups, self.eps, silu)[0]


class TritonExpectedBits(ExpectedBits):
    """`ExpectedBits` without the probabilities in memory; for inference."""

    def forward(self, logits: Tensor) -> Tensor:
        """As `ExpectedBits.forward`."""
        return expected_bits(logits, self.scale)


@triton.jit
def _tile(first, hw, channels, C: tl.constexpr, ROWS: tl.constexpr):
    """Rows (pixels) and columns (channels) of the tile that starts at a row, and a mask of the existing elements."""
    rows, c = first + tl.arange(0, ROWS), tl.arange(0, C)
    return rows, c, (rows < hw)[:, None] & (c < channels)[None, :]


@triton.jit
def _load(x, n, rows, c, hw, channels, inside):
    """A tile `[rows, c]` of example n, as float32."""
    return tl.load(x + (n.to(tl.int64) * hw + rows[:, None]) * channels + c[None, :], mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def _part_moments(x, parts, hw, blocks, channels, C: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr):
    """Mean of each channel over the rows of some tiles, and the sum of squared distances from it (Chan et al. 1979)."""
    block, n = tl.program_id(0), tl.program_id(1)
    c, seen = tl.arange(0, C), 0.0
    mean, squares = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    for tile in range(TILES):
        first = (block * TILES + tile) * ROWS
        rows, _, inside = _tile(first, hw, channels, C, ROWS)
        values = _load(x, n, rows, c, hw, channels, inside)
        count = tl.maximum(tl.minimum(hw - first, ROWS), 0).to(tl.float32)
        here = tl.sum(values, 0) / tl.maximum(count, 1.0)
        away = tl.where(inside, values - here[None, :], 0.0)
        share = count / tl.maximum(seen + count, 1.0)
        squares += tl.sum(away * away, 0) + (here - mean) * (here - mean) * seen * share
        mean += (here - mean) * share
        seen += count
    at = parts + (n * blocks + block).to(tl.int64) * 2 * channels + c
    tl.store(at, mean, mask=c < channels)
    tl.store(at + channels, squares, mask=c < channels)


@triton.jit
def _group_moments(
    parts, moments, hw, blocks, channels, size, eps, ROWS: tl.constexpr, B: tl.constexpr, K: tl.constexpr
):
    """Mean and 1 / deviation of a group, from the moments of its channels in all parts."""
    group, n = tl.program_id(0), tl.program_id(1)
    b, k = tl.arange(0, B), tl.arange(0, K)
    inside = (b < blocks)[:, None] & (k < size)[None, :]
    at = parts + (n * blocks + b[:, None]).to(tl.int64) * 2 * channels + group * size + k[None, :]
    count = tl.maximum(tl.minimum(hw - b * ROWS, ROWS), 0)[:, None].to(tl.float32)
    means = tl.load(at, mask=inside, other=0.0)
    mean = tl.sum(means * count) / (hw * size)
    away = tl.where(inside, means - mean, 0.0)
    squares = tl.sum(tl.load(at + channels, mask=inside, other=0.0) + away * away * count)
    to = moments + n * 2 * channels + group * size + k
    tl.store(to, tl.zeros_like(k).to(tl.float32) + mean, mask=k < size)
    tl.store(to + channels, tl.zeros_like(k).to(tl.float32) + tl.rsqrt(squares / (hw * size) + eps), mask=k < size)


@triton.jit
def _normalized(x, moments, n, rows, c, hw, channels, inside):
    """A tile with mean 0 and deviation 1, and 1 / its deviation before."""
    mean = tl.load(moments + n * 2 * channels + c, mask=c < channels, other=0.0)
    rstd = tl.load(moments + n * 2 * channels + channels + c, mask=c < channels, other=0.0)
    return (_load(x, n, rows, c, hw, channels, inside) - mean[None, :]) * rstd[None, :], rstd[None, :]


@triton.jit
def _apply(x, moments, weight, bias, y, hw, channels, stride, C: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr):
    block, n = tl.program_id(0), tl.program_id(1)
    rows, c, inside = _tile(block * ROWS, hw, channels, C, ROWS)
    values, _ = _normalized(x, moments, n, rows, c, hw, channels, inside)
    scale = tl.load(weight + n * stride + c, mask=c < channels, other=0.0)
    values = values * scale[None, :] + tl.load(bias + n * stride + c, mask=c < channels, other=0.0)[None, :]
    if SILU:
        values = values * tl.sigmoid(values)
    at = y + (n.to(tl.int64) * hw + rows[:, None]) * channels + c[None, :]
    tl.store(at, values.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _before_silu(x, dy, moments, weight, bias, n, rows, c, hw, channels, stride, inside, SILU: tl.constexpr):
    """Of a tile: normalised values, 1 / deviation, scale, and the gradient before SiLU."""
    z, rstd = _normalized(x, moments, n, rows, c, hw, channels, inside)
    scale = tl.load(weight + n * stride + c, mask=c < channels, other=0.0)[None, :]
    gradient = _load(dy, n, rows, c, hw, channels, inside)
    if SILU:
        a = z * scale + tl.load(bias + n * stride + c, mask=c < channels, other=0.0)[None, :]
        s = tl.sigmoid(a)
        gradient = gradient * s * (1 + a * (1 - s))
    return z, rstd, scale, gradient


@triton.jit
def _tile_sums(
    x, dy, moments, weight, bias, parts, hw, blocks, channels, stride,
    C: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Sums over a tile's rows: gradients of bias and of weight."""
    block, n = tl.program_id(0), tl.program_id(1)
    rows, c, inside = _tile(block * ROWS, hw, channels, C, ROWS)
    z, _, _, gradient = _before_silu(x, dy, moments, weight, bias, n, rows, c, hw, channels, stride, inside, SILU)
    at = parts + (n * blocks + block).to(tl.int64) * 2 * channels + c
    tl.store(at, tl.sum(gradient, 0), mask=c < channels)
    tl.store(at + channels, tl.sum(gradient * z, 0), mask=c < channels)


@triton.jit
def _apply_backward(
    x, dy, moments, weight, bias, means, dx, hw, channels, stride,
    C: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """d loss / dx = (g·w - mean(g·w) - z · mean(g·w·z)) / deviation; `means` over each group."""
    block, n = tl.program_id(0), tl.program_id(1)
    rows, c, inside = _tile(block * ROWS, hw, channels, C, ROWS)
    z, rstd, scale, gradient = _before_silu(
        x, dy, moments, weight, bias, n, rows, c, hw, channels, stride, inside, SILU
    )
    of_g = tl.load(means + n * 2 * channels + c, mask=c < channels, other=0.0)[None, :]
    of_gz = tl.load(means + n * 2 * channels + channels + c, mask=c < channels, other=0.0)[None, :]
    at = dx + (n.to(tl.int64) * hw + rows[:, None]) * channels + c[None, :]
    tl.store(at, (rstd * (gradient * scale - of_g - z * of_gz)).to(dx.dtype.element_ty), mask=inside)


@torch.library.custom_op("pix2seqd::group_norm", mutates_args=())
def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> tuple[Tensor, Tensor]:
    """GroupNorm of `[b, c, h, w]` and an affine map for each example, then SiLU if `silu`.

    `weight` and `bias` are float32 `[b, c]`, or `[1, c]` for all examples. Returns y as x, channels last; and mean and
    1 / deviation of the group of each channel, float32 `[b, 2, c]`.
    """
    x, weight, bias = x.contiguous(memory_format=torch.channels_last), weight.contiguous(), bias.contiguous()
    y, (blocks, hw, channels, tile) = torch.empty_like(x), _grid(x)
    b, size = len(x), channels // groups
    tiles = triton.next_power_of_2(triton.cdiv(blocks, _PARTS))
    programs = triton.cdiv(blocks, tiles)
    parts, moments = (torch.empty(b, n, 2, channels, device=x.device) for n in (programs, 1))
    sizes = {"ROWS": tiles * tile["ROWS"], "B": triton.next_power_of_2(programs), "K": triton.next_power_of_2(size)}
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _part_moments[(programs, b)](x, parts, hw, programs, channels, **tile, TILES=tiles)
        _group_moments[(groups, b)](parts, moments, hw, programs, channels, size, eps, **sizes)
        _apply[(blocks, b)](x, moments, weight, bias, y, hw, channels, _stride(weight), **tile, SILU=silu)
    return y, moments[:, 0]


@group_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.channels_last), weight.new_empty(len(x), 2, x.shape[1])


@torch.library.custom_op("pix2seqd::group_norm_backward", mutates_args=())
def _backward(
    dy: Tensor, x: Tensor, moments: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of bias and weight for each example, `[b, 2, c]`."""
    x, dy = (v.contiguous(memory_format=torch.channels_last) for v in (x, dy))
    weight, bias = weight.contiguous(), bias.contiguous()
    dx, (blocks, hw, channels, tile) = torch.empty_like(x), _grid(x)
    grid, stride = (blocks, len(x)), _stride(weight)
    parts = torch.empty(len(x), blocks, 2, channels, device=x.device)
    with torch.cuda.device_of(x):
        _tile_sums[grid](x, dy, moments, weight, bias, parts, hw, blocks, channels, stride, **tile, SILU=silu)
    sums = parts.sum(dim=1)
    means = (sums * weight[:, None]).unflatten(2, (groups, -1)).mean(dim=3, keepdim=True) / hw
    means = means.expand(-1, -1, -1, channels // groups).flatten(2).contiguous()
    with torch.cuda.device_of(x):
        _apply_backward[grid](x, dy, moments, weight, bias, means, dx, hw, channels, stride, **tile, SILU=silu)
    return dx, sums


@_backward.register_fake
def _(dy: Tensor, x: Tensor, moments: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool):
    return torch.empty_like(x, memory_format=torch.channels_last), torch.empty_like(moments)


def _save(ctx, inputs, output) -> None:
    x, weight, bias, ctx.groups, _, ctx.silu = inputs
    ctx.save_for_backward(x, output[1], weight, bias)


def _gradients(ctx, dy: Tensor, _) -> tuple[Tensor | None, ...]:
    weight = ctx.saved_tensors[2]
    dx, sums = _backward(dy, *ctx.saved_tensors, ctx.groups, ctx.silu)
    bias_grad, weight_grad = (v.sum(0, keepdim=True) if len(weight) == 1 else v for v in sums.unbind(dim=1))
    return dx, weight_grad, bias_grad, None, None, None


group_norm.register_autograd(_gradients, setup_context=_save)


def _grid(x: Tensor) -> tuple[int, int, int, dict[str, int]]:
    """Number of tiles of an example, its pixels and channels, and the shape of a tile."""
    _, channels, height, width = x.shape
    c = triton.next_power_of_2(channels)
    rows = max(_TILE // c, 1)
    return triton.cdiv(height * width, rows), height * width, channels, {"C": c, "ROWS": rows}


def _stride(weight: Tensor) -> int:
    """Distance between the weights of two examples; 0 if all share them."""
    return weight.shape[1] if len(weight) > 1 else 0


@triton.jit
def _bits(logits, result, pixels, stride, scale, VALUES: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr):
    rows, v = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, VALUES)
    inside = rows < pixels
    values = tl.load(logits + rows[:, None].to(tl.int64) * stride + v[None, :], mask=inside[:, None], other=0.0)
    values = values.to(tl.float32)
    likelihood = tl.exp(values - tl.max(values, 1)[:, None])
    total = tl.sum(likelihood, 1)
    for n in tl.static_range(N):
        on = tl.sum(tl.where(((v >> n) & 1)[None, :] == 1, likelihood, 0.0), 1)
        tl.store(result + rows.to(tl.int64) * N + n, (2 * on / total - 1) * scale, mask=inside)


@torch.library.custom_op("pix2seqd::expected_bits", mutates_args=())
def expected_bits(logits: Tensor, scale: float) -> Tensor:
    """`analog_bits.expected_bits` without a gradient; the probabilities never exist in memory."""
    b, values, h, w = logits.shape
    flat, n = logits.movedim(1, -1).reshape(-1, values), values.bit_length() - 1
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    result, rows = torch.empty(len(flat), n, device=logits.device), max(_TILE // 2 // values, 1)
    with torch.cuda.device_of(flat):
        _bits[(triton.cdiv(len(flat), rows),)](flat, result, len(flat), flat.stride(0), scale, values, n, rows)
    return result.view(b, h, w, n).movedim(-1, 1)


@expected_bits.register_fake
def _(logits: Tensor, scale: float) -> Tensor:
    b, values, h, w = logits.shape
    n = values.bit_length() - 1
    return torch.empty(b, h, w, n, device=logits.device).movedim(-1, 1)
