"""The official model's recorded answers, reproduced from its recorded weights (fixtures/make_reference.py)."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pix2seqd.analog_bits import analog
from pix2seqd.config import Recipe, TrainConfig
from pix2seqd.data.shapes import Shapes
from pix2seqd.diffusion import corrupt, gamma, predicted_noise, time_steps
from pix2seqd.loss import cross_entropy, instance_weights, l2
from pix2seqd.official import load_official, model_config, official_names
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.placement import resize_labels
from pix2seqd.postprocess import majority_vote
from pix2seqd.run.train import learning_rate, new_state

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


def test_every_parameter_has_an_official_variable_and_vice_versa(official, official_video):
    for reference in (official, official_video):
        names = official_names(reference.model)
        assert set(names) == set(reference.model.state_dict())
        assert sorted(names.values()) == sorted(reference.variables)


def test_a_missing_or_misshapen_variable_is_named(official):
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


def test_encoder_in_training_uses_and_averages_the_statistics_of_the_batch(official, trained):
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
        (group,) = state.optimizer.param_groups
        group["lr"] = learning_rate(step, config)
        assert group["lr"] == pytest.approx(official["opt/lrs"][step], rel=1e-6)
        # The first step of Adam is all but the sign of the gradient: where that is near 0 it may go either way, so
        # after it numbers agree less.
        loss = loss_of(state.model, official)
        assert loss.item() == pytest.approx(official["opt/losses"][step], rel=5e-4 if step else 2e-6)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
        assert norm.item() == pytest.approx(official["opt/grad_global_norms"][step], rel=2e-2 if step else 1e-4)
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
            assert np.median(difference) < 2e-6, key
            assert difference.max() < (2e-6 if part == "ema" else 5e-3), key
            compared += 1
    assert compared == 30


# Sampling


def test_every_step_of_ddim(official, features):
    seen = []
    decoder = official.model.mask_decoder
    hook = decoder.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], inputs[2])))
    predictions = list(official.model.denoise(features, official.tensor("ddim/init_noise"), 4, 1.0))
    hook.remove()
    states = [state for state, _ in seen]
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
def test_other_numbers_of_steps_and_time_intervals(official, features, steps: int, td: float):
    recorded = official[f"ddim/gammas_td{td:.0f}_it{steps}"]
    ours = [[gamma(torch.tensor(t)).item() for t in pair] for pair in time_steps(steps, td)]
    assert np.abs(np.array(ours) - recorded).max() < 1e-6
    for m_pred in official.model.denoise(features, official.tensor("ddim/init_noise"), steps, td):
        pass
    assert official.error(f"ddim/final_td{td:.0f}_it{steps}", m_pred) < ROUNDING


@pytest.mark.parametrize(("sampler", "name"), [("ddpm", "ddpm"), ("ddpm_small", "ddpm@small")])
def test_ddpm(official, sampler, name: str):
    noises = [official.tensor(f"ddpm/noise{i}") for i in range(4)]
    with torch.no_grad():
        h = official.model.pixel_encoder(official.tensor("in/images")[:1])
    for m_pred in official.model.denoise(h, noises[0], 3, 1.0, None, sampler, lambda step: noises[step + 1]):
        pass
    assert official.error(f"ddpm/final_{name}_it3", m_pred) < ROUNDING


def test_masks_and_voted_segments(official, features):
    noise = official.tensor("ddim/init_noise")
    for m_pred in official.model.denoise(features, noise, 4, 1.0):
        pass
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
        for m_pred in model.denoise(model.pixel_encoder(frames[:, number]), noise, steps, 1.0, conditions):
            pass
        assert_masks_agree(past[-1].numpy(), np.moveaxis(official_video["video/masks"][:, number], -1, 1), m_pred)
