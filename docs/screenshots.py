"""Makes the pictures of a run's page in docs/page: `python -m docs.screenshots RUN`, from the root of the repository.

It needs what the tests of the page need: Chromium with its chromedriver.
"""

from __future__ import annotations

import base64
import shutil
import struct
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from self_pruner.agent.report.html_report import write_report
from self_pruner.agent.run_files.run_directory import RunDirectory
from tests.agent.report.page.browser import Browser, chromium

FOLDER = Path(__file__).parent / "page"
SIZE = (1060, 760)  # pixels
LEVELS = 17  # steps of 256 between two shades of a colour that are told apart: a picture stays below 80 KB
PICTURES = {  # places of the page by the names of their files
    "overview": "overview",
    "search": "search",
    "profile": "profile",
    "lineage": "lineage",
    "trace": "trace/{step}",  # the second in which the brain was asked: its plan, after it has learnt something
    "prompts": "prompts",
    "reproduce": "reproduce",
}
STEP = "[...document.querySelectorAll('.step')].filter((one) => one.querySelector('.badge.brain'))[1]"
PIXELS = """const [picture, done] = arguments;
fetch(`data:image/png;base64,${picture}`).then((one) => one.blob()).then(createImageBitmap).then((image) => {
  const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  const file = new FileReader();
  file.onload = () => done(file.result.split(',')[1]);
  file.readAsDataURL(new Blob([canvas.getImageData(0, 0, image.width, image.height).data]));
});"""


def main() -> None:
    """Write a picture of every tab of the run that is named."""
    (path,) = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, chromium() as browser:
        run = shutil.copytree(path, Path(folder) / Path(path).name, ignore=shutil.ignore_patterns("*.safetensors"))
        write_report(RunDirectory.open(run, strict=False))
        browser.look(*SIZE)
        browser.open(f"file://{run}/report.html#trace")
        step = browser.run(f"return ({STEP} || document.querySelector('.step')).id").removeprefix("step-")
        for name, place in PICTURES.items():
            browser.open(f"file://{run}/report.html#{place.format(step=step)}")
            (FOLDER / f"{name}.png").write_bytes(picture(browser))


def picture(browser: Browser) -> bytes:
    """What the browser shows, as a PNG with a palette."""
    shot = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    browser.driver.get("about:blank")  # the page itself fetches nothing
    width, height = SIZE
    raw = np.frombuffer(base64.b64decode(browser.driver.execute_async_script(PIXELS, shot)), np.uint8)
    shades = (raw.reshape(-1, 4)[:, :3].astype(np.uint16) + LEVELS // 2) // LEVELS
    _, indices = np.unique(shades, axis=0, return_inverse=True)
    rows = np.zeros((height, 1 + width), np.uint8)  # each behind the number of its filter, which is none
    rows[:, 1:] = indices.reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    counts = np.bincount(indices.ravel())
    palette = [np.bincount(indices.ravel(), raw[channel::4]) / counts for channel in range(3)]  # what is there most
    parts = {b"IHDR": header, b"PLTE": np.stack(palette, axis=1).round().astype(np.uint8).tobytes()}
    parts |= {b"IDAT": zlib.compress(rows.tobytes(), 9), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one))
        for kind, one in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


if __name__ == "__main__":
    main()
