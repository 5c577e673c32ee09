"""Wrong command lines that can be refused without a model, and a folder of files to get wrong."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.cli.running import prunit

NET: Final = """
from torch import nn

def network(num_classes, in_channels):
    return nn.Conv2d(in_channels, num_classes, 3)
"""
_BUILD: Final = "build net.py:network --out new"
_PLAN: Final = "plan net.py:network --out new.json"
_SWEEP: Final = "sweep net.py:network --out new"
_LADDER: Final = "ladder net.py:network --out new"

MISTAKES: Final = [
    # addresses
    (
        "build net.py:network --out foo://bucket/x",
        "'foo://bucket/x': fsspec knows no addresses that begin with 'foo://'",
    ),
    ("build net.py:network --out memory://", "'memory://' names no folder: write it as memory://BUCKET/NAME"),
    (
        "build net.py:network --out memory://x/y",
        "--out memory://x/y: what lies in memory is gone when this command ends (it is for Python)",
    ),
    ("sweep net.py:network --out memory://x/y", "--out memory://x/y: what lies in memory is gone"),
    ("ladder net.py:network --out memory://x/y", "--out memory://x/y: what lies in memory is gone"),
    ("build net.py:network --out file:///", "'file:///' names no folder: write it as file:///PATH/NAME"),
    ("build net.py:network --out file://a/b", "'file://a/b': file:// needs an absolute path, with a third '/'"),
    ("build net.py:network --out file:/a/b", "'file:/a/b' lacks a '/' to be an address (…): give 'file:///a/b'"),
    ("shrink net.py:network zeros.pt --out s3:/b/x.safetensors", "'s3:/b/x.safetensors' lacks a '/' to be an address"),
    ("build net.py:network --out memory://x/*", "'memory://x/*': name one folder, without '::', '*', '?'"),
    ("build net.py:network --out zip::memory://x/y", "'zip::memory://x/y': name one folder, without '::'"),
    (
        "build net.py:network --out s3:/bucket/x",
        "'s3:/bucket/x' lacks a '/' to be an address (…): give 's3://bucket/x'",
    ),
    ("build net.py:network --out new --work other", "work=other (--work) is where to work for an address"),
    ("sweep net.py:network --out foo://bucket/x", "fsspec knows no addresses that begin with 'foo://'"),
    ("ladder net.py:network --out foo://bucket/x", "fsspec knows no addresses that begin with 'foo://'"),
    ("shrink net.py:network zeros.pt --out foo://b/x.onnx", "--out foo://b/x.onnx: name a .safetensors file"),
    ("install memory://nothing/here", "name the folder to bring it to: prunit install memory://nothing/here DIR"),
    ("install memory://nothing/here new", "'memory://nothing/here' is no portfolio: it holds no portfolio.json"),
    (
        "install memory://nothing/here s3://bucket/x",
        "'s3://bucket/x' is an address, and this needs a folder of this machine to write to",
    ),
    ("install portfolio s3://bucket/x", "'s3://bucket/x' is an address, and this needs a folder of this machine"),
    (
        "build net.py:network --out s3://bucket/x --work s3://bucket/y",
        "'s3://bucket/y' is an address, and this needs a folder of this machine",
    ),
    ("install new other", "'new' is no portfolio"),
    (
        "serve s3://bucket/x",
        "'s3://bucket/x' is an address, and this needs a folder: 'prunit install s3://bucket/x DIR'",
    ),
    (
        "inspect s3://bucket/x",
        "'s3://bucket/x' is an address, and this needs a folder: 'prunit install s3://bucket/x DIR'",
    ),
    (
        "inspect file:///bucket/x",
        "'file:///bucket/x' is an address, and this needs a folder: 'prunit install file:///bucket/x DIR'",
    ),
    ("serve file:///bucket/x", "'file:///bucket/x' is an address, and this needs a folder: 'prunit install file:///b"),
    ("bench file:///bucket/x", "'file:///bucket/x' is an address, and this needs a folder: 'prunit install file:///b"),
    ("simulate s3://me:secret@bucket/x --trace t", "'s3://…@bucket/x' is an address, and this needs a folder"),
    # commands, options and arguments
    ("biuld", "No such command 'biuld'"),
    (f"{_BUILD} --epoch 3", "No such option: --epoch"),
    (f"{_BUILD} --epochs three", "Invalid value for '--epochs': "),
    (f"{_BUILD} --out", "Option '--out' requires an argument"),
    (f"{_PLAN} --buget macs=1/2", "No such option: --buget"),
    (f"{_SWEEP} --eta some", "Invalid value for '--eta': "),
    (f"{_LADDER} --densty 1/4", "No such option: --densty"),
    ("shrink resnet20", "Missing argument 'CHECKPOINT'"),
    ("inspect", "Missing argument '…'"),
    ("layers", "Missing argument '…'"),
    ("probe-device", "Missing argument '…'"),
    ("bench portfolio --threads 0", "Invalid value for '--threads': "),
    ("serve portfolio --port 99999", "Invalid value for '--port': "),
    ("simulate portfolio", "Missing option '--trace'"),
    ("evaluate portfolio", "Missing option '--data'"),
    ("top --every 0", "Invalid value for '--every': "),
    # trainings at the same time
    (f"{_BUILD} --jobs abc", "Invalid value for '--jobs': "),
    (f"{_BUILD} --jobs 0", "Invalid value for '--jobs': "),
    (f"{_SWEEP} --jobs -1", "Invalid value for '--jobs': "),
    (f"{_BUILD} --jobs 4", "jobs=4 (--jobs): this build has 3 trainings that can run at once; ask for no more"),
    (f"{_BUILD} --jobs 2 --time 90s", "jobs=2 (--jobs) and effort.time=90s (--time): a time is shared out among"),
    (f"{_BUILD} --jobs 2 --set train.devices=2", "jobs=2 (--jobs) trains variants beside each other, and train.devi"),
    (f"{_SWEEP} --jobs 11", "jobs=11 (--jobs): this sweep has 10 trainings that can run at once; ask for no more"),
    (f"{_LADDER} --jobs 2", "jobs=2 (--jobs): by 'imp' each level of a ladder starts from the one before, so"),
    (f"{_LADDER} --jobs 5 --method snip", "jobs=5 (--jobs): this ladder has 4 trainings that can run at once"),
    (f"{_BUILD} --ray nonsense", "--ray nonsense: write local, auto, or the HOST:PORT that `ray start --head` shows"),
    (f"{_BUILD} --ray ray://host:10001", "--ray ray://host:10001: write local, auto, or the HOST:PORT that"),
    (f"{_BUILD} --cpus-per-trial 2", "--cpus-per-trial 2 is of trainings on Ray: say --ray local, or --ray ADDRESS"),
    (f"{_SWEEP} --gpus-per-trial 0.25", "--gpus-per-trial 0.25 is of trainings on Ray: say --ray local, or"),
    (f"{_LADDER} --ray local", "--ray local: by 'imp' each level of a ladder starts from the one before, so nothing"),
    (f"{_BUILD} --ray local --time 90s", "--ray local and effort.time=90s (--time): a time is shared out among"),
    # a fleet
    (f"{_BUILD} --fleet none.toml", "there is no list of devices 'none.toml'; it has a table [[device]] with name"),
    (f"{_BUILD} --fleet bad.toml", "'bad.toml' is no list of devices: "),
    (f"{_BUILD} --fleet goalless.toml", "'goalless.toml' says no goal for pi: give each device what a model may cost"),
    (f"{_PLAN} --fleet late.toml", "'late.toml': device 'pi', budget latency=8ms: there is no profile 'profiles/pi.j"),
    (f"{_PLAN} --fleet late.toml --profiles a,b", "--profiles 'a,b': commas part the limits of a budget; rename the"),
    (f"{_PLAN} --fleet counted.toml --measure", "--measure times plans on this machine; those of a fleet go by the"),
    (f"{_PLAN} --fleet counted.toml --out net.py", "--out net.py: it is a file; for a fleet it is the folder of the"),
    (f"{_PLAN} --fleet counted.toml --score snip", "score 'snip' needs images and their classes: pass batches="),
    (f"{_BUILD} --fleet counted.toml --budget macs=1/2", "budgets macs=1/2 and a fleet: in a build for a fleet they"),
    (f"{_BUILD} --fleet counted.toml --slack 2", "setting fleet.slack=2.0: input should be less than 1"),
    (f"{_BUILD} --fleet counted.toml --jobs 3", "jobs=3 (--jobs): this build has 2 trainings that can run at once"),
    (f"{_BUILD} --slack 0.2", "--slack 0.2 is of a fleet: say --fleet FILE, a list of devices with budgets"),
    (f"{_PLAN} --profiles profiles", "--profiles profiles is of a fleet: say --fleet FILE"),
    (f'{_SWEEP} --set fleet.goals={{pi="macs=1/2"}}', "setting fleet.goals is for build and plan, not for a sweep"),
    (f'{_LADDER} --set fleet.goals={{pi="macs=1/2"}}', "setting fleet.goals is for build and plan, not for a ladder"),
    ("install portfolio --device pi", "the portfolio in 'portfolio' was not built for a fleet ('fleet.json' is not"),
    ("install portfolio used", "'used' is not empty: name a folder that is empty or not there yet"),
    # models
    ("build resnet21 --out new", "unknown model 'resnet21'; did you mean 'resnet20'?"),
    ("plan vgg-16 --out new.json", "unknown model 'vgg-16'; did you mean 'vgg16'?"),
    ("sweep resnt20 --out new", "unknown model 'resnt20'; did you mean 'resnet20'?"),
    ("ladder resnt20 --out new", "unknown model 'resnt20'; did you mean 'resnet20'?"),
    ("shrink resnt20 cut.safetensors --out new.safetensors", "unknown model 'resnt20'; did you mean 'resnet20'?"),
    ("layers resnt20 --out new.json", "unknown model 'resnt20'; did you mean 'resnet20'?"),
    ("build net.py --out new", "'net.py' names a file but no factory in it: write net.py:FACTORY"),
    ("build none.py:network --out new", "there is no file 'none.py'"),
    ("plan no_such_package:network --out new.json", "there is no module 'no_such_package', neither installed nor"),
    ("build net.py: --out new", "'net.py:' names no factory"),
    ("layers none.py:network --out new.json", "there is no file 'none.py'"),
    # what a model is built for
    (f"{_PLAN} --input 8x8", "--input 8x8: write it as C×H×W with H = W, for example 3x32x32"),
    (f"{_PLAN} --classes 0", "num_classes=0 for model 'net.py:network': it must be at least 1"),
    ("layers resnet20 --input 3x8x9 --out new.json", "--input 3x8x9: write it as C×H×W with H = W"),
    ("layers resnet20 --classes 0 --out new.json", "num_classes=0 for model 'resnet20': it must be at least 1"),
    ("shrink resnet20 cut.safetensors --input 8x8 --out new.safetensors", "--input 8x8: write it as C×H×W with H = W"),
    # recipes, scores, switches
    (f"{_BUILD} --recipe reconvine", "unknown recipe 'reconvine'; did you mean 'reconvene'?"),
    (f"{_BUILD} --score synflw", "unknown score 'synflw'; did you mean 'synflow'?"),
    (f"{_BUILD} --start trained --set start.score=tailor", "unknown score 'tailor'; did you mean 'taylor'?"),
    (f"{_PLAN} --score snap", "unknown score 'snap'; did you mean 'snip'?"),
    (f"{_PLAN} --score snip", "score 'snip' needs images and their classes: pass batches=[(x_BCHW, y_B)], on the"),
    (f"{_PLAN} --mode xa", "setting prune.mode='xa': input should be 'pa', 'fa', 'ma', 'la' or 'ea'"),
    (f"{_BUILD} --mode pa --recipe uniform", "--mode pa is of the recipe 'complexity', got --recipe uniform"),
    (f"{_BUILD} --mode la", "the mode 'la' needs the profile of a device: set prune.profile=FILE; prunit probe-device"),
    (f"{_BUILD} --set prune.evaluator=emptyd", "setting prune.evaluator='emptyd': input should be 'emptied', "),
    (f"{_BUILD} --set prune.rectifier=renit", "setting prune.rectifier='renit': input should be 'auto', 'reinit', "),
    (
        f'{_BUILD} --budget params=1/2 --set by_variant.params-1-2={{recipe="unifrm"}}',
        "unknown recipe 'unifrm'; did you mean 'uniform'?",
    ),
    (
        f'{_BUILD} --budget params=1/2 --set by_variant.params-1-3={{recipe="uniform"}}',
        "unknown variant 'params-1-3'; did you mean 'params-1-2'?",
    ),
    (f"{_SWEEP} --recipes unifrm", "unknown recipe 'unifrm'; did you mean 'uniform'?"),
    (f"{_SWEEP} --recipes uniform:pa", "recipe 'uniform:pa': uniform has no switch; write uniform, or one of"),
    (f"{_SWEEP} --recipes reconvene:emptyd", "setting prune.evaluator='emptyd': input should be 'emptied', "),
    (f"{_SWEEP} --eta 1", "eta=1: at least 2, the number of trials of which one goes on"),
    (f"{_SWEEP} --held-out 2", "held_out=2.0: a share of the training images between 0 and 1"),
    (f"{_LADDER} --method imq", "unknown method 'imq'; did you mean 'imp'?"),
    (f"{_LADDER} --density 2", "density '2': it must lie between 0 and 1; the dense model is there anyway"),
    (f"{_LADDER} --density some", "density 'some': write a share of the weights, for example 1/16 or 5%"),
    (f"{_LADDER} --density 1/4 --density 25%", "are the same model: leave one out"),
    (f"{_LADDER} --pad many", "setting sparse.pad='many': input should be a whole number of channels, at least 1"),
    (f"{_LADDER} --epochs 2 --set sparse.rewind=2", "sparse.rewind=2: it must be less than train.epochs=2"),
    # budgets
    (f"{_BUILD} --budget parms=1/4", "unknown budget key 'parms'; did you mean 'params'?"),
    (f"{_BUILD} --budget params", "budget 'params' is not KEY=LIMIT: write a share of the dense cost (1/16,"),
    (f"{_PLAN} --budget params=many", "budget params=many is not a number: write a share"),
    (f"{_SWEEP} --budget weights=3XB", "budget weights=3XB: unknown unit 'XB', known are B, KB, MB, GB, KiB, MiB, GiB"),
    (f"{_PLAN} --budget params=1/2 --budget params=1/4", "a plan is for one budget, got 2: params=1/2, params=1/4"),
    (f"{_BUILD} --budget params=1/4 --budget params=25%", "budgets params=1/4 and params=25% ask for the same"),
    (f"{_BUILD} --budget cycles=1M@ethos-u56", "unknown part 'ethos-u56'; did you mean 'ethos-u55"),
    (f"{_BUILD} --budget latency=5ms@none.json", "'none.json'"),
    (f"{_BUILD} --budget latency=5ms@bad.toml", "'bad.toml'"),
    (
        f"{_BUILD} --budget faster=2x --round-to 8 --set prune.engine=abacus",
        "plans are timed in the engine that the models are for, abacus (prune.engine): prunit has no runtime of it",
    ),
    (f"{_BUILD} --set prune.engine=abacus", "'abacus'"),
    (f"{_BUILD} --set prune.limits={{0=[0.6,0.5]}}", "limit '0' = [0.6, 0.5] asks for more at least than at most"),
    # parts, precisions, tasks
    (f"{_BUILD} --target ethos-u56", "unknown part 'ethos-u56'; did you mean 'ethos-u55"),
    (f"{_BUILD} --precision int4", "setting precision.wanted.0='int4': input should be 'fp32', "),
    (f"{_BUILD} --precision dens=int8", "unknown variant 'dens'; did you mean 'dense'?"),
    (f"{_BUILD} --task segmentaton", "unknown task 'segmentaton'; did you mean 'segmentation'?"),
    (f"{_PLAN} --task segmentaton", "unknown task 'segmentaton'; did you mean 'segmentation'?"),
    (f"{_BUILD} --task none.py:task", "there is no file 'none.py'"),
    # data
    (f"{_BUILD} --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
    (f"{_PLAN} --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
    (f"{_SWEEP} --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
    (f"{_LADDER} --data digit", "unknown data set 'digit'; did you mean 'digits'?"),
    ("shrink resnet20 cut.safetensors --data digit --out new.safetensors", "unknown data set 'digit'; did you mean"),
    (f"{_BUILD} --data cifar10", "data set 'cifar10': no data_batch_1, data_batch_2"),
    (f"{_BUILD} --data fashion-mnist --data-dir empty", "data set 'fashion-mnist': no train-images-idx3-ubyte"),
    (f"{_BUILD} --data tiny-imagenet --data-dir empty", "data set 'tiny-imagenet': no folder tiny-imagenet-200"),
    (f"{_BUILD} --data cifar10 --task detection", "data set 'cifar10' is for classification, not for detection"),
    (f"{_BUILD} --data ./nowhere", "there is no folder './nowhere'"),
    (f"{_BUILD} --data nowhere.csv --task regression", "there is no file 'nowhere.csv'"),
    (f"{_BUILD} --data none.py:images", "there is no file 'none.py'"),
    (f"{_BUILD} --data net.py", "'net.py' names a file but no factory in it: write net.py:FACTORY"),
    (f"{_BUILD} --data empty", "'empty' is empty; expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg (or test)"),
    (f"{_BUILD} --data photos --task detection", "'photos' holds images in class folders, not data for detection"),
    # settings
    (f"{_BUILD} --config none.toml", "cannot read the configuration 'none.toml': No such file or directory"),
    (f"{_BUILD} --config bad.toml", "'bad.toml' is not TOML: "),
    (f"{_BUILD} --config typo.toml", "unknown training setting 'epoch'; did you mean 'epochs'?"),
    (f"{_PLAN} --config kind.toml", "training setting 'seed' = 'many': input should be a valid integer"),
    (f"{_SWEEP} --config value.toml", "training setting 'epochs' = 0: input should be greater than or equal to 1"),
    (f"{_LADDER} --config section.toml", "setting prune='all': it is a section with prune.recipe, "),
    (f"{_BUILD} --set prune.evaluater=score", "unknown setting 'prune.evaluater'; did you mean 'prune.evaluator'?"),
    (f"{_BUILD} --set lr", "--set lr: write it as section.name=value, for example train.lr=0.05"),
    (f"{_BUILD} --round-to 0", "setting prune.round_to='0': input should be a whole number of channels, at least"),
    (f"{_BUILD} --device tpu", "training setting 'device' = 'tpu': use auto, cpu, cuda or cuda:N"),
    (f"{_BUILD} --train equal-steps", "setting effort.rule='equal-steps': input should be 'equal-time', 'equal-macs'"),
    (f"{_BUILD} --time soon", "setting effort.time='soon': "),
    (
        "build resnet20 --data digits --out new --start trained --dense keep",
        "keeps the dense model as it is made, and 'resnet20' is made with random weights: give a file of trained ones,"
        " with --weights FILE",
    ),
    (f"{_BUILD} --start trained --dense kept", "setting start.dense='kept': input should be 'auto', 'train' or 'keep'"),
    # options that contradict each other
    (f"{_BUILD} --time 30m --epochs 3", "--time 30m says how long to train, and --epochs 3 too: give one"),
    (f"{_BUILD} --fine-tune 3", "start.epochs (--fine-tune) is for variants that begin with trained weights: add"),
    (
        f"{_BUILD} --start trained --rounds 3 --fine-tune 2",
        "start.rounds=3 (--rounds) are more than start.epochs=2",
    ),
    (f"{_BUILD} --weights-key ema", "start.key=ema says which weights of a file to take, and start.weights names"),
    ("bench portfolio --cache new", "--cache is where the choices of --engines are kept: give that too"),
    # files and folders
    (f"{_BUILD} --weights none.pt", "there is no checkpoint 'none.pt'"),
    ("shrink resnet20 none.pt --out new.safetensors", "there is no checkpoint 'none.pt'"),
    ("shrink resnet20 cut.safetensors --out new.pt", "--out new.pt: name a .safetensors file"),
    ("shrink resnet20 cut.safetensors --tolerance 2", "--tolerance 2: it must be at least 0 and below 1"),
    ("build net.py:network --out used", "'used' is not empty: choose a folder (--out) that is empty or not there yet"),
    ("build net.py:network --out used --resume", "'used' holds no build to resume: choose another folder (--out)"),
    ("build net.py:network --out portfolio", "'portfolio' already holds a build: continue it with --resume, or choose"),
    (
        "build net.py:network --out portfolio --resume",
        "the build in 'portfolio' was started with model=…, now it is net.py:network: resume it as it was started, or",
    ),
    (
        "ladder net.py:network --out portfolio --resume",
        "the build in 'portfolio' was started with model=…, now it is net.py:network: resume it as it was started, or",
    ),
    ("sweep net.py:network --out used", "'used' is not empty: choose a folder (--out) that is empty or not there yet"),
    ("sweep net.py:network --out swept", "'swept' already holds a sweep: continue it with --resume, or choose another"),
    ("ladder net.py:network --out net.py", "'net.py' is a file: choose a folder (--out) that is empty or not there"),
    ("plan net.py:network --out portfolio", "--out portfolio: it is a folder; name the file to write, for example"),
    ("plan net.py:network --out other.json", "--out other.json: the file is there and holds no plan; choose another"),
    ("layers resnet20 --out net.py/new.json", "--out net.py/new.json: 'net.py' is a file, not a folder"),
    ("inspect nowhere", "'nowhere' does not exist: give a portfolio folder, a plan .json, a .safetensors, .onnx or"),
    ("inspect net.py", "'net.py': prunit explains portfolio folders, plan .json, .safetensors, .onnx and .tflite"),
    ("inspect empty", "'empty' is no portfolio: it holds no portfolio.json; 'prunit build … --out DIR' writes one"),
    ("inspect cut.json", "'cut.json': not a plan: no JSON"),
    ("inspect other.json", '\'other.json\': not a plan: no "format": "prunit-plan" in it'),
    ("probe-device none.json --out new.json", "'none.json'"),
    ("probe-device layers.json --out new.json", "'layers.json'"),
    ("probe-device layers.json --out empty", "--out empty: it is a folder; name the file to write, for example empty"),
    # a portfolio on a device
    ("bench empty", "'empty' is no portfolio: it holds no portfolio.json"),
    ("bench portfolio --engines onnxruntme", "unknown engine 'onnxruntme'; did you mean 'onnxruntime'?"),
    ("install nowhere", "'nowhere'"),
    ("install portfolio --engine onnxruntme", "unknown runtime 'onnxruntme'; did you mean 'onnxruntime'?"),
    ("simulate nowhere --trace none.txt", "'nowhere'"),
    ("simulate portfolio --trace none.txt", "there is no trace 'none.txt'"),
    ("simulate portfolio --trace trace.txt --policy quick", "unknown policy 'quick'; did you mean 'queue'?"),
    ("simulate portfolio --trace trace.txt --scale 0", "--scale 0: it must be more than 0"),
    ("replay portfolio --trace trace.txt --policy quick", "unknown policy 'quick'; did you mean 'queue'?"),
    ("replay nowhere --trace trace.txt", "'nowhere'"),
    ("evaluate nowhere --data photos", "'nowhere'"),
    ("evaluate portfolio --data nowhere", "'nowhere'"),
    ("evaluate portfolio --data photos --variant dens", "unknown variant 'dens'; did you mean 'dense'?"),
    ("evaluate portfolio --data photos --split tset", "'tset'"),
    ("serve nowhere", "'nowhere'"),
    ("serve portfolio --policy quick", "unknown policy 'quick'; did you mean 'queue'?"),
    ("serve portfolio --memory lots", "'lots'"),
    ("serve portfolio --cpus many", "'many' are no CPUs: write 0,2-3"),
    ("serve portfolio --engine onnxruntme", "unknown runtime 'onnxruntme'; did you mean 'onnxruntime'?"),
    ("serve portfolio --token-file none.txt", "cannot read the token file 'none.txt'"),
    ("top localhost:8000", "'localhost:8000' is no address of a server: http://127.0.0.1:8000"),
    ("top http://127.0.0.1:9", "no server answers at http://127.0.0.1:9 "),
]
"""A command line, and how its one line goes on after `prunit: `; '…' stands for anything."""


def lay_out(folder: Path, portfolio: Path) -> None:
    """Put the files that `MISTAKES` name into an empty folder; `portfolio` is that of a build, which is copied."""
    (folder / "empty").mkdir()
    shutil.copytree(portfolio, folder / "portfolio")
    files = {
        "net.py": NET,
        "used/notes.txt": "mine",
        "swept/trials.json": "{}",
        "cut.json": (portfolio / "dense.plan.json").read_text()[:100],
        "other.json": '{"format": "something else"}',
        "bad.toml": "[train\n",
        "typo.toml": "[train]\nepoch = 3\n",
        "kind.toml": 'seed = "many"\n',
        "value.toml": "[train]\nepochs = 0\n",
        "section.toml": 'prune = "all"\n',
        "goalless.toml": '[[device]]\nname = "pi"\nhost = "pi"\n',
        "late.toml": '[[device]]\nname = "pi"\nbudget = "latency=8ms"\n',
        "counted.toml": '[[device]]\nname = "pi"\nbudget = "macs=1/2"\n',
        "layers.json": json.dumps({"format": "prunit-layers", "version": 99}),
        "trace.txt": "1\n2\n",
    }
    files |= {f"photos/{part}/{name}/1.png": "" for part in ("train", "val") for name in ("cat", "dog")}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(portfolio / "dense.safetensors", folder / "cut.safetensors")


class NoTorch(MetaPathFinder):
    """Refuses to import torch, and keeps who asked for it."""

    def __init__(self) -> None:
        self.asked = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] == "torch":
            self.asked = True
            raise RuntimeError("torch is imported")
        return None


def main() -> None:
    """Run all mistakes in this process, without torch; a line of JSON for each: its result and whether torch was asked
    for."""
    finder = NoTorch()
    sys.meta_path.insert(0, finder)
    for command, _ in MISTAKES:
        finder.asked = False
        try:
            found = asdict(prunit(*command.split()))
        except RuntimeError as error:
            found = {"code": None, "out": "", "err": str(error)}
        sys.stdout.write(json.dumps({**found, "torch": finder.asked}) + "\n")


if __name__ == "__main__":
    main()
