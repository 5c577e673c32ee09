"""The tables of docs/benchmarks.md about sparse models, about switching, serving, and judging."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench._common import table

Result = Mapping[str, Any]

STOP: Final = "stop, load, resume the dense model"
COLD: Final = "cold cache"
"""Ends the names of ways that begin with no page of their files in memory."""


def removal(result: Result) -> str:
    """Parameters after the removal of zeros in four ways, and how wrong each is, by network and compression."""
    rows = [
        (
            f"{row['net']}, {row['compression']}",
            f"{row['weights'] / 1e3:,.0f} k",
            f"{row['ways']['merge']['params'] / 1e6:.2f} ({row['ways']['merge']['error']:.0e})",
            f"{row['ways']['keep']['params'] / 1e6:.2f}",
            f"{row['ways']['fold']['params'] / 1e6:.2f} ({row['ways']['fold']['error']:.1%})",
            f"{row['ways']['drop']['error']:.1%}",
            f"{row['published'] / 1e6:.2f}",
            f"{row['seconds']:.2f}",
        )
        for row in result["rows"]
    ]
    head = (
        "network, fewer weights",
        "weights",
        "M params (error)",
        "constants kept",
        "folded (error)",
        "dropped, error",
        "published",
        "s",
    )
    return table(head, rows)


def _parts(result: Result) -> dict[str, list[Result]]:
    """The rows by their part of the benchmark."""
    parts: dict[str, list[Result]] = {}
    for row in result["rows"]:
        parts.setdefault(row["part"], []).append(row)
    return parts


def switching(result: Result) -> str:
    """First answers, memory, the run under load, and the traces."""
    parts = _parts(result)
    (load,) = parts["under load"]
    memory = {row["way"]: row for row in parts["memory"]}
    sessions, ours = memory["sessions"], memory["switcher"]
    sizes = [
        (name, *(f"{row[key] / 1e6:.0f}" for key in ("Anonymous", "Pss")))
        for name, row in (("eight sessions of the files", sessions), ("a switcher with all eight open", ours))
    ]
    texts = [
        *_first_answers(parts["first answer"], parts["swap"]),
        "Memory, MB more than before the first one was opened:",
        table(("eight variants of VGG-16", "anonymous", "proportional share"), sizes),
        f"{sessions['Anonymous'] / ours['Anonymous']:.1f} times less anonymous memory; the rest are pages of files,"
        " which processes share and the system may drop.",
        f"Under load, {load['switches']:,} switches in turn while {load['requests']:,} requests came at a steady"
        f" {result['config']['requests_per_s']} a second: {load['lost']} lost, {load['late']} later than"
        f" {result['config']['target_ms']:g} ms; p50 {load['ms']['p50']:.1f} ms, p99 {load['ms']['p99']:.1f}, longest"
        f" {load['ms']['p100']:.1f}.",
    ]
    for name in dict.fromkeys(row["trace"] for row in parts.get("trace", ())):
        mine = [row for row in parts["trace"] if row["trace"] == name]
        rows = [
            (
                row["policy"],
                *(f"{row[key]:.2%}" for key in ("in_time", "accuracy", "delivered")),
                f"{row['p99_ms']:,.1f}",
                f"{row['switches']:,}",
            )
            for row in mine
        ]
        first = mine[0]
        texts += [
            f"{first['seconds'] / 3600:g} hours of the trace {name}, rates times {first['scale']:.1f},"
            f" {first['requests']:,} requests, target {first['target_ms']:.1f} ms, simulated:",
            table(("policy", "in time", "accuracy", "delivered", "p99, ms", "switches"), rows),
        ]
    return "\n\n".join(texts)


def _first_answers(rows: Sequence[Result], swaps: Sequence[Result]) -> list[str]:
    """Of each portfolio: every way beside that of the papers, which is as cold or warm as it."""
    texts = []
    for swap in swaps:
        mine = {row["way"]: row for row in rows if row["net"] == swap["net"]}
        answers = []
        for way, row in mine.items():
            existing = mine[f"{STOP}, {COLD}" if way.endswith(COLD) else STOP]
            answers.append(
                (
                    way,
                    row["n"],
                    *(f"{row['ms'][p]:.2f}" for p in ("p50", "p99")),
                    *(f"{row['overhead_ms'][p]:.2f}" for p in ("p50", "p99")),
                    f"{existing['ms']['p50'] / row['ms']['p50']:.1f}×",
                    f"{existing['overhead_ms']['p50'] / row['overhead_ms']['p50']:.0f}×",
                )
            )
        texts += [
            f"{swap['net']}: from the decision to the first answer, ms, and how much longer that is than the variant's"
            " usual answer:",
            table(("way", "n", "p50", "p99", "longer, p50", "longer, p99", "less", "less of the longer"), answers),
            f"The swap between open variants alone: {swap['us']['p50']:.1f} µs at p50, {swap['us']['p99']:.1f} at p99"
            f" (n = {swap['n']}).",
        ]
    return texts


def evaluating(result: Result) -> str:
    """Images per second of each way, and what the process holds after so many images."""
    parts = _parts(result)
    speed = [
        (
            row["way"],
            "{median:,.0f} ({min:,.0f} to {max:,.0f})".format(**row["images_per_s"]),
            "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["of_both"]["paired"]),
            f"{row['cpu_us']['median']:.0f}",
            "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["cpu_of_both"]["paired"]),
        )
        for row in parts["speed"]
    ]
    memory = [(f"{row['images']:,}", f"{row['resident_bytes'] / 1e6:.0f}") for row in parts["memory"]]
    return "\n\n".join(
        (
            table(("way", "images per second", "of both, in pairs", "CPU µs for an image", "of both, in pairs"), speed),
            "Resident memory of a process of its own, after so many images:",
            table(("images", "MB"), memory),
        )
    )


def serving(result: Result) -> str:
    """Start, overhead, tensors, saturation, and the soak."""
    parts = _parts(result)
    (start,) = parts["start"]
    ways = {"engine": "the engine alone", "binary": "HTTP, binary tensors", "json": "HTTP, JSON"}
    overhead = [
        (
            row["variant"],
            ways[row["way"]],
            *(f"{row['ms'][p]:.2f}" for p in ("p50", "p99")),
            f"{row['more_ms']['p50']:.2f}",
        )
        for row in parts["overhead"]
    ]
    tensors = {(row["side"], row["way"]): row["ms"]["p50"] for row in parts["tensors"]}
    sides = sorted({side for side, _ in tensors})
    cheaper = [
        (
            f"3×{side}×{side}",
            f"{tensors[side, 'json']:.3f}",
            f"{tensors[side, 'binary']:.3f}",
            f"{tensors[side, 'json'] / tensors[side, 'binary']:.0f}×",
        )
        for side in sides
    ]
    saturation = [
        (row["variant"], f"{row['per_s']:,.0f}", f"{row['bare_per_s']:,.0f}", f"{row['share']:.2f}")
        for row in parts["saturation"]
    ]
    soak = [
        (
            row["policy"],
            f"{row['seconds']:.0f}",
            f"{row['rate']:.0f}",
            f"{row['asked']:,}",
            f"{row['in_time']:.2%}",
            *(f"{row['ms'][p]:.1f}" for p in ("p50", "p99")),
            f"{row['refused']:,}",
            f"{row['lost']:,}",
            f"{row['switches']:,}",
            f"{row['memory_mb']['first'][0]:.0f} to {row['memory_mb']['last'][0]:.0f}",
        )
        for row in parts["soak"]
    ]
    target = result["config"]["target_ms"]
    texts = [
        f"From the start of the process to the first answer: {start['s']['p50']:.2f} s at p50,"
        f" {start['s']['p99']:.2f} s at p99 (n = {start['n']}).",
        "One request after the other, ms:",
        table(("variant", "way", "p50", "p99", "more than the engine, p50"), overhead),
        "Reading one image and writing its ten scores, without HTTP, ms at p50:",
        table(("image", "JSON", "binary", "less"), cheaper),
        f"Answers per second with {result['config']['connections']} connections, and of the engine alone, one after the"
        " other (medians):",
        table(("variant", "server", "engine alone", "share"), saturation),
        f"Random arrivals at 1.5 times what the dense variant can answer; the target is {target:g} ms from the moment"
        " at which a request was due:",
        table(
            (
                "policy",
                "s",
                "requests/s",
                "requests",
                "in time",
                "p50, ms",
                "p99, ms",
                "refused",
                "lost",
                "switches",
                "MB",
            ),
            soak,
        ),
    ]
    texts += _held(parts.get("held", []), target)
    texts += [_endurance(row) for row in parts.get("endurance", ())]
    return "\n\n".join([*texts, *_front(parts.get("front", []), result["config"]), *_when(result["config"])])


def _when(config: Result) -> list[str]:
    """At which commit each part was measured, where a file has parts of several runs."""
    by_commit: dict[str, list[str]] = {}
    for part, told in config.get("parts", {}).items():
        by_commit.setdefault(told["commit"], []).append(part)
    if len(by_commit) < 2:
        return []
    said = "; ".join(f"{', '.join(names)} at commit {commit}" for commit, names in by_commit.items())
    return [f"Parts of several runs: {said}."]


def _held(rows: Sequence[Result], target_ms: float) -> list[str]:
    """Random arrivals near the capacity of each variant; nothing where that was not measured."""
    if not rows:
        return []
    found = [
        (
            f"{row['rate']:,.0f} ({row['variant']})",
            f"{row['when']}, {row['seconds']:.0f} s",
            f"{row['in_time']:.2%}",
            *(f"{row['ms'][p]:.1f}" for p in ("p50", "p99")),
            row["active"],
            row["switches"],
            f"{row['refused']:,}",
            f"{row['lost']:,}",
        )
        for row in rows
    ]
    head = ("requests/s", "when", "in time", "p50, ms", "p99, ms", "at its end", "switches", "refused", "lost")
    return [
        "Random arrivals at 0.9 of what a server with one variant alone answers in a closed loop, for each of the four;"
        f" the policy `queue` chooses among them, the target is {target_ms:g} ms:",
        table(head, found),
    ]


def _endurance(row: Result) -> str:
    """What was lost, and what the server held, in sentences."""
    memory, descriptors, threads = (row[name] for name in ("memory_mb", "descriptors", "threads"))
    return (
        f"{row['requests']:,} requests over 16 connections, which were opened anew every few seconds; meanwhile"
        f" {row['switches']:,} switches and {row['reloads']} reloads, each opening one variant and closing another:"
        f" {row['lost']} lost; p50 {row['ms']['p50']:.1f} ms, p99 {row['ms']['p99']:.1f}. From the second tenth of the"
        f" time to the last: {memory['first']:.0f} to {memory['last']:.0f} MB (most {memory['most']:.0f}),"
        f" {descriptors['first']:.0f} to {descriptors['last']:.0f} descriptors (most {descriptors['most']:.0f}),"
        f" {threads['first']:.0f} to {threads['last']:.0f} threads."
    )


def _front(rows: list[Result], config: Result) -> list[str]:
    """Requests for tensors beside another build and other servers; nothing where that was not measured."""
    if not rows:
        return []
    peers = config["parts"]["front"].get("peers", {})
    names = {"engine": "the engine alone", "prunit": "this server", "against": "before"}
    others = {"litserve": "LitServe", "bentoml": "BentoML", "ray": "Ray Serve", "mlserver": "MLServer"}
    names |= {name: f"{shown} {peers.get(name, '')}" for name, shown in others.items()}
    found = [
        (
            f"{row['encoding']}, {row['connections']}",
            names[row["way"]],
            f"{row['per_s']['median']:,.0f}",
            f"{row['share']:.2f}" if "share" in row else "1",
            *(f"{row['ms'][p]:.2f}" if "ms" in row else "" for p in ("p50", "p99")),
            f"{row['cpu_us']:,.0f}" if "cpu_us" in row else "",
        )
        for row in rows
    ]
    head = ("tensors, connections", "", "requests/s", "of the engine alone", "p50, ms", "p99, ms", "CPU, µs a request")
    size = rows[0]["batch"]
    about = f"Requests for one image of the smallest variant, taking turns; the engine alone in batches of {size}:"
    return [about, table(head, found)]


def replaying(result: Result) -> str:
    """Replayed beside simulated, and how far the simulation is off."""
    rows = []
    for row in result["rows"]:
        real, said = row["replayed"], row["simulated"]
        off = abs(said["delivered"] - real["delivered"]) / real["delivered"] if real["delivered"] else float("nan")
        pairs = [(real[key], said[key]) for key in ("in_time", "delivered")]
        times = [(real[key], said[key]) for key in ("p50_ms", "p99_ms")]
        rows.append(
            (
                row["policy"],
                *(f"{a:.1%} / {b:.1%}" for a, b in pairs),
                *(f"{a:.1f} / {b:.1f}" for a, b in times),
                f"{real['switches']} / {said['switches']}",
                f"{off:.1%}",
            )
        )
    config = result["config"]
    head = ("policy", "in time", "delivered", "p50, ms", "p99, ms", "switches", "delivered is off by")
    return (
        f"Trace {config['trace']}, {config['seconds']} s, target {config['target_ms']:.0f} ms; replayed / simulated:"
        f"\n\n{table(head, rows)}"
    )


def padding(result: Result) -> str:
    """Widths that a sparse training left against padded ones, by network and share of empty filters."""
    head = (
        "network",
        "filters empty",
        "unpadded, of dense, batch 1 / 32",
        "multiples of 4, of unpadded",
        "multiples of 16, of unpadded",
        "params of 4s / 16s",
        "`--pad auto` takes",
    )
    return table(head, [padding_line(row) for row in result["rows"]])


def padding_line(row: Mapping[str, Any]) -> tuple[str, ...]:
    """How many times faster each is, at batch 1 and 32, and what it has more than the unpadded one."""
    off, padded = row["arms"]["off"], [arm for name, arm in row["arms"].items() if name != "off"]
    return (
        row["net"],
        f"{row['share']:.0%}",
        " / ".join(f"{off['latency'][batch]['times_faster']:.2f}×" for batch in ("1", "32")),
        *(" / ".join(f"{arm['latency'][batch]['than_off']:.2f}×" for batch in ("1", "32")) for arm in padded),
        " / ".join(f"{arm['params'] / off['params'] - 1:+.1%}" for arm in padded),
        row["chosen"],
    )
