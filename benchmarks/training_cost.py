"""Cost of the paper's stages: memory, arithmetic and GPU time. It is counted from shapes; nothing is computed.

    python benchmarks/training_cost.py --memory 24,80,141 --tflops 181

PyTorch counts the FLOP of the forward pass; a training step takes three times as many. Memory is what autograd keeps
for the backward pass (bfloat16 autocast) times the batch, and 20 bytes per parameter: weights, gradients, AdamW's two
averages and the EMA. A fifth is left free for workspace and fragmentation.
"""

import argparse
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from pix2seqd.config import Recipe
from pix2seqd.evaluation.benchmark import flop_counter
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.recipes import RECIPES

STAGES = ("coco-masks", "coco-256", "coco-512", "coco-1024", "cityscapes", "davis")
BYTES_PER_PARAMETER = 20
USABLE = 0.8


def cost(recipe: Recipe, examples: int) -> tuple[int, int, int]:
    """Number of parameters; bytes kept for the backward pass and FLOP of the forward pass for a number of examples."""
    model, stride, (height, width) = recipe.model, recipe.model.mask.stride, recipe.data.size
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    network = Pix2SeqD(model).train()
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    with FakeTensorMode() as mode:
        state = {k: mode.from_tensor(v) for k, v in (*network.named_parameters(), *network.named_buffers())}
        weights = {value.untyped_storage()._cdata for value in state.values()}
        batch = {"images": torch.rand(examples, 3, height, width)}
        batch["masks"] = torch.zeros(examples, 2, height // stride, width // stride, dtype=torch.int64)
        if model.decoder.past_frames:
            batch["past"] = torch.zeros(
                examples, model.decoder.past_frames, *batch["masks"].shape[1:], dtype=torch.int64
            )
        counter = flop_counter()
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with torch.autocast("cpu", torch.bfloat16), counter, hooks:
            functional_call(network, state, kwargs=batch)
        activations = sum(storage.nbytes() for key, storage in kept.items() if key not in weights)
    return parameters, activations, counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="24,80,141", help="memory of GPUs in GB")
    parser.add_argument("--tflops", type=float, default=181, help="speed of the GPU in training")
    options = parser.parse_args()
    sizes = [float(size) for size in options.memory.split(",")]
    print("| stage | examples | TFLOP each | GB each |", *(f"batch in {size:g} GB |" for size in sizes), "GPU-days |")
    print("|---" * (len(sizes) + 5) + "|")
    for name in STAGES:
        recipe = RECIPES[name]
        parameters, once, _ = cost(recipe, 1)
        _, twice, forward = cost(recipe, 2)
        activations, forward = twice - once, forward // 2  # without memory that is kept once, such as bfloat16 weights
        examples, training = recipe.train.steps * recipe.train.batch_size, 3 * forward
        constant = BYTES_PER_PARAMETER * parameters + once - activations
        fits = [int((USABLE * size * 1e9 - constant) / activations) for size in sizes]
        days = examples * training / (options.tflops * 1e12) / 86400
        print(
            f"| `{name}` | {examples / 1e6:.1f} million | {training / 1e12:.2f} | {activations / 1e9:.2f} |",
            *(f"{n} |" for n in fits),
            f"{days:.1f} |",
        )


if __name__ == "__main__":
    main()
