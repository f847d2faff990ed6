"""The actions of a visitor, without gradio and without a browser."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fake_segmenter import TAXONOMIES, draw

from pix2seqd.files import InputError
from pix2seqd.page import viewer
from pix2seqd.page.limits import Turns
from pix2seqd.page.work import UNDO, Work
from pix2seqd.panoptic.panoptic import Panoptic

TAXONOMY = TAXONOMIES["nuclei"]
NUCLEUS, BACKGROUND = 1, 2


@pytest.fixture
def work(tmp_path):
    """An image of 40 x 30 with nuclei 1 and 2 on background 3."""
    opened = Work.open(draw(tmp_path / "a.png"), "mine.png", TAXONOMY, 10_000)
    segmentation = np.full((30, 40), 3)
    segmentation[5:9, 3:7] = 1
    segmentation[5:9, 9:13] = 2
    return opened.changed(Panoptic.from_segmentation(segmentation, {1: 1, 2: 1, 3: 2}, TAXONOMY))


def areas(work):
    return {segment.id: segment.area for segment in work.panoptic.segments}


def click(work, x, y):
    """A click with Shift."""
    return work.drawn("add", [[x, y]], 0, NUCLEUS)


def test_work_click_selects_and_with_shift_adds_and_removes(work):
    both = click(click(work, 4, 6), 10, 6)
    assert both.selected == (1, 2)
    assert click(both, 4, 6).selected == (2,)
    assert both.drawn("select", [[4, 6]], 0, NUCLEUS).selected == (1,)
    assert both.drawn("select", [[1, 1]], 0, NUCLEUS).selected == (3,), "stuff too"
    assert click(work.changed(Panoptic(np.zeros((30, 40), np.int32), (), TAXONOMY)), 1, 1).selected == ()


def test_work_paint_starts_and_extends_a_segment(work):
    painted = work.drawn("paint", [[20.5, 20.5]], 1, NUCLEUS)
    assert areas(painted)[4] == 5 and painted.selected == (4,) and painted.kept == {4}
    longer = painted.drawn("paint", [[20.5, 20.5], [30.5, 20.5]], 1, NUCLEUS)
    assert areas(longer)[4] > 30 and longer.panoptic.segments[-1].id == 4


def test_work_select_of_the_selected_segment_clears_the_selection(work):
    one = work.drawn("select", [[4, 6]], 0, NUCLEUS)
    assert one.selected == (1,) and one.drawn("select", [[4, 6]], 0, NUCLEUS).selected == ()


@pytest.mark.parametrize(
    ("tool", "selected", "category", "message"),
    [
        ("paint", [(1, 1)], NUCLEUS, "this is background already; for a new segment click it with Select, so that"),
        ("paint", [], BACKGROUND, "this is background already; for a new segment choose its class, and paint"),
        ("paint", [(4, 6), (10, 6)], NUCLEUS, "2 segments are selected; select one of them to paint into it, or none"),
    ],
)
def test_work_stroke_without_effect_says_what_to_do(work, tool, selected, category, message):
    for x, y in selected:
        work = click(work, x, y)
    with pytest.raises(InputError, match=message):
        work.drawn(tool, [[20, 20]], 2, category)


def test_work_stroke_beside_the_image_says_so(work):
    with pytest.raises(InputError, match="beside the image"):
        work.drawn("paint", [[500, 500]], 2, NUCLEUS)


def test_work_categories_of_another_model_clear_what_can_be_undone(work):
    other = TAXONOMIES["other"]
    changed = work.changed(Panoptic.from_segmentation(np.ones((30, 40), int), {1: 1}, other))
    with pytest.raises(InputError, match="nothing to undo"):
        changed.undone()
    assert changed.drawn("paint", [[20, 20]], 2, 2).undone().panoptic.segments[0].name == "cat"


def test_work_erase_marks_things_as_kept_but_not_stuff(work):
    erased = work.drawn("erase", [[2, 6], [6, 6]], 1, NUCLEUS)
    assert 0 < areas(erased)[1] < 16 and erased.kept == {1}
    assert (erased.panoptic.segmentation == 0).any()


def test_work_cut_divides_crossed_things(work):
    cut = work.drawn("cut", [[2, 7], [14, 7]], 30, NUCLEUS)
    assert areas(cut) == {1: 12, 2: 12, 3: areas(work)[3], 4: 4, 5: 4}
    assert cut.kept == set(cut.selected) == {1, 2, 4, 5}
    with pytest.raises(InputError, match="no thing"):
        work.drawn("cut", [[20, 20], [30, 20]], 1, NUCLEUS)


def test_work_buttons_act_on_the_selection(work):
    both = click(click(work, 4, 6), 10, 6)
    assert areas(both.merged()) == {1: 32, 3: areas(work)[3]}
    assert areas(both.relabelled(BACKGROUND)) == {3: 1200}
    assert areas(both.removed()) == {3: areas(work)[3]}
    kept = both.confirmed()
    assert kept.kept == {1, 2} and kept.changed(kept.panoptic, selected=(1, 2)).confirmed().kept == set()
    for action in (Work.merged, Work.split, Work.removed, Work.confirmed):
        with pytest.raises(InputError, match="select"):
            action(work)


def test_work_undo_restores_each_step_up_to_the_limit(work):
    one = work.drawn("erase", [[4, 6]], 3, NUCLEUS)
    two = click(one, 10, 6).removed()
    assert areas(two.undone()) == areas(one) and two.undone().kept == one.kept
    assert (two.undone().undone().panoptic.segmentation == work.panoptic.segmentation).all()
    start = two.undone().undone().undone()
    with pytest.raises(InputError, match="nothing to undo"):
        start.undone()
    for _ in range(2 * UNDO):
        one = one.drawn("erase", [[4, 6]], 3, NUCLEUS)
    assert len(one.past) == UNDO


def test_work_hints_are_kept_or_all_segments(work):
    with pytest.raises(InputError, match="nothing is corrected"):
        work.hints(everything=False)
    assert len(work.hints(everything=True).segments) == 3
    painted = work.drawn("paint", [[20, 20]], 2, NUCLEUS)
    assert [segment.id for segment in painted.hints(everything=False).segments] == [4]


@pytest.mark.parametrize(
    ("tool", "points", "radius"),
    [
        ("paint", [], 1),
        ("paint", None, 1),
        ("paint", [[1]], 1),
        ("paint", [["a", "b"]], 1),
        ("paint", [[1, float("nan")]], 1),
        ("paint", [[1, 1]], -1),
        ("paint", [[1, 1]], 1e9),
        ("paint", [[1, 1e300]], 1),
        ("paint", [[1, 1]] * 100_000, 1),
        ("explode", [[1, 1]], 1),
        (None, [[1, 1]], 1),
    ],
)
def test_work_drawn_refuses_invalid_values(work, tool, points, radius):
    with pytest.raises(InputError):
        work.drawn(tool, points, radius, NUCLEUS)


def test_work_drawn_refuses_unknown_category(work):
    with pytest.raises(InputError, match="unknown category"):
        work.drawn("paint", [[1, 1]], 1, 99)


def test_work_open_errors_have_the_uploaded_name(tmp_path):
    (tmp_path / "x").write_text("not an image")
    with pytest.raises(InputError, match=r"^holiday\.png is not an image") as caught:
        Work.open(tmp_path / "x", "holiday.png", TAXONOMY, 10_000)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match=r"holiday\.png has 200 x 100 pixels"):
        Work.open(draw(tmp_path / "b.png", size=(200, 100)), "holiday.png", TAXONOMY, 10_000)


def test_work_view_holds_image_ids_and_segments(work):
    shown = click(work, 4, 6).view(note="hello")
    assert shown["size"] == [40, 30] and shown["note"] == "hello"
    assert [(s["id"], s["name"], s["selected"]) for s in shown["segments"]] == [
        (1, "nucleus", True),
        (2, "nucleus", False),
        (3, "background", False),
    ]
    assert shown["image"].startswith("data:image/jpeg;base64,") and shown["ids"].startswith("data:image/png;base64,")


def test_show_encodes_large_ids_as_rows(tmp_path):
    import base64
    import io

    from PIL import Image

    segmentation = np.zeros((4, 3000), int)
    segmentation[:, 1000:2000], segmentation[:, 2000:] = 7, 16_000_000
    panoptic = Panoptic.from_segmentation(segmentation, {7: 1, 16_000_000: 1}, TAXONOMY)
    uri = viewer.show("data:,", panoptic)["ids"]
    rows = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert rows.shape[1] == viewer.MAX_SIDE
    assert rows[0, [0, 700, 1399], 0].tolist() == [0, 1, 2]


def test_turns_one_at_a_time_and_freed_by_a_left_request():
    turns, running, maximum = Turns(60), 0, 0

    def steps():
        nonlocal running, maximum
        for _ in range(5):
            running += 1
            maximum = max(maximum, running)
            time.sleep(0.002)
            running -= 1
            yield

    threads = [threading.Thread(target=lambda: list(turns.take(steps()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    next(left := turns.take(steps()))
    del left
    for thread in threads:
        thread.join(20)
    assert maximum == 1


def test_turns_stop_a_slow_request():
    with pytest.raises(InputError, match="stopped after 0 seconds"):
        list(Turns(0).take(iter([1])))


def test_count_warns_of_an_unfamiliar_image(work):
    pytest.importorskip("gradio", reason="needs the extra web")
    from pix2seqd.page.site import count

    assert count(work.panoptic) == count(replace(work.panoptic, ood_score=0.9)) == "2 things, 1 stuff"
    warned = count(replace(work.panoptic, ood_score=1.1))
    assert warned.startswith("2 things, 1 stuff · warning: the image looks unlike those that the model is made for")
    one = work.panoptic.select(lambda segment: segment.id == work.panoptic.things[0].id)
    assert count(one) == "1 thing, 0 stuff"
