"""Tables for people and plain data for programs. What comes from outside (names, paths) is never read as markup."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from prunit.cli.safe import safe
from prunit.report import numbers
from prunit.shown import metric_change
from prunit.units import written

if TYPE_CHECKING:
    from prunit.cli.shrinking import Shrunk
    from prunit.edge.measuring.profile import DeviceProfile
    from prunit.edge.portfolio import Device, Latency, Portfolio
    from prunit.edge.switching.replay import Replayed
    from prunit.edge.switching.simulate import Outcome
    from prunit.graph import ChannelGraph
    from prunit.prices.costs import Cost
    from prunit.recipe import Chosen, Decision
    from prunit.recipe.sweeps import Sweep
    from prunit.report import SummaryRow

EVALUATOR_LINES: Final = {
    "emptied": "a layer bears pruning if the mask empties channels in it; those go",
    "density": "a layer bears pruning if the mask leaves it no denser than the network; it keeps C·√density",
    "score": "a layer bears pruning if narrowing it alone loses little synaptic flow; it keeps C·√density",
    "none": "every layer keeps C·√density, of a mask made for what the budget limits (default of reconvene)",
}
RECTIFIER_LINES: Final = {
    "auto": "reinit for prunit's own networks, own for all others (default)",
    "reinit": "new He-normal weights for layers whose shape changed",
    "own": "the same, but with the deviation of the dense layer's own weights, rescaled",
    "rescale": "inherited weights × √(old fan-in / new fan-in)",
    "none": "inherited weights",
    "all": "new He-normal weights everywhere",
}


def console() -> Console:
    """Standard output; wide enough for tables where it is not a terminal."""
    plain = Console(emoji=False, highlight=False)
    return plain if plain.is_terminal else Console(emoji=False, highlight=False, width=max(plain.width, 120))


def listing(kind: str, lines: Mapping[str, str], *, as_json: bool = False) -> None:
    """Names with one line each."""
    out = console()
    if as_json:
        out.print_json(json.dumps(dict(lines)))
        return
    table = Table(box=box.SIMPLE, show_header=True, header_style="bold", pad_edge=False)
    table.add_column(kind, no_wrap=True, style="bold")
    table.add_column("")
    for name, line in lines.items():
        table.add_row(safe(name), safe(line))
    out.print(table)


def result(found: "Portfolio", folder: Path, *, as_json: bool, built: bool = True) -> None:
    """What a build or a bench ends with: the summary for people, or all of it as JSON."""
    if as_json:
        typer.echo(json.dumps(portfolio_json(found, folder), indent=2))
    else:
        portfolio(found, folder, built=built)


def portfolio(found: "Portfolio", folder: Path, *, built: bool = True) -> None:
    """The summary at the end of a build, or of a bench: each figure, and under it how many times less than dense."""
    from prunit.cli import fleets, parts
    from prunit.edge.comparing.verdicts import KINDS, told, verdicts
    from prunit.edge.portfolio import MANIFEST
    from prunit.report import summary_rows
    from prunit.report.headline import headline

    out = console()
    rows = summary_rows(found)
    title, sentence = headline(found, rows)
    out.print(f"[bold]{safe(_spaced(title))}[/]")
    if rows:
        out.print(_summary(rows, out))
    out.print(safe(_spaced(sentence)))
    for kind, said in told(verdicts(found)):
        out.print(f"[yellow]{KINDS[kind]}:[/] {safe(said)}")
    for each in found.left_out:
        out.print(f"[yellow]left out:[/] {safe(f'“{each.name}”: {each.why}')}")
    if found.device and rows and (latencies := rows[0].latencies):
        counts = ", ".join(f"n = {latency.n} at batch {latency.batch}" for latency in latencies)
        where = f"{_device(found.device, latencies[0].threads)}{_otherwise(found)}"
        out.print(f"[dim]measured on {safe(where)}; {counts}[/]")
    parts.embedded(found, out)
    fleets.shown(folder, out, told=built)
    for what, file in (("report", "report.html"), ("portfolio", MANIFEST)) if built else ():
        out.print(f"{what:<9} {safe(str(folder / file))}", soft_wrap=True)


def _otherwise(found: "Portfolio") -> str:
    """Which figures are of another engine than the device's record names."""
    alone = {v.engine: v.precision for v in found.variants if v.engine and v.metrics.latencies}
    return "".join(f"; {precision} in {engine}" for engine, precision in alone.items())


def _device(device: "Device", threads: int) -> str:
    """The machine, the engine and its threads in words."""
    return f"{device.name}; {device.engine} {device.engine_version}, {threads} thread{'s' * (threads > 1)}"


