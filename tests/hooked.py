"""A network whose hooks, methods and closures see it in every way that they can."""

import functools
import types
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Reads what somebody has stored about its first layer, so that a hook that stores elsewhere is felt."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.store: dict[str, Any] = {}
        self.get: Callable[[], Tensor] = lambda: torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.out(self.get().relu().mean((2, 3)))


def in_a_closure() -> Net:
    net = Net()
    net.body.register_forward_hook(lambda module, given, out: net.store.__setitem__("x", out))
    net.get = lambda: net.store["x"]
    return net


def in_the_closure_of_a_dict() -> Net:
    net = Net()
    store = net.store
    net.body.register_forward_hook(lambda module, given, out: store.__setitem__("x", out))
    net.get = lambda: store["x"]
    return net


def in_a_default() -> Net:
    net = Net()

    def hook(module: nn.Module, given: Any, out: Tensor, store: Any = net.store) -> None:
        store["x"] = out

    def get(*, store: Any = net.store) -> Tensor:
        return store["x"]

    net.body.register_forward_hook(hook)
    net.get = get
    return net


def in_a_partial() -> Net:
    net = Net()
    net.body.register_forward_hook(functools.partial(into, net.store))
    net.get = functools.partial(net.store.__getitem__, "x")
    return net


def into(store: dict[str, Any], module: nn.Module, given: Any, out: Tensor) -> None:
    store["x"] = out


class Collector:
    """Of the user's own, beside the model."""

    def __init__(self, model: Net) -> None:
        self.model, self.features = model, {}

    def take(self, module: nn.Module, given: Any, out: Tensor) -> None:
        self.features["x"] = out

    def __call__(self, module: nn.Module, given: Any, out: Tensor) -> None:
        self.take(module, given, out)

    def get(self) -> Tensor:
        return self.features["x"]


def in_a_bound_method() -> Net:
    net = Net()
    collector = Collector(net)
    net.body.register_forward_hook(collector.take)
    net.get = collector.get
    return net


def in_an_object_that_can_be_called() -> Net:
    net = Net()
    collector = Collector(net)
    net.body.register_forward_hook(collector)
    net.get = collector.get
    return net


def in_a_variable() -> Net:
    net = Net()
    last: Any = (net, None)

    def hook(module: nn.Module, given: Any, out: Tensor) -> None:
        nonlocal last
        last = (net, out)

    net.body.register_forward_hook(hook)
    net.get = lambda: last[1]
    return net


def in_an_outer_dict() -> Net:
    net, store = Net(), {}
    net.body.register_forward_hook(lambda module, given, out: store.__setitem__("x", out))
    net.get = lambda: store["x"]
    return net


def in_a_function_of_a_function() -> Net:
    net = Net()

    def keep(out: Tensor) -> None:
        net.store["x"] = out

    def named(hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def wrapped(*given: Any) -> None:
            hook(given[-1])

        return wrapped

    net.body.register_forward_hook(named(keep))
    net.get = lambda: net.store["x"]
    return net


def in_an_attribute_of_the_hook() -> Net:
    net = Net()

    def hook(module: nn.Module, given: Any, out: Tensor) -> None:
        vars(hook)["net"].store["x"] = out

    vars(hook)["net"] = net
    net.body.register_forward_hook(hook)
    net.get = lambda: net.store["x"]
    return net


def by_its_own_forward() -> Net:
    net = Net()

    def forward(self: Net, x: Tensor) -> Tensor:
        return self.out(self.body(x).relu().mean((2, 3)))

    net.forward = types.MethodType(forward, net)
    return net


def by_a_forward_that_sees_layers() -> Net:
    net = Net()
    body, layers = net.body, [net.out]
    net.forward = lambda x: layers[0](body(x).relu().mean((2, 3)))
    return net


def by_a_wrapped_forward() -> Net:
    net = Net()
    net.get = lambda: net.store["x"]
    old = net.forward

    def forward(x: Tensor) -> Tensor:
        net.store["x"] = net.body(x)
        return old(x)

    net.forward = forward
    return net


def by_methods_in_a_list() -> Net:
    net = Net()
    net.steps = [net.body.forward, torch.relu, net.out.forward]
    net.forward = lambda x: net.steps[2](net.steps[1](net.steps[0](x)).mean((2, 3)))
    return net


def by_a_method_of_a_list() -> Net:
    net = Net()
    net.seen = deque(maxlen=1)
    net.keep = net.seen.append
    net.body.register_forward_hook(lambda module, given, out: net.keep(out))
    net.get = lambda: net.seen[0]
    return net


def by_a_weak_reference() -> Net:
    net = Net()
    ref, net.known = weakref.ref(net), {"me": weakref.proxy(net)}
    net.body.register_forward_hook(lambda module, given, out: ref().store.__setitem__("x", out))
    net.get = lambda: net.known["me"].store["x"]
    return net


def by_weak_references_in_a_dict() -> Net:
    net = Net()
    net.known = weakref.WeakKeyDictionary({net.body: "x"})
    net.body.register_forward_hook(lambda module, given, out: net.store.__setitem__(net.known[module], out))
    net.get = lambda: net.store["x"]
    return net


def by_a_hook_that_goes_and_comes() -> Net:
    net = Net()

    def hook(module: nn.Module, given: Any, out: Tensor) -> None:
        net.store["x"] = out
        net.handle.remove()

    def before(module: nn.Module, given: Any) -> None:
        net.handle = net.body.register_forward_hook(hook)

    net.register_forward_pre_hook(before)
    net.get = lambda: net.store["x"]
    return net


def by_a_hook_with_names() -> Net:
    net = Net()
    net.body.register_forward_hook(
        lambda module, given, named, out: net.store.__setitem__("x", out), with_kwargs=True, always_call=True
    )
    net.get = lambda: net.store["x"]
    return net


def by_a_hook_before() -> Net:
    net = Net()
    net.register_forward_pre_hook(lambda module, given: net.store.__setitem__("x", net.body.forward(given[0])))
    net.get = lambda: net.store["x"]
    return net


def by_a_cached_function() -> Net:
    net = Net()
    net.layer = functools.lru_cache(lambda name: net.get_submodule(name))
    net.forward = lambda x: net.layer("out")(net.layer("body")(x).relu().mean((2, 3)))
    return net


FACTORIES = [
    in_a_closure,
    in_the_closure_of_a_dict,
    in_a_default,
    in_a_partial,
    in_a_bound_method,
    in_an_object_that_can_be_called,
    in_a_variable,
    in_an_outer_dict,
    in_a_function_of_a_function,
    in_an_attribute_of_the_hook,
    by_its_own_forward,
    by_a_forward_that_sees_layers,
    by_a_wrapped_forward,
    by_methods_in_a_list,
    by_a_method_of_a_list,
    by_a_weak_reference,
    by_weak_references_in_a_dict,
    by_a_hook_that_goes_and_comes,
    by_a_hook_with_names,
    by_a_hook_before,
    by_a_cached_function,
]
