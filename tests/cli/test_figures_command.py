from PIL import Image


def test_figures_writes_both_png(run, tmp_path):
    code, out, _ = run("figures", "shapes:2@1", "--index", 1)
    assert code == 0 and out.count("written to") == 2
    sizes = [Image.open(tmp_path / name).size for name in ("figure3.png", "figure4.png")]
    assert all(width > 2 * height for width, height in sizes)


def test_figures_refuses_index_beyond_data(run):
    code, _, err = run("figures", "shapes:2@1", "--index", 2)
    assert code == 2 and "has 2 images" in err and len(err.strip().splitlines()) == 1
