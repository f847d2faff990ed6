import json

import numpy as np
import pytest

from pix2seqd.data import open_dataset
from pix2seqd.data.split import describe, divide, undivided
from pix2seqd.data.synthetic.shapes import TAXONOMY, Shapes
from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Taxonomy


def digests(count: int) -> list[bytes]:
    """Different ones."""
    return [np.random.default_rng(i).bytes(16) for i in range(count)]


def test_divide_holds_a_tenth_out_whatever_the_order():
    contents = digests(50)
    first, second = divide(contents)
    assert len(second) == 5 and sorted(first + second) == list(range(50))
    shuffled = [contents[i] for i in reversed(range(50))]
    assert {shuffled[i] for i in divide(shuffled)[1]} == {contents[i] for i in second}


def test_divide_keeps_equal_images_on_one_side():
    contents = digests(10) * 3
    first, second = divide(contents)
    assert len(second) == 3 and not {contents[i] for i in first} & {contents[i] for i in second}


@pytest.mark.parametrize("count", [2, 3, 9])
def test_divide_few_images_leaves_one_for_each_part(count):
    first, second = divide(digests(count))
    assert len(second) == 1 and len(first) == count - 1


def test_divide_one_content_is_in_both_parts():
    assert divide(digests(1) * 2) == ((0, 1), (0, 1))


def test_open_part_has_the_samples_and_the_order_of_classes(tmp_path):
    taxonomy = Taxonomy(tuple(reversed(TAXONOMY.categories)))
    names = [Shapes(4, (32, 32))[i].name for i in range(4)]
    (tmp_path / "data.json").write_text(json.dumps(describe(taxonomy, "shapes:4", "shapes:4", names, [1])))
    train, held_out = (open_dataset(f"split:{tmp_path / 'data.json'}@{part}", (32, 32)) for part in ("train", "eval"))
    assert [train[i].name for i in range(len(train))] == [names[i] for i in (0, 2, 3)]
    assert [held_out[i].name for i in range(len(held_out))] == [names[1]]
    assert train.taxonomy.categories[0].name == TAXONOMY.categories[-1].name
    assert train[0].panoptic.taxonomy == train.taxonomy


def test_open_part_of_changed_data_is_an_error(tmp_path):
    names = [Shapes(4, (32, 32))[i].name for i in range(4)]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(describe(TAXONOMY, "shapes:5", "shapes:5", names, [1])))
    with pytest.raises(InputError, match="other images than when"):
        open_dataset(f"split:{file}@train", (32, 32))
    file.write_text(json.dumps(describe(TAXONOMY, "shapes:4", "shapes:4", ["x", *names[1:]], [1])))
    with pytest.raises(InputError, match="other images than when"):
        open_dataset(f"split:{file}@train", (32, 32))[0]


@pytest.mark.parametrize("content", ["[]", "{}", '{"categories": [{"id": 1, "name": "a"}], "train": {}}', "no json"])
def test_open_part_damaged_file_is_a_one_line_error(tmp_path, content):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(InputError, match=r"data\.json"):
        open_dataset(f"split:{tmp_path / 'data.json'}@train", (32, 32))
    with pytest.raises(InputError, match=r"data\.json"):
        undivided(f"split:{tmp_path / 'data.json'}@eval")


def test_open_part_of_a_file_that_names_itself_is_a_one_line_error(tmp_path):
    source = f"split:{tmp_path / 'data.json'}@train"
    (tmp_path / "data.json").write_text(json.dumps(describe(TAXONOMY, source, source)))
    with pytest.raises(InputError, match=r"data\.json"):
        open_dataset(source, (32, 32))


@pytest.mark.parametrize("chosen", [[], [-1], [0, 4], [1e999], [None], "x"])
def test_open_part_chosen_samples_that_are_not_there_are_a_one_line_error(tmp_path, chosen):
    names = [Shapes(4, (32, 32))[i].name for i in range(4)]
    content = describe(TAXONOMY, "shapes:4", "shapes:4", names, [1])
    content["train"]["chosen"] = chosen
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"data\.json"):
        open_dataset(f"split:{tmp_path / 'data.json'}@train", (32, 32))
