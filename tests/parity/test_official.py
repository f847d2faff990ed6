"""The official model's recorded answers, reproduced from its recorded weights (fixtures/make_reference.py)."""

import sys
from contextlib import suppress
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from official_shapes import official_shapes
from torch import Tensor

from pix2seqd.analog_bits import analog
from pix2seqd.config import Recipe, TrainConfig
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.diffusion import corrupt, gamma, predicted_noise, time_steps
from pix2seqd.files import InputError, is_control
from pix2seqd.images.resize import resize_labels
from pix2seqd.inference.postprocess import majority_vote
from pix2seqd.interop.official import load_official, load_official_checkpoint, model_config, official_names
from pix2seqd.loss import cross_entropy, instance_weights, l2
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.train import learning_rate, new_state

ROUNDING = 1e-5
"""Analog bits closer to zero than this may fall on either side of it: another processor adds in another order."""


@pytest.fixture
def features(official):
    with torch.no_grad():
        return official.model.pixel_encoder(official.tensor("in/images"))


@pytest.fixture
def corrupted(official) -> Tensor:
    m_bits = analog(official.tensor("in/label_map"), (8, 8), 0.1)
    return corrupt(m_bits, official.tensor("in/noise"), gamma(torch.from_numpy(official["in/t"])))


@pytest.fixture
def trained(official) -> Pix2SeqD:
    """A copy in training mode."""
    return deepcopy(official.model).train()


def loss_of(model: Pix2SeqD, official) -> Tensor:
    t, noise = torch.from_numpy(official["in/t"]), official.tensor("in/noise")
    return model.train_loss(official.tensor("in/images"), official.tensor("in/label_map"), t=t, noise=noise)


