"""SynFlow's ranking of a network's channels by one source tree of prunit, in a process of its own, and what it took.

    python -m bench._scored SRC NET SIZE CLASSES ROUNDS DENSITY FILE

prints one line of JSON; the scores of the channels go to FILE.
"""

import json
import resource
import sys
import time

import numpy as np
import torch


def main(source: str, name: str, size: int, classes: int, rounds: int, density: float, file: str) -> None:
    import prunit
    from prunit import zoo
    from prunit.graph import trace
    from prunit.scores import per_channel, score_weights

    if not str(prunit.__file__).startswith(source):
        raise SystemExit(f"prunit came from {prunit.__file__}, not from {source}")
    torch.set_num_threads(1)
    model = zoo.load(name, num_classes=classes, image_size=size).eval()
    example = torch.zeros(1, 3, size, size)
    graph = trace(model, example)
    before_bytes = _peak_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    batches = [(example, torch.empty(0, dtype=torch.int64))]
    weights = score_weights(model, graph, "synflow", batches, density=density, rounds=rounds)
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    channels = per_channel(graph, weights, "last")
    free = [channels[group.name].numpy() for group in graph.groups if not group.pinned]
    np.save(file, np.concatenate(free))
    print(json.dumps({**took, "peak_bytes": _peak_bytes(), "before_bytes": before_bytes}), flush=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    source, name, size, classes, rounds, density, file = sys.argv[1:]
    main(source, name, int(size), int(classes), int(rounds), float(density), file)
