import itertools
import time

import pytest

from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Taxonomy, distinct_color

SKY = {"id": 200, "name": "sky", "isthing": 0, "color": [70, 130, 180]}
CAT = {"id": 17, "name": "cat", "isthing": 1, "color": [255, 0, 0]}


def test_class_of_follows_the_order_of_categories():
    taxonomy = Taxonomy.from_coco([SKY, CAT])
    assert [taxonomy.class_of(200), taxonomy.class_of(17)] == [1, 2]
    assert taxonomy.category(1).name == "sky" and taxonomy.category(2).name == "cat"
    assert not taxonomy.category(1).isthing and taxonomy.category(2).isthing


def test_from_coco_and_to_coco_round_trip():
    taxonomy = Taxonomy.from_coco([SKY, CAT])
    assert Taxonomy.from_coco(taxonomy.to_coco()) == taxonomy


def test_from_coco_default_kind_and_colour():
    taxonomy = Taxonomy.from_coco([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    first, second = taxonomy.categories
    assert first.isthing and second.isthing
    assert first.color != second.color


@pytest.mark.parametrize("index", [0, 3, -1])
def test_category_outside_1_to_n_is_an_error(index):
    with pytest.raises(KeyError, match="outside"):
        Taxonomy.from_coco([SKY, CAT]).category(index)


def test_class_of_unknown_id_is_an_error_with_known_ids():
    with pytest.raises(KeyError, match=r"18.*\[17, 200\]"):
        Taxonomy.from_coco([SKY, CAT]).class_of(18)


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        ([], "at least one"),
        ([SKY, {**CAT, "id": 200}], "id 200"),
        ([SKY, {**CAT, "name": "sky"}], "'sky'"),
        ([{**CAT, "id": 0}], "below 1"),
        ([{"name": "cat"}], "number 1"),
        ([SKY, {"id": "x", "name": "cat"}], "number 2"),
        ([SKY, "cat"], "number 2"),
        ([{**CAT, "color": [1, 2]}], "number 1"),
    ],
)
def test_from_coco_inconsistent_categories_is_an_error(categories, reason):
    with pytest.raises(ValueError, match=reason):
        Taxonomy.from_coco(categories)


def test_distinct_color_neighbouring_indices_differ():
    colors = [distinct_color(i) for i in range(60)]
    assert len(set(colors)) == 60
    assert all(0 <= value <= 255 for color in colors for value in color)
    for one, other in itertools.pairwise(colors):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 80


def test_taxonomy_40000_categories_takes_no_quadratic_time():
    began = time.process_time()
    taxonomy = Taxonomy.from_coco({"id": n, "name": f"c{n}"} for n in range(1, 40_001))
    assert time.process_time() - began < 3
    with pytest.raises(KeyError) as caught:
        taxonomy.class_of(0)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"name": "\x1b]0;owned\x07"}, "printable"),
        ({"name": "\x9b31m"}, "printable"),
        ({"name": "two\nlines"}, "printable"),
        ({"name": "x" * 1001}, "at most 1000"),
        ({"id": 2**31}, "above 2147483647"),
        ({"id": 10**400}, "above 2147483647"),
        ({"id": float("inf")}, "category number 1 is not understood"),
        ({"id": float("nan")}, "category number 1 is not understood"),
        ({"color": [0, 0, 256]}, "0 to 255"),
        ({"color": [0, -1, 0]}, "0 to 255"),
    ],
)
def test_taxonomy_from_coco_unusable_value(entry, says):
    with pytest.raises(ValueError, match=says) as caught:
        Taxonomy.from_coco([{"id": 1, "name": "cell", **entry}])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_taxonomy_names_of_other_scripts_are_kept():
    names = ["Zürich", "細胞 核", "नाभिक", "می‌خواهم", "👩‍🔬"]
    taxonomy = Taxonomy.from_coco({"id": n, "name": name} for n, name in enumerate(names, start=1))
    assert [category.name for category in taxonomy.categories] == names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("widow", "there is no class 'widow'; did you mean 'Window'? known: Window, car, 2, 3, 4, 5, "),
        ("WINDOW", "did you mean 'Window'?"),
        ("zebra", "there is no class 'zebra'; known: Window, car, 2"),
        ("", "there is no class ''; known: Window"),
    ],
)
def test_check_names_tells_the_nearest_and_no_endless_list(name, says):
    names = ["Window", "car", *map(str, range(2, 100))]
    taxonomy = Taxonomy.from_coco([{"id": i, "name": name} for i, name in enumerate(names, start=1)])
    with pytest.raises(InputError) as caught:
        taxonomy.check_names(["car", name])
    assert says in str(caught.value) and str(caught.value).endswith("19 and 80 more")
    taxonomy.check_names(names)
