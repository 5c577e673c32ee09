"""Activations alive at once, planned and real: `python -m bench.peak_memory`. Linux only.

A RAM budget limits the peak that prunit counts on the traced model (`Cost.activation_bytes`). Beside it stand the same
peak on the exported ONNX file, once with element-wise operators in place and once with an output of its own for each,
and what a process of ONNX Runtime grows by for each further example of a batch, which leaves weights and the engine's
own tables out. That growth also holds what the engine works in (rearranged inputs, padding), which no graph tells.
"""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from torch import Tensor, nn

from bench._common import arguments, record, write
from bench._nets import SMALL, Net
from prunit.allocate import Budget
from prunit.cut.surgery import compact
from prunit.edge.measuring.probe import peak_memory
from prunit.export import exporter
from prunit.graph import trace
from prunit.prices.costs import cost_of
from prunit.recipe import decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import example_batch

NETS: Final = {
    **SMALL,
    "resnet18-64": Net("ResNet-18, 64×64", "resnet18", 64),
    "resnet50-64": Net("ResNet-50, 64×64", "resnet50", 64),
}
BUDGETS: Final = ("ram=1/2", "params=1/4")
FEW, MANY = 8, 40
"""Batch sizes whose difference gives the bytes of an example."""
IN_PLACE: Final = frozenset({"Relu", "Clip", "Add", "Mul", "Sigmoid", "HardSigmoid", "HardSwish", "BatchNormalization"})
"""Operators that may write where they read: one element of the output needs one element of the input."""
VIEWS: Final = frozenset({"Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze"})


def live_bytes(file: Path, *, in_place: bool) -> int:
    """The most bytes of one example's tensors that the file's operators, in their order, need at one time."""
    model = onnx.shape_inference.infer_shapes(onnx.load(file), data_prop=True)
    graph = model.graph
    weights = {each.name for each in graph.initializer}
    infos = (*graph.input, *graph.value_info, *graph.output)
    size = {info.name: _bytes(info) for info in infos if info.name not in weights}
    # Names of the same memory are told by the first of them.
    home = {info.name: info.name for info in graph.input}
    users = dict.fromkeys(home, 1)
    last = {name: step for step, node in enumerate(graph.node) for name in node.input}
    last |= {each.name: len(graph.node) for each in graph.output}
    alive = {info.name: size[info.name] for info in graph.input}
    peak = sum(alive.values())
    for step, node in enumerate(graph.node):
        read = [name for name in node.input if name in home]
        for name in node.output:
            dying = [n for n in read if last[n] == step and users[home[n]] == 1 and size[n] == size[name]]
            shared = read[:1] if node.op_type in VIEWS else dying[:1] if in_place and node.op_type in IN_PLACE else []
            home[name] = home[shared[0]] if shared else name
            users[home[name]] = users.get(home[name], 0) + 1
            alive.setdefault(home[name], size[name])
        peak = max(peak, sum(alive.values()))
        for name in dict.fromkeys((*read, *node.output)):
            if last.get(name, step) == step:
                users[home[name]] -= 1
                if not users[home[name]]:
                    del alive[home[name]]
    return peak


def _bytes(info: Any) -> int:
    tensor = info.type.tensor_type
    sizes = [max(dimension.dim_value, 1) for dimension in tensor.shape.dim]  # the batch has a name and no value
    return int(np.prod(sizes)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize


def planned(model: nn.Module, example: Tensor) -> Iterator[tuple[str, int, nn.Module]]:
    """For each budget its name, the activation bytes that prunit counts, and the model."""
    graph = trace(model, example)
    yield "none", cost_of(graph).activation_bytes, model
    config = PruneConfig(recipe="uniform", residual="prune")
    for budget in BUDGETS:
        decision = decide(model, graph, [example_batch(example)], Budget.parse(budget), config)
        yield budget, decision.cost.activation_bytes, compact(model, graph, decision.plan)


def measured(net: Net, runs: int) -> Iterator[dict[str, Any]]:
    """A row for each budget of a network."""
    model, example = net.make()
    shape = (3, net.image_size, net.image_size)
    with tempfile.TemporaryDirectory() as folder:
        for number, (budget, counted, small) in enumerate(planned(model, example)):
            artifact = exporter("onnx")(small.eval(), example, Path(folder), name=str(number), tolerance=1e-2)
            file = Path(folder) / artifact.path
            peaks = {b: [peak_memory(file, shape, batch=b) for _ in range(runs)] for b in (FEW, MANY)}
            grown = [(many - few) / (MANY - FEW) for few, many in zip(peaks[FEW], peaks[MANY], strict=True)]
            yield {
                "title": net.title,
                "budget": budget,
                "counted": counted,
                "graph_in_place": live_bytes(file, in_place=True),
                "graph": live_bytes(file, in_place=False),
                "engine": statistics.median(grown),
                "engine_range": [min(grown), max(grown)],
            }


def main() -> None:
    """Measure, and write the result."""
    args = arguments("peak_memory", __doc__, runs=5)
    rows = []
    for net in NETS.values():
        for row in measured(net, args.runs):
            print({key: value for key, value in row.items()}, flush=True)
            rows.append(row)
    config = {"batches": [FEW, MANY]}
    write(record("peak_memory", rows, config=config, n=args.runs, percentile="median", threads=1), args.json)


if __name__ == "__main__":
    main()
