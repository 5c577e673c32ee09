"""The tables of docs/benchmarks.md about budgets: how close plans come, what complexity decides, predicted latency."""

import statistics
from collections.abc import Mapping
from typing import Any

from bench._common import table

Result = Mapping[str, Any]


def budget_fit(result: Result) -> str:
    """Per network: how many plans come within 1 % of their tightest limit, the farthest one, and seconds."""
    rows = []
    for title, step in dict.fromkeys((row["net"], row["round_to"]) for row in result["rows"]):
        plans = [
            {**plan, "recipe": row["recipe"]}
            for row in result["rows"]
            if (row["net"], row["round_to"]) == (title, step)
            for plan in row["plans"]
        ]
        met = [(max(plan["used"].values()), plan) for plan in plans if plan["used"]]
        least, worst = min(met, key=lambda pair: pair[0])
        rows.append(
            (
                title,
                step,
                f"{sum(used >= 0.99 for used, _ in met)} of {len(met)}",
                f"{least:.1%} ({worst['recipe']}, {worst['budget']})",
                len(plans) - len(met),
                f"{max(plan['seconds'] for plan in plans):.2f}",
            )
        )
    return table(("model", "multiples of", "within 1 %", "farthest", "refused", "longest, s"), rows)


def ram_budget(result: Result) -> str:
    """Per network and limit: the share of the parameters that each recipe kept before, and keeps; groups narrowed."""
    recipes = tuple(result["rows"][0]["kept"])
    rows = [
        (
            row["net"],
            row["ram"],
            *(" → ".join(dict.fromkeys(map(_kept, (row["before"][name], row["kept"][name])))) for name in recipes),
            "" if row["narrowed"]["default"] is None else f"{row['narrowed']['default']} of {row['groups']}",
        )
        for row in result["rows"]
    ]
    return table(("model", "ram", *recipes, "narrowed by default"), rows)


def _kept(share: float | None) -> str:
    return "out of reach" if share is None else f"{share:.2%}"


def complexity(result: Result) -> str:
    """Shares and reductions beside the published counting rules, and MobileNetV2's plans."""
    parts: dict[str, list[Result]] = {}
    for row in result["rows"]:
        parts.setdefault(row["part"], []).append(row)
    shares = [
        cells
        for row in parts["shares"]
        for cells in (
            (row["title"], *(f"{x:.1f}" for x in row["ours"])),
            ("published", *(f"{x:.1f}" for x in row["published"])),
        )
    ]
    reductions = [
        (
            row["title"],
            f"{row['share']:.0%}",
            *(f"{ours:.1f} ({theirs})" for ours, theirs in zip(row["ours"], row["published"], strict=True)),
        )
        for row in parts["reductions"]
    ]
    plans = [
        (
            f"{row['size']}×{row['size']}, {row['budget']}",
            f"complexity, {row['mode']}" if row["recipe"] == "complexity" else "width multiplier",
            *(f"{row['less'][key]:.1f}" for key in ("params", "macs", "activation_bytes")),
            f"{row['seconds']:.2f}",
        )
        for row in parts["mobilenetv2"]
    ]
    return "\n\n".join(
        [
            "Shares of VGG-16's 13 convolutions, percent:",
            table(("share of", *(f"{n}" for n in range(1, 14))), shares),
            "Percent less on VGG-16 once so many of its filters are gone, drawn as in the paper; in brackets what the"
            " published counting rules give:",
            table(("mode", "filters gone", "params", "macs"), reductions),
            "MobileNetV2 at the reductions that the paper claims, percent less:",
            table(("budget", "by", "params", "macs", "activations", "planned in, s"), plans),
        ]
    )


def latency_profile(result: Result) -> str:
    """Errors by network, of the profile and of a prediction from multiply-adds."""
    rows = [
        (
            row["title"],
            len(row["points"]),
            *(f"{row['profile'][key]:.1%}" for key in ("median", "p90", "worst")),
            *(f"{row['macs'][key]:.1%}" for key in ("median", "worst")),
        )
        for row in result["rows"]
    ]
    every = result["config"]["all"]["profile"]
    rows.append(
        ("all", sum(row[1] for row in rows), *(f"{every[key]:.1%}" for key in ("median", "p90", "worst")), "", "")
    )
    head = ("model", "models", "median error", "p90", "worst", "by macs alone, median", "worst")
    return table(head, rows)


