"""A mistake that can be told without a model is told without torch: it cannot be imported here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.mistakes import MISTAKES, lay_out
from tests.cli.running import Result
from tests.cli.test_bad_input import contents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(built: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each command line, all of them run in one process; nothing was written."""
    folder = tmp_path_factory.mktemp("mistakes")
    lay_out(folder, built[0])
    before = contents(folder)
    environment = {name: value for name, value in os.environ.items() if name not in ("PRUNIT_DATA", "PRUNIT_TOKEN")}
    environment |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.mistakes"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert contents(folder) == before
    lines = map(json.loads, done.stdout.splitlines())
    return {command: line for (command, _), line in zip(MISTAKES, lines, strict=True)}


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_told_without_torch(found: dict[str, dict[str, Any]], command: str, message: str) -> None:
    one = found[command]
    result = Result(one["code"], one["out"], one["err"])
    assert not one["torch"], result.err
    assert (result.code, result.out) == (2, ""), result.err
    # '…' stands for anything.
    assert re.match("prunit: .*?" + re.escape(message).replace("…", ".*"), result.complaint), result.complaint
