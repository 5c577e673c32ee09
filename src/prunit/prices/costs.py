"""What a model costs at given widths, without building it: exact, and cheap enough to ask thousands of times."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from prunit.cut.plans import Plan, Widths
from prunit.errors import PlanError
from prunit.graph import ChannelGraph
from prunit.shown import Shown


@dataclass(frozen=True)
class Cost:
    """The price of one forward pass of one example, and of storing the model.

    params            elements of all parameters
    macs              multiply-adds of convolutions, linear maps and products of activations (attention); a recurrent
                      layer counts as the linear maps of its gates; norms, activations and nn.Bilinear are not counted
    activation_bytes  the most bytes of activations alive at once, element-wise steps and norms counted as in place
    weight_bytes      bytes of all parameters and buffers, as a state dict holds them
    """

    params: int
    macs: int
    activation_bytes: int
    weight_bytes: int

    def as_dict(self) -> dict[str, int]:
        """The four figures by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False, repr=False)
class LayerCosts(Shown):
    """What each layer costs, arrays in the order of `ChannelGraph.layers`.

    params        weights of the layer, without its bias and norm; those that two layers share count half for each
    macs          multiply-adds for one example
    outputs       elements that the layer gives for one example (of a transposed convolution: at its input's positions)
    weight_bytes  bytes of the params
    output_bytes  bytes of the outputs, in the type of the weights
    """

    params: np.ndarray
    macs: np.ndarray
    outputs: np.ndarray
    weight_bytes: np.ndarray
    output_bytes: np.ndarray