def fleet(result: Result) -> str:
    """Per network and slack: how many variants serve how many devices, and what the worst-off device keeps."""
    rows = [
        (
            row["net"],
            f"{row['slack']:.0%}",
            f"{row['served']} of {row['devices']}",
            row["variants"],
            row["by_dense"],
            "–" if row["least_kept"] is None else f"{row['least_kept']:.0%}",
            f"{row['seconds']:.0f}",
        )
        for row in result["rows"]
    ]
    head = ("model", "slack", "devices served", "variants", "of them by the dense model", "least of its own plan", "s")
    return table(head, rows)


def fleet_times(result: Result) -> str:
    """Per network and device: its limit, the variant that serves it, what was predicted of that and what it takes."""
    rows = [
        (
            row["net"],
            each["device"],
            each["variant"],
            f"{each['limit_ms']:.2f}",
            f"{each['predicted_ms']:.2f}",
            f"{each['measured_ms']:.2f}",
            f"{each['predicted_ms'] / each['measured_ms'] - 1:+.0%}",
            f"{each['measured_ms'] / each['limit_ms']:.0%}",
        )
        for row in result["rows"]
        for each in row.get("found", ())
    ]
    head = ("model", "device", "variant", "limit, ms", "predicted", "measured", "predicted off by", "of the limit")
    return table(head, rows)


def peak_memory(result: Result) -> str:
    """Bytes of activations as counted, in the exported graph, and in the engine."""
    rows = [
        (
            f"{row['title']}, {row['budget']}" if row["budget"] != "none" else f"{row['title']}, dense",
            *(f"{row[key] / 1024:,.0f}" for key in ("counted", "graph_in_place", "graph")),
            f"{row['engine'] / 1024:,.0f} ({' to '.join(f'{each / 1024:,.0f}' for each in row['engine_range'])})",
            f"{row['engine'] / row['counted']:.1f}×",
        )
        for row in result["rows"]
    ]
    head = ("model", "counted", "exported graph, in place", "not in place", "engine, each image", "of counted")
    return table(head, rows)


def training_time(result: Result) -> str:
    """An epoch of what is pruned before training, and how much less that is than training twice."""
    rows = [
        (
            row["title"],
            row["budget"],
            row["recipe"],
            f"{row['epoch_s']['median']:.2f}",
            f"{row['of_dense']:.0%}",
            f"{row['less_than_twice']:.0%} ({row['less_paired']['min']:.0%} to {row['less_paired']['max']:.0%})",
        )
        if row["recipe"] != "dense"
        else (row["title"], "–", "dense", f"{row['epoch_s']['median']:.2f}", "", "")
        for row in result["rows"]
    ]
    return table(("model", "budget", "recipe", "epoch, s", "of dense", "less than training twice"), rows)


def met_times(result: Result) -> str:
    """What was asked of the time, what the plan was found to take, and what the finished file takes."""
    rows = [
        (
            row["title"],
            row["budget"],
            f"{row['promised']:.2f}×",
            f"{row['finished']:.2f}×",
            f"{row['finished'] / row['promised'] - 1:+.1%}",
            f"{row['finished'] / row['asked'] - 1:+.1%}",
            f"{row['macs']:.1%}",
            f"{row['params']:.1%}",
            row["plans"],
            f"{row['seconds']:.0f}",
        )
        for row in result["rows"]
    ]
    head = ("model", "budget", "promised", "finished", "of promised", "of asked", "macs", "params", "plans timed", "s")
    return table(head, rows)


def small_data(result: Result) -> str:
    """Test accuracy of each setting on each data set: on the seeds that chose the default, and on the others."""
    config = result["config"]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["images"], row["batch_size"], row["lr"], row["epochs"]), []).append(row)
    rows = []
    for (images, batch_size, lr, epochs), cells in groups.items():
        by_seeds = [[c["accuracy"] for c in cells if c["seed"] in config[kind]] for kind in ("choosing", "judging")]
        told = [f"{100 * statistics.mean(found):.1f} ({len(found)})" if found else "–" for found in by_seeds]
        spent = [c["cpu_s"] for c in cells if "cpu_s" in c]
        cpu_s = f"{statistics.mean(spent):.0f}" if spent else "–"
        rows.append((images, batch_size, f"{lr:g}", epochs, *told, cpu_s))
    return table(("images", "batch", "peak lr", "epochs", "choosing, % (seeds)", "judging, % (seeds)", "CPU s"), rows)
