"""The recorded tensors of the official model, and small models, for all tests."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fake_segmenter import FakeSegmenter
from hypothesis import settings
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint, save_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.interop.official import load_official
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.speed import fused_cpu, winograd

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports pix2seqd.speed.triton_norm

settings.register_profile("any machine", deadline=None)  # a busy one takes longer
settings.load_profile("any machine")

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def compiled() -> None:
    """For tests of the C code, which gcc compiles on Linux."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("no gcc on Linux")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets PyTorch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def forget_accelerator() -> Iterator[None]:
    """accelerate would keep the precision of the first run in this process, also of one in another fixture."""
    _reset_accelerator()
    yield
    _reset_accelerator()


def _reset_accelerator() -> None:
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    """The C code is compiled and loaded again, in the test and after it."""
    libraries = (fused_cpu.library, winograd.library)
    for library in libraries:
        library.cache_clear()
    yield
    for library in libraries:
        library.cache_clear()


class Reference:
    """One recorded set of fixtures/make_reference.py: arrays by key, channels last as TensorFlow has them."""

    def __init__(self, name: str) -> None:
        self.config: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())["config"]
        with np.load(FIXTURES / f"{name}.npz") as stored:
            self.arrays = {key: stored[key] for key in stored}
        values = np.ascontiguousarray(self.arrays.pop("planes").T).view(np.float32).ravel()
        at = 0
        for key, shape in json.loads(str(self.arrays.pop("index"))):
            size = int(np.prod(shape))
            self.arrays[key] = values[at : at + size].reshape(shape)
            at += size

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def tensor(self, key: str) -> Tensor:
        """The array with channels first, integers as int64."""
        value = torch.from_numpy(np.moveaxis(self.arrays[key], -1, 1).copy())
        return value if value.is_floating_point() else value.long()

    @property
    def variables(self) -> dict[str, np.ndarray]:
        return {key[2:]: value for key, value in self.arrays.items() if key.startswith("w/")}

    @cached_property
    def model(self) -> Pix2SeqD:
        """The model in eval mode. Tests must not change it."""
        return load_official(self.variables, self.config)

    def error(self, key: str, ours: Tensor) -> float:
        """Largest difference to a recorded array, which may be subsampled; images are `[b, c, h, w]`."""
        recorded = torch.from_numpy(self.arrays[key].copy())
        value = ours.detach()
        if value.ndim == 4:
            recorded = recorded.flatten(3)  # logits have one more axis
            every = value.shape[2] // recorded.shape[1]
            value = value.movedim(1, -1)[: len(recorded), ::every, ::every]
        assert value.shape == recorded.shape, (key, value.shape, recorded.shape)
        return (value - recorded).abs().max().item()

    def relative_error(self, key: str, ours: Tensor) -> float:
        """`error` relative to the largest recorded value."""
        return self.error(key, ours) / float(np.abs(self.arrays[key]).max())


@pytest.fixture(scope="session")
def official() -> Reference:
    """Set A: the image model."""
    return Reference("set_a")


@pytest.fixture(scope="session")
def official_video() -> Reference:
    """Set A: the model that conditions on two past masks."""
    return Reference("set_a_video")


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """The tiny preset made smaller: 2 + 3 bits."""
    return ModelConfig.preset("tiny").replace(mask={"bits": (2, 3), "classes": 4, "max_instances": 8})


@pytest.fixture
def build() -> Callable[[ModelConfig], Pix2SeqD]:
    """A model in eval mode. Its last layers, which start at zero, are random too, so that every path has an effect."""

    def make(config: ModelConfig, seed: int = 0) -> Pix2SeqD:
        torch.manual_seed(seed)
        model = Pix2SeqD(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 or name.endswith(("conv2.weight", "conv_out.weight")):
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return model.eval()

    return make


@pytest.fixture
def pretrained(tiny, build) -> Checkpoint:
    """A checkpoint with random weights."""
    return Checkpoint(build(tiny), TAXONOMY, DataConfig(size=(32, 48), ids="reused"), InferConfig(steps=7, td=2.0))


@pytest.fixture
def folder(pretrained, tmp_path) -> Path:
    """The folder in which `pretrained` is saved."""
    save_pretrained(pretrained, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def segmenter(monkeypatch):
    module = ModuleType("pix2seqd.segmenter")
    module.Segmenter = FakeSegmenter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pix2seqd.segmenter", module)
    monkeypatch.setattr(FakeSegmenter, "seen", 0)
    monkeypatch.setattr(FakeSegmenter, "fail_at", None)
    return FakeSegmenter


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder: arguments → (exit code, stdout, stderr)."""
    from pix2seqd.cli.main import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pix2seqd", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return (exit_.value.code or 0, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def answer_with(monkeypatch) -> Callable[[Pix2SeqD, Callable[..., Tensor]], None]:
    """Let a model answer at every step with `infer(images, noise, steps, td)`, int64 `[b, 2, h, w]`."""

    def patch(model: Pix2SeqD, infer: Callable[..., Tensor]) -> None:
        def denoise(h, noise, steps, td, past=None, hints=None, prepared=None):
            mask = infer(h.map, noise, steps, td)
            yield from [mask] * steps

        monkeypatch.setattr(model.pixel_encoder, "forward", lambda images: ImageFeatures(images, images))
        monkeypatch.setattr(model.mask_decoder, "prepare", lambda h, t: None)
        monkeypatch.setattr(model, "denoise", denoise)
        monkeypatch.setattr(model, "to_masks", lambda mask: mask)

    return patch
