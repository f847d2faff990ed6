"""Complete training runs as values; the paper's stages follow with the paper's data sets."""

from pix2seqd.config import AugmentConfig, DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig, resnet_backbone

_SMALL_OBJECTS = ModelConfig(
    bits=(2, 4),
    classes=3,
    max_instances=16,
    scale=0.3,
    normalize_noisy=True,
    bit_logits=True,
    mask_stride=1,
    backbone=resnet_backbone((1, 1, 1), 32, (32, 64, 128), "basic"),
    stem_pool="none",
    encoder_dim=128,
    encoder_layers=1,
    encoder_heads=4,
    encoder_mlp_dim=256,
    encoder_dropout=0.0,
    drop_path=0.0,
    fuse_dim=48,
    dim=32,
    multipliers=(1, 2, 4),
    res_blocks=(1, 1, 1),
    decoder_dim=128,
    decoder_layers=2,
    decoder_head_dim=32,
    mask_patch=2,
)

RECIPES: dict[str, Recipe] = {
    "nuclei": Recipe(
        model=_SMALL_OBJECTS,
        data=DataConfig(size=(128, 128), layout="tile", overlap=64, ids="reused", normalize="percentile"),
        augment=AugmentConfig(jitter=(0.6, 1.6), color_jitter=0.4, invert=0.1, flip="all"),
        train=TrainConfig(batch_size=16, steps=4200, lr=1.5e-3, end_lr_factor=0.02, warmup_steps=100, ema_decay=0.998),
        infer=InferConfig(steps=20, td=5.0, min_pixels=16, enlarge=2),
        train_data="coco:data/nuclei@train",
        exclude=("0209.jpg",),  # the example picture of the repository is cut from it
        eval_data="coco:data/nuclei@val",
    ),
    "shapes": Recipe(
        model=_SMALL_OBJECTS.replace(
            bits=(4, 4),
            classes=10,
            max_instances=16,
            backbone=resnet_backbone((1, 2, 2), 32, (32, 64, 128), "basic"),
            encoder_layers=2,
        ),
        data=DataConfig(size=(80, 80)),
        train=TrainConfig(batch_size=16, steps=5500, lr=1.5e-3, end_lr_factor=0.02, warmup_steps=100, ema_decay=0.998),
        infer=InferConfig(steps=20, td=1.0, min_pixels=8),
        train_data="shapes:1000000",
        eval_data="shapes:200@1",
        init="nuclei",  # it knows already how to carry ids from pixel to pixel
    ),
}
