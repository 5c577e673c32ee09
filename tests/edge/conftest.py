"""Two portfolios, and stores to send them to: for tests of what happens at addresses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.folders import portfolio_in
from tests.edge.stores import NEW, OLD, Folders, Objects


@pytest.fixture(params=[Folders, Objects])
def store(request: pytest.FixtureRequest) -> Iterator[type[Folders]]:
    yield request.param
    request.param.forget()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "old", OLD)
    (tmp_path / "old" / "report.html").write_text("old report")
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "new", NEW)
    (tmp_path / "new" / "report.html").write_text("new report")
    return tmp_path / "new"