def _summary(rows: "Sequence[SummaryRow]", out: Console) -> Table:
    """The widest layout that fits; on a narrow terminal without p99 and with ÷3.6 instead of '3.6× less'."""
    wide = _summary_table(rows, wide=True)
    needed = out.measure(wide, options=out.options.update_width(1000)).maximum
    return wide if needed <= out.width else _summary_table(rows, wide=False)


def _summary_table(rows: "Sequence[SummaryRow]", *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    if not wide:
        table.caption = "÷3.6: 3.6 times less than the dense model"
    table.add_column("variant", no_wrap=wide, overflow="fold")
    batches = sorted({latency.batch for row in rows for latency in row.latencies})
    timed = [f"batch {batch}\n{'p50 / p99 ms' if wide else 'p50 ms'}" for batch in batches]
    metric = rows[0].metric if rows else "accuracy"
    for column in (metric, "params", "macs", "file", *timed, "peak\nmemory"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(safe(row.name), *_cells(row, batches, wide=wide))
    return table


def _cells(row: "SummaryRow", batches: Sequence[int], *, wide: bool) -> list[str]:
    from prunit.report.summary import latency_key

    def cell(key: str, text: str) -> str:
        ratio = row.times_less.get(key)
        if ratio is None:
            return text
        short = f"÷{numbers.factor(ratio)[:-1]}" if ratio >= 1 else f"×{numbers.factor(1 / ratio)[:-1]}"
        return f"{text}\n[dim]{numbers.times(ratio) if wide else short}[/]"

    points = "" if row.metric in numbers.PLAIN else " pts"
    gain = row.accuracy_change
    change = "" if gain is None else f"\n[dim]{metric_change(row.metric, gain).replace('−', '-')}{points}[/]"
    cells = [
        "–" if row.accuracy is None else numbers.score(row.metric, row.accuracy) + change,
        cell("params", numbers.count(row.params)),
        cell("macs", numbers.count(row.macs)),
        cell("file_bytes", numbers.size(row.file_bytes)),
    ]
    for batch in batches:
        latency = row.latency(batch)
        cells.append("–" if latency is None else cell(latency_key(batch), _times(latency, wide=wide)))
    peak = row.peak_memory_bytes
    cells.append("–" if peak is None else cell("peak_memory_bytes", numbers.size(peak)))
    return [_spaced(text) for text in cells]


def _times(latency: "Latency", *, wide: bool) -> str:
    p50 = numbers.significant(latency.p50_ms)
    return f"{p50} / {numbers.significant(latency.p99_ms)}" if wide else p50


def _spaced(text: str) -> str:
    """With plain spaces, which a person may search for."""
    return text.replace(numbers.SPACE, " ")


def portfolio_json(found: "Portfolio", folder: Path) -> dict[str, Any]:
    """The manifest, with the folder it stands in and what is to be said of it.

    `differences` are accuracies minus the dense model's with their intervals, by variant.
    """
    from prunit.edge.comparing.verdicts import verdicts
    from prunit.report import summary_rows
    from prunit.report.headline import headline
    from prunit.report.served import fleet_of

    rows = summary_rows(found)
    return {
        "folder": str(folder),
        **found.model_dump(mode="json"),
        "headline": _spaced(headline(found, rows)[1]),
        "differences": {
            row.name: {**asdict(gap), "measurable": gap.measurable} for row in rows if (gap := row.difference)
        },
        "verdicts": [asdict(verdict) for verdict in verdicts(found)],
        **({"fleet": fleet.model_dump(mode="json")} if (fleet := fleet_of(folder)) else {}),
    }


_UNITS: Final = {"ms": "ms", "mj": "mJ"}
"""Units at the end of a figure's name as they are written."""


def decision(graph: "ChannelGraph", decided: "Decision", seconds: float, out: Path, *, replaces: bool = False) -> None:
    """The table of groups, cost before and after, and the seconds it took."""
    names = {g.name: safe(g.name) + (f" [dim]+{len(g.producers) - 1}[/]" if g.coupled else "") for g in graph.groups}
    printer = console()
    printer.print(widths(decided.plan.dense, decided.plan.widths, decided.why, names))
    if any(g.coupled for g in graph.groups):
        printer.print("[dim]+N: N more layers write to the same channels[/]")
    for note in graph.notes:
        printer.print(f"[yellow]left whole:[/] {safe(note)}")
    printer.print(costs(decided.dense, decided.cost))
    if decided.binding:
        limits = (f"{limit} {share:.1%} used" for limit, share in decided.used.items())
        binds = f"; {decided.binding} is the limit that binds" if len(decided.used) > 1 else ""
        printer.print(safe(f"budget: {', '.join(limits)}{binds}"))
    from prunit.allocate import Budget

    of_parts = {limit.figure: limit.part for limit in Budget.parse(str(decided.plan.origin["budget"])).on_parts}
    for figure, (before, after) in decided.predicted.items():
        name, _, unit = figure.rpartition("_")
        times = numbers.times(before / max(after, 1e-12))
        told = f"{after:.3g} {_UNITS.get(unit, '')} predicted, {before:.3g} dense"
        if figure in of_parts:
            told = f"{written(after, figure)}, {written(before, figure)} dense"
        where = of_parts.get(figure, "the profile's device")
        printer.print(f"{name or figure} on {where}: {told} ({times})")
    for timing in decided.measured:
        printer.print(
            f"batch {timing.batch}: {timing.p50_ms:.3g} ms here, {timing.dense_p50_ms:.3g} dense"
            f" ({timing.times_faster:.2f}x faster), untrained"
        )
    if decided.plan.widths == dict(decided.plan.dense):
        printer.print("[yellow]nothing was pruned:[/] the dense model is within the budget")
    origin = decided.plan.origin
    made = f"{origin['recipe']} with {origin['score']}, {origin['budget']}, seed {origin['seed']}"
    printer.print(f"{safe(made)}: planned in {seconds:.2f} s")
    instead = ", in place of the plan that was there" if replaces else ""
    printer.print(f"written to {safe(str(out))}{instead}", soft_wrap=True)


def candidates(found: "Chosen") -> None:
    """The plans that were timed: what they cost, what they take here, and which one was taken."""
    if not found.timed:
        return
    sizes = [timing.batch for timing in next(c.timings for c in found.candidates if c.timings)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("timed here", overflow="fold")
    for column in ("params", "macs", *(f"batch {size}\np50 ms" for size in sizes)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for c in found.candidates:
        times = [f"{t.p50_ms:.3g}\n[dim]{t.times_faster:.2f}x faster[/]" for t in c.timings] or ["–"] * len(sizes)
        mark = "chosen" if found.chosen(c) else safe(c.out and f"out: {c.out}")
        figures = (numbers.count(c.decision.cost.params), numbers.count(c.decision.cost.macs))
        table.add_row(safe(c.name), *map(_spaced, figures), *times, mark)
    console().print(table)


def shrunk(found: "Shrunk") -> None:
    """What the removal of zeros left and took."""
    out = console()
    if found.weights:
        out.print(safe(found.weights), soft_wrap=True)
    out.print(costs(found.dense, found.small))
    before, after = found.channels
    gone = [(found.unread, "read by nobody"), (found.constants, "constant"), (found.merged, "merged into one constant")]
    told = ", ".join(f"{n:,} {why}" for n, why in gone if n) or "none"
    out.print(f"{found.zeros:.1%} of the weights are zero; {after:,} of {before:,} channels stay; gone: {told}")
    same = f"outputs differ by {found.error:.1g} of the largest one"
    lossy = f" from those without filters up to {found.tolerance:g} of their layer's largest" if found.tolerance else ""
    out.print(f"{same}{lossy}; {found.seconds:.2f} s")
    if told := found.padding.get("told"):
        out.print(told, soft_wrap=True)
    if found.accuracy:
        out.print(f"accuracy {found.accuracy[0]:.2%} before, {found.accuracy[1]:.2%} after")
    if after == before:
        out.print("[yellow]nothing was removed:[/] no channel is without effect")
    for file in found.files:
        out.print(f"written to {safe(file)}", soft_wrap=True)


def costs(dense: "Cost", small: "Cost") -> Table:
    """What a model costs before and after."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("cost", "dense", "compact", ""):
        table.add_column(column, justify="left" if column == "cost" else "right", no_wrap=True)
    for name, before in dense.as_dict().items():
        after = small.as_dict()[name]
        write = numbers.size if name.endswith("bytes") else numbers.count
        less = numbers.times(before / max(after, 1))
        table.add_row(*map(_spaced, (name.removesuffix("_bytes"), write(before), write(after), less)))
    return table


def outcomes(found: "Mapping[str, Outcome]", target_ms: float, metric: str = "accuracy") -> None:
    """What each policy delivers, a line each; `metric` is what the portfolio's `accuracy` is."""
    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    heads = (f"in {target_ms:g} ms", metric, "delivered", "p50 ms", "p99 ms", "switches", "macs")
    for column in heads:
        table.add_column(column, justify="right", no_wrap=True)
    for name, each in found.items():
        figures = [
            f"{value:.4f}" if metric in numbers.PLAIN else f"{value:.2%}" for value in (each.accuracy, each.delivered)
        ]
        shares = (f"{each.in_time:.2%}", *figures)
        times = (numbers.significant(each.p50_ms), numbers.significant(each.p99_ms))
        cells = (*shares, *times, f"{each.switches:,}", _spaced(numbers.count(round(each.energy))))
        table.add_row(safe(name), *cells)
    out.print(table)
    requests = max(each.requests for each in found.values())
    out.print(f"{requests:,} requests; delivered: {metric} where late answers count nothing; macs: mean of a request")


def replayed(found: "Replayed") -> None:
    """What the switcher told of."""
    out = console()
    swaps = (
        f"{numbers.significant(found.swap_p50_ms)} ms at the median, {numbers.significant(found.swap_p99_ms)} at p99"
    )
    out.print(f"{found.lost} requests without an answer; a switch took {swaps}")
    for error in dict.fromkeys(found.switch_errors):
        out.print(f"[yellow]a switch failed:[/] {safe(error)}")


def trials(found: "Sweep") -> None:
    """A line for each trial: what each rung found, and how it ended."""
    out = console()
    metric = found.portfolio.task.metric
    rungs = sorted({epochs for trial in found.trials for epochs, _ in trial.accuracies})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"held-out {metric}", title_justify="left")
    table.add_column("budget", no_wrap=True)
    table.add_column("recipe", no_wrap=True)
    for epochs in rungs:
        table.add_column(f"{epochs} epoch{'s' * (epochs > 1)}", justify="right", no_wrap=True)
    table.add_column("")
    for trial in found.trials:
        accuracies = dict(trial.accuracies)
        cells = (numbers.score(metric, accuracies[n]) if n in accuracies else "–" for n in rungs)
        ended = f"[dim]{safe(trial.out)}[/]" if trial.out else "[bold]trained in full[/]"
        table.add_row(safe(trial.budget), safe(trial.recipe), *map(_spaced, cells), ended)
    out.print(table)
    built = {trial.variant for trial in found.trials if not trial.out}
    beaten = sorted(built - {variant.name for variant in found.portfolio.variants})
    if beaten:
        out.print(f"not on the front, left out of the portfolio: {safe(', '.join(beaten))}")


def profile(found: "DeviceProfile", file: Path) -> None:
    """What was measured: a line for each layer shape, from its narrowest to its widest."""
    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for column in ("points", "narrowest", "widest"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in found.layers:
        narrow, wide = layer.points[0][2], layer.points[-1][2]
        table.add_row(safe(str(layer.shape)), str(len(layer.points)), f"{narrow:.3f} ms", f"{wide:.3f} ms")
    out.print(table)
    device = _device(found.device, found.threads)
    out.print(f"[dim]measured on {safe(device)}; energy: {safe(found.energy.source)}[/]")
    out.print(f"written to {safe(str(file))}", soft_wrap=True)
    out.print(safe(f"use it: prunit plan MODEL --budget latency=5ms@{file}"), soft_wrap=True)


def widths(
    dense: Mapping[str, int], kept: Mapping[str, int], why: Mapping[str, str], names: Mapping[str, str]
) -> Table:
    """Groups with their dense width, how many channels are kept and why; `names` are shown, as markup."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group", overflow="fold")
    for column in ("dense", "kept", ""):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("why")
    for name, size in dense.items():
        share = f"{kept[name] / size:.0%}"
        table.add_row(names.get(name, safe(name)), str(size), str(kept[name]), share, safe(why.get(name, "")))
    return table


def decision_json(decided: "Decision", seconds: float) -> dict[str, Any]:
    """The decision as plain data."""
    return {
        "hash": decided.plan.hash,
        "origin": dict(decided.plan.origin),
        "seconds": seconds,
        "cost": {"dense": decided.dense.as_dict(), "compact": decided.cost.as_dict()},
        "budget": {"used": dict(decided.used), "binding": decided.binding},
        "predicted": {name: {"dense": before, "compact": after} for name, (before, after) in decided.predicted.items()},
        "measured": [asdict(timing) for timing in decided.measured],
        "groups": {
            name: {"dense": decided.plan.dense[name], "kept": len(keep), "why": decided.why.get(name, "")}
            for name, keep in decided.plan.keep.items()
        },
    }
