"""Write the tables of the docs and of README.md from the JSON files in bench/results: `python -m bench.tables`.

Only what stands between the markers of a benchmark is replaced; a benchmark without a JSON file keeps its tables. Of a
name with a dot, as `mcu.budgets`, the file is called what stands before it: several tables of one benchmark.
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import (
    default_summary,
    device_tables,
    edge_tables,
    export_tables,
    mcu_page,
    precision_tables,
    ray_serving,
    scaling,
    scaling_trials,
    training_tables,
    width_tables,
)
from bench._common import RESULTS, ROOT, table

PAGE: Final = ROOT / "docs" / "benchmarks.md"
README: Final = ROOT / "README.md"
PRECISIONS: Final = ROOT / "docs" / "precisions.md"
MCU: Final = ROOT / "docs" / "mcu.md"
SCALING: Final = ROOT / "docs" / "scaling.md"

Result = Mapping[str, Any]


def render(
    page: str, results: Mapping[str, Result], tables: Mapping[str, Callable[[Result], str]] | None = None
) -> str:
    """The page with the tables of these results (`TABLES`) in place of what stood between their markers."""
    tables = TABLES if tables is None else tables
    for name, result in results.items():
        begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        if begin not in page or end not in page:
            raise SystemExit(f"the page has no markers '{begin}' and '{end}': add them where the tables belong")
        body = f"{begin}\n{tables[name](result)}\n\n{measured(result, name)}\n{end}"
        page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, body=body: body, page, flags=re.DOTALL)
    return page


def part_of(result: Result, name: str) -> Result:
    """What a table is of: a part that was measured by itself, where there is one of that name after the dot."""
    part = result.get(name.partition(".")[2])
    return part if isinstance(part, dict) and "benchmark" in part else result


def _counted(amount: object, what: str) -> str:
    return f"{amount} {what}{'' if str(amount) == '1' else 's'}"


def measured(result: Result, name: str = "") -> str:
    """One line: on what, how often, with what and when; `n_of` says of tables how often, where that differs."""
    device, versions = result["device"], result["versions"]
    n = result.get("n_of", {}).get(name, result["n"])
    threads = device["threads"]
    of = " and ".join(map(str, threads)) if isinstance(threads, list | tuple) else threads
    packages = ", ".join(f"{name} {v}" for name, v in versions.items() if v and name != "commit")
    return (
        f"*{device['cpu']}, {_counted(device['cores'], 'core')}, {_counted(of, 'thread')}; n = {n},"
        f" {result['percentile']}; {packages}, commit {versions['commit'] or 'unknown'}; {result['date'][:10]}*"
    )


def _range(spread: Mapping[str, float], digits: int = 0) -> str:
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f} to {spread['max']:.{digits}f})"


def speed(result: Result) -> str:
    """Totals and their ratio, the parts, and how they grow with depth."""
    totals = [
        (
            row["title"],
            _range(row["total_ms"]["prunit"]),
            _range(row["total_ms"]["torch_pruning"]),
            *(f"{row['cpu_ms'][tool]['median']:.0f}" for tool in ("prunit", "torch_pruning")),
        )
        for row in result["rows"]
    ]
    ratios = [(row["title"], *(_ratio(row[key]) for key in _TIMES_FASTER)) for row in result["rows"]]
    parts = [
        (
            row["title"],
            *(f"{row['parts_ms']['prunit'][part]['median']:.0f}" for part in ("trace", "plan", "compact")),
            f"{row['torch_pruning_graph_alone_ms']['median']:.0f}",
            *(f"{row['parts_ms']['torch_pruning'][part]['median']:.0f}" for part in ("constructor", "step")),
            f"{row['params']['dense'] / 1e6:.2f}",
            f"{row['params']['prunit'] / 1e6:.2f}",
            f"{row['params']['torch_pruning'] / 1e6:.2f}",
        )
        for row in result["rows"]
    ]
    deep = [
        (
            row["layers"],
            *(f"{row['parts_ms'][part]['median']:.1f}" for part in ("trace", "plan", "compact")),
            *(f"{1e3 * row['parts_ms'][part]['median'] / row['layers']:.0f}" for part in ("trace", "compact")),
        )
        for row in result.get("growth", ())
    ]
    first = ("model", "prunit, ms", "Torch-Pruning, ms", "CPU ms, prunit", "CPU ms, Torch-Pruning")
    faster = ("times faster", *_TIMES_FASTER.values())
    second = ("model", "trace", "plan", "compact", "graph alone", "constructor", "step", "M params", "prunit", "T.-P.")
    third = ("layers", "trace, ms", "plan, ms", "compact, ms", "trace, µs per layer", "compact, µs per layer")
    return (
        f"{table(first, totals)}\n\nHow many times faster, in brackets in pairs:\n\n{table(faster, ratios)}"
        f"\n\nThe parts in milliseconds, and the parameters left:\n\n{table(second, parts)}"
        f"\n\nResidual networks of so many convolutions, 16 channels wide (median of 5):\n\n{table(third, deep)}"
        f"{_by_build(result)}"
    )


def _by_build(result: Result) -> str:
    """The trace beside that of an earlier build, each in a process of its own; '' where none was measured."""
    rows = [
        (
            row["title"],
            *("{median:.1f} ({min:.1f} to {max:.1f})".format(**builds[name]) for name in ("now", "earlier")),
            f"**{row['trace_times_earlier']['of_medians']:.1f}**",
        )
        for row in result["rows"]
        if (builds := row.get("trace_ms_by_build"))
    ]
    if not rows:
        return ""
    head = ("model", "trace, ms", "of an earlier build, ms", "times faster")
    return f"\n\nThe trace beside an earlier build's, each in a process of its own:\n\n{table(head, rows)}"


_TIMES_FASTER: Final = {
    "times_faster": "in all",
    "trace_times_faster": "trace, than graph alone",
    "trace_times_faster_than_constructor": "trace, than constructor",
    "cut_times_faster": "compact, than step",
    "plan_and_cut_times_faster": "plan + compact, than step",
}
"""Ratios of a row, and what is said of each above its column."""


def _ratio(ratio: Mapping[str, Any]) -> str:
    return f"**{ratio['of_medians']:.1f}** ({ratio['paired']['min']:.1f} to {ratio['paired']['max']:.1f})"


def slow_traces(result: Result) -> str:
    """The slowest traces beside those of another build, and what either leaves free to go."""
    head = ("model", "trace, CPU ms", "before, CPU ms", "times faster", "channels free", "before")
    rows = []
    for row in result["rows"]:
        now, before = row["now"], row.get("before")
        rows.append(
            (
                row["model"],
                f"{now['cpu_ms']['median']:,.0f}",
                f"{before['cpu_ms']['median']:,.0f}" if before else "",
                _ratio(row["times_faster"]) if before else "",
                f"{now['free']:,}",
                f"{before['free']:,}" if before else "",
            )
        )
    return table(head, rows)


def synflow_rounds(result: Result) -> str:
    """Cost and gain by rounds, then the widths of every layer for the rounds that record them."""
    threads = list(result["rows"][0]["seconds"])
    densities = [mask["density"] for mask in result["rows"][0]["masks"]]
    head = ["rounds"]
    head += [f"seconds, {t} thread{'s' if t != '1' else ''}" for t in threads] + [f"CPU s, {t}" for t in threads]
    head += [f"× fewer params at density 1/{round(1 / density)}" for density in densities]
    rows = [
        (
            row["rounds"],
            *(_range(row["seconds"][t]["wall_s"], 2) for t in threads),
            *(f"{row['seconds'][t]['cpu_s']['median']:.2f}" for t in threads),
            *(_range(mask["times_fewer_params"], 2) + " †" * bool(mask["collapsed_groups"]) for mask in row["masks"]),
        )
        for row in result["rows"]
    ]
    shown = [(row["rounds"], mask) for row in result["rows"] for mask in row["masks"] if "widths" in mask]
    shown.sort(key=lambda item: -item[1]["density"])
    names = list(shown[0][1]["widths"]) if shown else []
    wide = ["layer", "dense", *(f"{rounds} rounds, 1/{round(1 / mask['density'])}" for rounds, mask in shown)]
    layers = [(n, shown[0][1]["widths"][n][0], *(mask["widths"][n][1] for _, mask in shown)) for n in names]
    cut_off = any(mask["collapsed_groups"] for row in result["rows"] for mask in row["masks"])
    note = "\n\n† This mask empties whole layers: the input no longer reaches the output. One channel of each is kept."
    return (
        f"{table(head, rows)}{note if cut_off else ''}\n\n"
        f"Channels left in each layer (first seed):\n\n{table(wide, layers)}"
    )


def synflow_networks(result: Result) -> str:
    """A row for each network: both builds, and how alike they rank."""
    head = ("model", "before, CPU s", "now, CPU s", "times faster", "before, s", "now, s", "before, MB", "now, MB")
    rows = [
        (
            row["title"],
            *(_range(row["builds"][name]["cpu_s"], 1) for name in ("earlier", "now")),
            _ratio(row["times_faster"]["cpu_s"]),
            *(_range(row["builds"][name]["wall_s"], 1) for name in ("earlier", "now")),
            *(f"{row['builds'][name]['peak_bytes']['median'] / 1e6:,.0f}" for name in ("earlier", "now")),
            f"{row['spearman']:.6f} of {row['channels']:,}",
        )
        for row in result["rows"]
    ]
    return table((*head, "Spearman, channels"), rows)


def compact_memory(result: Result) -> str:
    """Peak beside what is allowed."""
    head = ("model", "dense, MB", "compact, MB", "+ one dense layer", "peak extra, MB", "share of allowed", "live, MB")
    rows = [
        (
            row["title"],
            f"{row['dense_bytes'] / 1e6:.1f}",
            f"{row['compact_bytes'] / 1e6:.1f}",
            f"{row['allowed_bytes'] / 1e6:.1f}",
            f"{row['extra_bytes']['median'] / 1e6:.1f}",
            f"{row['share_of_allowed']:.0%}",
            f"{row['live_bytes']['median'] / 1e6:.1f}",
        )
        for row in result["rows"]
    ]
    return table(head, rows)


def startup(result: Result) -> str:
    """Milliseconds of whole processes."""
    head = ("process", "median, ms", "p90, ms", "beyond the interpreter, ms")
    rows = [
        (
            f"`{row['command']}`" if row["command"].startswith(("prunit", "import")) else row["command"],
            f"{row['wall_ms']['median']:.0f}",
            f"{row['wall_ms']['p90']:.0f}",
            f"{row['beyond_interpreter_ms']:.0f}",
        )
        for row in result["rows"]
    ]
    return table(head, rows)


def mistakes(result: Result) -> str:
    """Milliseconds of wrong command lines, and whether they load torch; beside those of another version, if any."""
    compared = any("before" in row for row in result["mistakes"])
    head = ["command line", *(["before, ms", "torch"] if compared else []), "median, ms", "p90, ms", "CPU, ms", "torch"]
    rows = [
        (
            f"`{row['command']}`",
            *((f"{row['before']['wall_ms']['median']:,.0f}", _loaded(row["before"])) if compared else ()),
            f"{row['wall_ms']['median']:,.0f}",
            f"{row['wall_ms']['p90']:,.0f}",
            f"{row['cpu_ms']['median']:,.0f}",
            _loaded(row),
        )
        for row in result["mistakes"]
    ]
    return table(head, rows)


def plans(result: Result) -> str:
    """Whole plans beside those of another version, and beside the import of torch."""
    head = (
        "process",
        "before, CPU ms",
        "now, CPU ms",
        "times faster",
        "before, ms",
        "now, ms",
        "before, MB",
        "now, MB",
        "n",
    )
    rows = []
    for row in result["rows"]:
        sides = [row.get(when) for when in ("before", "now")]
        rows.append(
            (
                f"`{row['command']}`",
                *("" if side is None else f"{side['cpu_ms']['median']:,.0f}" for side in sides),
                _ratio(row["times_faster"]) if "times_faster" in row else "",
                *("" if side is None else f"{side['wall_ms']['median']:,.0f}" for side in sides),
                *("" if side is None else f"{side['peak_bytes']['median'] / 1e6:,.0f}" for side in sides),
                row["n"],
            )
        )
    return table(head, rows)


def _loaded(row: Mapping[str, Any]) -> str:
    return "loaded" if row["torch_loaded"] else "no"


def export_latency(result: Result) -> str:
    """A row for each variant, a pair of columns for each batch size and number of threads."""
    settings = sorted({(row["batch"], row["threads"]) for row in result["rows"]})
    found = {(r["title"], r["width"], r["batch"], r["threads"]): r for r in result["rows"]}
    head = ["model", "width", "M params", "M macs"]
    head += [f"batch {b}, {t} thread{'s' if t > 1 else ''}, ms" for b, t in settings]
    rows = []
    for title, width in dict.fromkeys((r["title"], r["width"]) for r in result["rows"]):
        of_one = [found[title, width, b, t] for b, t in settings]
        cells = [f"{r['p50_ms']:.2f}{_faster(r)}" for r in of_one]
        rows.append((title, width, f"{of_one[0]['params'] / 1e6:.2f}", f"{of_one[0]['macs'] / 1e6:.1f}", *cells))
    return table(head, rows)


def candidate_time(result: Result) -> str:
    """A row for each network: seconds of one more untrained plan, of its file alone, and what is paid once."""
    head = (
        "model",
        "a candidate, s",
        "CPU, s",
        "its file, s",
        "derived",
        "first file, s",
        "once: translation, s",
        "full export, s",
    )
    rows = [
        (
            row["title"],
            _range(row["candidate_s"], 2),
            f"{row['candidate_cpu_s']['median']:.2f}",
            _range(row["file_s"], 2),
            f"{row['derived']} of {row['plans']}",
            f"{row['first_file_s']:.2f}",
            f"{row['translate_s']:.2f}",
            f"{row['full_export_s']:.2f}",
        )
        for row in result["rows"]
    ]
    return table(head, rows)


def export_passes(result: Result) -> str:
    """A row for each network and set of rewrites; times also as a share of those with all rewrites, in pairs."""
    head = ("model", "rewrites", "bytes", "nodes", "open, ms", "of all", "answer, ms", "of all")
    rows = [
        (
            row["title"],
            row["rewrites"],
            f"{row['file_bytes']:,}",
            row["nodes"],
            f"{row['open_ms']['median']:.1f}",
            f"{row['open_of_all']['paired']['median']:.2f}",
            f"{row['latency_ms']['median']:.2f}",
            f"{row['latency_of_all']['paired']['median']:.2f}",
        )
        for row in result["rows"]
    ]
    return table(head, rows)


def readme_example(result: Result) -> str:
    """A row for each variant, the dense one first, compared with it seed by seed; latencies within the first seed."""
    seeds = sorted({row["seed"] for row in result["rows"]})
    of = {(row["seed"], row["name"]): row for row in result["rows"]}
    first = seeds[0]
    dense = of[first, "dense"]
    batches = [latency["batch"] for latency in dense["latencies"]]
    head = ["variant", "test accuracy", "of dense, points", "epochs", "training time"]
    head += ["params", "macs", "ONNX file", *(f"latency, batch {b}" for b in batches)]
    rows = []
    for row in (row for row in result["rows"] if row["seed"] == first):
        name = row["name"]
        accuracies = [100 * of[seed, name]["accuracy"] for seed in seeds]
        lost = [100 * (of[seed, name]["accuracy"] - of[seed, "dense"]["accuracy"]) for seed in seeds]
        rows.append(
            (
                name,
                _mean(accuracies),
                "" if name == "dense" else _mean(lost, sign="+"),
                row["epochs"],
                f"{row['seconds']['train'] / dense['seconds']['train']:.2f} of dense",
                f"{row['params'] / 1e3:.1f} k{_times(dense['params'], row['params'])}",
                f"{row['macs'] / 1e6:.1f} M{_times(dense['macs'], row['macs'])}",
                f"{row['file_bytes'] / 1e3:.0f} kB{_times(dense['file_bytes'], row['file_bytes'])}",
                *(
                    f"{a['p50_ms']:.2f} ms{_times(b['p50_ms'], a['p50_ms'])}"
                    for a, b in zip(row["latencies"], dense["latencies"], strict=True)
                ),
            )
        )
    return table(head, rows)


def _mean(values: Sequence[float], *, sign: str = "") -> str:
    """The mean over the seeds, and the smallest and the largest."""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{sign}.2f} to {max(values):{sign}.2f})"


def _times(dense: float, other: float) -> str:
    return "" if other == dense else f" ({dense / other:.1f}×)"


def _faster(row: Mapping[str, Any]) -> str:
    return "" if row["width"] == "1" else f" ({row['times_faster_than_dense']:.1f}×)"


TABLES: Final[Mapping[str, Callable[[Result], str]]] = {
    "speed": speed,
    "slow_traces": slow_traces,
    "synflow_rounds": synflow_rounds,
    "synflow_rounds.networks": synflow_networks,
    "compact_memory": compact_memory,
    "startup": startup,
    "startup.mistakes": mistakes,
    "startup.plans": plans,
    "export_latency": export_latency,
    "candidate_time": candidate_time,
    "export_passes": export_passes,
    "variant_export": export_tables.variant_export,
    "budget_fit": device_tables.budget_fit,
    "ram_budget": device_tables.ram_budget,
    "met_times": device_tables.met_times,
    "complexity": device_tables.complexity,
    "latency_profile": device_tables.latency_profile,
    "fleet": device_tables.fleet,
    "fleet.times": device_tables.fleet_times,
    "engine_widths": width_tables.engine_widths,
    "default_speed": default_summary.default_speed,
    "peak_memory": device_tables.peak_memory,
    "training_time": device_tables.training_time,
    "small_data": device_tables.small_data,
    "training_step": training_tables.training_step,
    "bf16_accuracy": training_tables.bf16_accuracy,
    "removal": edge_tables.removal,
    "padding": edge_tables.padding,
    "switching": edge_tables.switching,
    "replaying": edge_tables.replaying,
    "serving": edge_tables.serving,
    "evaluating": edge_tables.evaluating,
    "other_tasks": training_tables.other_tasks,
}
ON_README: Final[Mapping[str, Callable[[Result], str]]] = {
    "readme_example": readme_example,
    "default_speed": default_summary.in_short,
    "other_tasks": training_tables.other_tasks,
}
"""What is shown there, some of it in short; all but the example also on the page of benchmarks."""
ON_PRECISIONS: Final[Mapping[str, Callable[[Result], str]]] = {
    "precisions": precision_tables.precisions,
    "precision_builds": precision_tables.builds,
    "engine_switching": precision_tables.switching,
}
ON_SCALING: Final[Mapping[str, Callable[[Result], str]]] = {
    "scaling": scaling.told,
    scaling.RAY_NAME: scaling.told,
    scaling_trials.NAME: scaling_trials.told,
    "ray_serving": ray_serving.told,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    parser.add_argument("--readme", type=Path, default=README, metavar="FILE")
    parser.add_argument("--precisions", type=Path, default=PRECISIONS, metavar="FILE")
    parser.add_argument("--mcu", type=Path, default=MCU, metavar="FILE")
    parser.add_argument("--scaling", type=Path, default=SCALING, metavar="FILE")
    options = parser.parse_args()
    named = {**TABLES, **ON_README, **ON_PRECISIONS, **mcu_page.TABLES, **ON_SCALING}
    files = {name: options.results / f"{name.partition('.')[0]}.json" for name in named}
    results = {n: part_of(json.loads(f.read_text(encoding="utf-8")), n) for n, f in files.items() if f.exists()}
    pages = (
        (options.page, TABLES),
        (options.readme, ON_README),
        (options.precisions, ON_PRECISIONS),
        (options.mcu, mcu_page.TABLES),
        (options.scaling, ON_SCALING),
    )
    for page, tables in pages:
        if page in (options.mcu, options.scaling) and not page.exists():
            continue
        mine = {n: result for n, result in results.items() if n in tables}
        if tables is ON_SCALING:  # each of its parts is measured by itself, or not yet
            mine = {n: result for n, result in mine.items() if result["benchmark"] == n}
        page.write_text(render(page.read_text(encoding="utf-8"), mine, tables), encoding="utf-8")
        print(f"wrote {page}")
    missing = sorted(files.keys() - results.keys())
    if missing:
        print(f"not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main()
