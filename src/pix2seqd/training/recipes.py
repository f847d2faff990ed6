"""Complete training runs as values: those of the bundled models, and the paper's from `paper_recipes`."""

from pix2seqd.config import (
    AugmentConfig,
    ClipsConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    InferConfig,
    MaskConfig,
    ModelConfig,
    Recipe,
    TrainConfig,
    resnet_backbone,
)
from pix2seqd.training.paper_recipes import PAPER_RECIPES

_SMALL_OBJECTS = ModelConfig(
    encoder=EncoderConfig(
        backbone=resnet_backbone((1, 1, 1), 32, (32, 64, 128), "basic"),
        stem_pool="none",
        dim=128,
        layers=1,
        heads=2,
        mlp_dim=256,
        dropout=0.0,
        drop_path=0.0,
        map_dim=96,
    ),
    decoder=DecoderConfig(
        dim=64,
        multipliers=(1, 2, 3),
        res_blocks=(1, 1, 1),
        transformer_dim=192,
        layers=2,
        head_dim=32,
        patch=4,
        normalize_noisy=True,
        bit_logits=True,
    ),
    mask=MaskConfig(bits=(2, 4), classes=3, max_instances=16, scale=0.2, stride=1),
)

RECIPES: dict[str, Recipe] = {
    "nuclei": Recipe(
        model=_SMALL_OBJECTS,
        data=DataConfig(size=(128, 128), layout="tile", diameter=24, overlap=48, ids="reused", normalize="percentile"),
        augment=AugmentConfig(jitter=(0.65, 1.6), color_jitter=0.4, invert=0.1, flip="all"),
        train=TrainConfig(batch_size=16, steps=4300, lr=1.5e-3, end_lr_factor=0.02, warmup_steps=100, ema_decay=0.998),
        infer=InferConfig(steps=5, td=5.0, min_pixels=16, input_scale=2, consensus=5, smooth=True),
        train_data="coco:data/nuclei@train,-0209.jpg",  # the repository's example image is cut from that one
        eval_data="coco:data/nuclei@val",
    ),
    "nuclei-video": Recipe(
        model=_SMALL_OBJECTS.replace(decoder={"past_frames": 2}),
        data=DataConfig(size=(128, 128), layout="tile", diameter=24, overlap=48, ids="reused", normalize="percentile"),
        augment=AugmentConfig(jitter=(0.7, 1.5), color_jitter=0.4, invert=0.1, flip="all"),
        clips=ClipsConfig(
            first_frame=0.2, past_dropout=0.15, past_noise=0.05, past_stride=4, self_past_prob=0.4, rollout_prob=0.75
        ),
        train=TrainConfig(batch_size=16, steps=2000, lr=8e-4, end_lr_factor=0.02, warmup_steps=50, ema_decay=0.995),
        infer=InferConfig(
            steps=2,
            first_steps=5,
            td=5.0,
            min_pixels=16,
            input_scale=2,
            consensus=5,
            unconditioned_share=0.6,
            smooth=True,
        ),
        train_data="nuclei-clips:data/nuclei@train,-0209.jpg:1000000",
        eval_data="coco:data/nuclei@val",
        init="nuclei",
    ),
    "shapes": Recipe(
        model=_SMALL_OBJECTS.replace(
            encoder={"backbone": resnet_backbone((1, 2, 2), 32, (32, 64, 128), "basic"), "layers": 2},
            mask={"bits": (4, 4), "classes": 10, "max_instances": 16, "scale": 0.12},
        ),
        data=DataConfig(size=(128, 128), ids="reused"),
        train=TrainConfig(batch_size=16, steps=5500, lr=1.5e-3, end_lr_factor=0.02, warmup_steps=100, ema_decay=0.998),
        infer=InferConfig(steps=10, td=5.0, min_pixels=16, consensus=5, smooth=True),
        train_data="shapes:1000000",
        eval_data="shapes:200@1",
        init="nuclei",  # it has already learnt to carry ids from pixel to pixel
    ),
    # 367 street scenes with classes only, measured by mean IoU: a single id marks things.
    "camvid": Recipe(
        model=_SMALL_OBJECTS.replace(
            encoder={
                "backbone": resnet_backbone((2, 2, 2, 2), 32, (32, 64, 128, 256), "basic"),
                "dim": 192,
                "layers": 2,
                "heads": 6,
                "mlp_dim": 576,
            },
            mask={"bits": (4, 1), "classes": 12, "max_instances": 2},
        ),
        data=DataConfig(size=(240, 320), ids="reused"),
        augment=AugmentConfig(jitter=(1.0, 2.0), color_jitter=0.5, flip="horizontal"),
        train=TrainConfig(batch_size=8, steps=6000, lr=1e-3, end_lr_factor=0.02, warmup_steps=200, ema_decay=0.998),
        infer=InferConfig(steps=10, td=1.0, min_pixels=0),
        train_data="folder:data/camvid@train",
        eval_data="folder:data/camvid@val",
    ),
    **PAPER_RECIPES,
}


def smoke(recipe: Recipe) -> Recipe:
    """The same run in a few seconds on a CPU: narrow networks of the same structure, four steps, drawn scenes.

    It starts from random weights: `init` and `backbone` are left out.
    """
    height, width = recipe.data.size
    model, train = recipe.model, recipe.train
    levels = min(len(model.encoder.backbone.get("out_features", [""])), 4)
    return recipe.replace(
        model=model.replace(
            encoder={
                "backbone": resnet_backbone((1,) * levels, 8, (8, 16, 24, 32)[:levels], "basic"),
                "dim": 32,
                "layers": min(model.encoder.layers, 1),
                "heads": 2,
                "mlp_dim": 32,
                "map_dim": 16,
            },
            decoder={"dim": 16, "transformer_dim": 32, "layers": min(model.decoder.layers, 1), "head_dim": 16},
            # The scenes have nine classes.
            mask={"bits": (max(model.mask.bits[0], 4), model.mask.bits[1]), "classes": max(model.mask.classes, 10)},
        ),
        data=recipe.data.replace(size=(64, 32 * max(round(2 * width / height), 1)), overlap=16),
        train=train.replace(
            batch_size=4 * train.accumulate, steps=4, warmup_steps=1, save_every=2, evaluate_images=1, workers=0
        ),
        infer=recipe.infer.replace(steps=2, first_steps=min(recipe.infer.first_steps, 3), consensus=1),
        train_data="shapes-clips:8" if model.decoder.past_frames else "shapes:8",
        eval_data="shapes:2@1",
        backbone="",
        init="",
    )
