"""A photo on the live page in a headless Chromium: chosen, dropped, and what is drawn of the answer."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.edge.serve.test_live_page import BROWSER, Browser
from tests.edge.serving import TOKEN, serving
from tests.edge.tasked import tasked_in

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")


@contextmanager
def opened(folder: Path, task: str, *arguments: str) -> Iterator[Browser]:
    """The page of a server of a task, which is ended too."""
    tasked_in(folder / task, task)
    with serving(folder / task, "--slo-ms", "1000", *arguments) as served:
        page = Browser(f"http://127.0.0.1:{served.port}/", folder / "profile")
        try:
            page.wait_for(lambda: page.text("connection") == "ready" or bool(arguments))
            yield page
        finally:
            page.close()


def file_in(folder: Path, kind: str = "png") -> Path:
    """40 x 20, red in its left half and blue in its right one."""
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    path = folder / f"photo.{kind}"
    image.save(path)
    return path


def choose(page: Browser, path: Path) -> str:
    """What the page says of a file that is chosen by its button."""
    page.evaluate("document.getElementById('told').textContent = ''; document.getElementById('file').value = ''")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])
    page.wait_for(lambda: page.text("told") not in ("", f"{path.name} …"))
    return page.text("told")


def pixel(page: Browser, x: int, y: int) -> list[int]:
    return page.evaluate(
        f"[...document.getElementById('shown').getContext('2d').getImageData({x}, {y}, 1, 1).data.slice(0, 3)]"
    )


def complaints(page: Browser) -> list[str]:
    """The page's own: it is these tests that read pixels back again and again."""
    return [each for each in page.problems if "readback" not in each]


def rows(page: Browser) -> list[list[str]]:
    """The texts of the table."""
    return page.evaluate(
        "[...document.querySelectorAll('#answer-rows tr')].map((tr) => [...tr.children].map((td) => td.textContent))"
    )


def test_boxes_lie_on_the_photo(tmp_path: Path) -> None:
    with opened(tmp_path, "detection") as page:
        said = choose(page, file_in(tmp_path))
        assert said.startswith("2 boxes from a score of 50 %: 1 rose, 1 sea (dense, ")
        assert page.evaluate("[shown.width, shown.height]") == [40, 20]
        assert pixel(page, 5, 10) == [255, 0, 0]
        assert pixel(page, 35, 10) == [0, 0, 255]
        places = page.evaluate(
            """(() => { const photo = document.getElementById('shown').getBoundingClientRect();
            return [...document.querySelectorAll('.box')].map((box) => { const at = box.getBoundingClientRect();
                return [box.textContent.split(' ')[0], (at.left - photo.left) / photo.width,
                    (at.right - photo.left) / photo.width, (at.bottom - at.top) / photo.height]; }); })()"""
        )
        found = {name: numbers for name, *numbers in places}
        assert found["rose"] == pytest.approx([0, 0.5, 1], abs=0.01)
        assert found["sea"] == pytest.approx([0.5, 1, 1], abs=0.01)
        assert sorted(row[0] for row in rows(page)) == ["rose", "sea"]
        assert "2 boxes" in page.evaluate("shown.getAttribute('aria-label')")
        page.evaluate("least.value = 0.9; least.dispatchEvent(new Event('input')); 1")
        assert page.text("told") == "0 boxes from a score of 90 %"
        assert page.evaluate("document.querySelectorAll('.box').length") == 0
        # What the browser does not show is answered all the same.
        page.evaluate("least.value = 0.5; 1")
        assert choose(page, file_in(tmp_path, "tif")).startswith("2 boxes")
        assert complaints(page) == []
        # On a phone nothing is wider than the screen.
        page.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_mask_is_blended_over_the_photo(tmp_path: Path) -> None:
    with opened(tmp_path, "segmentation") as page:
        said = choose(page, file_in(tmp_path))
        assert "red 50.0 %" in said
        assert "blue 50.0 %" in said
        assert pixel(page, 5, 10) == [255, 0, 0]  # class 0 is left as it is
        # Class 2 is (0, 128, 0), by 140 of 255 over blue.
        assert pixel(page, 35, 10) == pytest.approx([0, 70, 115], abs=2)
        assert {(row[0], row[1]) for row in rows(page)} == {("red", "50.0 %"), ("blue", "50.0 %")}
        assert complaints(page) == []


def test_labels_values_and_numbers_are_a_table(tmp_path: Path) -> None:
    for task, first, said in (
        ("classification", ["red", "49.8 %", ""], "red, 49.8 %"),
        ("regression", ["warm", "12.5"], "warm 12.5, cold 1"),
        ("own", ["maps", None], "2 outputs"),
    ):
        with opened(tmp_path / task, task) as page:
            assert choose(page, file_in(tmp_path)).startswith(said)
            assert all(wanted in (None, found) for wanted, found in zip(first, rows(page)[0], strict=True))
            assert page.evaluate("document.querySelectorAll('#answer-heads th').length") == len(first)
            assert complaints(page) == []


def test_a_photo_is_dropped_and_what_is_none_is_told(tmp_path: Path) -> None:
    with opened(tmp_path, "classification") as page:
        data = base64.b64encode(file_in(tmp_path).read_bytes()).decode()
        drop = """(bytes) => { const given = new DataTransfer();
            given.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], 'mine.png'));
            const event = new DragEvent('drop', { dataTransfer: given, bubbles: true, cancelable: true });
            document.getElementById('drop').dispatchEvent(event);
            return event.defaultPrevented; }"""
        assert page.evaluate(f"({drop})({data!r})")
        page.wait_for(lambda: "red, 49.8 %" in page.text("told"))
        assert "mine.png" in page.evaluate("shown.getAttribute('aria-label')")
        (tmp_path / "notes.png").write_text("no image")
        assert "no readable image" in choose(page, tmp_path / "notes.png")
        assert page.evaluate("result.hidden")


def test_the_place_is_reached_by_keyboard_and_has_a_name(tmp_path: Path) -> None:
    with opened(tmp_path, "detection") as page:
        choose(page, file_in(tmp_path))
        for name, label in (("file", "choose a photo, or drop one here"), ("least", "lowest score")):
            page.evaluate(f"document.getElementById({name!r}).focus()")
            assert page.evaluate("document.activeElement.id") == name
            assert page.evaluate(f"document.getElementById({name!r}).labels[0].textContent.trim()") == label
        assert page.evaluate("told.getAttribute('role')") == "status"
        assert page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0


def test_a_server_that_asks_for_its_token_gets_it(tmp_path: Path) -> None:
    with opened(tmp_path, "classification", "--token-for-all") as page:
        page.wait_for(lambda: page.evaluate("typeof predict") == "function")
        assert "needs the header" in choose(page, file_in(tmp_path))
        page.evaluate(f"token.value = {TOKEN!r}; 1")
        assert choose(page, file_in(tmp_path)).startswith("red, 49.8 %")
