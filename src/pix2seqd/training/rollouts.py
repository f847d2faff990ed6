"""The model's own predictions in place of the truth, in training on clips: in inference its errors feed back (§3.4)."""

from itertools import islice

import torch
from torch import Tensor

from pix2seqd.analog_bits import analog, to_codes
from pix2seqd.config import Recipe
from pix2seqd.diffusion import corrupt, ddim_step, gamma, time_steps
from pix2seqd.pix2seq_d import Pix2SeqD

OWN_PAST_STEPS = 2
"""Denoising steps of a past mask that the model predicts itself."""


@torch.no_grad()
def own_predictions(model: Pix2SeqD, batch: dict[str, Tensor], recipe: Recipe) -> None:
    """Change a batch of clip examples as `ClipsConfig.self_past_prob` and `ClipsConfig.rollout_prob` say."""
    training = model.training
    model.eval()
    if recipe.clips.self_past_prob:
        _predict_past(model, batch, recipe)
    if recipe.clips.rollout_prob:
        batch["t"], batch["state"] = _own_states(model, batch, recipe)
    model.train(training)


def _predict_past(model: Pix2SeqD, batch: dict[str, Tensor], recipe: Recipe) -> None:
    """Replace some of the last past masks by predictions of them.

    Only where the mask before exists too, which gives the prediction the clip's ids. Removes "past_images".
    """
    images, past = batch.pop("past_images"), batch["past"]
    present = past.flatten(2).any(dim=-1)
    chosen = torch.rand(len(past), device=past.device) < recipe.clips.self_past_prob
    chosen &= present[:, -1] & (present[:, -2] if past.shape[1] > 1 else False)
    if not chosen.any():
        return
    before = torch.cat([torch.zeros_like(past[:, :1]), past[:, :-1]], dim=1)[chosen]
    images = images[chosen].contiguous(memory_format=torch.channels_last)
    past[chosen, -1] = model.infer(images, _noise(before, model), OWN_PAST_STEPS, recipe.infer.td, before)


def _own_states(model: Pix2SeqD, batch: dict[str, Tensor], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Times `[b]` and noisy masks `[b, bits, h, w]`; some examples get those of a step of `recipe.infer`.

    Only examples with past masks, which determine the ids; the others keep the corrupted truth. All take the same step.
    """
    config, infer = model.config, recipe.infer
    masks, past = batch["masks"], batch["past"]
    t, noise = torch.rand(len(masks), device=masks.device), _noise(past, model)
    codes = to_codes(masks, config.mask.bits, config.mask.encoding)
    states = corrupt(analog(codes, config.mask.bits, config.mask.scale), noise, gamma(t, config.schedule))
    chosen = torch.rand(len(masks), device=masks.device) < recipe.clips.rollout_prob
    chosen &= past[:, -1].flatten(1).any(dim=-1)
    if not chosen.any():
        return t, states
    step = int(torch.randint(infer.steps, ()))
    m_t = model.initial_state(noise[chosen], past[chosen])
    times = torch.tensor(list(time_steps(infer.steps, infer.td)), device=masks.device)
    if step:
        images = batch["images"][chosen].contiguous(memory_format=torch.channels_last)
        predictions = model.denoise(model.pixel_encoder(images), noise[chosen], infer.steps, infer.td, past[chosen])
        for gammas, m_pred in zip(gamma(times, config.schedule), islice(predictions, step), strict=False):
            m_t = ddim_step(m_t, m_pred, *gammas)
    t[chosen], states[chosen] = times[step, 0], m_t
    return t, states


def _noise(past: Tensor, model: Pix2SeqD) -> Tensor:
    return torch.randn(len(past), model.config.mask.total_bits, *past.shape[-2:], device=past.device)
