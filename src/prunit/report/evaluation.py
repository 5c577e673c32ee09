"""The section of the page about labelled images that were judged here: figures, classes, confusion, worst pictures."""

from collections.abc import Sequence
from pathlib import Path

from prunit.edge.judging.evaluation import MATRIX, Evaluation, Judgement, most_confused
from prunit.edge.judging.pictures import Picture
from prunit.edge.portfolio import Portfolio
from prunit.errors import PortfolioError
from prunit.report import numbers
from prunit.report.tables import simple_table, text


def evaluation_of(portfolio: Portfolio, folder: Path) -> Evaluation | None:
    """What `prunit evaluate --save` left in the folder, of variants that are still the same; None without any."""
    try:
        found = Evaluation.read(folder)
    except PortfolioError:
        return None
    hashes = {variant.name: variant.artifact.sha256 for variant in portfolio.variants}
    same = tuple(one for one in found.variants if hashes.get(one.variant) == one.artifact_sha256) if found else ()
    return found.model_copy(update={"variants": same}) if found and same else None


def evaluation_section(found: Evaluation) -> str:
    """The content of the section, in HTML."""
    parts = [_judgements(found), f'<p class="note">{text(_about(found))}</p>']
    if found.labels:
        parts.append(f"<details><summary>Each class</summary>{_by_class(found)}</details>")
    for one in found.variants:
        if one.confusion is not None:
            title = f"Confusion of “{text(one.variant)}”"
            parts.append(f"<details><summary>{title}</summary>{_confusion(one, found.classes)}</details>")
    for one in found.variants:
        if one.worst:
            pictures = "".join(map(_picture, one.worst))
            title = f"Worst images of “{text(one.variant)}”"
            parts.append(f'<details><summary>{title}</summary><div class="pictures">{pictures}</div></details>')
    return "".join(parts)


def _about(found: Evaluation) -> str:
    by = "Wilson’s" if found.interval_by == "wilson" else "those of the images drawn anew, many times"
    skipped = f", {found.skipped:,} left out" if found.skipped else ""
    return (
        f"{found.images:,} images of “{found.data}” ({found.layout}), part {found.split}{skipped}, judged"
        f" {numbers.moment(found.created)} on {found.device.name} with {found.device.engine}. Intervals of 95 % are"
        f" {by}."
        f"{''.join(f' {note}.' for note in found.notes)}"
    )


def _judgements(found: Evaluation) -> str:
    metric = found.metric
    others = [name for name in found.score_names if name != metric]
    compared = any(one.against for one in found.variants)
    body = (
        [
            text(one.variant),
            numbers.score(metric, one.value),
            "–" if one.interval is None else numbers.score_span(metric, *one.interval),
            *(_against(metric, one) if compared else ()),
            *(numbers.score(name, one.scores.get(name)) for name in others),
            numbers.score(metric, one.recorded),
            numbers.significant(one.engine_images_per_s),
        ]
        for one in found.variants
    )
    against = [f"to dense{'' if metric in numbers.PLAIN else ', points'}", "interval", "measurable"] if compared else []
    heads = ["variant", metric, "95 % interval", *against, *others, "in the manifest", "images/s of the engine"]
    return simple_table("Variants on labelled images", heads, body)


def _against(metric: str, one: Judgement) -> list[str]:
    gap = one.against
    if gap is None:
        return ["–"] * 3
    span = f"{numbers.change(metric, gap.low)} to {numbers.change(metric, gap.high)}"
    return [numbers.change(metric, gap.difference), span, "yes" if gap.measurable else "no"]


def _by_class(found: Evaluation) -> str:
    """A row for each class: how much there is of it, then each figure of each variant."""
    counts = [name for name in found.class_score_names if name in numbers.COUNTS]
    names = [name for name in found.class_score_names if name not in counts]
    body = (
        [
            text(label),
            *(numbers.score(name, next((of[name] for of in known if name in of), None)) for name in counts),
            *(numbers.score(name, of.get(name)) for of in known for name in names),
        ]
        for label in found.labels
        for known in [[one.by_class.get(label, {}) for one in found.variants]]
    )
    heads = ["class", *counts, *(f"{one.variant}: {name}" for one in found.variants for name in names)]
    return simple_table("Figures of each class", heads, body, looks="tall")


def _confusion(one: Judgement, classes: Sequence[str]) -> str:
    confusion = one.confusion or ()
    if len(classes) > MATRIX:
        body = ([text(classes[true]), text(classes[said]), f"{n:,}"] for true, said, n in most_confused(confusion))
        return simple_table("Pairs that are confused most", ["true", "said", "images"], body)
    rows = (
        [
            text(label),
            *(f'<span class="best">{n:,}</span>' if i == j else f"{n:,}" if n else "·" for j, n in enumerate(row)),
        ]
        for i, (label, row) in enumerate(zip(classes, confusion, strict=True))
    )
    return simple_table("Images of each class (row) by what was said (column)", ["true", *classes], rows)


def _picture(picture: Picture) -> str:
    shown = [(picture.drawn, "what was said")]
    if picture.truth_drawn is not None:
        shown.append((picture.truth_drawn, "what is true"))
    images = "".join(f'<img src="data:image/jpeg;base64,{data}" alt="{alt}" loading="lazy">' for data, alt in shown)
    name = text(Path(picture.file).name)
    return (
        f"<figure>{images}<figcaption><code>{name}</code><br>said: {text(picture.said)}<br>true: {text(picture.truth)}"
        "</figcaption></figure>"
    )
