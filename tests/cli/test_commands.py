"""Every command: what it prints on which stream, its exit code, and its JSON."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prunit.cut.plans import Plan
from prunit.edge.portfolio import Portfolio
from prunit.version import VERSION
from tests.cli.running import Result, prunit


def parsed(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_build_prints_its_manifest_alone_on_standard_output(
    built: tuple[Path, Result], manifest: dict[str, Any]
) -> None:
    folder, result = built
    found = parsed(result)
    said = {name: found.pop(name) for name in ("headline", "differences", "verdicts")}
    assert found == {"folder": str(folder), **manifest}
    assert said["headline"]
    assert list(said["differences"]) == ["params-1-2"]
    assert {verdict["variant"] for verdict in said["verdicts"]} <= {"dense", "params-1-2"}
    assert [v["name"] for v in manifest["variants"]] == ["dense", "params-1-2"]
    assert [v["seed"] for v in manifest["variants"]] == [2, 2]
    lines = result.err.splitlines()
    assert lines[:3] == ["loading PyTorch", "reading digits", "checking model and data"]
    assert "params-1-2: training" in lines


def test_build_shows_a_summary_and_where_it_stands(built: tuple[Path, Result], net: Path) -> None:
    folder, _ = built
    again = prunit(
        *("build", f"{net}:network", "--data", "digits", "--out", folder, "--resume", "--subset", 100, "--epochs", 1),
        *("--train", "equal-epochs"),
        *("--device", "cpu", "--budget", "params=1/2", "--seed", 2, "--set", "probe.seconds=0.01"),
        *("--set", "prune.rounds=4", "--set", "train.batch_size=50", "--set", "prune.measure=false"),
    )
    assert again.code == 0, again.err
    assert f"{net}:network on digits: 2 variants" in again.out.replace("\n", "")
    for text in ("dense", "params-1-2", "p50 / p99 ms", "× less", str(folder / "report.html")):
        assert text in again.out


def test_build_takes_its_settings_from_a_file_under_the_options(net: Path, tmp_path: Path) -> None:
    config = tmp_path / "build.toml"
    config.write_text(f'model = "{net}:failing"\ndata = "digits"\nbudgets = ["params=1/2"]\n[train]\nepochs = 1\n')
    result = prunit("build", "--config", config, "--out", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    assert "net.py" in prunit("build", f"{net}:no_model", "--config", config, "--out", tmp_path / "out").complaint
    # The model of the file is the one that fails on its images.
    assert "cannot be" in result.complaint or "failed" in result.complaint


def test_plan_without_data_writes_a_plan_and_explains_it(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.json"
    result = prunit(
        *("plan", f"{net}:network", "--input", "1x8x8", "--classes", 5, "--budget", "params=1/2", "--out", out),
        *("--set", "prune.rounds=4"),
    )
    assert result.code == 0, result.err
    plan = Plan.from_json(out.read_text())
    assert plan.dense == {"0": 8, "3": 12, "7": 5}
    for text in (
        "the model's output",
        "macs",
        "budget: params=1/2 79.7% used",
        "reconvene with synflow, params=1/2, seed 0: planned in ",
        f"written to {out}",
    ):
        assert text in result.out


def test_plan_replaces_a_plan_and_says_so_and_nothing_else(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.json"
    asked = ("plan", f"{net}:network", "--input", "1x8x8", "--score", "magnitude", "--out", out, "--budget")
    assert "in place of" not in prunit(*asked, "params=1/2").out
    result = prunit(*asked, "params=1/3")
    assert f"written to {out}, in place of the plan that was there" in result.out
    assert Plan.from_json(out.read_text()).origin["budget"] == "params=1/3"
    for content in (b"my notes", b"{}", b"\xff\x00"):
        out.write_bytes(content)
        result = prunit(*asked, "params=1/2")
        assert (result.code, result.out) == (2, "")
        assert "the file is there and holds no plan; choose another name, or remove it" in result.complaint
        assert out.read_bytes() == content


def test_plan_as_json(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.json"
    found = parsed(
        prunit(
            *("plan", f"{net}:network", "--input", "1×8×8", "--budget", "macs=0.5", "--recipe", "uniform"),
            *("--out", out, "--json"),
        )
    )
    plan = Plan.from_json(out.read_text())
    assert found["hash"] == plan.hash
    assert found["cost"]["compact"]["macs"] <= 0.5 * found["cost"]["dense"]["macs"]
    assert {n: g["kept"] for n, g in found["groups"].items()} == plan.widths
    assert all(g["why"] for g in found["groups"].values())
    assert found["seconds"] > 0
    share = found["cost"]["compact"]["macs"] / (found["cost"]["dense"]["macs"] // 2)
    assert found["budget"] == {"used": {"macs=0.5": pytest.approx(share)}, "binding": "macs=0.5"}


def test_the_limit_that_binds_is_named(net: Path, tmp_path: Path) -> None:
    asked = ("plan", f"{net}:network", "--input", "1x8x8", "--budget", "macs=0.9,params=1/2", "--recipe", "uniform")
    shown = prunit(*asked, "--out", tmp_path / "cut.json").out
    assert "params=1/2 is the limit that binds" in shown


def test_plan_rounds_widths_and_says_so(net: Path, tmp_path: Path) -> None:
    asked = ("plan", f"{net}:network", "--input", "1x8x8", "--budget", "params=435", "--recipe", "uniform")
    options = ("--round-to", 4, "--out", tmp_path / "cut.json", "--set", "prune.limits={0=[0.5,1]}")
    found = parsed(prunit(*asked, *options, "--json"))
    assert {name: group["kept"] for name, group in found["groups"].items()} == {"0": 4, "3": 8, "7": 10}
    assert found["origin"]["constraints"] == "round_to=4, limits={0: [0.5, 1]}"
    shown = prunit(*asked, *options).out
    assert "minimum width, limit '0'" in shown
    assert "the same share as everywhere, rounded to 4" in shown
    assert "constraints=round_to=4, limits={0: [0.5, 1]}" in prunit("inspect", tmp_path / "cut.json").out


def test_plan_with_data_for_a_score_that_needs_it(net: Path, tmp_path: Path) -> None:
    found = parsed(
        prunit(
            *("plan", f"{net}:network", "--data", "digits", "--score", "snip", "--budget", "params=1/2"),
            *("--out", tmp_path / "cut.json", "--json"),
        )
    )
    assert found["origin"]["score"] == "snip"
    assert found["groups"]["7"]["dense"] == 10


def test_plan_that_prunes_nothing_says_so(net: Path, tmp_path: Path) -> None:
    result = prunit(
        "plan", f"{net}:network", "--budget", "params=1", "--set", "prune.rounds=2", "--out", tmp_path / "p"
    )
    assert "nothing was pruned: the dense model is within the budget" in result.out


def test_inspect_a_portfolio(built: tuple[Path, Result], manifest: dict[str, Any]) -> None:
    folder, _ = built
    result = prunit("inspect", folder)
    assert result.code == 0, result.err
    assert result.err == ""
    how = "reconvene, score synflow, evaluator none, residual auto, constraints round_to=auto, rectifier own, "
    for text in ("dense", how + "params=1/2, seed 2, 1 epochs", "match their sha256", "not dominated: "):
        assert text in " ".join(result.out.split())
    found = parsed(prunit("inspect", folder, "--json"))
    told = ("headline", "differences", "verdicts")
    assert {k: v for k, v in found.items() if k not in told} == {"folder": str(folder), **manifest, "problems": []}
    assert prunit("inspect", folder / "portfolio.json").code == 0


def test_inspect_a_damaged_portfolio_shows_it_and_complains(built: tuple[Path, Result], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built[0], folder)
    (folder / "dense.onnx").write_bytes(b"no model")
    (folder / "params-1-2.plan.json").unlink()
    result = prunit("inspect", folder)
    assert result.code == 2
    assert "variant 'dense': 'dense.onnx' has 8 bytes instead of" in result.complaint
    assert "variant 'params-1-2': 'params-1-2.plan.json' is missing" in result.complaint
    found = prunit("inspect", folder, "--json")
    assert (found.code, len(json.loads(found.out)["problems"])) == (2, 2)


@pytest.mark.parametrize("name", ["params-1-2.plan.json", "params-1-2.safetensors"])
def test_inspect_a_plan_and_a_weights_file(built: tuple[Path, Result], name: str) -> None:
    file = built[0] / name
    result = prunit("inspect", file)
    assert result.code == 0, result.err
    assert "the model's output" in result.out
    assert "recipe=reconvene, score=synflow, budget=params=1/2" in result.out
    found = parsed(prunit("inspect", file, "--json"))
    plan = Plan.from_json((built[0] / "params-1-2.plan.json").read_text())
    assert (found["hash"], found["why"]) == (plan.hash, plan.origin["why"])
    assert {n: g["kept"] for n, g in found["groups"].items()} == plan.widths


def test_inspect_an_exported_file(built: tuple[Path, Result], manifest: dict[str, Any]) -> None:
    file = built[0] / "dense.onnx"
    found = parsed(prunit("inspect", file, "--json"))
    artifact = manifest["variants"][0]["artifact"]
    assert (found["sha256"], found["bytes"]) == (artifact["sha256"], artifact["bytes"])
    assert found["inputs"] == {"input": "batch×1×8×8"}
    assert found["outputs"] == {"logits": "batch×10"}
    assert found["operators"]["Conv"] == 2
    assert found["variant of"].endswith("digits: dense")
    assert "Conv 2" in prunit("inspect", file).out


def test_bench_measures_and_writes_only_when_told(built: tuple[Path, Result], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built[0], folder)
    before = (folder / "portfolio.json").read_bytes()
    options = ["--seconds", "0.1", "--batch", "3", "--threads", "1"]
    found = parsed(prunit("bench", folder, *options, "--json"))
    assert [v["metrics"]["latencies"][1]["batch"] for v in found["variants"]] == [3, 3]
    assert (folder / "portfolio.json").read_bytes() == before
    result = prunit("bench", folder, *options, "--save")
    assert result.code == 0, result.err
    assert "batch 3" in result.out
    assert result.err.splitlines() == ["measuring memory", "measuring latency"]
    saved = Portfolio.read(folder)
    assert [latency.batch for latency in saved.variants[0].metrics.latencies] == [1, 3]
    assert saved.verify(folder) == []
    assert "batch 3, ms" in (folder / "report.html").read_text("utf-8")
    (folder / ".build" / "dense" / "history.json").unlink()
    result = prunit("bench", folder, "--seconds", "0.1", "--batch", "5", "--save")
    assert result.err.splitlines()[-1].startswith("report.html still shows the figures of before: the folder does not")
    assert "batch 3, ms" in (folder / "report.html").read_text("utf-8")


def test_bench_with_batch_1_measures_it_once(built: tuple[Path, Result]) -> None:
    found = parsed(prunit("bench", built[0], "--seconds", "0.1", "--batch", "1", "--json"))
    assert [latency["batch"] for latency in found["variants"][0]["metrics"]["latencies"]] == [1]


def test_bench_refuses_a_variant_that_answers_otherwise_than_it_should(
    built: tuple[Path, Result], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built[0], folder)
    portfolio = Portfolio.read(folder)
    dense, small = portfolio.variants
    # The two files in each other's place, with correct hashes: only their answers betray them.
    swapped = dense.artifact.model_copy(
        update={"self_test": small.artifact.self_test, "self_test_sha256": small.artifact.self_test_sha256}
    )
    wrong = dense.model_copy(update={"artifact": swapped})
    portfolio.model_copy(update={"variants": (wrong, small)}).write(folder)
    result = prunit("bench", folder, "--seconds", "0.1")
    assert result.code == 2
    assert "'dense.onnx' failed its self-test" in result.complaint


def test_models_and_methods_are_listed() -> None:
    models, methods = parsed(prunit("models", "--json")), parsed(prunit("methods", "--json"))
    assert {"vgg16", "vgg11", "resnet20", "resnet56", "resnet18", "resnet50", "mobilenetv2"} <= models.keys()
    assert methods.keys() == {"recipe", "score", "evaluator", "rectifier", "mode"}
    assert {"reconvene", "uniform", "global", "complexity", "balanced"} == methods["recipe"].keys()
    assert {"magnitude", "random", "snip", "grasp", "synflow", "iterative-snip", "force"} <= methods["score"].keys()
    for listing, command in ((models, "models"), ({k: v for m in methods.values() for k, v in m.items()}, "methods")):
        shown = prunit(command)
        assert (shown.code, shown.err) == (0, "")
        for name, line in listing.items():
            assert name in shown.out
            assert line in shown.out


def test_version_and_help() -> None:
    assert prunit("--version") == Result(0, f"prunit {VERSION}\n", "")
    for arguments in ([], ["--help"], ["-h"]):
        result = prunit(*arguments)
        assert (result.code, result.err) == (0, "")
        assert all(command in result.out for command in ("build", "plan", "inspect", "bench", "models", "methods"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "build",
            [
                "--budget",
                "--round-to",
                "--data-dir",
                "--resume",
                "--set",
                "--json",
                "default: resnet20",
                "default: digits",
            ],
        ),
        ("plan", ["--input", "--round-to", "--classes", "--score", "default: plan.json", "default: reconvene"]),
        ("inspect", ["--json", "safetensors"]),
        ("bench", ["--threads", "--save"]),
        ("models", ["--json"]),
        ("methods", ["--json"]),
    ],
)
def test_each_command_has_help(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = prunit(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert all(word in result.out for word in words)


NO_TORCH = """
import sys
sys.modules["torch"] = None
sys.argv = ["prunit", *sys.argv[1:]]
from prunit.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["build"], 2, "this command needs the package 'torch': pip install 'prunit[train]'"),
        (["plan"], 2, "needs the package 'torch': pip install 'prunit[train]'"),
        (["models"], 0, "resnet20"),
        (["methods"], 0, "synflow"),
        (["inspect", "{folder}/dense.plan.json"], 0, "by hand"),
        (["inspect", "{folder}/dense.safetensors"], 0, "by hand"),
        (["inspect", "{folder}"], 0, "match their sha256"),
        (["bench", "{folder}", "--seconds", "0.1"], 0, "params-1-2"),
    ],
)
def test_device_without_torch(built: tuple[Path, Result], arguments: list[str], code: int, said: str) -> None:
    filled = [argument.format(folder=built[0]) for argument in arguments]
    process = subprocess.run([sys.executable, "-c", NO_TORCH, *filled], capture_output=True, text=True, check=False)
    assert process.returncode == code, process.stderr
    assert said in (process.stderr if code else process.stdout)
    assert "Traceback" not in process.stderr


