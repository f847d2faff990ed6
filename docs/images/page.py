"""Make page.png: the page in headless Chromium, on the sample image. Needs the extra web, selenium, chromium."""

import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "page"))

from browser import Browser  # noqa: E402
from selenium.webdriver import ActionChains  # noqa: E402

from pix2seqd.config import DEFAULT_MODEL  # noqa: E402
from pix2seqd.page.server import serving  # noqa: E402
from pix2seqd.segmenter import Segmenter  # noqa: E402

segmenter = Segmenter.from_pretrained(DEFAULT_MODEL)
with (
    tempfile.TemporaryDirectory() as out,
    serving(segmenter, Path(out), load=Segmenter.from_pretrained, samples=ROOT / "examples") as url,
    Browser(1280, 900) as browser,
):
    browser.driver.get(url)
    browser.click("#samples button")
    browser.until(lambda: "512" in browser.note())
    browser.click("#segment")
    browser.until(lambda: "things" in browser.note())
    browser.driver.execute_script("window.scrollTo(0, 0)")
    time.sleep(1)
    ActionChains(browser.driver).move_to_element_with_offset(browser.all(".stage")[0], 9, -90).perform()
    time.sleep(1)
    shot = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
    shot.convert("RGB").quantize(128).save(HERE / "page.png", optimize=True)
