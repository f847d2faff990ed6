import pytest
import torch

from pix2seqd import mask_decoder


@pytest.mark.parametrize(
    "changes",
    [{}, {"decoder": {"patch": 2, "bit_logits": True}}, {"decoder": {"head": "linear"}, "loss": "l2"}],
    ids=str,
)
def test_predict_prepared_and_in_strips_equals_forward(tiny, build, changes, monkeypatch):
    """Exactness in float32: the loop against a plain pass of the decoder at every step."""
    monkeypatch.setattr(mask_decoder, "MAX_LOGITS", 4096)
    model = build(tiny.replace(**changes))
    images, m_t = torch.rand(2, 3, 64, 32), torch.randn(2, 5, 32, 16)
    h, times = model.pixel_encoder(images), torch.tensor([1.0, 0.6, 0.2])
    prepared = model.mask_decoder.prepare(h, times)
    with torch.no_grad():
        for step, t in enumerate(times):
            _, plain = model.mask_decoder(m_t, h, t.expand(2))
            fast = model.mask_decoder.predict(m_t, prepared.at(step))
            assert torch.allclose(fast, plain, atol=1e-5)
            assert torch.equal(model.to_masks(fast), model.to_masks(plain))
