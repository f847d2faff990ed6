import itertools

import pytest

from pix2seqd.panoptic.taxonomy import Category, Taxonomy, distinct_color

SKY = {"id": 200, "name": "sky", "isthing": 0, "color": [70, 130, 180]}
CAT = {"id": 17, "name": "cat", "isthing": 1, "color": [255, 0, 0]}


def test_classes_are_1_to_n_in_the_order_given_whatever_the_ids():
    taxonomy = Taxonomy.from_coco([SKY, CAT])
    assert [taxonomy.class_of(200), taxonomy.class_of(17)] == [1, 2]
    assert taxonomy.category(1).name == "sky" and taxonomy.category(2).name == "cat"
    assert not taxonomy.category(1).isthing and taxonomy.category(2).isthing


def test_coco_round_trip():
    taxonomy = Taxonomy.from_coco([SKY, CAT])
    assert Taxonomy.from_coco(taxonomy.to_coco()) == taxonomy


def test_kind_and_colour_may_be_missing():
    taxonomy = Taxonomy.from_coco([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    first, second = taxonomy.categories
    assert first.isthing and second.isthing
    assert first.color != second.color


@pytest.mark.parametrize("index", [0, 3, -1])
def test_a_class_outside_1_to_n_is_an_error(index):
    with pytest.raises(KeyError, match="outside"):
        Taxonomy.from_coco([SKY, CAT]).category(index)


def test_an_unknown_category_id_is_an_error_that_lists_the_known():
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
def test_inconsistent_categories_are_refused_with_the_reason(categories, reason):
    with pytest.raises(ValueError, match=reason):
        Taxonomy.from_coco(categories)


def test_a_taxonomy_is_a_value():
    one = Taxonomy((Category(1, "a", True, (1, 2, 3)),))
    assert one == Taxonomy((Category(1, "a", True, (1, 2, 3)),))
    assert len(one) == 1


def test_colours_of_neighbouring_indices_are_well_apart():
    colors = [distinct_color(i) for i in range(60)]
    assert len(set(colors)) == 60
    assert all(0 <= value <= 255 for color in colors for value in color)
    for one, other in itertools.pairwise(colors):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 80
