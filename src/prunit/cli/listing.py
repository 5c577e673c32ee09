"""`prunit models` and `prunit methods`: what there is, by name."""

import json

import typer

from prunit.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the reference models, one line each."""
    from prunit.cli import show
    from prunit.known import NETWORKS

    show.listing("model", {name: network.about for name, network in NETWORKS.items()}, as_json=as_json)
    if not as_json:
        typer.echo("\nOr timm:NAME, torchvision:NAME, path/to/file.py:factory, package.module:factory.")


def methods(as_json: AsJson = False) -> None:
    """List recipes, scores and the switches of a recipe, one line each."""
    from prunit.allocate.by_complexity import MODES
    from prunit.cli import show
    from prunit.known import SCORES
    from prunit.recipe import RECIPES

    tables = {
        "recipe": {name: r.line for name, r in RECIPES.items()},
        "score": {name: s.line for name, s in SCORES.items()},
        "evaluator": show.EVALUATOR_LINES,
        "rectifier": show.RECTIFIER_LINES,
        "mode": {name: m.line for name, m in MODES.items()},
    }
    if as_json:
        typer.echo(json.dumps(tables, indent=2))
        return
    for kind, lines in tables.items():
        show.listing(kind, lines)
