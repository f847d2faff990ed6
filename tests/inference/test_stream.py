from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pix2seqd.config import InferConfig, ModelConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.inference.denoiser import Denoiser, Step, converged
from pix2seqd.pix2seq_d import Pix2SeqD

SIDE = 32


@pytest.fixture
def video(tiny, build) -> Pix2SeqD:
    return build(tiny.replace(decoder={"past_frames": 2}, mask={"stride": 1}))


def clip(model: ModelConfig, frames: int, windows: int = 1) -> tuple[Tensor, Tensor]:
    """Images `[frames, windows, 3, H, W]` and noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(frames, windows, 3, SIDE, SIDE, generator=generator)
    return images, torch.randn(frames, windows, model.mask.total_bits, SIDE, SIDE, generator=generator)


def last(model: Pix2SeqD, steps: Iterator[Step]) -> Tensor:
    """The masks of the only step that is the last."""
    (step,) = (step for step in steps if step.is_last)
    return model.to_masks(step.m_pred)


def run(model: Pix2SeqD, config: InferConfig, images: Tensor, noise: Tensor, batch: int = 8) -> list[Tensor]:
    """The masks of each frame; the past masks are those of each window's first sample."""
    stream, masks = Denoiser(model, config, TAXONOMY), []
    for frame in zip(images, noise, strict=True):
        samples = [[] for _ in range(config.consensus)]
        for windows, eps in zip(*(part.split(batch) for part in frame), strict=True):
            h = model.pixel_encoder(windows)
            for k, found in enumerate(samples):
                found.append(last(model, stream.denoise(h, eps.roll(k), number=sum(map(len, found)), sample=k)))
        masks.append(torch.cat(samples[0]))
        stream.remember(masks)
    return masks


@pytest.fixture
def steps_of(monkeypatch) -> Callable[..., list[int]]:
    """The steps of each call of a model whose prediction in call c and step s is `sign(c, s)` in all bits."""

    def count(
        model: Pix2SeqD,
        config: InferConfig,
        sign: Callable[[int, int], int],
        frames: int,
        windows: int = 1,
        batch: int = 1,
    ) -> list[int]:
        images, noise = clip(model.config, frames, windows)
        calls: list[int] = []

        def denoise(h: object, state: Tensor, steps: int, *_: object, **__: object) -> Iterator[Tensor]:
            calls.append(0)
            for step in range(steps):
                calls[-1] += 1
                yield torch.full_like(state, sign(len(calls) - 1, step))

        monkeypatch.setattr(model, "denoise", denoise)
        run(model, config, images, noise, batch)
        return calls

    return count


def test_stream_conditions_on_earlier_masks_oldest_first(video):
    images, noise = clip(video.config, 4)
    found = run(video, InferConfig(steps=2, first_steps=3), images, noise)
    past = [torch.zeros(1, 2, SIDE, SIDE, dtype=torch.long)] * 2
    for number, (image, eps) in enumerate(zip(images, noise, strict=True)):
        past.append(video.infer(image, eps, 2 if number else 3, 1.0, torch.stack(past[-2:], dim=1)))
        assert torch.equal(found[number], past[-1])
    assert not torch.equal(found[2], video.infer(images[2], noise[2], 2, 1.0))


def test_stream_each_window_has_its_own_past(video):
    images, noise = clip(video.config, 3, windows=3)
    config = InferConfig(steps=1)
    together = run(video, config, images, noise, batch=2)
    for window in range(3):
        alone = run(video, config, images[:, window : window + 1], noise[:, window : window + 1])
        for whole, part in zip(together, alone, strict=True):
            assert (whole[window] == part[0]).float().mean() > 0.999  # batches round differently


def test_stream_model_without_past_frames(tiny, build):
    model = build(tiny.replace(mask={"stride": 1}))
    images, noise = clip(model.config, 3)
    found = run(model, InferConfig(steps=2), images, noise)
    for mask, image, eps in zip(found, images, noise, strict=True):
        assert torch.equal(mask, model.infer(image, eps, 2, 1.0))


def test_stream_adaptive_still_and_changing_masks(video, steps_of):
    config = InferConfig(steps=8, first_steps=5, adaptive=3.0)
    assert steps_of(video, config, lambda call, step: 1, 6) == [5, 1, 1, 1, 1, 1]
    assert steps_of(video, config, lambda call, step: (-1) ** (call + step), 6) == [5, 3, 3, 3, 3, 3]
    # Nothing changes up to the fourth frame, then everything at every step: the saved steps are used.
    used = steps_of(video, config, lambda call, step: 1 if call < 4 else (-1) ** (step + 1), 9)
    assert used[:4] == [5, 1, 1, 1] and max(used[4:]) == 8
    assert all(sum(used[1 : k + 1]) <= 3 * k for k in range(1, 9))


def test_stream_adaptive_stops_when_the_prediction_settles(video, steps_of):
    """Every mask differs from the one before, and does not change after its second step."""
    config = InferConfig(steps=8, adaptive=8.0)
    assert steps_of(video, config, lambda call, step: (-1) ** call, 3) == [8, 2, 2]


def test_stream_prepares_once_for_the_samples_of_a_window(video, monkeypatch):
    images, noise = clip(video.config, 2)
    stream = Denoiser(video, InferConfig(steps=2, consensus=3), TAXONOMY)
    calls, prepare = [], video.mask_decoder.prepare
    monkeypatch.setattr(video.mask_decoder, "prepare", lambda *given: calls.append(given) or prepare(*given))
    for image, eps in zip(images, noise, strict=True):
        h = video.pixel_encoder(image)
        found = [last(video, stream.denoise(h, eps.roll(k), sample=k, samples=3)) for k in range(3)]
        assert len(calls) == 1
        assert all(torch.equal(found[k], video.infer(image, eps.roll(k), 2, 1.0)) for k in range(3))
        calls.clear()


