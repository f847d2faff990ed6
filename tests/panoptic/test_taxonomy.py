import itertools

import pytest

from pix2seqd.panoptic.taxonomy import Category, Taxonomy, distinct_color

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


def test_taxonomy_equality_and_length():
    one = Taxonomy((Category(1, "a", True, (1, 2, 3)),))
    assert one == Taxonomy((Category(1, "a", True, (1, 2, 3)),))
    assert len(one) == 1


def test_distinct_color_neighbouring_indices_differ():
    colors = [distinct_color(i) for i in range(60)]
    assert len(set(colors)) == 60
    assert all(0 <= value <= 255 for color in colors for value in color)
    for one, other in itertools.pairwise(colors):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 80
