"""The paper's training as recipes, each number once (§4.1); a stage starts from the result of the stage before.

The paper's appendices were not available. Numbers that its text does not give are those of the official configuration;
numbers that are in neither were chosen here. A comment marks both.
"""

from typing import Any

from pix2seqd.config import AugmentConfig, ClipsConfig, DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig

COCO_IMAGES = 118_287
"""Images of train2017; §4.1: "approximately 118K training images"."""
CITYSCAPES_IMAGES = 2975
"""§4.1."""


def steps(epochs: int, images: int, batch_size: int) -> int:
    """Number of steps of a number of epochs, counted as in the official code."""
    return images * epochs // batch_size + 1


_MODEL = ModelConfig()  # §4.1 and Table 1: 94,492,480 parameters; b 0.1, cross-entropy, p 0.2 (Tables 3 to 5)
# Flips and colours beside §4.1's scale jittering are those of the official low-resolution stage.
_AUGMENT = AugmentConfig(jitter=(1.0, 3.0), color_jitter=1.0, flip="horizontal")


def _stage(
    size: tuple[int, int],
    epochs: int,
    batch_size: int,
    lr: float,
    warmup_epochs: int = 0,
    images: int = COCO_IMAGES,
    **others: Any,
) -> Recipe:
    train = TrainConfig(
        batch_size=batch_size,
        steps=steps(epochs, images, batch_size),
        lr=lr,
        warmup_steps=warmup_epochs * images // batch_size,
        # Official: AdamW's decay, the gradient's norm, the EMA, and the rate's fall to a tenth.
        weight_decay=0.05,
        clip_norm=1.0,
        ema_decay=0.999,
        end_lr_factor=0.1,
        workers=8,
    )
    return Recipe(
        train=train,
        data=DataConfig(size=size),
        infer=InferConfig(steps=20, td=2.0, min_pixels=80),  # §4.1 "Inference"
        **{
            "model": _MODEL,
            "train_data": "coco:data/coco@train2017",
            "eval_data": "coco:data/coco@val2017",
            **others,
        },
    )


def _video(size: tuple[int, int], **others: Any) -> Recipe:
    """The official video configuration: length, rate (1e-5 or 3e-5), EMA, and how often a past mask is left out.

    Official: both past masks are left out of one example in 25. A video's first frame has none and determines the ids,
    so here another 15 % of the examples have no past masks.
    """
    train = TrainConfig(batch_size=32, steps=50_000, lr=1e-5, end_lr_factor=1.0, ema_decay=0.99, workers=8)
    return Recipe(
        train=train,
        data=DataConfig(size=size),
        augment=AugmentConfig(flip="horizontal"),
        clips=ClipsConfig(past_dropout=0.2, first_frame=0.15),
        # §4.1 "32 sampling steps for the first frame and 8 steps for subsequent frames", "τ_d = 1", "10 pixels".
        infer=InferConfig(first_steps=32, steps=8, td=1.0, min_pixels=10),
        init="runs/coco-1024/model",
        **others,
    )


PAPER_RECIPES: dict[str, Recipe] = {
    # §4.1 "pre-trained on MS-COCO as an unconditional mask generation model without images". The paper gives
    # neither size nor length: chosen here as in the next stage, with 100 epochs.
    "coco-masks": _stage(
        size=(256, 256),
        epochs=100,
        batch_size=512,
        lr=1e-4,
        warmup_epochs=5,
        augment=_AUGMENT.replace(color_jitter=0.0),
        model=_MODEL.replace(decoder={"condition_on_map": False, "condition_on_tokens": False}),
    ),
    # §4.1 "256×256 for images; 128×128 for masks", "800 epochs with a batch size of 512". Rate, warm-up: official.
    "coco-256": _stage(
        size=(256, 256),
        epochs=800,
        batch_size=512,
        lr=1e-4,
        warmup_epochs=5,
        augment=_AUGMENT,
        init="runs/coco-masks/model",
    ),
    # §4.1 "1024×1024 for images; 512×512 for masks", "15 epochs with a batch size of 16 without augmentation". Rate:
    # official.
    "coco-1024": _stage(size=(1024, 1024), epochs=15, batch_size=16, lr=1e-5, init="runs/coco-256/model"),
    # §4.3 "100 epochs with a batch size of 128 in a single-resolution stage (512×512 image size, and 256×256 mask
    # size)", the base of Tables 3 to 5. The rest is as in the low-resolution stage: chosen here.
    "coco-512": _stage(
        size=(512, 512),
        epochs=100,
        batch_size=128,
        lr=1e-4,
        warmup_epochs=5,
        augment=_AUGMENT,
        init="runs/coco-masks/model",
    ),
    # §4.1 "fine-tuning (at a single resolution)"; §1 "a 512×1024 panoptic mask". 19 classes and void. Length and
    # number of ids: chosen here. The rest is as in COCO's last stage.
    "cityscapes": _stage(
        size=(1024, 2048),
        images=CITYSCAPES_IMAGES,
        epochs=100,
        batch_size=16,
        lr=1e-5,
        model=_MODEL.replace(mask={"classes": 20, "max_instances": 256}),
        train_data="cityscapes:data/cityscapes@train",
        eval_data="cityscapes:data/cityscapes@val",
        init="runs/coco-1024/model",
    ),
    # §3.4, §4.1. Objects, which have no class, the background and void; ids for 15 objects and the background.
    "davis": _video(
        size=(512, 1024),
        model=_MODEL.replace(decoder={"past_frames": 2}, mask={"classes": 3, "max_instances": 17}),
        train_data="davis:data/davis@train",
        eval_data="davis:data/davis@val",
    ),
    # Not in the paper, but in the official configurations. 19 classes and void; inference as for DAVIS.
    "kitti-step": _video(
        size=(384, 1248),
        model=_MODEL.replace(decoder={"past_frames": 2}, mask={"classes": 20, "max_instances": 256}),
        train_data="kitti-step:data/kitti-step@train",
        eval_data="kitti-step:data/kitti-step@val",
    ),
}
