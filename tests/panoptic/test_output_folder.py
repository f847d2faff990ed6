"""Several processes write into one folder, some of them with another command, some of them killed."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fake_segmenter import TAXONOMIES
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.page import editing
from pix2seqd.panoptic.clip_results import ClipWriter
from pix2seqd.panoptic.folder import PanopticFolder
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.results import PanopticWriter, make_folders

TAXONOMY = TAXONOMIES["nuclei"]
HERE = Path(__file__).parent
START = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]"


def scene(value):
    """A grey image, and a segment of `value` pixels in it."""
    segmentation = np.zeros((20, 20), int)
    segmentation.flat[:value] = 1
    return Image.new("RGB", (20, 20), (value,) * 3), Panoptic.from_segmentation(segmentation, {1: 1}, TAXONOMY)


def process(code, *arguments):
    """A process that runs `code` with this module's names; `begin()` in it waits for `together`."""
    begin = "def begin():\n    print('ready', flush=True)\n    input()\n"
    text = (
        f"{START}\nfrom pix2seqd.page import editing\nfrom test_output_folder import *\n{begin}{textwrap.dedent(code)}"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], text=True, **pipes)


def together(processes):
    """Let all go on at the same moment; their exit codes and errors."""
    for running in processes:
        assert running.stdout.readline() == "ready\n", running.communicate()
    for running in processes:
        running.stdin.write("\n")
        running.stdin.flush()
    errors = [running.communicate(timeout=120)[1] for running in processes]
    return [running.returncode for running in processes], errors


def content(out):
    return json.loads((out / "panoptic.json").read_text())


def assert_right(out, number):
    """Every entry has its own files, and the mask is that of the image."""
    read = content(out)
    files = {image["id"]: image["file_name"] for image in read["images"]}
    assert len(read["images"]) == len(read["annotations"]) == len(set(files.values())) == number
    assert sorted(files) == list(range(1, number + 1))
    for annotation in read["annotations"]:
        mask = np.asarray(Image.open(out / "panoptic" / annotation["file_name"]))
        value = np.asarray(Image.open(out / "images" / files[annotation["image_id"]]))[0, 0, 0]
        assert (mask[..., 0] > 0).sum() == value == annotation["segments_info"][0]["area"]
    hidden = [path.name for path in out.rglob(".*")]
    assert hidden == [".panoptic.json.lock"], hidden


def folders(place, number, names):
    """Sources of equal names in several folders; the values of their pixels differ."""
    value = 0
    for folder in range(number):
        (place / f"in{folder}").mkdir()
        for name in names:
            value += 1
            scene(value)[0].save(place / f"in{folder}" / name)


SEGMENT = """
out, source = Path(sys.argv[1]), Path(sys.argv[2])
begin()
sources = sorted(source.iterdir())
with PanopticWriter(out, TAXONOMY, {}, sources if sys.argv[3] == "known" else ()) as writer:
    for path in sources:
        writer.write(path, *scene(Image.open(path).getpixel((0, 0))[0]))
"""


def test_append_of_four_threads_keeps_all_images(tmp_path):
    def save(thread):
        for k in range(4):
            editing.append(tmp_path / "set", "same.png", *scene(1 + 4 * thread + k))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
    assert_right(tmp_path / "set", 16)


def test_panoptic_writer_two_writers_with_equal_file_names(tmp_path):
    folders(tmp_path, 2, ["a.png", "b.png"])
    out = tmp_path / "out"
    with PanopticWriter(out, TAXONOMY, {}) as first, PanopticWriter(out, TAXONOMY, {}) as second:
        for name, value in (("a.png", 1), ("b.png", 2)):
            first.write(tmp_path / "in0" / name, *scene(value))
            second.write(tmp_path / "in1" / name, *scene(value + 2))
    assert_right(out, 4)


@pytest.mark.slow
def test_append_of_four_processes_keeps_all_images(tmp_path):
    code = """
    begin()
    for k in range(25):
        editing.append(Path(sys.argv[1]), "same.png", *scene(1 + 25 * int(sys.argv[2]) + k))
    """
    codes, errors = together([process(code, tmp_path / "set", k) for k in range(4)])
    assert codes == [0] * 4, errors
    assert_right(tmp_path / "set", 100)


@pytest.mark.slow
@pytest.mark.parametrize("sources", ["known", "unknown"])
def test_panoptic_writer_two_processes_with_equal_file_names(tmp_path, sources):
    folders(tmp_path, 2, [f"{k}.png" for k in range(6)])
    out = tmp_path / "out"
    codes, errors = together([process(SEGMENT, out, tmp_path / f"in{k}", sources) for k in range(2)])
    assert codes == [0, 0], errors
    assert_right(out, 12)
    for image in content(out)["images"]:
        assert (out / "images" / image["file_name"]).read_bytes() == Path(image["source"]["path"]).read_bytes()


@pytest.mark.slow
def test_append_into_the_folder_of_a_running_segment(tmp_path):
    folders(tmp_path, 1, [f"{k}.png" for k in range(6)])
    out = tmp_path / "out"
    code = "begin()\nfor k in range(6): editing.append(Path(sys.argv[1]), f'{k}.png', *scene(100 + k))"
    make_folders(out)
    with PanopticWriter(out, TAXONOMY, {}):  # the folder is that of `segment` from its start
        pass
    codes, errors = together([process(SEGMENT, out, tmp_path / "in0", "known"), process(code, out)])
    assert codes == [0, 0], errors
    assert_right(out, 12)
    with PanopticWriter(out, TAXONOMY, {}) as writer:  # goes on beside the page's entries
        assert all(writer.is_done(path) for path in (tmp_path / "in0").iterdir())


