"""Does the unchanged method learn ids? It is trained on a few images until it knows them by heart.

    python benchmarks/overfit.py coco:DIR@val --out runs/overfit
    python benchmarks/overfit.py coco:DIR@val --out runs/overfit-additions --additions

b 0.1, noisy bits as they are, random unique ids, softmax head, cosine schedule and p 0.2 are the paper's; only the
networks are smaller. `--additions` turns on what short trainings here use and the paper does not have: `bit_logits`
and `normalize_noisy`. Images, or with `--middle` their middles, are scaled to SIZE, masks have half of it, and there is
no augmentation.

OUT/curve.json gets, for every step that is looked at: the loss of the class channel and of the id channel at five
times t (0.1 to 0.9) with the same ids and noise each time, and the PQ of 20 steps from noise at mask resolution.
An interrupted run continues.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pix2seqd.analog_bits import analog, to_codes
from pix2seqd.config import AugmentConfig, DataConfig, DecoderConfig, ModelConfig, Recipe
from pix2seqd.data import open_dataset
from pix2seqd.data.loader import TrainingExamples
from pix2seqd.data.sample import Dataset, subsample
from pix2seqd.diffusion import corrupt, gamma
from pix2seqd.files import read_json, write_atomically, write_json
from pix2seqd.inference.postprocess import segments_by_id
from pix2seqd.loss import cross_entropy, instance_weights
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.speed import accelerate_training

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
Batch = dict[str, torch.Tensor]


class Middles(TrainingExamples):
    """Only the middle of each image, `side` × `side` pixels; 0: all of it."""

    def __init__(self, dataset: Dataset, recipe: Recipe, side: int) -> None:
        super().__init__(dataset, recipe)
        self.side = side

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[int, int], DataConfig]:
        image, segmentation, classes, data = super()._read(index)
        height, width = segmentation.shape
        side = self.side or max(height, width)
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        part = np.s_[top : top + side, left : left + side]
        return image[part], segmentation[part], classes, data


def batch(examples: TrainingExamples, seed: int, size: int) -> Batch:
    """`size` images of all, with ids; both are drawn by the seed."""
    chosen = np.random.default_rng(seed).choice(len(examples.dataset), size, replace=False)
    drawn = [examples.example(int(i), np.random.default_rng([seed, i])) for i in chosen]
    return {key: torch.stack([one[key] for one in drawn]) for key in drawn[0]}


@torch.no_grad()
def channel_losses(model: Pix2SeqD, held: Batch) -> dict[str, list[float]]:
    """Loss of the class channel and of the id channel at each of `TIMES`."""
    config, masks = model.config, held["masks"]
    codes = to_codes(masks, config.mask.bits, config.mask.encoding)
    m_bits = analog(codes, config.mask.bits, config.mask.scale)
    weights = instance_weights(masks[:, 1], config.p, config.mask.max_instances)
    h, generator, losses = model.pixel_encoder(held["images"]), torch.Generator().manual_seed(0), []
    for time in TIMES:
        t = torch.full((len(masks),), time)
        noise = torch.randn(m_bits.shape, generator=generator)
        logits = model.mask_decoder.logits(corrupt(m_bits, noise, gamma(t, config.schedule)), h, t, None)
        by_channel = [cross_entropy(logits[k : k + 1], codes[:, k : k + 1], weights).mean().item() for k in (0, 1)]
        losses.append([round(loss, 4) for loss in by_channel])
    by_class, by_id = map(list, zip(*losses, strict=True))
    return {"class loss": by_class, "id loss": by_id}


@torch.no_grad()
def quality(model: Pix2SeqD, held: Batch, examples: TrainingExamples) -> dict[str, Any]:
    """PQ in percent at mask resolution, of 20 steps from noise."""
    taxonomy, masks = examples.dataset.taxonomy, held["masks"]
    noise = torch.randn(len(masks), model.config.mask.total_bits, *masks.shape[-2:], generator=torch.manual_seed(1))
    score = PanopticQuality(taxonomy)
    for truth, found in zip(masks.numpy(), model.infer(held["images"], noise, steps=20).numpy(), strict=True):
        score.update(*(Panoptic.from_segmentation(*segments_by_id(m, taxonomy, 0), taxonomy) for m in (truth, found)))
    result = score.compute()
    return {key: round(100 * result[key]["pq"], 1) for key in ("All", "Things", "Stuff")}


def main() -> None:
    """Train, look, and write the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled images, a name of docs/datasets.md")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--middle", type=int, default=0, help="side of the middle of the images, in pixels; 0: all")
    parser.add_argument("--id-bits", type=int, default=6, help="bits of the id channel")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--preset", default="small", choices=("paper", "small", "tiny"))
    parser.add_argument("--decoder", type=json.loads, default={}, help='settings as JSON, such as {"patch": 2}')
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--encoding", default="binary", choices=("binary", "gray", "random"))
    parser.add_argument("--additions", action="store_true")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--init", type=Path, help="folder of an earlier run, whose weights the training starts from")
    given = parser.parse_args()
    config = ModelConfig.preset(given.preset).replace(
        mask={
            "scale": given.scale,
            "encoding": given.encoding,
            "bits": (4, given.id_bits),
            "max_instances": 2**given.id_bits,
        },
        decoder={
            "bit_logits": given.additions,
            "normalize_noisy": given.additions,
            **DecoderConfig.checked(given.decoder),
        },
    )
    recipe = Recipe(config, DataConfig(size=(given.size, given.size)), AugmentConfig(jitter=(1.0, 1.0)))
    dataset = subsample(open_dataset(given.data, (given.size, given.size)), given.images)
    examples = Middles(dataset, recipe, given.middle)
    size = min(given.batch, len(examples.dataset))
    held = batch(examples, 0, size)

    torch.manual_seed(0)
    model = Pix2SeqD(config)
    accelerate_training(model, torch.device("cpu"), torch.bfloat16)
    if given.init:
        model.load_state_dict(torch.load(given.init / "state.pt", weights_only=True)["model"])
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=0.0)
    curve, first, state = [], 0, given.out / "state.pt"
    given.out.mkdir(parents=True, exist_ok=True)
    if state.exists():
        saved = torch.load(state, weights_only=True)
        first, curve = saved["step"], read_json(given.out / "curve.json")
        for part, name in ((model, "model"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(saved[name])
    for step in range(first + 1, given.steps + 1):
        # Warm-up over 100 steps, then a cosine to nothing.
        rate = min(step / 100, 0.5 * (1 + math.cos(math.pi * step / given.steps)))
        for group in optimizer.param_groups:
            group["lr"] = given.lr * rate
        torch.manual_seed(step)  # the noise of a step is the same after an interruption
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.train()(**batch(examples, step, size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        if step % given.every == 0:
            smooth = cast(Pix2SeqD, average.module.eval())
            curve.append({"step": step, **channel_losses(smooth, held), "pq": quality(smooth, held, examples)})
            print(curve[-1], flush=True)
            parts = {"model": model, "average": average, "optimizer": optimizer}
            tensors = {"step": step, **{name: part.state_dict() for name, part in parts.items()}}
            with write_atomically(state) as file:
                torch.save(tensors, file)
            write_json(given.out / "curve.json", curve)


if __name__ == "__main__":
    main()
