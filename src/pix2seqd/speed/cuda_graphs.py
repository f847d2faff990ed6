"""CUDA graphs: all kernels of the encoder, or of a decoder step, are launched at once.

For a small network, launching the kernels from Python takes longer than the GPU needs to compute them.
"""

import warnings
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


class Graphed:
    """A function of tensors on a CUDA device as CUDA graphs, one for each set of argument shapes.

    A graph is captured at the second call with its shapes; the first call is the warm-up that a capture needs.

    Args of the constructor:
        function: takes one tensor or more, also in tuples and lists. If it cannot be captured, because it reads results
            on the CPU, there is a warning and the function runs without a graph.
        pool: memory (`torch.cuda.graph_pool_handle`) of graphs that never run at the same time.
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
        with self.lock, torch.cuda.device_of(tensors[0]):  # a graph has one buffer for its arguments, on one device
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
        with torch.inference_mode(False), torch.no_grad():  # otherwise the graph could be used in inference mode only
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
    """Run encoder and decoder step of a `Pix2SeqD` for inference as CUDA graphs."""
    encoder, decoder = model.get_submodule("pixel_encoder"), model.get_submodule("mask_decoder")
    pool = torch.cuda.graph_pool_handle()
    for part, name in ((encoder, "forward"), (decoder, "prepare"), (decoder, "predict")):
        setattr(part, name, Graphed(getattr(part, name), pool))