@pytest.mark.slow
def test_panoptic_writer_killed_between_name_and_file_leaves_no_trace(tmp_path):
    folders(tmp_path, 2, ["a.png"])
    out = tmp_path / "out"
    code = """
    writer = PanopticWriter(Path(sys.argv[1]), TAXONOMY, {}, [Path(sys.argv[2])])
    for folder in ("panoptic", "geojson"):
        (Path(sys.argv[1]) / folder).mkdir(exist_ok=True)
        (Path(sys.argv[1]) / folder / ".a.png.0123456789abcdef.part").write_text("half")
    with (Path(sys.argv[1]) / ".panoptic.names").open("a") as names:
        names.write('{"writer": "half a line')
    begin()
    """
    make_folders(out)
    killed = process(code, out, tmp_path / "in0" / "a.png")
    assert killed.stdout.readline() == "ready\n"
    with PanopticWriter(out, TAXONOMY, {}) as alive:  # while the first still lives, its name is its own
        assert alive.stem(tmp_path / "in1" / "a.png") == "a-2"
        assert (out / "panoptic" / ".a.png.0123456789abcdef.part").exists()
        killed.kill()
        killed.communicate()
        alive.write(tmp_path / "in1" / "a.png", *scene(2))
    with PanopticWriter(out, TAXONOMY, {}) as writer:
        assert not list(out.rglob("*.part"))
        writer.write(tmp_path / "in0" / "a.png", *scene(1))
    assert_right(out, 2)
    assert [image["file_name"] for image in content(out)["images"]] == ["a-2.png", "a.png"]


@pytest.mark.slow
def test_panoptic_writer_shard_one_of_two_processes_is_killed(tmp_path):
    code = """
    import os
    out, source, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    begin()
    sources = sorted(source.iterdir())
    with PanopticWriter(out, TAXONOMY, {}, sources, shard=5) as writer:
        for number, path in enumerate(sources[rank::2]):
            if rank == 1 and number == 3:
                os.kill(os.getpid(), 9)
            writer.write(path, *scene(Image.open(path).getpixel((0, 0))[0]))
    """
    folders(tmp_path, 1, [f"{k:02}.png" for k in range(12)])
    out, sources = tmp_path / "out", sorted((tmp_path / "in0").iterdir())
    out.mkdir()
    codes, errors = together([process(code, out, tmp_path / "in0", k) for k in range(2)])
    assert codes == [0, -9], errors
    with PanopticWriter(out, TAXONOMY, {}, sources, shard=5) as writer:
        todo = [path for path in sources if not writer.is_done(path)]
        assert [path.stem for path in todo] == ["07", "09", "11"]
        for path in todo:
            writer.write(path, *scene(Image.open(path).getpixel((0, 0))[0]))
    found = []
    for number, size in enumerate((5, 5, 2)):
        images = content(out / f"part-{number:05}")["images"]
        assert sorted(image["id"] for image in images) == list(range(5 * number + 1, 5 * number + 1 + size))
        found += [image["source"]["path"] for image in images]
    assert sorted(found) == list(map(str, sources))
    assert not [path for path in out.rglob(".*") if path.name != ".panoptic.json.lock"]


def test_panoptic_writer_refuses_images_that_another_process_writes_with_other_settings(tmp_path):
    folders(tmp_path, 2, ["a.png"])
    sources = [tmp_path / f"in{k}" / "a.png" for k in range(2)]
    out = tmp_path / "out"
    with PanopticWriter(out, TAXONOMY, {"seed": 0}, sources[:1]) as first:
        with pytest.raises(InputError, match=r"in0/a\.png .*other settings; wait"):
            PanopticWriter(out, TAXONOMY, {"seed": 1}, sources)
        with PanopticWriter(out, TAXONOMY, {"seed": 0}, sources[:1]) as same:
            assert same.stem(sources[0]) == first.stem(sources[0]) == "a"
        with PanopticWriter(out, TAXONOMY, {"seed": 1}, sources[1:]) as other:
            other.write(sources[1], *scene(2))
    with PanopticWriter(out, TAXONOMY, {"seed": 1}, sources) as later:
        later.write(sources[0], *scene(1))
    assert_right(out, 2)


def test_panoptic_folder_many_equal_names_in_time_of_a_few(tmp_path):
    wanted = {f"/{k}/image.png": "image" for k in range(20_000)}
    with PanopticFolder(tmp_path, TAXONOMY, "x") as folder:
        stems = folder.stems(wanted)
    assert len(set(stems.values())) == len(wanted) and stems["/19999/image.png"] == "image-20000"


def test_panoptic_folder_lock_of_a_stuck_process_is_an_error(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr("pix2seqd.panoptic.folder.PATIENCE", 0.1)
    with FileLock(tmp_path / ".panoptic.json.lock"), pytest.raises(InputError, match="another process"):
        PanopticFolder(tmp_path, TAXONOMY, "x")


def test_clip_writer_refuses_the_folder_of_another(tmp_path):
    with (
        ClipWriter(tmp_path, TAXONOMY, {}, Fraction(10)),
        pytest.raises(InputError, match="another process writes"),
    ):
        ClipWriter(tmp_path, TAXONOMY, {}, Fraction(10))
    with ClipWriter(tmp_path, TAXONOMY, {}, Fraction(10)):
        pass
    assert not list(tmp_path.glob(".*"))
