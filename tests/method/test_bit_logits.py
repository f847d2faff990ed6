"""The logit per bit (`DecoderConfig.bit_logits`): the evidence of a noisy bit for its value, by Bayes' rule."""

import torch

from pix2seqd.analog_bits import analog, binary_codes, bit_evidence, expected_bits, value_logits
from pix2seqd.config import ModelConfig
from pix2seqd.diffusion import corrupt, gamma
from pix2seqd.pix2seq_d import Pix2SeqD


def test_value_logits_keep_the_expected_bits() -> None:
    half_log_odds = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = expected_bits(value_logits(half_log_odds), scale=0.3)
    torch.testing.assert_close(expected, 0.3 * half_log_odds.tanh())


def test_bit_evidence_equals_the_posterior() -> None:
    generator = torch.Generator().manual_seed(1)
    scale, t = 0.3, torch.tensor([0.4, 0.9])
    masks = torch.randint(0, 8, (2, 1, 6, 5), generator=generator)
    m_t = corrupt(analog(masks, [3], scale), torch.randn(2, 3, 6, 5, generator=generator), gamma(t))
    gamma_t = gamma(t)[:, None, None, None, None]
    means = gamma_t.sqrt() * ((binary_codes(3) * 2 - 1) * scale).view(1, 8, 3, 1, 1)
    log_density = -((m_t[:, None] - means) ** 2 / (2 * (1 - gamma_t))).sum(dim=2)
    evidence = bit_evidence(m_t, scale, gamma(t))
    assert evidence.abs().max() < 5, "the bound must not act in this test"
    torch.testing.assert_close(value_logits(evidence).softmax(1), log_density.softmax(1), rtol=1e-4, atol=1e-6)


def test_bit_logits_without_noise_predict_the_mask() -> None:
    model = Pix2SeqD(
        ModelConfig.preset("tiny").replace(
            decoder={"bit_logits": True}, mask={"bits": (3, 4), "classes": 8, "max_instances": 16}
        )
    ).eval()
    masks = torch.randint(0, 8, (1, 2, 32, 32), generator=torch.Generator().manual_seed(2))
    t = torch.full((1,), 1e-3)
    m_t = corrupt(analog(masks, (3, 4), 0.1), torch.zeros(1, 7, 32, 32), gamma(t))
    with torch.no_grad():
        _, m_pred = model.mask_decoder(m_t, model.pixel_encoder(torch.rand(1, 3, 64, 64)), t)
    assert (model.to_masks(m_pred) == masks).float().mean() > 0.99
