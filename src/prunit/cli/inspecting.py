"""`prunit inspect`: explain a plan, a portfolio, a weights file or an exported model."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import typer

from prunit.cli.safe import safe
from prunit.edge.install import place_of
from prunit.edge.portfolio import MANIFEST, Portfolio, Variant
from prunit.edge.served import Fleet
from prunit.edge.switching.events import LOG, read_events
from prunit.errors import FileError, MissingExtraError, PortfolioError, PrunitError
from prunit.files import sha256_of
from prunit.mcu.reading import content_of
from prunit.recipe.folder import STATE, read_plan
from prunit.report.numbers import score
from prunit.report.parts import NAMES, amount
from prunit.report.precisions import made_by

_EVENTS: Final = 10
"""So many of the last things that went wrong here are shown."""


def explain(what: Path, *, as_json: bool) -> None:
    """Print what the file or folder holds; raises `FileError` where it is none of prunit's."""
    if not what.exists():
        from prunit.remote import hint_for

        raise FileError(
            hint_for(what)
            or f"'{what}' does not exist: give a portfolio folder, a plan .json, a .safetensors, .onnx or .tflite file"
        )
    if what.is_dir() or what.name == MANIFEST:
        _portfolio(what if what.is_dir() else what.parent, as_json=as_json)
    elif what.suffix == ".onnx":
        _onnx(what, as_json=as_json)
    elif what.suffix == ".tflite":
        _tflite(what, as_json=as_json)
    elif what.suffix in (".safetensors", ".json"):
        _plan(what, as_json=as_json)
    else:
        raise FileError(
            f"'{what}': prunit explains portfolio folders, plan .json, .safetensors, .onnx and .tflite files"
        )


def _portfolio(folder: Path, *, as_json: bool) -> None:
    from prunit.cli import show

    if not (folder / MANIFEST).exists() and (folder / STATE).is_dir():
        raise PortfolioError(f"'{folder}' holds a build that is not finished: go on with `prunit build … --resume`")
    found = Portfolio.read(folder)
    problems = [*found.verify(folder), *_of_fleet(folder)]
    if as_json:
        typer.echo(json.dumps(show.portfolio_json(found, folder) | {"problems": problems}, indent=2))
    else:
        show.portfolio(found, folder, built=False)
        out = show.console()
        out.print()
        for v in found.variants:
            budget = ", ".join(f"{k}={t}" for k, t in v.budget.items()) or "no budget"
            seconds = ", ".join(f"{step} {s:.1f} s" for step, s in v.seconds.items())
            how = ", ".join([v.recipe, *(f"{name} {value}" for name, value in v.settings.items())])
            told = f"{how}, {budget}, seed {v.seed}, {v.epochs} epochs; {seconds}"
            if v.lowered:
                told = f"“{v.lowered.twin}” in {v.precision}: {', '.join(made_by(v))}; {seconds}"
            out.print(f"[bold]{safe(v.name)}[/]  {safe(told)}")
        front = ", ".join(v.name for v in found.pareto("latency_ms")) if _measured(found) else ""
        out.print(f"\n{safe(found.task.metric)} against latency, not dominated: {safe(front) or 'not measured'}")
        events = read_events(place_of(folder) / LOG)[-_EVENTS:]
        for event in events:
            when = datetime.fromtimestamp(event.at, UTC).isoformat(sep=" ", timespec="seconds")
            told = f"{when} {' '.join(filter(None, (event.kind, event.variant)))}: {event.why}"
            out.print(f"[yellow]on this device:[/] {safe(told)}", soft_wrap=True)
        if not problems:
            out.print("all files are there and match their sha256")
    if problems:
        raise PortfolioError(f"'{folder}' is damaged: {'; '.join(problems)}; build it again, or copy it anew")


def _of_fleet(folder: Path) -> list[str]:
    """What is wrong with what the folder says of a fleet."""
    try:
        Fleet.read(folder)
    except PortfolioError as error:
        return [str(error)]
    return []


def _measured(found: Portfolio) -> bool:
    return all(v.metrics.accuracy is not None and v.metrics.latency_ms() is not None for v in found.variants)


