"""A headless Chromium that looks at the Dagster UI as a person would: by what stands on the page.

Debian's ``chromium`` and ``chromium-driver`` are used as they are installed; nothing is downloaded. Every
look waits for what it looks for, so a page may take its time and nothing sleeps.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from testbench_dagster_tests.servers import ServerMissing

WINDOW = (1500, 950)
WITHIN_S = 120.0
"""Pages of a busy machine take seconds; what is not there by then is missing."""
SCREENSHOTS_ENV = "TESTBENCH_SCREENSHOTS"
"""Folder that screenshots for the docs are written to; without it none are taken."""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root, which Chromium's sandbox refuses
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_LOOK_EVERY_S = 0.4
_NUMBER = re.compile(r"[0-9]+")
_LOADING = "//*[contains(@class, 'Skeleton') or contains(@class, 'shimmer')]"
T = TypeVar("T")


def binary(program: str, variable: str) -> str:
    """``$variable``, else the program on the PATH."""
    for candidate in (os.environ.get(variable), shutil.which(program)):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise ServerMissing(
        f"no {program} in ${variable} or on the PATH; apt-get install chromium chromium-driver"
    )


class Browser:
    """One window over one platform; paths are those of its UI. What is waited for in vain is photographed."""

    def __init__(self, driver: webdriver.Chrome, base_url: str, folder: Path) -> None:
        self.driver = driver
        self.base_url = base_url
        self.folder = folder

    # -- looking ----------------------------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Go to a page of the UI, from scratch."""
        self.driver.get(f"{self.base_url}{path}")

    def text(self) -> str:
        """What can be read on the page."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def until(self, what: str, look: Callable[[], T], within_s: float = WITHIN_S) -> T:
        """Look until there is something; elements that React replaces meanwhile are looked for again."""
        waiting: WebDriverWait[webdriver.Chrome] = WebDriverWait(
            self.driver,
            within_s,
            poll_frequency=_LOOK_EVERY_S,
            ignored_exceptions=[StaleElementReferenceException],
        )
        try:
            return waiting.until(lambda _: look())
        except TimeoutException:
            picture = self.folder / f"missing-{time.time_ns()}.png"
            self.driver.save_screenshot(str(picture))
            raise AssertionError(
                f"waited {within_s:.0f} s in vain for {what} at {self.driver.current_url}; "
                f"screenshot: {picture}; the page says: {self.text()[:3000]!r}"
            ) from None

    def all(self, xpath: str) -> list[WebElement]:
        """The elements that can be seen now; none is an answer too."""
        return [found for found in self.driver.find_elements(By.XPATH, xpath) if found.is_displayed()]

    def get(self, xpath: str, what: Callable[[WebElement], T], *, hidden: bool = False) -> T:
        """Something of the first such element, once there is one; ``hidden`` ones count only if asked for."""

        def look() -> list[T]:
            found = self.driver.find_elements(By.XPATH, xpath) if hidden else self.all(xpath)
            return [what(element) for element in found[:1]]

        return self.until(xpath, look)[0]

    def read(self, *words: str, within_s: float = WITHIN_S) -> str:
        """The page's text, as soon as it holds all the words."""

        def look() -> str | None:
            text = self.text()
            return text if all(word in text for word in words) else None

        found = self.until(f"the words {words}", look, within_s)
        assert found is not None
        return found

    # -- acting -----------------------------------------------------------------------------------------

    def click(self, xpath: str, within_s: float = WITHIN_S) -> None:
        """Click an element once it can be seen and nothing covers it."""

        def look() -> bool:
            for found in self.all(xpath):
                if found.is_enabled():
                    with contextlib.suppress(ElementClickInterceptedException):
                        found.click()
                        return True
            return False

        self.until(f"a click on {xpath}", look, within_s)

    def write(self, xpath: str, text: str) -> None:
        """Type into a field."""
        self.get(xpath, lambda field: field.send_keys(text))

    def escape(self) -> None:
        """Close the menu on top."""
        ActionChains(self.driver).send_keys(Keys.ESCAPE).perform()

    # -- pictures ---------------------------------------------------------------------------------------

    def settled(self) -> None:
        """Wait until two looks in a row find the same page, numbers aside, and nothing loading."""
        seen: list[str] = []

        def look() -> bool:
            seen.append(_NUMBER.sub("#", self.text()))
            return len(seen) > 1 and seen[-1] == seen[-2] and not self.all(_LOADING)

        self.until("the page to come to rest", look)

    def picture(self, name: str) -> None:
        """A screenshot for the docs, where `SCREENSHOTS_ENV` names a folder for them."""
        folder = os.environ.get(SCREENSHOTS_ENV)
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.settled()
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    @contextlib.contextmanager
    def sized(self, width: int, height: int) -> Iterator[None]:
        """Another size of the window, for a while."""
        self.driver.set_window_size(width, height)
        try:
            yield
        finally:
            self.driver.set_window_size(*WINDOW)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A new browser with its profile in an empty folder; raises ServerMissing where there is none."""
    options = Options()
    options.binary_location = binary("chromium", "CHROMIUM_BIN")
    service = Service(binary("chromedriver", "CHROMEDRIVER_BIN"))
    for flag in (*_FLAGS, f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()
