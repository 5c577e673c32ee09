"""What is told of Ray where it is not installed, does not answer, or has nodes that cannot be used."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from prunit.errors import ConfigError, DeviceError, MissingExtraError
from prunit.recipe.config import BuildConfig
from prunit.recipe.places import asked, node, on_ray
from prunit.recipe.places.asked import check_answers, check_ray
from prunit.recipe.places.on_ray import check_told, lock_out_others
from prunit.recipe.places.written import Written, alone

FACTS: dict[str, Any] = {"python": "3.11.7", "prunit": "0.1.0", "torch": "2.13.0", "sees": True}


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"--ray needs the package 'ray': pip install 'prunit\[ray\]'"):
        check_ray("local", None, None, BuildConfig())


def test_an_address_that_nobody_answers_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"--ray 127.0.0.1:{port}: nobody answers there"):
            check_answers(f"127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_answers(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["here", "10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:port"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="write local, auto, or the HOST:PORT"):
        check_answers(address)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": "3.12.1"}, r"node b of Ray has python 3\.12\.1, this process 3\.11\.7: install the same on all"),
        ({"prunit": ""}, r"node b of Ray has prunit none, this process 0\.1\.0"),
        ({"torch": "2.12.0"}, "node b of Ray has torch 2.12.0"),
        ({"sees": False}, "node b of Ray does not see the folder of 'out': choose one"),
    ],
)
def test_a_node_that_cannot_be_used_is_named(change: dict[str, Any], message: str) -> None:
    check_told({"a": FACTS, "b": FACTS}, FACTS, Path("out"))
    with pytest.raises(ConfigError, match=message):
        check_told({"a": FACTS, "b": FACTS | change}, FACTS, Path("out"))


def test_a_node_says_what_it_has_and_sees(tmp_path: Path) -> None:
    import platform

    import torch

    from prunit.version import VERSION

    token = tmp_path / "token"
    token.write_text("token")
    own = {"python": platform.python_version(), "prunit": VERSION, "torch": torch.__version__}
    assert node.facts(str(token)) == own | {"sees": True}
    assert node.facts(str(tmp_path / "other")) == own | {"sees": False}
    token.write_text("of another build")
    assert node.facts(str(token))["sees"] is False


def test_how_far_a_piece_is_stands_in_a_file(tmp_path: Path) -> None:
    import json

    told = Written(tmp_path / "told" / "train_dense.json")
    told({"step": ["dense", "train", 1, 10, ""]})
    told({"log": ["prunit.x", 30, "too high a rate"]})
    told({"step": ["dense", "train", 2, 10, ""]})
    found = json.loads(told.file.read_text())
    assert found == {"logs": [["prunit.x", 30, "too high a rate"]], "step": ["dense", "train", 2, 10, ""]}
    assert [p.name for p in told.file.parent.iterdir()] == ["train_dense.json"]


def test_two_processes_do_not_do_the_same_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunit.recipe.places.written._PATIENCE_S", 0.0)
    with (
        alone(tmp_path / "piece"),
        pytest.raises(ConfigError, match="a piece is running in it"),
        alone(tmp_path / "piece"),
    ):
        pass
    with alone(tmp_path / "piece"):
        pass


def test_ray_that_is_started_here_obeys_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(os, "environ", {})
    lock_out_others()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    before = dict(os.environ)
    lock_out_others()
    assert os.environ == before
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_MODE": "disabled"})
    lock_out_others()
    assert os.environ == {"RAY_AUTH_MODE": "disabled"}


def test_a_cluster_that_may_ask_for_a_token_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    refused = ConnectionError("Failed to connect to Ray cluster")
    assert "set RAY_AUTH_MODE=token" in on_ray._about_tokens("10.0.0.1:6379", refused)
    assert not on_ray._about_tokens("local", refused)
    assert not on_ray._about_tokens("auto", ValueError("no such address"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert not on_ray._about_tokens("10.0.0.1:6379", refused)
