"""The page at `/` and the documentation at `/docs`, in a real browser on a real export."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving.browser import look, open_browser
from serving.servers import Server, encode
from training.runs import TINY

from allconv_resnet.data.source import load_data
from allconv_resnet.serving.predict import predict_export
from allconv_resnet.training.exporting import export_run
from allconv_resnet.training.loop import train

pytestmark = pytest.mark.slow
UGLY = "<img src=x onerror=document.title='hacked'>.png"


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("page") / "run"
    assert train(TINY, run_dir) is None
    return export_run(run_dir).parent


@pytest.fixture(scope="module")
def address(export):
    with Server(export, "--name", "digits") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, address):
    """The page, just opened on a desktop. No other host is asked and nothing fails in it."""
    look(browser, "desktop", "light")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(address)
    wait(browser, lambda: browser.find_element(By.ID, "title").text == "digits")
    yield browser
    assert hosts(browser) <= {address}
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.fixture
def files(tmp_path):
    images = load_data("digits").arrays("test")[0]
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode(images[i]))
    return [tmp_path / f"{i}.png" for i in range(3)]


def wait(browser, condition, seconds=60):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def hosts(browser):
    """Returns the origins that the browser has asked since the last look."""
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return {"/".join(url.split("/")[:3]) for url in urls if not url.startswith(("blob:", "data:"))}


def answers(browser, count):
    """Waits for so many answers and returns them, the newest first, as (name, note, [(label, percent, width)])."""
    wait(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "article[data-state=done]")) == count)
    found = []
    for article in browser.find_elements(By.TAG_NAME, "article"):
        lines = [
            (
                line.find_element(By.CLASS_NAME, "label").text,
                float(line.find_element(By.CLASS_NAME, "probability").text.removesuffix(" %")),
                line.find_element(By.CSS_SELECTOR, ".bar div").rect["width"]
                / line.find_element(By.CLASS_NAME, "bar").rect["width"],
            )
            for line in article.find_elements(By.TAG_NAME, "li")
        ]
        found.append(
            (article.find_element(By.TAG_NAME, "h2").text, article.find_element(By.CLASS_NAME, "note").text, lines)
        )
    return found


def check(export, file, lines):
    """The page shows what `predict` says."""
    (expected,) = predict_export(export, [file])
    assert [label for label, _, _ in lines] == [each["label"] for each in expected["predictions"]]
    for (_, percent, width), each in zip(lines, expected["predictions"], strict=True):
        assert percent == pytest.approx(100 * each["probability"], abs=0.06)
        assert width == pytest.approx(each["probability"], abs=0.01)


TRANSFER = """
const transfer = new DataTransfer();
for (const [name, type, content] of arguments[1]) {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type }));
}
const kind = arguments[0] === "paste" ? ClipboardEvent : DragEvent;
const place = document.getElementById("drop");
const content = { clipboardData: transfer, dataTransfer: transfer };
const event = new kind(arguments[0], { bubbles: true, cancelable: true, ...content });
place.dispatchEvent(event);
"""


def give(browser, how, *files):
    """Drops or pastes files, triples of a name, a type and bytes."""
    browser.execute_script(TRANSFER, how, [(name, kind, base64.b64encode(it).decode()) for name, kind, it in files])


def test_several_images_at_once_with_bars_and_times(page, export, files):
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, files)))
    found = answers(page, 3)
    assert [name for name, _, _ in found] == ["0.png", "1.png", "2.png"]
    for file, (_, note, lines) in zip(files, found, strict=True):
        check(export, file, lines)
        assert re.fullmatch(r"32 x 32 pixels, \d+(\.\d)? ms", note)
    assert page.find_element(By.ID, "status").text == "3 images classified."
    page.find_element(By.ID, "clear").click()
    assert not page.find_elements(By.TAG_NAME, "article")


def test_drop_and_paste_also_what_is_neither_jpeg_nor_png(page, export, files, tmp_path):
    content = files[0].read_bytes()
    give(page, "drop", ("dropped.png", "image/png", content))
    ((_, _, lines),) = answers(page, 1)
    check(export, files[0], lines)
    give(page, "paste", ("image.png", "image/png", content))
    assert answers(page, 2)[0][0] == "Pasted image"
    image = Image.open(files[0])
    for kind in ("WEBP", "BMP", "GIF"):
        image.save(tmp_path / "it", kind, lossless=True)
        give(page, "drop", (f"it.{kind}", f"image/{kind.lower()}", (tmp_path / "it").read_bytes()))
    for _, note, lines in answers(page, 5)[:3]:
        assert "sent as 32 x 32 PNG" in note
        assert lines[0][0] == answers(page, 5)[3][2][0][0]
    give(page, "paste")
    assert page.find_element(By.ID, "status").text == "There is no image in the clipboard."


def test_a_photograph_that_lies_on_its_side_and_one_that_is_huge(page, export, tmp_path):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)).resize(
        (400, 600), 2
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.jpg", exif=exif, quality=98)
    page.find_element(By.ID, "files").send_keys(str(tmp_path / "side.jpg"))
    ((_, note, lines),) = answers(page, 1)
    assert note.startswith("400 x 600 pixels, ")
    check(export, tmp_path / "side.jpg", lines)
    shown = page.find_element(By.TAG_NAME, "img").rect
    assert shown["height"] > shown["width"]
    Image.new("RGB", (9000, 4000), "teal").save(tmp_path / "huge.png")  # the server would refuse so many pixels
    page.find_element(By.ID, "files").send_keys(str(tmp_path / "huge.png"))
    assert re.match(r"9000 x 4000 pixels, sent as 6144 x 2730 JPEG, \d+ ms", answers(page, 2)[0][1])


def test_the_camera(page):
    page.find_element(By.ID, "photograph").click()
    wait(page, lambda: page.execute_script("return document.getElementById('video').videoWidth") > 0)
    page.find_element(By.ID, "shoot").click()
    ((name, note, lines),) = answers(page, 1)
    assert name == "Photograph" and "pixels" in note and len(lines) == 5
    assert not page.find_element(By.ID, "camera").is_displayed()
    assert page.execute_script("return document.getElementById('video').srcObject.active") is False


def test_what_is_no_image_is_said_and_others_are_answered(page, files):
    cut = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))[:5000]
    give(
        page,
        "drop",
        ("text.png", "image/png", b"no image"),
        (UGLY, "image/png", files[1].read_bytes()),
        ("cut.png", "image/png", cut),
    )
    wait(page, lambda: "classified" in page.find_element(By.ID, "status").text)
    assert page.find_element(By.ID, "status").text in (
        "1 image classified, 2 images not.",
        "2 images classified, 1 image not.",
    )
    notes = {each.find_element(By.TAG_NAME, "h2").text: each.find_element(By.CLASS_NAME, "note").text
             for each in page.find_elements(By.TAG_NAME, "article")}  # fmt: skip
    assert notes["text.png"] == "This is not an image that the browser can read."
    assert "ms" in notes[UGLY] and page.title == "digits"
    page.get_log("browser")  # the server's 4xx is logged there


def test_the_model_card_is_shown_and_the_rest_works_with_the_keyboard_alone(page, files):
    def focused():
        return page.switch_to.active_element

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()

    page.execute_script(
        "document.getElementById('files').onclick = (e) => { e.preventDefault(); window.chosen = true; }"
    )
    order = []
    for _ in range(6):
        press(Keys.TAB)
        order.append(focused().get_attribute("id") or focused().text or focused().tag_name)
        outline = focused().value_of_css_property("outline-style")
        assert outline == "solid", order
        if order[-1] == "choose":
            press(Keys.ENTER)
            assert page.execute_script("return window.chosen")
        if order[-1] == "Model card":
            assert not page.find_element(By.ID, "card-text").is_displayed()
            press(Keys.SPACE)
            text = page.find_element(By.ID, "card-text").text
            assert "Intended use and limits" in text and "network.signatures" in text and "CC BY 4.0" in text
    assert order == ["choose", "photograph", "Model card", "API documentation", "openapi.json", "Metrics"]
    give(page, "drop", ("a.png", "image/png", files[0].read_bytes()))
    answers(page, 1)
    page.find_element(By.ID, "photograph").send_keys("")  # focus
    page.execute_script("document.getElementById('photograph').focus()")
    press(Keys.TAB, Keys.TAB)
    assert focused().get_attribute("aria-label") == "Remove a.png"
    press(Keys.ENTER)
    assert not page.find_elements(By.TAG_NAME, "article") and focused().get_attribute("id") == "choose"


def test_a_phone_photographs_with_its_own_camera(page):
    look(page, "phone", "light")
    page.execute_script(
        "document.getElementById('capture').onclick = (e) => { e.preventDefault(); window.taken = true; }"
    )
    page.find_element(By.ID, "photograph").click()
    assert page.execute_script("return window.taken")
    assert page.find_element(By.ID, "capture").get_attribute("capture") == "environment"


CONTRASTS = """
const luminance = (color) => {
  const parts = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
  const [r, g, b] = parts.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const color = getComputedStyle(element).backgroundColor;
  if (color !== "rgba(0, 0, 0, 0)") return color;
  return element.parentElement ? behind(element.parentElement) : "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("h1, h2, p, button, a, .label, .probability, summary, td")]
  .filter((e) => e.offsetParent && e.textContent.trim())
  .map((e) => [luminance(getComputedStyle(e).color), luminance(behind(e))])
  .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
"""


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_and_colours(page, files, size, scheme, tmp_path):
    look(page, size, scheme)
    give(page, "drop", *((f"{'a-long-name' * 8}.png", "image/png", file.read_bytes()) for file in files))
    answers(page, 3)
    page.find_element(By.TAG_NAME, "summary").click()
    width = page.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1] == {"desktop": 1280, "phone": 390}[size]
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 30 and min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3
    back = page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) > 384) == (scheme == "light")
    for button in page.find_elements(By.CSS_SELECTOR, ".buttons button"):
        assert not button.is_displayed() or button.rect["height"] >= 44


def test_the_documentation_works_without_any_other_host(browser, address):
    look(browser, "desktop", "light")
    browser.get_log("performance")
    browser.get(f"{address}/docs")
    wait(browser, lambda: len(browser.find_elements(By.CLASS_NAME, "opblock")) == 5)
    assert "/v1/models/digits:predict" in browser.find_element(By.TAG_NAME, "body").text
    assert hosts(browser) == {address}


def test_with_an_api_key(browser, export, files, tmp_path):
    (tmp_path / "keys").write_text("the key\n")
    with Server(export, "--name", "digits", "--api-key-file", tmp_path / "keys") as server:
        browser.get(f"http://127.0.0.1:{server.port}")
        key = browser.find_element(By.ID, "key")
        wait(browser, key.is_displayed)
        assert "Authorization" in browser.find_element(By.ID, "status").text
        key.send_keys("the key", Keys.TAB)
        wait(browser, lambda: browser.find_element(By.ID, "title").text == "digits")
        browser.find_element(By.ID, "files").send_keys(str(files[0]))
        check(export, files[0], answers(browser, 1)[0][2])
