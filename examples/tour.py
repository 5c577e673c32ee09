"""Every record of the flow, in the order in which it comes about: run it and read along.

    python examples/tour.py

A tiny network on scikit-learn's digits: a few seconds on a CPU. `prunit build` does the same and more in one step; its
table of contents is `build` in src/prunit/recipe/flow.py.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import prunit
from prunit.allocate import Budget, Target, global_threshold
from prunit.cut.plans import choose
from prunit.edge.measuring.probe import ProbeSettings, probe
from prunit.edge.portfolio import Metrics, Variant
from prunit.edge.runtimes import runtime
from prunit.edge.session import self_test
from prunit.export import export_onnx
from prunit.scores import score_channels
from prunit.train import TrainConfig, train

MODEL = f"{Path(__file__).with_name('my_model.py')}:make"
BUDGET = "params=1/4"
EPOCHS = 6


def main() -> None:
    """Print each record as it appears."""
    torch.set_num_threads(1)  # a network this small gains nothing from more
    data = prunit.zoo.data.load("digits")
    dense = prunit.zoo.load(MODEL, num_classes=len(data.classes), in_channels=data.channels)
    batches = data.scoring_batches(per_class=10, batch_size=256, seed=0)
    example = batches[0][0][:1]

    title("graph", "which channels must shrink together; one forward pass, nothing computed", "graph/")
    graph = prunit.trace(dense, example)
    for group in graph.groups:
        pinned = f"; stays whole: {group.pinned}" if group.pinned else ""
        print(f"  {group.name:<18} {group.size:>2} channels, made by {' + '.join(group.producers)}{pinned}")

    title("scores", "how much each channel matters, before training; higher = keep", "scores/")
    scores = score_channels(dense, graph, "synflow", batches)
    print("  SynFlow prunes weights in 100 rounds; a channel's score is the round that leaves it empty")
    for name, score in scores.items():
        print(f"  {name:<18} {' '.join(f'{value:.0f}' for value in score[:12])}{' …' if len(score) > 12 else ''}")

    title("widths", f"how many channels each group keeps so that {BUDGET}", "allocate/")
    budget = Budget.parse(BUDGET)
    widths = global_threshold(Target(graph, budget), scores)
    for name, width in widths.items():
        print(f"  {name:<18} {width:>2} of {graph.group(name).size}")

    title("plan", "which channels stay: plain data, JSON both ways", "cut/plans.py")
    plan = choose(graph, scores, widths)
    for name, channels in plan.keep.items():
        print(f"  {name:<18} keeps {' '.join(map(str, channels))}")
    print(f"  hash {plan.hash}; read back from JSON it is the same: {prunit.Plan.from_json(plan.to_json()) == plan}")

    title("cost", "exact, without building the small model", "prices/costs.py")
    cost, before = prunit.cost(graph, plan), prunit.cost(graph)
    for name, value in cost.as_dict().items():
        print(f"  {name:<16} {value:>9,} of {before.as_dict()[name]:,}")

    title("compact model", "a new nn.Module; the dense one is left as it was", "cut/surgery.py")
    small, twin = prunit.compact(dense, graph, plan), prunit.mask(dense, graph, plan)
    print(f"  parameters counted in it: {sum(p.numel() for p in small.parameters()):,}")
    with torch.no_grad():
        off = float((small.eval()(example) - twin.eval()(example)).abs().max())
    print(f"  largest difference to the masked dense model: {off:.1e}")
    print(f"  re-initialised: {', '.join(prunit.rectify(small, dense, 'reinit', seed=0))}")

    title("epochs", "the small model trained", "train/")
    accuracy = 0.0
    for epoch in train(small, data, TrainConfig(epochs=EPOCHS, device="cpu")):
        accuracy = epoch.test_accuracy
        print(f"  epoch {epoch.index} of {epoch.epochs}: loss {epoch.loss:.3f}, test accuracy {accuracy:.1%}")

    title("variant", "exported, checked against torch, measured: what a device holds", "export/, edge/")
    with TemporaryDirectory() as place:
        folder = Path(place)
        artifact = export_onnx(small, example, folder, name="quarter")
        session = runtime("onnxruntime").open(folder / artifact.path)
        print(f"  self-test: off by {self_test(session, artifact, folder):.1e} of {artifact.tolerance:.1e} allowed")
        settings = ProbeSettings(batches=(1,), seconds=0.2)
        latencies = probe({"quarter": session}, {"quarter": artifact.input_shape}, settings)["quarter"]
        session.close()
    variant = Variant(
        name="quarter",
        recipe="by hand",
        budget=budget.as_dict,
        keep=sum(plan.widths.values()) / sum(plan.dense.values()),
        widths={name: (plan.dense[name], width) for name, width in plan.widths.items()},
        artifact=artifact,
        metrics=Metrics(accuracy=accuracy, file_bytes=artifact.bytes, latencies=latencies, **cost.as_dict()),
        epochs=EPOCHS,
    )
    text = variant.model_dump_json(indent=2, exclude={"widths"}, exclude_defaults=True)
    print("  " + text.replace("\n", "\n  "))


def title(record: str, what: str, where: str) -> None:
    """A heading: the record, what it says, and where under src/prunit it comes from."""
    print(f"\n{record}: {what}  [src/prunit/{where}]", flush=True)


if __name__ == "__main__":
    main()
