"""What records look like in a terminal and in a notebook."""

import copy
import html.parser
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunit
from prunit.allocate import Budget, Constraints
from prunit.cut.plans import Plan
from prunit.graph import Axis, Group
from prunit.recipe import BuildConfig, decide
from prunit.recipe.sweeps import Sweep, Trial
from prunit.scores import score_channels, score_weights
from prunit.shown import LINES, WIDTH, Shown, Table, as_html, as_text, runs, short
from prunit.train import TrainConfig
from tests.edge.folders import portfolio_in
from tests.recipe.building import data

X_BCHW = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each kind that a user meets one, those of ResNet-20 among them."""
    model = prunit.zoo.load("resnet20")
    graph = prunit.trace(model, X_BCHW)
    portfolio = portfolio_in(tmp_path_factory.mktemp("shown"), {f"factor-{i}": float(i + 1) for i in range(3)})
    many = tuple(portfolio.variants[0].model_copy(update={"name": f"v{i}"}) for i in range(200))
    prune = BuildConfig().prune.model_copy(update={"score": "magnitude"})
    decision = decide(model, graph, [(X_BCHW, torch.zeros(1).long())], Budget.parse("macs=1/2"), prune)
    trials = tuple(Trial(f"v{i}", "macs=1/2", "uniform", {"macs": i}) for i in range(50))
    limits = {f"layer{i}.*": (0.1, 0.9) for i in range(60)}
    return {
        "graph": graph,
        "large graph": prunit.trace(prunit.zoo.load("resnet50"), torch.zeros(1, 3, 64, 64)),
        "group": max(graph.groups, key=lambda group: len(group.producers)),
        "axis": max(graph.axes, key=lambda axis: axis.where.size),
        "layer": graph.layers[0],
        "activation": graph.activations[0],
        "plan": decision.plan,
        "decision": decision,
        "budget": Budget.parse("macs=1/2,params=20%"),
        "constraints": Constraints(limits=limits),
        "scores": score_channels(model, graph, "magnitude", []),
        "scores of weights": score_weights(model, graph, "magnitude", []),
        "removed": prunit.remove_zeros(model, X_BCHW),
        "data": data(),
        "portfolio": portfolio,
        "large portfolio": portfolio.model_copy(update={"variants": many, "classes": tuple(map(str, range(1000)))}),
        "variant": portfolio.variants[0],
        "artifact": portfolio.variants[0].artifact,
        "metrics": portfolio.variants[0].metrics,
        "preprocessing": portfolio.preprocessing,
        "sweep": Sweep(trials, portfolio),
        "settings": BuildConfig(budgets=tuple(f"params=1/{i + 2}" for i in range(100))),
        "training": TrainConfig(),
        "cost": decision.cost,
    }


NAMES = (
    *("graph", "large graph", "group", "axis", "layer", "activation", "plan", "decision", "budget", "constraints"),
    *("scores", "scores of weights", "removed", "data", "portfolio", "large portfolio", "variant", "artifact"),
    *("metrics", "preprocessing", "sweep", "settings", "training", "cost"),
)


@pytest.mark.parametrize("name", NAMES)
def test_every_record_is_shown_in_fewer_than_20_short_lines(records: dict[str, Any], name: str) -> None:
    text = repr(records[name])
    assert 1 <= len(text.splitlines()) <= LINES < 20
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "object at 0x" not in text
    if name not in ("budget", "constraints", "layer"):  # those have a text of their own
        assert str(records[name]) == text


class Balanced(html.parser.HTMLParser):
    """Every tag that is opened is closed, and none that a notebook would run is there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("div", "b", "table", "thead", "tbody", "tr", "th", "td")
        assert {name for name, _ in attrs} <= {"style"}
        self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cost", "budget")])
def test_every_record_is_a_plain_table_in_a_notebook(records: dict[str, Any], name: str) -> None:
    page = Balanced()
    page.feed(records[name]._repr_html_())
    page.close()
    assert page.open == []
    assert page.rows >= 2


def test_what_a_graph_shows(records: dict[str, Any]) -> None:
    lines = repr(records["graph"]).splitlines()
    assert lines[0] == "ChannelGraph: 13 groups, 458 channels, 22 layers, 272,474 params; 12 may shrink"
    assert lines[2].split() == ["stem.0.0", "16", "4", "layers"]
    assert lines[-1].split(maxsplit=4)[-1] == "whole: the model's output"
    assert repr(records["large graph"]).splitlines()[-1].startswith("  … ")


