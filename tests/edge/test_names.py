"""Names of portfolios and variants: safe in addresses, headers and file names, and no path of the user's."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunit.edge.names import is_public, portfolio_name, public_name, published, today
from prunit.edge.portfolio import Portfolio
from tests.edge.folders import portfolio_in


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        ("resnet20", "cifar10", "resnet20-cifar10"),
        ("Plain", "fashion-mnist", "Plain-fashion-mnist"),
        ("timm:resnet18.a1_in1k", "photos", "timm-resnet18.a1_in1k-photos"),
        ("timm:hf_hub:timm/resnet18", "photos/", "resnet18-photos"),
        ("dir/net.py:make", "photos/", "net-make-photos"),
        ("/home/ann/my nets/net.py:make", "/srv/my photos/", "net-make-my-photos"),
        ("C:\\nets\\net.py:make", "D:\\photos\\", "net-make-photos"),
        ("package.module:Class.make", "./mine.py:load", "package.module-Class.make-mine-load"),
        ("../../net.py:make", "..", "net-make-data"),
        ("~/net.py:make", "~/photos//", "net-make-photos"),
        ("", ".", "model-data"),
        ("Über Größe", "Fotos für Émile", "Uber-Groe-Fotos-fur-Emile"),
        ("照片", "写真", "model-data"),
        ("a..b", "c?d=1&e#f%2F", "a.b-c-d-1-e-f-2F"),
        ("n" * 300, "d", "n" * 60 + "-d"),
    ],
)
def test_a_portfolio_is_called_by_the_last_parts_of_what_it_was_made_of(model: str, data: str, name: str) -> None:
    assert portfolio_name(model, data) == name
    assert is_public(portfolio_name(model, data))


@given(st.text(), st.text())
def test_any_text_becomes_a_safe_name(model: str, data: str) -> None:
    name = portfolio_name(model, data)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert ".." not in name
    assert is_public(name)
    assert is_public(public_name(model))


@given(st.text(alphabet="abcXYZ019._-/ :", min_size=1))
def test_no_folder_of_a_path_is_told(path: str) -> None:
    assert "secret" not in portfolio_name(f"/secret/{path}/net.py:make", f"/secret/{path}/photos")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", ".hidden", "a/b", "a\\b", "a b", "a:b", "ä", "a%2Fb", "a\n", "x" * 129]
)
def test_what_cannot_be_served_as_it_is(name: str) -> None:
    assert not is_public(name)


def with_names(folder: Path, name: str, variants: list[str], **more: str) -> Portfolio:
    found = portfolio_in(folder)
    renamed = [v.model_copy(update={"name": n}) for v, n in zip(found.variants, variants, strict=True)]
    return found.model_copy(update={"name": name, "variants": tuple(renamed), **more})


def test_names_that_can_be_served_stay(tmp_path: Path) -> None:
    portfolio = portfolio_in(tmp_path)
    assert published(portfolio) == (portfolio, {})


def test_a_portfolio_named_after_paths_is_served_under_another_name(tmp_path: Path) -> None:
    own = with_names(
        tmp_path, "/home/me/net.py:make-photos/", ["large", "a/b", "a:b"], model="/home/me/net.py:make", data="photos/"
    )
    found, moved = published(own)
    assert found.name == "net-make-photos"
    assert [v.name for v in found.variants] == ["large", "a-b", "a-b-2"]
    for before, now in (
        ("/v2/models//home/me/net.py:make-photos//infer", "/v2/models/net-make-photos/infer"),
        ("/v2/models//home/me/net.py:make-photos/", "/v2/models/net-make-photos"),
        ("/v2/models//home/me/net.py:make-photos//versions/a/b/infer", "/v2/models/net-make-photos/versions/a-b/infer"),
        ("/v2/models/net-make-photos/versions/a:b/ready", "/v2/models/net-make-photos/versions/a-b-2/ready"),
        ("/v2/models/net-make-photos/versions/a:bc", "/v2/models/net-make-photos/versions/a:bc"),
        ("/v2/models/net-make-photos/infer", "/v2/models/net-make-photos/infer"),
        ("/v2/health/live", "/v2/health/live"),
    ):
        assert today(before, moved) == now


def test_a_name_given_by_hand_is_made_safe_and_a_taken_one_is_not_taken_again(tmp_path: Path) -> None:
    found, _ = published(with_names(tmp_path, "my/net (final)", ["a b", "a-b", "../../a b"]))
    assert found.name == "net-final"
    assert [v.name for v in found.variants] == ["a-b-2", "a-b", "a-b-3"]
    assert published(with_names(tmp_path, "…", ["large", "middle", "small"]))[0].name == "portfolio"
