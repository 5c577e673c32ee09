"""No engine reports its use, or leaves anything behind, because prunit loads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunit.edge import runtimes


@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_loading_an_engine_leaves_no_file(tmp_path: Path, name: str) -> None:
    places = {variable: tmp_path / variable for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for place in places.values():
        place.mkdir()
    code = (
        "from prunit.edge import runtimes; from prunit.errors import PrunitError\n"
        f"try: print(runtimes.runtime({name!r}).version())\n"
        "except PrunitError as error: print('not here:', error)"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")}
    environment = {**kept, **{variable: str(place) for variable, place in places.items()}}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("not here:"):
        pytest.skip(done.stdout.strip())
    assert [str(file) for file in tmp_path.rglob("*") if file.is_file()] == []
