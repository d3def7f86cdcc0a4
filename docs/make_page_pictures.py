"""Take the pictures of the page: docs/images/page-*.png.

    jensen serve runs/mnist runs/digits runs/credit --port 8080 &
    .venv/bin/python docs/make_page_pictures.py http://127.0.0.1:8080/ mnist digits credit

The runs are a VAE of pictures, a diffusion model of pictures and a VAE of a table. The script uses the widgets of the
page in Chromium, as a visitor would, and needs playwright and a chromium on the PATH.
"""

import io
import re
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

FOLDER = Path(__file__).resolve().parent / "images"
COLOURS = 256  # of a picture's palette
WAIT = 120_000  # milliseconds for an answer of a model


def panel(page: Page, title: str) -> Locator:
    """The section of that heading."""
    return page.get_by_role("region", name=title, exact=True)


def done(section: Locator, words: str) -> None:
    """Wait until the section says these words."""
    expect(section.get_by_role("status")).to_contain_text(words, timeout=WAIT)


def use_pictures(page: Page) -> None:
    """Draw samples, take one in hand, paint a hole, fill it in, go from one sample to another, show a film."""
    samples = panel(page, "Samples")
    samples.get_by_role("button", name="Draw samples").click()
    done(samples, "samples in")
    one = panel(page, "One picture")
    while not one.get_by_role("img", name=re.compile("with a mark at")).count():  # until the test split is scored
        one.get_by_role("button", name="Test example").click()
        done(one, "Answered in")
        page.wait_for_timeout(1000)
    hole = panel(page, "Fill in what is hidden")
    hole.get_by_role("button", name="Nothing").click()
    canvas = hole.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for k, x in enumerate((0.25, 0.5, 0.75, 0.75, 0.5, 0.25)):
        place = (box["x"] + x * box["width"], box["y"] + (0.55 if k < 3 else 0.8) * box["height"])
        page.mouse.move(*place, steps=8)
        if not k:
            page.mouse.down()
    page.mouse.up()
    hole.get_by_role("button", name="Fill in").click()
    done(hole, "Filled in")
    film, path = panel(page, "From noise to data"), panel(page, "From one picture to another")
    if film.count():
        film.get_by_role("button", name="Start the film").click()
        done(film, "pictures in")
        film.get_by_role("slider").fill(str(round(0.7 * float(film.get_by_role("slider").get_attribute("max") or 0))))
    if path.count():
        for button in path.get_by_role("button", name="Test example").all():
            button.click()
            expect(button).to_have_text("Test example", timeout=WAIT)
        done(path, "pictures in")


def use_table(page: Page) -> None:
    """Draw rows given a column, score some test rows, empty three cells and fill them in."""
    samples, own = panel(page, "Samples"), panel(page, "Your rows")
    samples.get_by_label("Number of rows").fill("6")
    samples.get_by_label("purpose").select_option("education")
    samples.get_by_label("age").fill("30")
    samples.get_by_role("button", name="Draw rows").click()
    done(samples, "rows in")
    own.get_by_role("button", name="Test rows").click()
    done(own, "5 rows")
    for cell in ("duration, row 1", "purpose, row 3", "credit_amount, row 4"):
        own.get_by_label(cell).fill("")
    own.get_by_role("button", name="Fill empty cells").click()
    done(own, "cells filled")


def take(page: Page, name: str, height: int | None = None) -> None:
    """Write docs/images/page-NAME.png, from the top to `height`, with a palette."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    scale = picture.width / page.evaluate("innerWidth")
    picture = picture.crop((0, 0, picture.width, min(picture.height, round(scale * (height or 10**5)))))
    path = FOLDER / f"page-{name}.png"
    picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def main(address: str, vae: str, diffusion: str, table: str) -> None:
    """Take all pictures."""
    shots = {
        "wide": (vae, {"viewport": {"width": 1280, "height": 900}}, None),
        "dark": (diffusion, {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}, None),
        "phone": (vae, {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2}, 1500),
        "table": (table, {"viewport": {"width": 1280, "height": 900}}, None),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, (run, look, height) in shots.items():
            page = browser.new_context(**look).new_page()
            page.goto(address)
            page.get_by_label("Model").select_option(run)
            (use_table if run == table else use_pictures)(page)
            take(page, name, height)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
