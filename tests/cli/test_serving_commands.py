"""`prunit serve` and `prunit top`: what they show and refuse."""

import socket
from pathlib import Path

import pytest

from tests.cli.running import prunit
from tests.edge.folders import portfolio_in
from tests.edge.serving import serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "portfolio")
    return tmp_path / "portfolio"


def test_top_shows_what_a_server_does(folder: Path) -> None:
    with serving(folder) as served:
        served.infer()
        result = prunit("top", f"http://127.0.0.1:{served.port}", "--once")
    assert result.code == 0, result.err
    for text in ("numbers: ready, 1 worker", "large (policy queue)", "target 20 ms", "1 answered", "middle", "80.00%"):
        assert text in result.out


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    portfolio = portfolio_in(tmp_path / "unmeasured")
    bare = portfolio.variants[0].metrics.model_copy(update={"latencies": ()})
    variants = (portfolio.variants[0].model_copy(update={"metrics": bare}),)
    portfolio.model_copy(update={"variants": variants}).write(tmp_path / "unmeasured")
    portfolio.model_copy(update={"variants": ()}).write(tmp_path / "unmeasured" / "empty")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, complaint in (
            (("serve", tmp_path), "is no portfolio"),
            (("serve", tmp_path / "unmeasured"), "prunit bench DIR --save"),
            (("serve", tmp_path / "unmeasured" / "empty"), "has no variant"),
            (("serve", folder, "--port", port), "cannot listen on"),
            (("serve", folder, "--policy", "quue"), "did you mean 'queue'"),
            (("serve", folder, "--memory", "much"), "is no size"),
            (("serve", folder, "--cpus", "999"), "this process may use"),
            (("serve", folder, "--slo-ms", 0), "must be more than 0"),
            (("serve", folder, "--token-for-all"), "needs a token"),
            (("serve", folder, "--token-file", tmp_path / "none"), "cannot read the token file"),
            (("top", "localhost:8000", "--once"), "is no address"),
            (("top", "http://127.0.0.1:1", "--once"), "no server answers"),
        ):
            result = prunit(*arguments)
            assert result.code == 2, result.out
            assert complaint in result.complaint
