"""Measure what holds: kills, strange files, requests, memory and users at once, as in docs/reliability.md.

    python benchmarks/reliability.py kills|files|configs|requests|users

Each takes about two minutes. `requests` and `users` need the extra web.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "page")]

SAVE = """
import itertools, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from PIL import Image
from fake_segmenter import TAXONOMIES
from pix2seqd.page import editing
from pix2seqd.panoptic.panoptic import Panoptic

panoptic = Panoptic.from_segmentation(np.ones((64, 64), int), {1: 1}, TAXONOMIES["nuclei"])
print("ready", flush=True)
for number in itertools.count(int(sys.argv[3])):
    colour = (number % 256, number // 256 % 256, number // 65536)
    editing.append(Path(sys.argv[2]), "a.png", Image.new("RGB", (64, 64), colour), panoptic)
    print(number, flush=True)
"""


def kills(seconds: float = 90) -> str:
    """Two processes save into one folder; both are killed at a random moment, again and again."""
    from pix2seqd.data.coco import CocoPanoptic

    draw, killed, promised = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            commands = [[sys.executable, "-c", SAVE, TESTS, out, str(1000 * (killed + k))] for k in range(2)]
            running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
            for process in running:
                assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(draw.uniform(0.02, 1.5))
            for process in running:
                process.kill()
                promised += len(process.communicate()[0].split())
                killed += 1
            found = len(json.loads((out / "panoptic.json").read_text())["images"]) if promised else 0
            assert found >= promised, f"{promised - found} images are lost"
        dataset = CocoPanoptic.open(out)
        assert all(len(dataset[number].panoptic.segments) == 1 for number in range(len(dataset)))
    return f"{killed} SIGKILLs; {promised} images were reported as saved, all are there and whole"


def files(each: int = 200) -> str:
    """Damaged files of every kind, each read within 5 s and 1 GB."""
    done = subprocess.run(
        [sys.executable, TESTS / "strange_files.py", "0", str(each)], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [line for line in lines if "wrong" in line]
    number = sum(line.get("read", 0) for line in lines)
    return f"{number} files of {len(lines) - len(wrong)} kinds; {len(wrong)} without a result or a line {wrong or ''}"


def configs(each: int = 1000) -> str:
    """Random edits of the config.json of each bundled checkpoint: a model or one line, within 5 s."""
    from test_foreign_checkpoints import BUNDLED, NAMES, edited, load_in_time

    counts, began = Counter[type](), time.process_time()
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(BUNDLED / name, Path(folder) / "copy"))
            config = json.loads((copy / "config.json").read_text())
            for number in range(each):
                content = json.dumps(edited(config, random.Random(f"reliability {number}")))
                (copy / "config.json").write_text(content)
                counts[type(load_in_time(copy))] += 1
    lines, seconds = counts.pop(str), time.process_time() - began
    return f"{each} edits of each of {len(NAMES)} checkpoints: {counts.total()} models, {lines} lines; {seconds:.0f} s"


def requests(number: int = 500) -> str:
    """Open and segment images one after another; the memory of the server after every fifth of them."""
    from fake_segmenter import draw
    from page_segmenter import PageSegmenter
    from visitor import Visitor

    from pix2seqd.page.server import serving

    process, sizes, started = psutil.Process(), [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with serving(PageSegmenter(), place / "out", defaults={"steps": 2}) as url:
            source = draw(place / "a.png", blobs=3, size=(160, 120))
            for count in range(1, number // 2 + 1):
                visitor = Visitor(url)
                assert "error" not in visitor.open(visitor.upload(source))
                assert "error" not in visitor.call("segment", "click")
                visitor.http.close()
                if count % (number // 10) == 0:
                    sizes.append(round(process.memory_info().rss / 2**20))
    seconds = time.monotonic() - started
    return f"{number} requests of {number // 2} visitors in {seconds:.0f} s; memory in MB after each fifth: {sizes}"


def users(number: int = 50) -> str:
    """Visitors at the same time: each opens, segments and fetches the own results, and tries those of the others."""
    from fake_segmenter import draw
    from page_segmenter import PageSegmenter
    from visitor import Visitor

    from pix2seqd.page.limits import Limits
    from pix2seqd.page.server import serving

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with serving(PageSegmenter(), place / "out", defaults={"steps": 2}, limits=Limits(queue=2 * number)) as url:

            def visit(index: int) -> tuple[Visitor, list[str]]:
                visitor = Visitor(url)
                source = draw(place / f"{index}.png", blobs=2, size=(64 + index, 48))
                assert "error" not in visitor.open(visitor.upload(source))
                files = visitor.call("segment", "click")["data"][-1]
                return visitor, [file["path"] for file in files]

            with ThreadPoolExecutor(number) as pool:
                found = list(pool.map(visit, range(number)))
            own, others = Counter[int](), Counter[int]()
            for k, (visitor, paths) in enumerate(found):
                own.update(visitor.http.get(f"/gradio_api/file={path}").status_code for path in paths)
                foreign = found[(k + 1) % number][1]
                others.update(visitor.http.get(f"/gradio_api/file={path}").status_code for path in foreign)
    return f"{number} visitors at once, all answered; own results {dict(own)}, those of others {dict(others)}"


if __name__ == "__main__":
    print({"kills": kills, "files": files, "configs": configs, "requests": requests, "users": users}[sys.argv[1]]())