class CostModel:
    """The cost of a graph as a function of what each group keeps."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self._axis_rows: dict[tuple[str, int], int] = {}
        rows = [a.where for a in graph.axes]
        for i, axis in enumerate(graph.axes):
            self._axis_rows[axis.tensor, axis.dim] = i
        self._axes = _Positions.of(graph, rows)
        self._live = _Positions.of(graph, [where for a in graph.activations for where in (a.where, *a.others)])
        self._live_rows = [1 + len(a.others) for a in graph.activations]
        self._live_starts = np.cumsum([0, *self._live_rows])[:-1]
        self._live_batch = np.array([a.batch for a in graph.activations], dtype=np.int64)
        self._tensors = self._tensor_table()
        self._live_bytes = np.array([a.per_position * a.element_bytes for a in graph.activations], dtype=np.int64)
        self._spans = np.array([(a.born, a.dies + 1) for a in graph.activations], dtype=np.int64).reshape(-1, 2)
        self._product_macs = np.array([p.macs for p in graph.products], dtype=np.int64)
        self._product_batch = np.array([p.batch for p in graph.products], dtype=np.int64)
        self._product_of = np.repeat(np.arange(len(graph.products)), [len(p.wheres) for p in graph.products])
        self._factors = _Positions.of(graph, [where for p in graph.products for where in p.wheres])
        row_of = {name: i for i, name in enumerate(graph.tensors)}
        self._uses = np.array([[row_of[u.weight], u.positions] for u in graph.layers], dtype=np.int64).reshape(-1, 2)
        self._is_parameter = np.array([t.is_parameter for t in graph.tensors.values()], dtype=bool)
        self._element_bytes = np.array([t.element_bytes for t in graph.tensors.values()], dtype=np.int64)

    def at(self, widths: np.ndarray) -> Cost:
        """The cost when group i keeps `widths[i]` channels: exact, as every axis holds a group evenly."""
        share = widths / self.graph.sizes
        return self._price(self._axes.count(share), self._live.count(share), self._factors.count(share))

    def of(self, keep: np.ndarray) -> Cost:
        """The cost when the channels in `keep` stay: booleans as `ChannelGraph.flat_keep` gives. Always exact."""
        return self._price(self._axes.count_flat(keep), self._live.count_flat(keep), self._factors.count_flat(keep))

    def live_at(self, widths: np.ndarray) -> np.ndarray:
        """The bytes of activations alive at each step of the forward pass, when group i keeps `widths[i]` channels."""
        return self._live_bytes_of(np.rint(self._live.count(widths / self.graph.sizes)).astype(np.int64))

    @cached_property
    def alive(self) -> np.ndarray:
        """Whether an activation with channels of a group is alive at a step: booleans of shape (steps, groups)."""
        found = np.zeros((len(self.live_at(self.graph.sizes)), len(self.graph.groups)), dtype=bool)
        for (born, end), start, rows in zip(self._spans, self._live_starts, self._live_rows, strict=True):
            found[born:end] |= (self._live.per_group[start : start + rows] > 0).any(axis=0)
        return found

    def layers_at(self, widths: np.ndarray) -> LayerCosts:
        """What each layer costs when group i keeps `widths[i]` channels, which need not be whole numbers."""
        axis_sizes = self._axes.count(widths / self.graph.sizes)
        weight, positions = self._uses[:, 0], self._uses[:, 1]
        elements = self._elements(axis_sizes)[weight]
        params = elements / np.bincount(weight)[weight] if len(weight) else elements
        rows, whole = self._outputs
        outputs = positions * np.where(rows < 0, whole, np.append(axis_sizes, 1.0)[rows])
        each = self._element_bytes[weight]
        return LayerCosts(params, elements * positions, outputs, params * each, outputs * each)

    def channels_at(self, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many channels each layer reads and makes when group i keeps `widths[i]`; of a grouped one all parts."""
        axis_sizes = np.append(self._axes.count(widths / self.graph.sizes), 1.0)
        rows, whole, times = self._sides
        found = np.where(rows < 0, whole, axis_sizes[rows]) * times
        # A depthwise layer reads what it makes.
        return np.where(times[0] < 0, found[1], found[0]), found[1]

    @cached_property
    def _sides(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each layer's inputs and outputs: the row of the axis that holds them (-1: none), how many they are at
        first, and how many times they stand there. Of a depthwise layer's inputs that is -1.
        """
        rows, whole, times = (np.full((2, len(self.graph.layers)), fill) for fill in (-1, 0, 1))
        makes = {a.tensor: a.dim for a in self.graph.axes if a.makes or a.role == "along"}
        for i, layer in enumerate(self.graph.layers):
            shape = self.graph.tensors[layer.weight].shape
            reads = {a.dim for a in self.graph.axes if a.tensor == layer.weight and a.reads}
            out_dim = makes.get(layer.weight, 1 if reads == {0} else 0)
            dims = (1 - out_dim, out_dim)
            rows[:, i] = [self._axis_rows.get((layer.weight, dim), -1) for dim in dims]
            whole[:, i] = [shape[dim] for dim in dims]
            groups = layer.geometry.groups if layer.geometry else 1
            times[0, i] = -1 if groups > 1 and shape[1] == 1 else groups
        return rows, whole, times

    @cached_property
    def _outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """For each layer the row of the axis with its outputs, -1 if there is none, and how many they are at first."""
        made = {a.tensor: i for i, a in enumerate(self.graph.axes) if a.makes or a.role == "along"}
        layers = self.graph.layers
        rows = np.array([made.get(layer.weight, -1) for layer in layers], dtype=np.int64)
        return rows, np.array([self.graph.tensors[layer.weight].shape[0] for layer in layers], dtype=np.int64)

    def _elements(self, axis_sizes: np.ndarray) -> np.ndarray:
        """Elements of each tensor where the axes have these sizes, not rounded."""
        constant, rows = self._tensors
        return constant * np.append(axis_sizes, 1.0)[rows].prod(axis=1)

    def _price(self, axis_sizes: np.ndarray, live_positions: np.ndarray, factors: np.ndarray) -> Cost:
        elements = np.rint(self._elements(axis_sizes)).astype(np.int64)
        products = self._product_macs.copy()
        np.multiply.at(products, self._product_of, np.rint(factors).astype(np.int64))
        products //= self._product_batch
        macs = int((elements[self._uses[:, 0]] * self._uses[:, 1]).sum() + products.sum())
        return Cost(
            params=int(elements[self._is_parameter].sum()),
            macs=macs,
            activation_bytes=int(self._live_bytes_of(np.rint(live_positions).astype(np.int64)).max(initial=0)),
            weight_bytes=int((elements * self._element_bytes).sum()),
        )

    def _live_bytes_of(self, positions: np.ndarray) -> np.ndarray:
        if not len(positions):
            return np.zeros(0, dtype=np.int64)
        change = np.zeros(int(self._spans.max()) + 1, dtype=np.int64)
        size = np.multiply.reduceat(positions, self._live_starts) * self._live_bytes // self._live_batch
        np.add.at(change, self._spans[:, 0], size)
        np.subtract.at(change, self._spans[:, 1], size)
        return np.cumsum(change[:-1])

    def _tensor_table(self) -> tuple[np.ndarray, np.ndarray]:
        """For each tensor: elements per combination of its cut axes, and the rows of those axes (padded with -1)."""
        cut = {n: [d for d in range(len(t.shape)) if (n, d) in self._axis_rows] for n, t in self.graph.tensors.items()}
        constant = [
            math.prod(size for d, size in enumerate(info.shape) if d not in cut[name])
            for name, info in self.graph.tensors.items()
        ]
        rows = np.full((len(cut), max(map(len, cut.values()), default=0)), -1, dtype=np.int64)
        for i, (name, dims) in enumerate(cut.items()):
            rows[i, : len(dims)] = [self._axis_rows[name, d] for d in dims]
        return np.array(constant, dtype=np.float64), rows


@dataclass(frozen=True, eq=False)
class _Positions:
    """Many arrays of flat channel numbers: how many entries of each stay."""

    fixed: np.ndarray
    per_group: np.ndarray
    flat: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(graph: ChannelGraph, arrays: list[np.ndarray]) -> "_Positions":
        counts = np.zeros((len(arrays), len(graph.groups) + 1))
        for i, where in enumerate(arrays):
            groups = np.searchsorted(graph.offsets, where, side="right") - 1
            counts[i] = np.bincount(np.where(where < 0, len(graph.groups), groups), minlength=counts.shape[1])
        lengths = [len(a) for a in arrays]
        flat = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
        return _Positions(
            counts[:, -1], counts[:, :-1], flat, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(int)
        )

    def count(self, share: np.ndarray) -> np.ndarray:
        return self.fixed + self.per_group @ share

    def count_flat(self, keep: np.ndarray) -> np.ndarray:
        if not len(self.flat):
            return self.fixed
        return np.add.reduceat(keep[self.flat].astype(np.int64), self.starts).astype(float)


def cost_of(graph: ChannelGraph, what: Plan | Widths | None = None) -> Cost:
    """The cost of the graph's model: dense, at the channels of a plan, or at widths by group name."""
    given: object = graph
    if not isinstance(given, ChannelGraph):
        raise PlanError(f"a cost is that of a graph, as trace(model, example) returns it; got a {type(given).__name__}")
    model = cost_model(graph)
    if what is None:
        return model.at(graph.sizes)
    if isinstance(what, Plan):
        what.check(graph)
        keep = graph.flat_keep(what.keep)
        return _with_biases(model.of(keep), graph, what, keep)
    return model.at(width_array(graph, what))


def _with_biases(cost: Cost, graph: ChannelGraph, plan: Plan, keep: np.ndarray) -> Cost:
    """The cost with the biases that the plan gives to layers that had none."""
    made = {f"{path}.weight" for path in plan.biases} & graph.tensors.keys()
    # A layer that computes its weight has none of that name.
    made |= {u.weight for u in graph.layers if u.module in plan.biases and f"{u.module}.weight" not in graph.tensors}
    added = {name: graph.tensors[name].shape[0] for name in made}
    added |= {a.tensor: int(keep[a.where].sum()) for a in graph.axes if a.tensor in made and a.makes}
    more = sum(added.values())
    bytes_more = sum(n * graph.tensors[name].element_bytes for name, n in added.items())
    return replace(cost, params=cost.params + more, weight_bytes=cost.weight_bytes + bytes_more)


def width_array(graph: ChannelGraph, widths: Widths) -> np.ndarray:
    """Widths by group name as an array in the graph's order; groups that are not named are whole."""
    found = graph.sizes.copy()
    for name, width in widths.items():
        group = graph.group(name)
        if not 1 <= width <= group.size:
            raise PlanError(f"group '{name}' has {group.size} channels, asked for {width}")
        if group.pinned and width < group.size:
            raise PlanError(f"cannot cut group '{name}' to {width}: it is pinned ({group.pinned})")
        found[graph.index[name]] = width
    return found


def named_widths(graph: ChannelGraph, widths: np.ndarray) -> dict[str, int]:
    """The inverse of `width_array`."""
    return {g.name: int(w) for g, w in zip(graph.groups, widths, strict=True)}


@lru_cache(maxsize=16)
def cost_model(graph: ChannelGraph) -> CostModel:
    """The graph's cost model, built once per graph."""
    return CostModel(graph)


def shares(cost: Cost, dense: Cost) -> Mapping[str, float]:
    """Each figure of `cost` as a share of the dense one (1.0 = as much)."""
    old = dense.as_dict()
    return {name: value / old[name] if old[name] else 1.0 for name, value in cost.as_dict().items()}