def as_official(tensor: Tensor, count: int) -> np.ndarray:
    """Our weight or gradient in TensorFlow's layout, flat, thinned to `count` values."""
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[tensor.ndim]
    flat = tensor.detach().permute(order).reshape(-1).numpy()
    return flat[:: -(-flat.size // count)]


def assert_masks_agree(ours: np.ndarray, recorded: np.ndarray, m_pred: Tensor) -> None:
    """Identical `[b, 2, h, w]`, but for the odd pixel one of whose analog bits is zero within rounding."""
    sure = (m_pred.abs() > ROUNDING).all(dim=1).numpy()
    assert sure.mean() > 0.98
    assert np.array_equal(np.moveaxis(ours, 1, -1)[sure], np.moveaxis(recorded, 1, -1)[sure])


# Names


def test_load_official_uses_every_variable_and_parameter(official, official_video):
    for reference in (official, official_video):
        names = official_names(reference.model)
        assert set(names) == set(reference.model.state_dict())
        assert sorted(names.values()) == sorted(reference.variables)


def test_load_official_missing_or_misshapen_variable_is_an_error(official):
    variables = official.variables
    kernel = variables.pop("denoiser/conv_in/kernel:0")
    with pytest.raises(ValueError, match="1 official variables are missing, the first is 'denoiser/conv_in/kernel:0'"):
        load_official(variables, official.config)
    with pytest.raises(ValueError, match=r"denoiser/conv_in/kernel:0 has shape \(1, 1, 40, 32\)"):
        load_official({**variables, "denoiser/conv_in/kernel:0": kernel[:, :, 8:]}, official.config)


# Pixel encoder


def test_encoder(official, features):
    backbone = official.model.pixel_encoder.backbone(official.tensor("in/images"))
    for name, level in zip(("c2", "c3", "c4"), backbone, strict=True):
        assert official.relative_error(f"enc_eval/{name}", level) < 1e-4
    assert official.relative_error("enc_eval/tokens", features.tokens) < 1e-4
    assert official.relative_error("enc_eval/fused", features.map) < 1e-4


def test_encoder_in_training_batch_statistics(official, trained):
    with torch.no_grad():
        backbone = trained.pixel_encoder.backbone(official.tensor("in/images"))
        after = {official: trained.state_dict()[ours].clone() for ours, official in official_names(trained).items()}
        features = trained.pixel_encoder(official.tensor("in/images"))
    for name, level in zip(("c2", "c3", "c4"), backbone, strict=True):
        assert official.relative_error(f"enc_train/{name}", level) < 1e-4
    assert official.relative_error("enc_train/tokens", features.tokens) < 1e-4
    assert official.relative_error("enc_train/fused", features.map) < 1e-4
    moving = torch.cat([after[name] for name in official["enc_train/moving_names"].tolist()])
    assert official.relative_error("enc_train/moving_after", moving) < 1e-5


# Mask decoder


def test_corruption(official, corrupted):
    assert official.error("diff/gamma", gamma(torch.from_numpy(official["in/t"]))) < 1e-6
    assert official.error("diff/noised", corrupted) < 2e-6


def test_decoder_layer_by_layer(official, features, corrupted):
    decoder, seen = official.model.mask_decoder, {}
    stages = {"conv_in_gn": decoder.norm_in, "transformer": decoder.transformer, "time": decoder.time2}
    stages |= {f"dn{i}": unit for i, unit in enumerate(decoder.down)}
    stages |= {f"up{3 - i}": unit for i, unit in enumerate(decoder.up)}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        for name, module in stages.items()
    ]
    with torch.no_grad():
        logits, m_pred = decoder(corrupted, features, torch.from_numpy(official["in/t"]))
    for hook in hooks:
        hook.remove()
    assert official.error("den_eval/time_emb", F.silu(seen.pop("time"))) < 1e-4
    for name, value in seen.items():
        assert official.relative_error(f"den_eval/{name}", value) < 1e-4, name
    assert official.error("den_eval/logits_sub2", torch.cat(logits, dim=1)[:, :, ::2, ::2]) < 1e-4
    assert official.error("den_eval/x0", m_pred) < 1e-5


# Training


def test_losses(official, trained, corrupted):
    masks, t = official.tensor("in/label_map"), torch.from_numpy(official["in/t"])
    weights = instance_weights(masks[:, 1], 0.2, 101)
    assert official.error("in/mask_weight", weights) < 1e-5
    assert loss_of(trained, official).item() == pytest.approx(float(official["train/loss"]), abs=1e-5)
    with torch.no_grad():
        logits, m_pred = trained.mask_decoder(corrupted, trained.pixel_encoder(official.tensor("in/images")), t)
    assert official.error("train/logits_sub4", torch.cat(logits, dim=1)[:, :, ::4, ::4]) < 1e-4
    ones = torch.ones_like(weights)
    by_channel = torch.stack([cross_entropy((logits[k],), masks[:, k : k + 1], ones) for k in (0, 1)], dim=1)
    assert official.error("train/xent", by_channel) < 1e-4
    unweighted = cross_entropy(logits, masks, ones).mean().item()
    assert unweighted == pytest.approx(float(official["train/loss_unweighted"]), abs=1e-5)
    squared = l2(m_pred, analog(masks, (8, 8), 0.1), weights).mean().item()
    assert squared == pytest.approx(float(official["train/loss_x_mse"]), abs=1e-7)


def test_gradients(official, trained):
    loss_of(trained, official).backward()
    names = official_names(trained)
    gradients = {names[name]: parameter.grad for name, parameter in trained.named_parameters()}
    norms = dict(zip(official["grad/names"].tolist(), official["grad/norms"].tolist(), strict=True))
    assert set(gradients) == set(norms)
    for name, gradient in gradients.items():
        # A key's bias moves no attention: its gradient is nothing but rounding.
        assert gradient.norm().item() == pytest.approx(norms[name], rel=5e-3, abs=1e-6), name
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert total == pytest.approx(float(official["grad/global_norm"]), rel=1e-4)
    for key in official.arrays:
        if key.startswith("grad/g/"):
            recorded = official[key]
            ours = as_official(gradients[key.removeprefix("grad/g/")], recorded.size)
            assert np.abs(ours - recorded).max() < 5e-3 * np.abs(recorded).max() + 1e-8, key


def test_two_steps_of_optimizer_and_ema(official):
    config = TrainConfig(lr=1e-3, end_lr_factor=0.1, steps=500, ema_decay=0.999)
    state = new_state(Recipe(model=model_config(official.config), train=config), Shapes(1))
    state.model.load_state_dict(official.model.state_dict())
    state.ema.module.load_state_dict({k: 0.9 * v for k, v in official.model.state_dict().items()})
    state.model.train()
    for step in (0, 1):
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
            assert group["factor"] == 1
        assert learning_rate(step, config) == pytest.approx(official["opt/lrs"][step], rel=1e-6)
        # The first step of Adam is all but the sign of the gradient: where that is near 0 it may go either way, so
        # after it numbers agree less.
        loss = loss_of(state.model, official)
        assert loss.item() == pytest.approx(official["opt/losses"][step], rel=1e-4 if step else 2e-6)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
        assert norm.item() == pytest.approx(official["opt/grad_global_norms"][step], rel=1e-2 if step else 1e-4)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.ema.update_parameters(state.model)
    weights, averages = state.model.state_dict(), state.ema.module.state_dict()
    ours = {official_name: name for name, official_name in official_names(state.model).items()}
    compared = 0
    for key in official.arrays:
        part, _, name = key.removeprefix("opt/").partition("/")
        if key.startswith("opt/") and part in ("w", "ema"):
            value = as_official((weights if part == "w" else averages)[ours[name]], official[key].size)
            difference = np.abs(value - official[key])
            if part == "ema":
                assert difference.max() < 2e-6, key
            else:
                assert np.median(difference) < (1e-4 if name.startswith("rest/") else 1e-5), key
            compared += 1
    assert compared == 30


# Sampling


def test_every_step_of_ddim(official, features, monkeypatch):
    states, decoder = [], official.model.mask_decoder
    predict = decoder.predict
    monkeypatch.setattr(decoder, "predict", lambda m_t, prepared: states.append(m_t) or predict(m_t, prepared))
    predictions = list(official.model.denoise(features, official.tensor("ddim/init_noise"), 4, 1.0))
    for step, m_pred in enumerate(predictions):
        now, after = (gamma(torch.tensor(t)) for t in list(time_steps(4, 1.0))[step])
        assert now.item() == pytest.approx(official[f"ddim/step{step}/gamma_now"].item(), abs=1e-6)
        assert after.item() == pytest.approx(official[f"ddim/step{step}/gamma_next"].item(), abs=1e-6)
        assert official.error(f"ddim/step{step}/data_pred", m_pred) < ROUNDING
        noise = predicted_noise(states[step], m_pred, now)
        assert official.error(f"ddim/step{step}/noise_pred", noise) < 3 * ROUNDING
        if step < 3:
            assert official.error(f"ddim/step{step}/samples_out", states[step + 1]) < 3 * ROUNDING
    assert official.error("ddim/final_bits", predictions[-1]) < ROUNDING


@pytest.mark.parametrize(("steps", "td"), [(3, 0.0), (6, 1.0), (2, 3.0)])
def test_ddim_other_steps_and_time_intervals(official, features, steps: int, td: float):
    recorded = official[f"ddim/gammas_td{td:.0f}_it{steps}"]
    ours = [[gamma(torch.tensor(t)).item() for t in pair] for pair in time_steps(steps, td)]
    assert np.abs(np.array(ours) - recorded).max() < 1e-6
    *_, m_pred = official.model.denoise(features, official.tensor("ddim/init_noise"), steps, td)
    assert official.error(f"ddim/final_td{td:.0f}_it{steps}", m_pred) < ROUNDING


@pytest.mark.parametrize(("sampler", "name"), [("ddpm", "ddpm"), ("ddpm_small", "ddpm@small")])
def test_ddpm(official, sampler, name: str):
    noises = [official.tensor(f"ddpm/noise{i}") for i in range(4)]
    with torch.no_grad():
        h = official.model.pixel_encoder(official.tensor("in/images")[:1])
    *_, m_pred = official.model.denoise(h, noises[0], 3, 1.0, None, sampler, lambda step: noises[step + 1])
    assert official.error(f"ddpm/final_{name}_it3", m_pred) < ROUNDING


def test_masks_and_voted_segments(official, features):
    noise = official.tensor("ddim/init_noise")
    *_, m_pred = official.model.denoise(features, noise, 4, 1.0)
    masks = official.model.infer(official.tensor("in/images"), noise, 4, 1.0)
    assert torch.equal(masks, official.model.to_masks(m_pred))
    recorded = np.moveaxis(official["ddim/masks_image_res"], -1, 1)
    assert_masks_agree(masks.numpy(), recorded[:, :, ::2, ::2], m_pred)
    assert np.array_equal(resize_labels(recorded[:, :, ::2, ::2], 64, 64), recorded)
    for mask, classes, ids in zip(recorded, official["ddim/voted_sem"], official["ddim/voted_id"], strict=True):
        assert np.array_equal(majority_vote(mask, 6), np.stack([classes, ids]))


# Video


def test_video_loss(official_video):
    past = official_video.tensor("in/cond_label_map").unflatten(1, (2, 2))  # [b, frame, class and id, h, w]
    model = deepcopy(official_video.model).train()
    loss = model.train_loss(
        torch.from_numpy(official_video["in/frames"][:, 2]).movedim(-1, 1),
        official_video.tensor("in/label_map"),
        past,
        t=torch.from_numpy(official_video["in/t"]),
        noise=official_video.tensor("in/noise"),
    )
    assert loss.item() == pytest.approx(float(official_video["train/loss"]), abs=1e-5)


def test_video_inference(official_video):
    model = official_video.model
    frames = torch.from_numpy(official_video["in/frames"]).movedim(-1, 2)  # [1, frame, 3, h, w]
    past = [torch.zeros(1, 2, 24, 48, dtype=torch.long)] * 2
    for number, steps in enumerate(official_video["video/iterations"].tolist()):
        noise = torch.from_numpy(official_video["video/init_noise"][number]).movedim(-1, 1)
        conditions = torch.stack(past[-2:], dim=1)
        bits = torch.cat([analog(conditions[:, f], (8, 8), 0.1) for f in (0, 1)], dim=1)
        recorded = torch.from_numpy(official_video["video/cond_bits"][number]).movedim(-1, 1)
        assert torch.equal(bits, recorded)
        past.append(model.infer(frames[:, number], noise, steps, 1.0, conditions))
        *_, m_pred = model.denoise(model.pixel_encoder(frames[:, number]), noise, steps, 1.0, conditions)
        assert_masks_agree(past[-1].numpy(), np.moveaxis(official_video["video/masks"][:, number], -1, 1), m_pred)


# Other configurations than the recorded ones


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration with `{"model.msize": ...}` and the like replaced."""
    result = deepcopy(config)
    for path, value in changes.items():
        section, _, key = path.partition(".")
        result[section][key] = value
    return result


OTHERS: dict[str, dict[str, Any]] = {
    "two levels": {"decoder.ch_multipliers": "1,2", "decoder.n_res_blocks": "1,1"},
    "five levels": {"decoder.ch_multipliers": "1,1,2,2,3", "decoder.n_res_blocks": "1,1,1,1,1"},
    "more residual blocks": {"decoder.n_res_blocks": "2,1,3,2"},
    "kernels of 5": {"decoder.kernel_sizes": "5"},
    "no bottleneck": {"decoder.transformer_blocks": 0},
    "heads that do not divide": {"decoder.transformer_dim": 96, "decoder.per_head_dim": 40},
    "width and depth": {"model.resnet_width_multiplier": 0.25, "model.num_encoder_layers": 3, "model.dim_mlp": 128},
    "ResNet-101": {"model.resnet_depth": 101},
    "not square": {"model.image_size": [64, 96], "model.msize": [32, 48]},
    "mask of the image's size": {"model.msize": [64, 64]},
    "mask of a quarter": {"model.msize": [16, 16], "model.enc_fuse_dim": 24},
    "mask of an eighth": {"model.image_size": [128, 128], "model.msize": [16, 16], "model.enc_fuse_dim": 24},
    "6 + 6 bits": {"task.n_bits_label": 12, "model.b_scale": 1.0},
    "other p and schedule": {
        "model.mask_weight_p": 0.0,
        "model.train_schedule": "sigmoid@-3,3,1",
        "model.infer_schedule": "sigmoid@-3,3,1",
    },
    "feature map only": {"model.conditional": "cat"},
    "tokens only": {"model.conditional": "attn"},
    "no condition": {"model.conditional": "none", "model.msize": [16, 16], "model.enc_fuse_dim": 24},
    "squared error of bits": {"model.pred_type": "x", "decoder.outp_softmax_groups": 0},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS.keys())
def test_load_official_other_configurations(official, changes):
    config = changed(official.config, changes)
    rng = np.random.default_rng(0)
    variables = {
        name: (rng.random(shape) if "variance" in name else rng.normal(0, 0.1, shape)).astype(np.float32)
        for name, shape in official_shapes(config).items()
    }
    model = load_official(variables, config)
    names, state = official_names(model), model.state_dict()
    assert set(names) == set(state)
    if config["model"]["conditional"] == "none":
        names = {k: v for k, v in names.items() if v.startswith("denoiser/")}
        load_official({k: v for k, v in variables.items() if k.startswith("denoiser/")}, config)
        assert set(names.values()) == {name for name in variables if name.startswith("denoiser/")}
    else:
        assert set(names.values()) == set(variables)
    for ours, name in names.items():
        assert np.array_equal(as_official(state[ours], variables[name].size), variables[name].ravel()), name

    (height, width), bits = config["model"]["msize"], config["task"]["n_bits_label"]
    images, noise = torch.rand(1, 3, *config["model"]["image_size"]), torch.randn(1, bits, height, width)
    masks = model.infer(images, noise, steps=2, td=1.0)
    assert masks.shape == (1, 2, height, width)
    loss = model.train().train_loss(images, masks)
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["official", "official_video"])
def test_official_shapes_equal_the_recorded_ones(request, name: str):
    reference = request.getfixturevalue(name)
    assert official_shapes(reference.config) == {key: value.shape for key, value in reference.variables.items()}


def test_condition_on_tokens_only_has_a_map_of_zeros(official):
    config = changed(official.config, {"model.conditional": "attn"})
    model = load_official(official.variables, config)
    h = model.pixel_encoder(official.tensor("in/images"))
    noise, t = official.tensor("in/noise"), torch.from_numpy(official["in/t"])
    zeros = h._replace(map=torch.zeros_like(h.map))
    expected = official.model.mask_decoder(noise, zeros, t)[1]
    assert torch.equal(model.mask_decoder(noise, h, t)[1], expected)


def test_linear_head_clips_bits_in_inference_only(official):
    config = changed(official.config, {"model.pred_type": "x", "decoder.outp_softmax_groups": 0})
    model = Pix2SeqD(model_config(config))
    with torch.no_grad():
        model.mask_decoder.conv_out.bias.fill_(3.0)
    images, masks = official.tensor("in/images"), official.tensor("in/label_map")
    m_pred = next(model.denoise(model.pixel_encoder(images), official.tensor("in/noise"), 1))
    assert m_pred.abs().max().item() == pytest.approx(0.1)
    loss = model.train_loss(images, masks)
    assert 2.9**2 <= loss.item() <= 3.1**2
    loss.backward()
    assert model.mask_decoder.conv_out.bias.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.resnet_variant": "c1"}, "resnet_variant='c1' is not supported"),
        ({"model.infer_schedule": "simple_linear"}, "infer_schedule='simple_linear' is not supported"),
        ({"model.normalize_noisy_input": True}, "normalize_noisy_input=True is not supported"),
        ({"model.msize": [48, 48]}, r"image size \[64, 64\] is not a whole multiple of mask size \[48, 48\]"),
        ({"model.msize": [128, 128]}, "not a whole multiple"),
        ({"model.msize": [32, 16]}, "not a whole multiple"),
        ({"decoder.kernel_sizes": "3,3,5,5"}, "differs between levels"),
        ({"decoder.outp_softmax_groups": 16}, "outp_softmax_groups=16 is not supported"),
    ],
)
def test_load_official_unsupported_setting_is_an_error(official, changes, message: str):
    with pytest.raises(ValueError, match=message):
        model_config(changed(official.config, changes))


@pytest.mark.parametrize("value", [10**30, -1, 0, None, "many", [], {}, float("nan"), float("inf"), 1e300])
def test_model_config_strange_setting_is_a_value_error(official, value):
    for section in ("model", "decoder", "task", "dataset"):
        for key in official.config[section]:
            with suppress(ValueError):  # the one error that is documented
                model_config({**official.config, section: {**official.config[section], key: value}})
            left = {name: each for name, each in official.config[section].items() if name != key}
            with suppress(ValueError):
                model_config({**official.config, section: left})
    with pytest.raises(ValueError, match="lacks the setting 'b_scale'"):
        model = {name: each for name, each in official.config["model"].items() if name != "b_scale"}
        model_config({**official.config, "model": model})


def test_load_official_variable_without_numbers_is_a_value_error(official):
    name = next(iter(official.variables))
    with pytest.raises(ValueError, match="not numbers"):
        load_official({**official.variables, name: np.array("x")}, official.config)


@pytest.mark.parametrize("damage", ["file", "graph", "shape", "kind", "name"])
def test_load_official_checkpoint_damaged_is_an_error(official, tmp_path, monkeypatch, damage):
    """TensorFlow itself is replaced, because it is large."""

    class Reader:
        def get_tensor(self, key):
            if damage == "file":
                raise RuntimeError("Data loss: \x1b[31m not an sstable")
            return {"shape": np.zeros(3), "kind": np.array("x")}.get(damage, b"")

        def has_tensor(self, key):
            return True

    class Graph:
        @staticmethod
        def FromString(text):  # noqa: N802 # protobuf's name
            if damage == "graph":
                raise Exception("Error parsing message")
            name = "other" if damage == "name" else next(iter(official.variables)).removesuffix(":0")
            return SimpleNamespace(
                nodes=[SimpleNamespace(attributes=[SimpleNamespace(full_name=name, checkpoint_key="k")])]
            )

    train = SimpleNamespace(latest_checkpoint=lambda _: "x", load_checkpoint=lambda _: Reader())
    graph = SimpleNamespace(TrackableObjectGraph=Graph)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(train=train))
    monkeypatch.setitem(sys.modules, "tensorflow.core.protobuf", SimpleNamespace(trackable_object_graph_pb2=graph))
    monkeypatch.setattr("pix2seqd.interop.official.require", lambda *_: None)
    with pytest.raises(InputError, match=r"damaged|configuration") as refused:
        load_official_checkpoint(tmp_path, official.config)
    assert str(tmp_path) in str(refused.value) and not any(map(is_control, str(refused.value)))


def test_load_official_checkpoint_missing_tensorflow_or_file_is_an_error(official, tmp_path):
    with pytest.raises(InputError, match=r"tensorflow|TensorFlow"):
        load_official_checkpoint(tmp_path, official.config)
