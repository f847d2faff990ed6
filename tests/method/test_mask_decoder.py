import pytest
import torch

from pix2seqd import mask_decoder
from pix2seqd.layers.transformer import attend
from pix2seqd.speed.hardware import in_bfloat16


@pytest.mark.parametrize(
    "changes",
    [{}, {"decoder": {"patch": 2, "bit_logits": True}}, {"decoder": {"head": "linear"}, "loss": "l2"}],
    ids=str,
)
def test_what_is_prepared_for_all_steps_and_done_in_strips_gives_the_plain_masks(tiny, build, changes, monkeypatch):
    """Exactness in float32: the loop against a plain pass of the decoder at every step."""
    monkeypatch.setitem(mask_decoder.STRIP, "cpu", 4096)
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


def test_weights_cast_once_give_what_autocast_gives(tiny, build):
    model = build(tiny)
    images, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.infer(images, noise, 2), in_bfloat16(model).infer(images, noise, 2))
    assert next(model.parameters()).dtype == torch.float32, "the model itself stays"


def test_attention_in_bfloat16_is_attention():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 16) for n in (600, 20, 20))
    assert (attend(q.bfloat16(), k.bfloat16(), v.bfloat16()) - attend(q, k, v)).abs().max() < 0.03
