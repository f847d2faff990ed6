from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pix2seqd.checkpoint import from_pretrained, save_pretrained
from pix2seqd.files import InputError
from pix2seqd.images.familiarity import FILE, Familiarity, feature_statistics, moments


def correlated(count: int, seed: int, size: int = 12) -> torch.Tensor:
    """Feature statistics that vary along a few axes, with a little noise; one number never changes."""
    axes = torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    values = 30 + torch.randn(count, 3, generator=draw) @ axes + 0.05 * torch.randn(count, size, generator=draw)
    values[:, 0] = 7
    return values


def distances(known: Familiarity, statistics: torch.Tensor) -> list[float]:
    return [known.ood_score(row) for row in statistics]


def test_feature_statistics_pool_windows_and_ignore_padding():
    features = torch.randn(5, 8, 12)
    whole = feature_statistics([moments(features, (32, 48), (32, 48))])
    assert torch.allclose(whole[:5], features.mean(dim=(1, 2)).double(), atol=1e-6)
    assert torch.allclose(whole[5:], features.flatten(1).std(dim=1, correction=0).double(), atol=1e-5)
    padded = [features.clone(), torch.full((5, 8, 12), 9.0)]
    padded[0][:, :, 8:], padded[1][:, :, :4] = -9.0, features[:, :, 8:]
    parts = [moments(part, (32, 48), (32, width)) for part, width in zip(padded, (32, 16), strict=True)]
    assert torch.allclose(feature_statistics(parts), whole, atol=1e-5)


def test_moments_keep_a_cell_of_the_smallest_image():
    assert moments(torch.ones(2, 8, 8), (64, 64), (1, 1)).tolist() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("count", [40, 400])
def test_fit_knows_its_own_kind_and_notices_others(count: int):
    known = Familiarity.fit(correlated(count, 1), 9)
    own, other = correlated(200, 2), correlated(200, 3)
    other[:, 1] += 4.0  # within its own variation, but the other numbers do not follow
    assert sum(value > 1 for value in distances(known, own)) <= 8
    assert sum(value > 1 for value in distances(known, other)) >= 190


def test_fit_of_equal_images():
    same = Familiarity.fit(torch.ones(20, 4), 9)
    assert all(torch.isfinite(value).all() for value in (same.mean, same.whitening))
    assert distances(same, torch.tensor([[1.0, 1, 0, 0]]))[0] > 1


def test_save_pretrained_keeps_and_removes_statistics(pretrained, tmp_path):
    size = 2 * pretrained.model.config.encoder.map_dim
    known = Familiarity.fit(torch.randn(30, size), 99)
    save_pretrained(replace(pretrained, familiarity=known), tmp_path)
    loaded = from_pretrained(tmp_path).familiarity
    assert known and loaded and torch.equal(loaded.whitening, known.whitening) and torch.equal(loaded.mean, known.mean)
    assert loaded.min_pixels == 99
    save_pretrained(pretrained, tmp_path)  # other weights, without statistics of their own
    assert not (tmp_path / FILE).exists() and from_pretrained(tmp_path).familiarity is None


def statistics(size: int, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    whole = {"mean": torch.zeros(size), "whitening": torch.zeros(size, size), "min_pixels": torch.tensor([9])}
    return whole | changes


@pytest.mark.parametrize(
    "make",
    [
        lambda size: {"mean": torch.zeros(size)},
        lambda size: statistics(3),
        lambda size: statistics(size, mean=torch.full((size,), float("nan"))),
        lambda size: statistics(size, mean=torch.zeros(size).double()),
        lambda size: statistics(size, min_pixels=torch.tensor([9.0])),
        lambda size: statistics(size, more=torch.zeros(1)),
        None,
    ],
)
def test_read_damaged_statistics_is_a_one_line_error(folder: Path, pretrained, make):
    if make is None:
        (folder / FILE).write_bytes(b"no tensors")
    else:
        save_file(make(2 * pretrained.model.config.encoder.map_dim), folder / FILE)
    with pytest.raises(InputError, match="does not belong" if make else "damaged or not safetensors") as caught:
        from_pretrained(folder)
    assert str(folder / FILE) in str(caught.value) and "\n" not in str(caught.value)


def test_read_statistics_of_many_tensors_are_refused_before_they_are_read(folder: Path, pretrained):
    """300,000 empty ones took 7 s and 500 MB."""
    size = 2 * pretrained.model.config.encoder.map_dim
    save_file(statistics(size, **{f"{n}": torch.zeros(0) for n in range(2000)}), folder / FILE)
    with pytest.raises(InputError, match=r"has [\d,]+ bytes; such a file has at most"):
        from_pretrained(folder)
