"""What a user can get wrong: one line on standard error that says what to do, exit code 2, and nothing overwritten."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.running import Result, prunit
from tests.zoo.layouts import save_image

QUICK = ("--epochs", "1", "--subset", "50", "--device", "cpu", "--set", "prune.rounds=2")


@pytest.fixture
def here(tmp_path: Path, net: Path, built: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a user's files in it, most of them broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNIT_DATA", raising=False)
    shutil.copy(net, "net.py")
    Path("empty").mkdir()
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            save_image(Path("photos") / split / name / "1.png")
            if split == "val":
                save_image(Path("untrained") / split / name / "1.png")
    shutil.copytree("photos", "torn")
    Path("torn/train/dog/1.png").write_bytes(Path("torn/train/dog/1.png").read_bytes()[:40])
    Path("used").mkdir()
    Path("used/notes.txt").write_text("mine")
    shutil.copytree(built[0], "portfolio")
    shutil.copytree(built[0], "damaged")
    Path("damaged/dense.onnx").write_bytes(b"no model")
    shutil.copytree(built[0] / ".build", "unfinished/.build")
    for name, content in (
        ("cut.json", (built[0] / "params-1-2.plan.json").read_bytes()[:100]),
        ("cut.safetensors", (built[0] / "dense.safetensors").read_bytes()[:300]),
        ("cut.onnx", (built[0] / "dense.onnx").read_bytes()[:300]),
        ("other.json", b'{"format": "something else"}'),
        ("bad.toml", b"[train\n"),
        ("typo.toml", b"[train]\nepoch = 3\n"),
        ("torn-portfolio/portfolio.json", (built[0] / "portfolio.json").read_bytes()[:500]),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    return tmp_path


NET = "net.py:network"
BUILD = f"build {NET} --out new"
PLAN = f"plan {NET} --input 1x8x8 --out new.json"
CASES = [
    # models
    ("build resnet21 --out new", "unknown model 'resnet21'; did you mean 'resnet20'?"),
    ("plan vgg-16 --out new.json", "unknown model 'vgg-16'; did you mean 'vgg16'?"),
    ("build net.py --out new", "'net.py' names a file but no factory in it: write net.py:FACTORY"),
    ("build net.py:netwrk --out new", "'net.py' has no 'netwrk'; it defines: failing, network, no_model, raising"),
    ("build none.py:network --out new", "there is no file 'none.py'"),
    ("build net.py:no_model --out new", "'net.py:no_model' returned an object of type int, not an nn.Module"),
    ("build net.py:raising --out new", r"raising() raised RuntimeError: no weights here (net.py:17)"),
    (
        "build net.py:failing --out new",
        "the model cannot be called on images of shape (1, 8, 8) from data set 'digits': RuntimeError: mat1",
    ),
    ("plan net.py:failing --input 1x8x8 --out new.json", "Sequential fails on its example of shape (1, 1, 8, 8)"),
    (f"build {NET} --data photos --image-size 8 --out new --set budgets=params=1/500", "closest reachable is"),
    # scores, recipes, budgets
    (f"{BUILD} --score synflw", "unknown score 'synflw'; did you mean 'synflow'?"),
    (f"{PLAN} --score snap", "unknown score 'snap'; did you mean 'snip'?"),
    (f"{PLAN} --score snip", "score 'snip' needs images and their classes: pass batches=[(x_BCHW, y_B)], on the"),
    (f"{BUILD} --recipe reconvine", "unknown recipe 'reconvine'; did you mean 'reconvene'?"),
    (f"{BUILD} --budget parms=1/4", "unknown budget key 'parms'; did you mean 'params'?"),
    (f"{BUILD} --budget params", "budget 'params' is not KEY=LIMIT: write a share of the dense cost (1/16,"),
    (f"{BUILD} --budget params=many", "budget params=many is not a number: write a share"),
    (f"{BUILD} --budget params=1/0", "budget params=1/0 is not a number"),
    (f"{BUILD} --budget weights=3XB", "budget weights=3XB: unknown unit 'XB', known are B, KB, MB, GB, KiB, MiB, GiB"),
    (f"{BUILD} --budget params=1/9999", "budget cannot be met: params=1/9999 asks for at most 0 of"),
    (f"{PLAN} --budget params=1/2 --budget params=1/4", "a plan is for one budget, got 2: params=1/2, params=1/4"),
    (
        f"{BUILD} --budget params=1/4 --budget params=25%",
        "budgets params=1/4 and params=25% ask for the same: build one",
    ),
    (
        f"{BUILD} --budget faster=2x --round-to 8 --set prune.engine=abacus",
        "plans are timed in the engine that the models are for, abacus (prune.engine): prunit has no runtime of it",
    ),
    (
        f"{PLAN} --budget params=16",
        "the closest reachable is … params (for 16 times less write params=16x), with every",
    ),
    # data
    (f"{BUILD} --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
    (f"{BUILD} --data ./nowhere", "there is no folder './nowhere'"),
    (f"{BUILD} --data cifar10", "data set 'cifar10': no data_batch_1, data_batch_2"),
    (f"{BUILD} --data empty", "'empty' is empty; expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg (or test)"),
    (f"{BUILD} --data untrained", "'untrained' has no 'train' folder"),
    (f"{BUILD} --data torn", "torn/train/dog/1.png"),
    (f"{BUILD} --data net.py:no_model", "net.py:no_model"),
    # settings
    (f"{BUILD} --config none.toml", "cannot read the configuration 'none.toml': No such file or directory"),
    (f"{BUILD} --config bad.toml", "'bad.toml' is not TOML: "),
    (f"{BUILD} --config typo.toml", "unknown training setting 'epoch'; did you mean 'epochs'?"),
    (f"{BUILD} --set prune.evaluater=score", "unknown setting 'prune.evaluater'; did you mean 'prune.evaluator'?"),
    (f"{BUILD} --set lr=1", "unknown setting 'lr': write train.lr"),
    (f"{BUILD} --round-to 0", "setting prune.round_to='0': input should be a whole number of channels, at least"),
    (f"{PLAN} --round-to many", "setting prune.round_to='many': input should be a whole number of channels, at least"),
    (f"{PLAN} --set prune.limits=0.5", "setting prune.limits=0.5: input should be a valid dictionary"),
    (
        f"{BUILD} --set prune.limits={{0=[0.6,0.5]}}",
        "limit '0' = [0.6, 0.5] asks for more at least than at most: write",
    ),
    (
        f"{PLAN} --set prune.limits={{conv=[0.5,1]}}",
        "limit 'conv' fits no module that makes channels; the nearest are ",
    ),
    (f"{BUILD} --round-to 8 --set prune.limits={{0=[0,0.5]}}", "group '0' of 8 channels has no width left: "),
    (f"{BUILD} --epochs 0", "training setting 'epochs' = 0: input should be greater than or equal to 1"),
    (f"{BUILD} --subset 0", "setting subset=0: input should be greater than or equal to 1"),
    (f"{BUILD} --device cuda:99", "device 'cuda:99' was asked for, but"),
    (f"{PLAN} --device cuda:99", "device 'cuda:99' was asked for, but"),
    (f"{BUILD} --device tpu", "training setting 'device' = 'tpu': use auto, cpu, cuda or cuda:N"),
    (
        "plan net.py:network --input 8x8 --out new.json",
        "--input 8x8: write it as C×H×W with H = W, for example 3x32",
    ),
    (f"plan {NET} --input 3x8x9 --out new.json", "--input 3x8x9: write it as C×H×W with H = W"),
    # options and commands
    (f"{BUILD} --epoch 3", "No such option: --epoch…; see `prunit build --help`"),
    (f"{BUILD} --epochs three", "Invalid value for '--epochs': "),
    ("biuld", "No such command 'biuld'…; see `prunit --help`"),
    ("inspect", "Missing argument '…'; see `prunit inspect --help`"),
    ("bench portfolio --threads 0", "Invalid value for '--threads': "),
    # folders and files
    (f"build {NET} --out used", "'used' is not empty: choose a folder (--out) that is empty or not there yet"),
    (f"build {NET} --out used --resume", "'used' holds no build to resume: choose another folder (--out)"),
    (f"build {NET} --out portfolio", "'portfolio' already holds a build: continue it with --resume, or choose"),
    (
        "build net.py:network --out portfolio --resume",
        "the build in 'portfolio' was started with model=…, now it is net",
    ),
    (f"build {NET} --out net.py", "'net.py' is a file: choose a folder (--out) that is empty or not there yet"),
    (
        "build net.py:network --out net.py/new",
        "cannot use 'net.py/new': Not a directory; choose another folder (--out)",
    ),
    (
        "plan net.py:network --out portfolio",
        "--out portfolio: it is a folder; name the file to write, for example port",
    ),
    (f"plan {NET} --input 1x8x8 --out net.py/p.json", "--out net.py/p.json: 'net.py' is a file, not a folder"),
    (
        "inspect nowhere",
        "'nowhere' does not exist: give a portfolio folder, a plan .json, a .safetensors, .onnx or .tflite file",
    ),
    (
        "inspect net.py",
        "'net.py': prunit explains portfolio folders, plan .json, .safetensors, .onnx and .tflite files",
    ),
    ("inspect empty", "'empty' is no portfolio: it holds no portfolio.json; 'prunit build … --out DIR' writes one"),
    ("inspect unfinished", "'unfinished' holds a build that is not finished: go on with `prunit build … --resume`"),
    ("inspect torn-portfolio", "cannot read 'torn-portfolio/portfolio.json': it is not JSON or was cut short"),
    ("inspect cut.json", "'cut.json': not a plan: no JSON"),
    ("inspect other.json", '\'other.json\': not a plan: no "format": "prunit-plan" in it'),
    ("inspect cut.safetensors", "'cut.safetensors' is not a whole .safetensors file"),
    ("inspect cut.onnx", "'cut.onnx' is not a valid ONNX file"),
    ("bench empty", "'empty' is no portfolio: it holds no portfolio.json"),
    ("bench damaged", "'damaged' is damaged: variant 'dense': 'dense.onnx' has 8 bytes instead of"),
    ("bench portfolio/dense.onnx", "'portfolio/dense.onnx' is no portfolio: it is a file; name the folder"),
]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


@pytest.mark.parametrize(("command", "message"), CASES)
def test_mistake_is_one_line_and_changes_nothing(here: Path, command: str, message: str) -> None:
    before = contents(here)
    quick = QUICK if command.startswith("build") else ()
    name, *rest = command.split()
    result = prunit(name, *quick, *rest)
    assert (result.code, result.out) == (2, ""), result.err
    assert result.complaint.startswith("prunit: ")
    # '…' stands for anything.
    assert re.search(re.escape(message).replace("…", ".*"), result.complaint), result.complaint
    assert contents(here) == before


def test_full_disk_is_one_line_and_keeps_what_was_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = Path("portfolio/params-1-2.plan.json").read_text()
    Path("cut.json").write_text(older)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    for command in (f"{BUILD} --data digits", "plan net.py:network --input 1x8x8 --set prune.rounds=2 --out cut.json"):
        result = prunit(*command.split(), *(QUICK if command.startswith("build") else ()))
        assert (result.code, result.out) == (2, "")
        assert re.search("cannot write '.*': No space left on device; check that its folder", result.complaint)
    assert Path("cut.json").read_text() == older
    assert not list(here.rglob("*.tmp*"))


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str, lines: dict[str, str], *, as_json: bool) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("prunit.cli.show.listing", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        prunit("models")
