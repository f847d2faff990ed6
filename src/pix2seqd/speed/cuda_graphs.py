"""CUDA graphs: all kernels of the encoder, or of a decoder step, launched at once.

A GPU is done with a small network sooner than Python has launched its kernels one by one.
"""

import warnings
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


class Graphed:
    """A function of tensors on a CUDA device, as CUDA graphs: one for all arguments of the same shapes.

    It is made the second time they come: the first time is the warm-up that a capture needs.

    Args of the constructor:
        function: of tensors, one or more, and of tuples and lists of them. Where it cannot be captured, since it reads
            on the CPU what it computes, a warning says so and it runs as it is.
        pool: memory (`torch.cuda.graph_pool_handle`) that graphs share which never run at the same time.
    """

    def __init__(self, function: Callable[..., Any], pool: Any) -> None:
        self.function = function
        self.pool = pool
        self.graphs: dict[Any, _Graph | None] = {}
        self.capturable = True
        self.lock = Lock()

    def __call__(self, *args: Any) -> Any:
        """What the function returns."""
        leaves, structure = tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (str(structure), *((t.shape, t.stride(), t.dtype) for t in tensors))
        with self.lock, torch.cuda.device_of(tensors[0]):  # a graph has one place for its arguments, on one device
            if key in self.graphs and self.capturable:
                graph = self.graphs[key] or self._captured(leaves, structure)
                if graph is not None:
                    self.graphs[key] = graph
                    return graph(tensors)
            self.graphs.setdefault(key, None)
            return self.function(*args)

    def _captured(self, leaves: list[Any], structure: Any) -> "_Graph | None":
        try:
            return _Graph(self.function, leaves, structure, self.pool)
        except RuntimeError as error:
            self.capturable = False
            name = getattr(self.function, "__qualname__", self.function)
            warnings.warn(f"no CUDA graph of {name}, which is slower: {str(error).splitlines()[0]}", stacklevel=3)
            return None


class _Graph:
    """One capture, with memory for its arguments and its results."""

    def __init__(self, function: Callable[..., Any], leaves: list[Any], structure: Any, pool: Any) -> None:
        with torch.inference_mode(False), torch.no_grad():  # else it would serve in inference mode only
            leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool, capture_error_mode="thread_local"):
            self.result = function(*tree_unflatten(leaves, structure))

    def __call__(self, tensors: list[Tensor]) -> Any:
        with torch.no_grad():
            torch._foreach_copy_(self.inputs, tensors)  # pyright: ignore[reportPrivateImportUsage]
        self.graph.replay()
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, self.result)


def record_graphs(model: nn.Module) -> None:
    """Let encoder and decoder step of a `Pix2SeqD` for inference run as CUDA graphs."""
    encoder, decoder = model.get_submodule("pixel_encoder"), model.get_submodule("mask_decoder")
    pool = torch.cuda.graph_pool_handle()
    for part, name in ((encoder, "forward"), (decoder, "prepare"), (decoder, "predict")):
        setattr(part, name, Graphed(getattr(part, name), pool))