def _plan(file: Path, *, as_json: bool) -> None:
    if file.suffix == ".safetensors":
        try:
            from prunit.cut.plan_files import read_plan as stored_plan
        except ModuleNotFoundError as error:
            raise MissingExtraError("explaining a weights file", str(error.name), "train") from error
        plan = stored_plan(file)
    else:
        plan = read_plan(file)
    origin = dict(plan.origin)
    why = origin.pop("why", {})
    if as_json:
        groups = {n: {"dense": plan.dense[n], "kept": len(c)} for n, c in plan.keep.items()}
        typer.echo(json.dumps({"hash": plan.hash, "origin": origin, "why": why, "groups": groups}, indent=2))
        return
    from prunit.cli import show

    out = show.console()
    out.print(show.widths(plan.dense, plan.widths, why, {}))
    made = ", ".join(f"{k}={v}" for k, v in origin.items()) or "by hand"
    out.print(f"plan {plan.hash}: {safe(made)}")


def _onnx(file: Path, *, as_json: bool) -> None:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("explaining an ONNX file", "onnx", "train") from error
    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except Exception as error:
        raise FileError(f"'{file}' is not a valid ONNX file: {' '.join(str(error).split())[:200]}") from error
    operators: dict[str, int] = {}
    for node in model.graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    facts: dict[str, Any] = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "sha256": sha256_of(file),
        "opset": model.opset_import[0].version,
        "inputs": {i.name: _shape(i) for i in model.graph.input},
        "outputs": {o.name: _shape(o) for o in model.graph.output},
        "weights": sum(_elements(t) for t in model.graph.initializer),
        "operators": dict(sorted(operators.items(), key=lambda kv: -kv[1])),
        "variant of": _variant_of(file),
    }
    _print(facts, as_json=as_json)


def _tflite(file: Path, *, as_json: bool) -> None:
    read = content_of(file.read_bytes(), str(file))
    facts: dict[str, Any] = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "sha256": sha256_of(file),
        "inputs": {each.name: each.told for each in read.inputs},
        "outputs": {each.name: each.told for each in read.outputs},
        "constants": f"{read.constant_bytes:,} bytes" + (", some behind the flatbuffer" if read.outside else ""),
        "operators": dict(read.operators),
        "variant of": _variant_of(file),
    }
    if read.placed:
        facts["arena"] = "a plan in the file says where tensors lie"
    if read.misplaced:
        facts["beware"] = "its plan of an arena is of other tensors: compile it again from a file without such a plan"
    if read.outside:
        facts["beware"] = "TensorFlow Lite Micro does not look behind the flatbuffer and would answer nonsense"
    facts |= _embedded(file)
    _print(facts, as_json=as_json)


def _embedded(file: Path) -> dict[str, Any]:
    """What the portfolio around the file says of it."""
    try:
        found = Portfolio.read(_root(file))
    except PrunitError:
        return {}
    for variant in found.variants:
        each = variant.embedded
        if each is None or file.name not in [Path(stored.path).name for stored in each.files]:
            continue
        facts: dict[str, Any] = {f"int8 {found.task.metric}": score(found.task.metric, each.accuracy)}
        for on in each.parts:
            if (
                on.compiled is None
                or Path(on.compiled.path).name == file.name
                or file.name == Path(each.file.path).name
            ):
                facts[on.part] = {NAMES[name]: amount(name, value) for name, value in on.figures.items()}
        made = f"ranges by {each.method} of {each.images} training images, seed {each.seed}; {each.library}"
        return facts | {"made by": made + (f"; {each.tuned} epochs for integers" if each.tuned else "")}
    return {}


def _root(file: Path) -> Path:
    """The folder of the portfolio that a file may be of: its own, or the one above."""
    return file.parent if (file.parent / MANIFEST).exists() else file.parent.parent


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from prunit.cli import show

    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        show.console().print(f"[bold]{name:<10}[/] {safe(str(text))}")


def _shape(value: Any) -> str:
    dims = value.type.tensor_type.shape.dim
    return "×".join(d.dim_param or str(d.dim_value) for d in dims)


def _elements(tensor: Any) -> int:
    total = 1
    for n in tensor.dims:
        total *= n
    return total


def _variant_of(file: Path) -> str:
    """Which portfolio in the same folder the file belongs to."""
    try:
        found = Portfolio.read(_root(file))
    except PrunitError:
        return "no portfolio in its folder"
    names = [v.name for v in found.variants if file.name in _files_of(v)]
    return f"{found.name}: {names[0]}" if names else f"{found.name} lists no such file"


def _files_of(variant: Variant) -> list[str]:
    of_parts = [Path(each.path).name for each in variant.embedded.files] if variant.embedded else []
    return [variant.artifact.path, *of_parts]
