"""Headless Chromium on the page, through selenium."""

import json
import shutil
import time
from urllib.parse import urlsplit

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


class Browser:
    """A browser window, and the actions of a visitor in it."""

    def __init__(self, width=1280, height=900):
        programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
        if not all(programs.values()):
            pytest.skip("needs chromium and chromedriver")
        options = webdriver.ChromeOptions()
        options.binary_location = programs["chromium"]
        quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
        for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={width},{height}", *quiet):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def narrow(self, width, height):
        """Make the page as narrow as on a phone; a window has a larger minimum."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def present(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return [e for e in self.present(selector) if e.is_displayed()]

    def until(self, condition, seconds=240):
        redrawn = [StaleElementReferenceException]  # between finding an element and looking at it
        WebDriverWait(self.driver, seconds, 0.2, redrawn).until(lambda _: condition())

    def click(self, selector, text=None):
        def clicked():
            for element in self.all(selector):
                if text in (None, element.text.strip()):
                    self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
                    element.click()
                    return True
            return False

        self.until(clicked)

    def tab(self, name):
        self.click("button[role=tab]", name)
        time.sleep(1)

    def files(self):
        """The names of the downloads. The page shows a name and its suffix as two texts."""
        return ["".join(e.text.split()) for e in self.all(".file .filename")]

    def note(self):
        return " ".join(e.text for e in self.all(".note"))

    def drag(self, *path):
        """Draw on the image. x, y are shares of its width and height from its middle, -0.5 to 0.5."""
        stage = self.all(".stage")[0]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
        size = stage.size
        actions = webdriver.ActionChains(self.driver, duration=30)
        for number, (x, y) in enumerate(path):
            actions.move_to_element_with_offset(stage, round(x * size["width"]), round(y * size["height"]))
            if number == 0:
                actions.click_and_hold()
        actions.release().perform()

    def hosts(self):
        """The hosts that the browser has contacted so far."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).hostname for url in urls if not url.startswith(("data:", "blob:", "chrome:"))}
