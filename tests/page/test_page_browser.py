"""Each tab in a real browser. Skipped without gradio, selenium or chromium."""

import time
from fractions import Fraction

import numpy as np
import pytest
from fake_segmenter import draw
from page_segmenter import PageSegmenter
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra web")
from browser import Browser
from selenium.webdriver import ActionChains

from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.images.frames import VideoWriter
from pix2seqd.page.server import serving

pytestmark = pytest.mark.slow
DEFAULTS = {"steps": 3, "min_pixels": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    draw(folder / "samples" / "squares.png", blobs=3, size=(120, 90))
    draw(folder / "samples" / "two.png", blobs=2, size=(120, 90))
    with VideoWriter(folder / "samples" / "moving.mp4", Fraction(10)) as writer:
        for shift in range(4):
            frame = np.full((48, 64, 3), 20, np.uint8)
            frame[10:20, 10 + shift : 22 + shift] = 220
            writer.write(Image.fromarray(frame), shift / 10)
    return folder


@pytest.fixture(scope="module")
def browser(folder):
    def load(name):
        return PageSegmenter(name, "other" if name == "shapes" else "nuclei")

    with (
        serving(load("nuclei-fast"), folder / "out", load=load, samples=folder / "samples", defaults=DEFAULTS) as url,
        Browser() as browser,
    ):
        browser.driver.get(url)
        yield browser
        assert browser.hosts() == {"127.0.0.1"}


def segment(browser):
    browser.tab("Image")
    browser.click("#samples button")
    browser.until(lambda: "120 x 90" in browser.note())
    browser.click("#segment")
    browser.until(lambda: "3 things, 1 stuff" in browser.note())


def segment_slowly(browser, monkeypatch):
    """Segment again, a second for each step; it has begun."""
    segment(browser)
    steps = PageSegmenter.progress
    monkeypatch.setattr(PageSegmenter, "progress", lambda *a, **k: (time.sleep(1) or step for step in steps(*a, **k)))
    browser.click("#segment")
    browser.until(lambda: "%" in browser.note())


def test_image_tab_segments_sample_and_names_segment_under_pointer(browser):
    segment(browser)
    ActionChains(browser.driver).move_to_element(browser.all(".stage")[0]).perform()
    browser.until(lambda: "background · id 4" in " ".join(e.text for e in browser.all(".tip")))
    assert browser.files() == [
        *("squares-overlay.png", "squares-panoptic.png", "squares-panoptic.json", "squares-measures.csv"),
        *("squares-labels.tif", "squares-instances.json", "squares-geojson.geojson", "squares-rois.zip"),
        "squares-labelme.json",
    ]


def test_correct_tab_paint_cut_merge_undo_complete_save(browser, folder):
    segment(browser)
    browser.tab("Correct")
    browser.click("[data-tool=paint]")
    browser.drag((0, 0.2), (0.2, 0.3))
    browser.until(lambda: "4 things, 1 stuff · 1 selected" in browser.note())
    browser.click("[data-tool=cut]")
    browser.drag((0.1, 0), (0.1, 0.49))
    browser.until(lambda: "5 things, 1 stuff · 2 selected" in browser.note())
    browser.click("button", "Merge")
    browser.until(lambda: "4 things, 1 stuff · 1 selected" in browser.note())
    browser.click("button", "Undo")
    browser.until(lambda: "5 things, 1 stuff" in browser.note())
    browser.click("button", "Merge")
    browser.until(lambda: any("two or more segments" in e.text for e in browser.all(".toast-body")))
    browser.click("#complete")
    browser.until(lambda: "completed" in browser.note())
    browser.click("#save")
    browser.until(lambda: "has 1 image now" in browser.driver.find_element("tag name", "body").text)
    sample = CocoPanoptic.open(folder / "out")[0]
    assert sample.name == "squares" and len(sample.panoptic.segments) >= 3


def choose(browser, model):
    browser.tab("Image")
    browser.click("#model input")
    browser.click(
        "[role=option]", f"✓ {model}" if browser.all("#model input")[0].get_property("value") == model else model
    )
    browser.until(lambda: browser.all("#model input")[0].get_property("value") == model)


def test_image_tab_chosen_model_gives_its_classes_to_all_tabs(browser):
    segment(browser)
    choose(browser, "shapes")
    browser.until(lambda: "drawn scenes with texture" in browser.all("#about")[0].text)
    assert "3 things, 1 stuff" in browser.note(), "the segmentation stays"
    browser.click("#segment")
    browser.tab("Correct")
    browser.until(lambda: browser.all("#category input")[0].get_property("value") == "cat")
    browser.tab("Clip")
    assert "shapes" in browser.all("#clip-model")[0].text
    choose(browser, "nuclei-fast")
    browser.until(lambda: "cell nuclei in microscopy" in browser.all("#about")[0].text)
    browser.tab("Clip")
    browser.until(lambda: "nuclei-video" in browser.all("#clip-model")[0].text)


def test_correct_tab_paint_without_effect_says_what_to_do(browser):
    segment(browser)
    browser.tab("Correct")
    browser.click("[data-tool=select]")
    browser.drag((0, 0.3))
    browser.until(lambda: "1 selected" in browser.note())
    browser.click("[data-tool=paint]")
    browser.drag((0, 0.2), (0.2, 0.3))
    browser.until(lambda: any("already; for a new segment" in e.text for e in browser.all(".toast-body")))


def test_uncertainty_tab_shows_disagreement_and_consensus(browser):
    segment(browser)
    browser.tab("Uncertainty")
    browser.click("#draw")
    browser.until(lambda: "4 samples disagree" in browser.driver.find_element("tag name", "body").text)
    assert "3 things" in browser.note()


def test_uncertainty_tab_forgets_the_image_before(browser):
    segment(browser)
    browser.tab("Uncertainty")
    browser.click("#draw")
    browser.until(lambda: "samples disagree" in browser.driver.find_element("tag name", "body").text)
    browser.tab("Image")
    browser.click("#samples button[aria-label='Thumbnail 2 of 2']")
    browser.until(lambda: "two.png · 120 x 90" in browser.note())
    browser.tab("Uncertainty")
    assert "samples disagree" not in browser.driver.find_element("tag name", "body").text
    browser.click("#take")
    browser.until(lambda: any("draw samples of this image first" in e.text for e in browser.all(".toast-body")))


def test_image_tab_new_image_ends_what_is_computed_for_the_one_before(browser, monkeypatch):
    segment_slowly(browser, monkeypatch)
    browser.click("#samples button[aria-label='Thumbnail 2 of 2']")
    browser.until(lambda: "two.png · 120 x 90" in browser.note())
    time.sleep(5)
    assert "two.png · 120 x 90" in browser.note()


def test_clip_tab_segments_and_tracks_sample(browser):
    browser.tab("Clip")
    browser.click("#clips input")
    browser.click("#segment-clip")
    browser.until(lambda: "frame 4 of 4" in browser.note())
    browser.until(lambda: browser.files() == ["overlay.mp4", "tracks.json", "clip.zip"])


def test_clip_tab_stop_offers_the_frames_that_are_done(browser, monkeypatch):
    frames = PageSegmenter.video
    monkeypatch.setattr(PageSegmenter, "video", lambda *a, **k: (time.sleep(2) or frame for frame in frames(*a, **k)))
    browser.tab("Clip")
    browser.click("#segment-clip")
    browser.until(lambda: "frame 2 of 4" in browser.note())
    browser.click("#stop-clip")
    browser.until(lambda: "the files hold the frames that are done" in browser.note())
    browser.until(lambda: browser.files() == ["overlay.mp4", "tracks.json", "clip.zip"])


def test_image_tab_refuses_file_that_is_not_an_image(browser, folder):
    (folder / "notes.png").write_text("not an image")
    browser.tab("Image")
    if browser.all("#image [aria-label='Remove Image']"):
        browser.click("#image [aria-label='Remove Image']")
    browser.until(lambda: browser.present("#image input[type=file]"))
    browser.present("#image input[type=file]")[0].send_keys(str(folder / "notes.png"))
    browser.until(lambda: any("notes.png is not an image" in e.text for e in browser.all(".toast-body")))


def test_image_tab_stop_restores_the_last_result(browser, monkeypatch):
    segment_slowly(browser, monkeypatch)
    browser.click("button", "Stop")
    browser.until(lambda: "stopped · 3 things, 1 stuff" in browser.note())
    time.sleep(5)
    assert "stopped" in browser.note()


def test_page_fits_the_width_of_a_phone(browser):
    segment(browser)
    browser.until(lambda: not browser.all(".toast-body"))  # they cover the tabs for some seconds
    browser.narrow(390, 844)
    for name in ("Image", "Correct", "Uncertainty", "Clip"):
        browser.tab(name)
        width = browser.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390, name
        buttons = [b for b in browser.all("button, .file a") if b.size["width"] > 1]
        low = {b.text or b.accessible_name: b.size["height"] for b in buttons if b.size["height"] < 40}
        assert not low, name
        cut = "return arguments[0].offsetHeight > arguments[0].parentNode.clientHeight"
        assert not any(browser.driver.execute_script(cut, b) for b in browser.all(".reset-button")), "cut off"
        cut = "return [...document.querySelectorAll('.file .stem')].some(n => n.scrollWidth > n.clientWidth + 1)"
        assert not browser.driver.execute_script(cut), "downloads with the same letters left of their names"
