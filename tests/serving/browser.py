"""Chromium without a window, as a person's browser."""

import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def open_browser(directory, size="desktop", scheme="light"):
    """Starts a browser that may talk to this machine alone.

    Args:
        directory: Path of its files.
        size: `"desktop"` or `"phone"`, which also has a touch screen.
        scheme: `"light"` or `"dark"`.
    """
    if not (CHROMIUM and DRIVER):
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--use-fake-ui-for-media-stream",  # the camera is allowed,
        "--use-fake-device-for-media-stream",  # and shows a test pattern
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # no other host exists
        f"--user-data-dir={directory}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    browser.set_page_load_timeout(60)
    look(browser, size, scheme)
    return browser


def look(browser, size, scheme):
    """Gives the browser a size and a colour scheme."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": size == "phone"})
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
