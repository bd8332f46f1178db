"""Makes the pictures in docs/page: `python -m docs.screenshots RUN [RESULTS]`, from the root of the repository.

RUN is a run's directory, RESULTS the `results.json` of a comparison; either of them may be left out.
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

from self_pruner.agent.compare.page import render
from self_pruner.agent.compare.results import Results
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
OF_A_COMPARISON = {"comparison": "overview", "curves": "curves"}
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
    """Write a picture of every tab of the run that is named, and of two of the comparison."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, chromium() as browser:
        browser.look(*SIZE)
        for named in map(Path, sys.argv[1:]):
            page, places = (of_run if named.is_dir() else of_comparison)(named, Path(folder), browser)
            for name, place in places.items():
                browser.open(f"file://{page}#{place}")
                (FOLDER / f"{name}.png").write_bytes(picture(browser))


def of_run(path: Path, folder: Path, browser: Browser) -> tuple[Path, dict[str, str]]:
    """The page of a copy of a run, and its places by the names of their pictures."""
    run = shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("*.safetensors"))
    write_report(RunDirectory.open(run, strict=False))
    page = run / "report.html"
    browser.open(f"file://{page}#trace")
    step = browser.run(f"return ({STEP} || document.querySelector('.step')).id").removeprefix("step-")
    return page, {name: place.format(step=step) for name, place in PICTURES.items()}


def of_comparison(results: Path, folder: Path, browser: Browser) -> tuple[Path, dict[str, str]]:
    """The same of a comparison."""
    page = folder / "compare.html"
    page.write_text(render(Results.model_validate_json(results.read_text(encoding="utf-8"))))
    return page, OF_A_COMPARISON


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