def test_stream_unconditioned_samples_take_the_steps_of_a_first_frame(video):
    images, noise = clip(video.config, 2)
    config = InferConfig(steps=1, first_steps=3, consensus=5, unconditioned_share=0.5)
    stream, h = Denoiser(video, config, TAXONOMY), video.pixel_encoder(images[1])
    assert stream.conditioned == 3
    stream.remember([torch.ones(1, 2, SIDE, SIDE, dtype=torch.long)])
    conditioned, unconditioned = (last(video, stream.denoise(h, noise[1], sample=k)) for k in (2, 3))
    assert torch.equal(unconditioned, video.infer(images[1], noise[1], 3, 1.0))
    assert not torch.equal(conditioned, video.infer(images[1], noise[1], 1, 1.0))
    assert [
        Denoiser(video, InferConfig(consensus=k, unconditioned_share=0.4), TAXONOMY).conditioned for k in (1, 3, 5)
    ] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 3])
def test_stream_adaptive_budget_over_windows_and_samples(video, steps_of, batch: int, samples: int):
    sizes = [min(batch, 3 - start) for start in range(0, 3, batch) for _ in range(samples)]
    config = InferConfig(steps=4, adaptive=1.5, consensus=samples)
    used = steps_of(video, config, lambda call, step: (-1) ** step, 4, 3, batch)
    later = used[len(sizes) :]
    assert len(later) == 3 * len(sizes) and min(later) >= 1
    assert sum(steps * size for steps, size in zip(later, sizes * 3, strict=True)) <= 1.5 * 3 * 3 * samples


def test_stream_not_adaptive_takes_all_steps(video, steps_of):
    assert steps_of(video, InferConfig(steps=3, first_steps=4), lambda call, step: 1, 3) == [4, 3, 3]
    assert steps_of(video, InferConfig(steps=3), lambda call, step: 1, 3) == [3, 3, 3]


def test_settled_counts_changes_of_pixels_with_an_id():
    before = torch.zeros(1, 2, 100, 100, dtype=torch.long)
    before[:, 0] = 2
    before[:, :, :10, :10] = 1
    after = before.clone()
    assert converged(after, before)
    after[:, 1, 0, 0] = 3
    assert converged(after, before)  # one of a hundred
    after[:, 1, 0, :3] = 3
    assert not converged(after, before)
    assert not converged(torch.cat([before, after]), torch.cat([before, before]))
    assert converged(torch.zeros_like(before), torch.zeros_like(before))


def test_stream_sure_windows_keep_their_prediction_and_end_the_loop(video, monkeypatch):
    """Bits of 0.09 of 0.1 have a probability of 0.95 each: window 1 is sure after the first step, window 0 later."""
    images, noise = clip(video.config, 1, 2)
    sizes = torch.tensor([[0.01, 0.09], [0.02, 0.01], [0.1, 0.02], [0.03, 0.03]])

    def denoise(*_: object, **__: object) -> Iterator[Tensor]:
        yield from (row[:, None, None, None].expand(2, video.config.mask.total_bits, SIDE, SIDE) for row in sizes)

    monkeypatch.setattr(video, "denoise", denoise)
    h, inside = video.pixel_encoder(images[0]), [(SIDE, SIDE)] * 2
    for sure, used, kept in [(0.0, 4, (0.03, 0.03)), (0.6, 3, (0.1, 0.09)), (1.0, 4, (0.1, 0.03))]:
        stream = Denoiser(video, InferConfig(steps=4, early_exit=sure), TAXONOMY)
        steps = list(stream.denoise(h, noise[0], inside=inside))
        assert [step.is_last for step in steps] == [False] * (used - 1) + [True]
        assert steps[-1].m_pred[:, 0, 0, 0].tolist() == pytest.approx(kept)


@pytest.mark.parametrize("steps", [1, 3])
def test_stream_sure_is_not_asked_after_the_last_step(video, monkeypatch, steps: int):
    images, noise = clip(video.config, 1)
    asked = []
    monkeypatch.setattr(Denoiser, "certain", lambda _, m_pred, inside: asked.append(inside) or torch.zeros(1).bool())
    stream = Denoiser(video, InferConfig(steps=steps, early_exit=0.9), TAXONOMY)
    found = list(stream.denoise(video.pixel_encoder(images[0]), noise[0], inside=[(SIDE, SIDE)]))
    assert len(found) == steps and len(asked) == steps - 1


def test_stream_certain_counts_the_image_alone_and_ids_of_things_only(video):
    classes, ids = video.config.mask.bits
    scale = video.config.mask.scale
    things = [category.isthing for category in TAXONOMY.categories]
    for class_index in range(1, video.config.mask.classes):
        bits = [2 * (class_index >> bit & 1) - 1 for bit in reversed(range(classes))]
        m_pred = scale * torch.tensor(bits + [0] * ids)[None, :, None, None].repeat(1, 1, SIDE, SIDE)
        m_pred[:, :, SIDE // 2 :] = 0
        stream = Denoiser(video, InferConfig(early_exit=0.9), TAXONOMY)
        assert bool(stream.certain(m_pred, [(SIDE // 2, SIDE)])) == (not things[class_index - 1])
        assert not stream.certain(m_pred, [(SIDE, SIDE)])
