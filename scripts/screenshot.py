"""Take the pictures of the workbench for the README and the docs: python scripts/screenshot.py

Starts `pod up` in a temporary workspace, trains on the digits in headless Chromium as a person would, draws a digit.
"""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "nbs" / "images"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
COMMAND = [sys.executable, "-c", "import sys; from lightning_pod.cli import main; sys.exit(main())"]
COMMAND += ["up", "--no-browser", "--port", "0"]
MOST_BYTES = 300_000


def train(page: Page) -> None:
    "Press the button and wait for the end."
    page.get_by_role("button", name="Start training").click()
    page.wait_for_selector(".pod-badge.done", timeout=240_000)
    page.wait_for_timeout(1500)  # the curves draw their last points


def tune(page: Page) -> None:
    "On the Tune tab: a study of twelve short trials, until its end."
    page.get_by_role("tab", name="Tune").click()
    panel = page.locator(".pod", has=page.locator(".pod-tune-start")).last
    for field, text in (("Model", "podnet_n"), ("Trials", "12"), ("Workers", "2")):
        panel.get_by_label(field).fill(text)
        panel.get_by_label(field).press("Tab")
    page.click(".pod-tune-start")
    panel.locator(".pod-badge.done").wait_for(timeout=300_000)
    page.wait_for_timeout(1500)


def draw_three(page: Page) -> None:
    "On the Infer tab, with the mouse."
    page.get_by_role("tab", name="Infer").click()
    pad = page.locator(".pod-pad")
    pad.wait_for()
    box = pad.bounding_box()
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] * 0.17
    bows = [(y - r, range(200, 451, 10)), (y + r, range(270, 521, 10))]  # the upper and the lower one
    turns = [(middle, math.radians(degrees)) for middle, bow in bows for degrees in bow]
    points = [(x + r * math.cos(a), middle + r * math.sin(a)) for middle, a in turns]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points:
        page.mouse.move(*point)
    page.mouse.up()
    page.wait_for_selector(".pod-probs")
    page.wait_for_timeout(1000)


def save(page: Page, name: str) -> None:
    "What the page shows as a PNG of few colours."
    file, box = IMAGES / name, page.locator(".pod").first.bounding_box()
    page.mouse.move(0, 0)
    height = box["y"] + box["height"] + 12
    page.screenshot(path=file, clip={"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height})
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{file} has {file.stat().st_size:,} bytes: expected at most {MOST_BYTES:,}")
    print(f"{file}: {file.stat().st_size:,} bytes")


def main() -> int:
    "All three pictures."
    if CHROMIUM is None:
        print("screenshot: no Chromium: apt-get install chromium", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (workspace := Path(folder) / "digits").mkdir()
        env = {**os.environ, "POD_WORKSPACE": str(workspace)}
        server = subprocess.Popen(COMMAND, env=env, cwd=workspace, stdout=subprocess.PIPE, text=True)
        try:
            line = server.stdout.readline()
            if not (address := re.search(r"http://[\d.]+:\d+/", line)):
                print(f"screenshot: pod up said {line!r}", file=sys.stderr)
                return 1
            with sync_playwright() as p:
                browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
                page = browser.new_page(viewport={"width": 1150, "height": 760}, device_scale_factor=2)
                page.goto(address[0])
                page.get_by_role("button", name="Start training").wait_for(timeout=120_000)
                train(page)
                save(page, "workbench.png")
                tune(page)
                save(page, "workbench-tune.png")
                draw_three(page)
                save(page, "workbench-infer.png")
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
