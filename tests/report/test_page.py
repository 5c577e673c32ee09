import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from prunit.edge.comparing.verdicts import KINDS, told, verdicts
from prunit.edge.portfolio import Portfolio
from prunit.errors import FileError, MissingExtraError, UnknownNameError
from prunit.report import numbers, write_report
from tests.report.portfolios import HISTORY, dense, latency, mixed, portfolio, usual, variant

NASTY = "<script>alert(1)</script>\"'&<img src=https://x.org onerror=alert(1)>"
LOADING = {"src", "href", "data", "action", "poster", "srcset", "background", "ping", "formaction", "manifest"}


@dataclass
class Page(HTMLParser):
    """What a browser would find in a page: elements with their attributes, scripts by type, and the text shown."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: list[tuple[str, str]] = field(default_factory=list)
    style: str = ""
    shown: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            kind, source = self.scripts[-1]
            self.scripts[-1] = (kind, source + data)
        elif self.inside == "style":
            self.style += data
        else:
            self.shown += data.replace(numbers.SPACE, " ")

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(next(source for kind, source in self.scripts if kind == "application/json"))


def page_of(found: Portfolio, folder: Path, histories: dict[str, list[Any]] | None = None) -> Page:
    page = Page()
    page.feed(write_report(found, folder, histories=histories).read_text("utf-8"))
    return page


@pytest.fixture(scope="module")
def usual_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(usual(), tmp_path_factory.mktemp("report"), {"half": HISTORY, "dense": HISTORY})


def test_the_page_says_what_was_built_and_measured(usual_page: Page):
    for text in (
        "resnet20 on cifar10: 4 variants",
        "4.0× smaller on disk",
        "cifar10, 10 classes",
        "Test CPU, 2 cores",
        "onnxruntime 1.2",
        "2026-07-04 12:31 UTC",
        "1 thread, n = 500",
        "−2.0 points",
        "dominated by half",
        "score synflow",
        "rectifier reinit",
        "params=1/4",
        "1.5 min",
        "0123456789ab",
        "pixel / 255",
    ):
        assert text in usual_page.shown, text


def test_each_plot_has_its_place_and_its_description(usual_page: Page):
    places = {attributes["id"]: attributes for attributes in usual_page.all("div") if attributes.get("role") == "img"}
    assert places.keys() == usual_page.data["figures"].keys()
    assert list(places) == [
        "accuracy-file_bytes",
        "accuracy-macs",
        "accuracy-latency_ms",
        "accuracy-train_seconds",
        "widths-0",
        "training-0",
        "training-1",
    ]
    assert all(attributes.get("aria-label") for attributes in places.values())


def test_the_chooser_offers_every_variant_and_begins_with_the_one_of_the_headline(usual_page: Page):
    options = list(usual_page.all("option"))
    assert [option["value"] for option in options] == ["0", "1", "2", "3"]
    assert ["selected" in option for option in options] == [False, False, False, True]
    assert usual_page.data["notes"][3].startswith("“quarter” keeps 17 of 48 channels")
    assert len(usual_page.data["figures"]["widths-0"]["choices"]) == 4


def test_tables_have_captions_and_headings_and_can_be_scrolled_by_key(usual_page: Page):
    assert len(list(usual_page.all("caption"))) == len(list(usual_page.all("table"))) == 4
    assert all(attributes.get("scope") for attributes in usual_page.all("th"))
    regions = [attributes for attributes in usual_page.all("div") if attributes.get("role") == "region"]
    assert len(regions) == 4
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)


def test_verdicts_stand_between_the_headline_and_the_facts(tmp_path: Path, usual_page: Page):
    page = page_of(mixed(), tmp_path)
    places = [page.shown.index(said) for said in ("no measurable difference", "“slow” is 1.25× slower", "Test CPU")]
    assert places == sorted(places)
    for kind, sentence in told(verdicts(mixed())):
        assert KINDS[kind] in page.shown
        assert sentence in page.shown
    # In the portfolio without answers one is beaten, and that is all there is to say.
    assert [attributes["aria-label"] for attributes in usual_page.all("ul")] == ["What to know of single variants"]
    assert "verdicts" not in {a.get("class") for _, a in page_of(portfolio(dense()), tmp_path).elements}


def test_differences_have_a_table_with_their_intervals(tmp_path: Path, usual_page: Page):
    shown = page_of(mixed(), tmp_path).shown
    for text in ("Differences and their intervals", "−0.5 points−1.7 to +0.7no15201,000", "only dense is"):
        assert text in shown
    assert "Differences and their intervals" not in usual_page.shown


def test_nothing_is_loaded_from_anywhere(usual_page: Page):
    for tag, attributes in usual_page.elements:
        assert not LOADING & attributes.keys(), tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert not {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in usual_page.elements}
    assert not re.search(r"url\(|@import", usual_page.style)


def test_the_browser_is_told_to_run_these_two_scripts_and_to_load_nothing(usual_page: Page):
    (meta,) = (attributes for attributes in usual_page.all("meta") if "http-equiv" in attributes)
    policy = dict(rule.strip().split(" ", 1) for rule in (meta["content"] or "").split(";"))
    code = [source for kind, source in usual_page.scripts if not kind]
    hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in code]
    assert policy.keys() == {"default-src", "script-src", "style-src", "img-src"}
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].split() == [f"'sha256-{value}'" for value in hashes]
    assert "plotly.js" in code[0][:1000]
    assert len(code) == 2


def test_names_are_shown_letter_by_letter_and_never_run(tmp_path: Path):
    widths = {NASTY: (4, 2)}
    nasty = variant(NASTY, latencies=(latency(1),), widths=widths)
    page = page_of(portfolio(dense(), nasty, name=NASTY, model=NASTY), tmp_path, {NASTY: HISTORY})
    assert [kind for kind, _ in page.scripts] == ["application/json", "", ""]
    assert "img" not in {tag for tag, _ in page.elements}
    assert f"“{NASTY}” is" in page.shown
    assert [button["data-curve"] for button in page.all("button")] == [NASTY]
    figures = page.data["figures"]
    assert not re.search(
        "<(?!/?b>|br>)", json.dumps([figures["widths-0"], figures["training-0"]["data"][0]["hovertext"]])
    )
    assert "&lt;script&gt;" in figures["accuracy-macs"]["data"][-1]["hovertext"][0]


@pytest.mark.parametrize(
    ("found", "texts", "plots"),
    [
        (portfolio(), ["0 variants", "holds no variant yet"], set()),
        (portfolio(dense()), ["Only the dense model", "No latency at batch 1 yet"], {"accuracy-macs", "widths-0"}),
        (portfolio(dense(accuracy=None)), ["No accuracy was measured", "accuracy not measured"], {"widths-0"}),
        (portfolio(variant("a", widths={"conv": (8, 4)})), ["keeps 4 of 8", "in 1 group."], {"widths-0"}),
        (portfolio(variant("a", widths={})), ["No dense model to compare with"], {"accuracy-macs"}),
        (portfolio(dense(accuracy=0.5), variant("a", accuracy=None)), ["for want of a measured accuracy: 1"], set()),
    ],
)
def test_whatever_is_missing_is_said_and_the_rest_is_shown(
    found: Portfolio, texts: list[str], plots: set[str], tmp_path: Path
):
    page = page_of(found, tmp_path)
    shown = page.shown + " ".join(page.data["notes"])
    for text in texts:
        assert text in shown
    assert plots <= page.data["figures"].keys()
    if not found.variants:
        assert page.data == {"figures": {}, "notes": []}


def test_thirty_variants_have_a_row_and_a_training_each(tmp_path: Path):
    variants = [variant(f"v{i}", accuracy=0.5 + i / 100, cost=1000 * (i + 1)) for i in range(29)]
    found = portfolio(dense(cost=10**6), *variants)
    page = page_of(found, tmp_path, {variant.name: HISTORY for variant in found.variants})
    assert len(list(page.all("option"))) == len(list(page.all("button"))) == 30


def test_a_history_of_no_variant_is_refused(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="unknown variant 'halv'; did you mean 'half'"):
        write_report(usual(), tmp_path, histories={"halv": HISTORY})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_older_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_report(usual(), tmp_path)
    before = path.read_bytes()

    def no_room(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(FileError, match=r"cannot write .*report.html.*No space left"):
        write_report(portfolio(dense()), tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_without_plotly_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(
        MissingExtraError, match=r"the report needs the package 'plotly': pip install 'prunit\[train\]'"
    ):
        write_report(usual(), tmp_path)


def colours(theme: str) -> dict[str, str]:
    """The page's colours by name; `theme` is the rule that holds them."""
    style = files("prunit.report").joinpath("page.css").read_text("utf-8")
    rule = style[style.index(theme) :]
    return dict(re.findall(r"--([\w-]+): (#\w{6});", rule[: rule.index("}")]))


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [":root {", ":root:not([data-print]) {"])
def test_text_and_lines_stand_out_from_what_is_behind_them(theme: str):
    colour = colours(theme)
    text = [(ink, paper) for ink in ("text", "muted") for paper in ("page", "panel", "raised")]
    text += [("best-text", "best"), ("muted", "tag"), ("accent", "page")]
    lines = [(f"series-{i}", "page") for i in range(8)] + [("accent", "faint")]
    for pairs, least in ((text, 4.5), (lines, 3.0)):
        for ink, paper in pairs:
            light, dark = sorted((luminance(colour[ink]), luminance(colour[paper])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (ink, paper)


def test_both_themes_define_every_colour_that_a_figure_or_the_style_names(usual_page: Page):
    named = set(re.findall(r"var\(--([\w-]+)\)", usual_page.style))
    named |= set(re.findall(r'"--([\w-]+)"', json.dumps(usual_page.data)))
    assert named <= colours(":root {").keys()
    assert colours(":root {").keys() == colours(":root:not([data-print]) {").keys()