def test_a_reader_that_goes_away_gets_no_traceback(built: tuple[Path, Result]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "prunit", "inspect", str(built[0]), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    process.stdout.close()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (1, b"")


def test_a_device_is_measured_and_its_profile_is_a_budget(net: Path, tmp_path: Path) -> None:
    model, shape = f"{net}:network", ("--input", "1x8x8")
    layers, profile, plan = tmp_path / "layers.json", tmp_path / "pi.json", tmp_path / "plan.json"
    result = prunit("layers", model, *shape, "--out", layers)
    assert result.code == 0, result.err
    assert f"3 layers of {model}, 1x8x8: {layers}" in result.out
    assert f"prunit probe-device {layers}" in result.out
    result = prunit("probe-device", layers, "--out", profile)
    assert result.code == 0, result.err
    for text in ("a 3×3 convolution of 8×8 positions, 1 to 8 channels", "onnxruntime", f"latency=5ms@{profile}"):
        assert text in result.out.replace("\n", "")
    found = parsed(
        prunit("plan", model, *shape, "--mode", "la", "--budget", f"latency=100%@{profile}", "--out", plan, "--json")
    )
    assert 0 < found["budget"]["used"][f"latency=100%@{profile}"] <= 1
    told = found["predicted"]["latency_ms"]
    assert 0 < told["compact"] <= told["dense"]
    shown = prunit("plan", model, *shape, "--mode", "la", "--budget", f"latency=100%@{profile}", "--out", plan)
    assert (
        f"latency on the profile's device: {told['compact']:.3g} ms predicted, {told['dense']:.3g} dense" in shown.out
    )
    assert found["origin"]["mode"] == "la"


def test_mistakes_with_profiles_write_nothing(net: Path, tmp_path: Path) -> None:
    model, out = f"{net}:network", tmp_path / "out.json"
    for arguments, complaint in (
        (("probe-device", tmp_path / "no.json"), "there is no list of layers"),
        (("probe-device", net), "is not a list of layers"),
        (("plan", model, "--budget", "energy=5mJ"), "needs the profile of a device"),
        (("plan", model, "--budget", "latency=5 mss@pi.json"), "unknown unit 'mss', known are us, ms, s"),
        (("plan", model, "--budget", "latency=5ms@pi.json"), "there is no device profile 'pi.json'"),
        (("plan", model, "--mode", "ea", "--budget", "macs=1/2"), "the mode 'ea' needs the profile of a device"),
        (("layers", "nosuchmodel"), "unknown model 'nosuchmodel'"),
    ):
        result = prunit(*arguments, "--out", out)
        assert result.code == 2, result.out
        assert complaint in result.complaint
        assert not out.exists()
