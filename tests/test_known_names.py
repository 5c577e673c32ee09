"""What has a name is in a table without torch; what does the work has the same names, in the same order."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from prunit import known, user, zoo
from prunit.allocate.by_complexity import MODES
from prunit.cli.show import EVALUATOR_LINES, RECTIFIER_LINES
from prunit.edge.data_sets import DATA_SETS
from prunit.edge.tasks import DEVICE_TASKS
from prunit.errors import ConfigError, MissingExtraError, UnknownNameError
from prunit.recipe.config import BuildConfig, PruneConfig
from prunit.recipe.folder import STATE, check_resumes
from prunit.recipe.offered import RECIPES
from prunit.recipe.recipes import WAYS
from prunit.scores import SCORES
from prunit.tasks import TASKS
from prunit.zoo import data

LEAN = (
    "prunit.known",
    "prunit.user",
    "prunit.edge.data_sets",
    "prunit.graph",
    "prunit.cut.plans",
    "prunit.cut.plan_files",
    "prunit.prices.meters",
    "prunit.allocate",
    "prunit.recipe.request",
    "prunit.recipe.entrants",
    "prunit.recipe.rungs",
    "prunit.recipe.folder",
    "prunit.cli.checking",
    "prunit.cli.inspecting",
)


def test_tables_of_names_are_those_of_what_does_the_work() -> None:
    assert list(known.NETWORKS) == list(zoo._BUILDS) == list(zoo.models())
    assert list(known.SCORES) == list(SCORES)
    assert list(known.TASKS) == list(TASKS) == list(DEVICE_TASKS)
    assert list(RECIPES) == list(WAYS)
    assert [name for name, one in DATA_SETS.items() if one.files] == list(data._ON_DISK)
    assert list(data.datasets()) == list(DATA_SETS)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_what_is_told_of_it(name: str) -> None:
    told = known.SCORES[name]
    assert (SCORES[name].line, SCORES[name].needs_data) == (told.line, told.needs_data)


def test_switches_of_recipes_are_those_of_the_settings() -> None:
    def choices(setting: str) -> list[str]:
        return list(get_args(PruneConfig.model_fields[setting].annotation))

    assert set(EVALUATOR_LINES) == set(choices("evaluator"))
    assert set(MODES) == set(choices("mode"))
    assert set(RECTIFIER_LINES) <= set(choices("rectifier"))
    assert all(recipe.score in known.SCORES for recipe in RECIPES.values())


@pytest.mark.parametrize("module", LEAN)
def test_what_checks_a_request_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_that_cannot_be_is_refused_without_building_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'resnet21'; did you mean 'resnet20'"):
        known.check_model("resnet21")
    monkeypatch.setitem(sys.modules, "timm", None)  # how Python marks a module that must not be found
    monkeypatch.setattr(known, "_installed", lambda package: package != "timm")
    with pytest.raises(MissingExtraError, match="timm:resnet18 needs the package 'timm'"):
        known.check_model("timm:resnet18")
    known.check_model("torchvision:no_such_model")  # that takes torchvision to tell


def test_a_factory_is_looked_for_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("raise RuntimeError('it was run')")
    user.check("net.py:network", error=ConfigError)
    user.check("net:network", error=ConfigError)
    with pytest.raises(ConfigError, match=r"there is no module 'nett\.inner'"):
        user.check("nett.inner:network", error=ConfigError)


def test_another_build_is_recognised_by_what_shows_without_a_model(tmp_path: Path) -> None:
    config = BuildConfig(budgets=("params=1/2",))
    check_resumes(tmp_path, config)  # nothing is there
    (tmp_path / STATE).mkdir()
    written = {**config.model_dump(mode="json"), "format": "prunit-build", "digest of the images": "0"}
    # What data and model decide, and what an older prunit did not know.
    written["train"] |= {"epochs": 30, "batch_size": 64}
    written["prune"] |= {"rectifier": "reinit"}
    del written["parts"], written["start"]
    file = tmp_path / STATE / "build.json"
    file.write_text(json.dumps(written))
    check_resumes(tmp_path, config)
    with pytest.raises(ConfigError, match=r"was started with seed=0, now it is 3: resume it as it was started"):
        check_resumes(tmp_path, BuildConfig(budgets=("params=1/2",), seed=3))
    with pytest.raises(ConfigError, match=r"was started with train\.epochs=30, now it is 5"):
        check_resumes(tmp_path, config.model_copy(update={"train": config.train.model_copy(update={"epochs": 5})}))