def test_what_a_plan_shows() -> None:
    plan = Plan(
        {"a": (0, 1, 2, 5, 7, 8), "b": (3,)}, {"a": 9, "b": 4, "c": 2}, {"recipe": "uniform", "why": {"a": "x"}}
    )
    assert repr(plan).splitlines() == [
        f"Plan {plan.hash}: 9 of 15 channels in 3 groups",
        "  group  kept  of  channels",
        "  a         6   9  0–2, 5, 7–8",
        "  b         1   4  3",
        "  c         2   2  all",
        "  origin: recipe=uniform",
    ]


def test_what_a_portfolio_shows(records: dict[str, Any]) -> None:
    lines = repr(records["portfolio"]).splitlines()
    assert lines[0] == "Portfolio numbers: 3 variants, conv on noise, 2 classes"
    assert lines[1].split() == ["variant", "accuracy", "latency", "params", "macs", "file"]
    assert lines[2].split()[:6] == ["factor-0", "50.0", "%", "5", "ms", "1,000"]
    assert repr(records["large portfolio"]).splitlines()[-1] == "  … 185 more"


def test_a_budget_is_shown_as_it_is_written() -> None:
    budget = Budget.parse({"macs": "20M", "params": "25%"})
    assert repr(budget) == "Budget.parse('macs=20M,params=25%')"
    assert eval(repr(budget)) == budget
    assert str(budget) == "macs=20M,params=25%"


def test_scores_stay_dicts(records: dict[str, Any]) -> None:
    scores = records["scores"]
    assert isinstance(scores, dict)
    assert list(copy.deepcopy(scores)) == list(scores)
    assert (pickle.loads(pickle.dumps(scores))["classifier"] == scores["classifier"]).all()
    assert dict(scores).keys() == {group.name for group in records["graph"].groups}
    assert scores == dict(scores)


def test_equality_hashes_and_json_are_what_they_were(records: dict[str, Any]) -> None:
    group = records["group"]
    assert group == Group(group.name, group.size, group.producers)
    assert hash(group) == hash(copy.deepcopy(group))
    plan = records["plan"]
    assert Plan.from_json(plan.to_json()) == plan
    portfolio = records["portfolio"]
    assert type(portfolio).model_validate_json(portfolio.model_dump_json()) == portfolio
    assert set(json.loads(portfolio.variants[0].model_dump_json())) == set(type(portfolio.variants[0]).model_fields)
    assert records["budget"] == Budget.parse("macs=1/2,params=20%")


def test_what_stands_in_a_name_does_nothing_in_a_page_or_a_terminal() -> None:
    evil = "<script>alert('x')</script>&\x1b[31m\nnext"
    table = Table(evil, ("a", evil), [(evil, "1")], (evil,))
    assert "<script>" not in as_html(table)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;" in as_html(table)
    assert "\x1b" not in as_text(table)
    assert len(as_text(table).splitlines()) == 4


def test_a_table_without_rows_or_head_is_shown_too() -> None:
    assert as_text(Table("nothing", ("a", "b"))) == "nothing\n  a  b"
    assert as_text(Table("nothing")) == "nothing"
    assert "<table" not in as_html(Table("nothing"))
    many = as_text(Table("t", ("n",), [(str(i),) for i in range(100)], tuple(f"note {i}" for i in range(9))))
    assert len(many.splitlines()) == LINES
    assert many.splitlines()[-1] == "  … 7 more remarks"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3), "<2×3 float32>"),
        (torch.tensor(1), "<single int64>"),
        (nn.Conv2d(3, 8, 3), "<Conv2d>"),
        ((1,), "(1,)"),
        (tuple(range(9)), "(0, 1, 2, … 6 more)"),
        ([], "[]"),
        ({"a": [1, 2, 3, 4, 5]}, "{'a': [1, 2, 3, … 2 more]}"),
        ("x" * 300, "'" + "x" * 108 + "…"),
        (None, "None"),
        (Path("a"), f"{Path('a')!r}"),
    ],
)
def test_values_are_shortened(value: object, text: str) -> None:
    assert short(value) == text


def test_numbers_in_a_row_are_put_together() -> None:
    assert runs((0, 1, 2, 5, 7, 8)) == "0–2, 5, 7–8"
    assert runs(()) == ""


def test_arrays_of_a_record_are_told_by_their_shape(records: dict[str, Any]) -> None:
    axis = records["axis"]
    assert isinstance(axis, Axis)
    assert isinstance(axis, Shown)
    assert f"where=<{axis.where.size} int64>" in repr(axis)
