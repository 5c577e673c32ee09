"""What each command does: read the options, call one function, show the result."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunit.cli import benching, devices, evaluating, listing, running, serving, sparse
from prunit.cli.checking import (
    check_build,
    check_plan,
    check_replaces,
    check_sweep,
    check_writable,
    listed,
)
from prunit.cli.options import (
    AsJson,
    Begin,
    Budgets,
    ConfigFile,
    CpusPerTrial,
    DataDir,
    DataName,
    DenseModel,
    Device,
    Download,
    FineTune,
    FleetFor,
    GpusPerTrial,
    ImageSize,
    Jobs,
    MaxDrop,
    Model,
    ModeName,
    OnRayAt,
    Options,
    Places,
    Precisions,
    Profiles,
    RecipeName,
    Rounds,
    RoundTo,
    Rule,
    ScoreName,
    Seed,
    Settings,
    SkipBroken,
    Slack,
    Subset,
    Targets,
    TaskName,
    Time,
    TrainedWeights,
    WeightsKey,
    Work,
    config_of,
    dataset_of,
    for_fleet,
)
from prunit.version import VERSION

if TYPE_CHECKING:
    from prunit.recipe.spending import Spent

app = typer.Typer(
    help="Prune a CNN before training, train what is left, export it, and measure the variants on a device.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"prunit {VERSION}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def build(
    model: Model = None,
    data: DataName = None,
    task: TaskName = None,
    budget: Budgets = None,
    out: Annotated[str, typer.Option(help="Folder of the portfolio, or an address: s3://bucket/NAME.")] = "portfolio",
    work: Work = None,
    data_dir: DataDir = None,
    download: Download = False,
    skip_broken: SkipBroken = False,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. (default: 30)")] = None,
    seed: Seed = None,
    device: Device = None,
    recipe: RecipeName = None,
    mode: ModeName = None,
    score: ScoreName = None,
    round_to: RoundTo = None,
    subset: Subset = None,
    image_size: ImageSize = None,
    train: Rule = None,
    time: Time = None,
    start: Begin = None,
    weights: TrainedWeights = None,
    weights_key: WeightsKey = None,
    dense: DenseModel = None,
    rounds: Rounds = None,
    fine_tune: FineTune = None,
    precision: Precisions = None,
    max_drop: MaxDrop = None,
    target: Targets = None,
    fleet: FleetFor = None,
    profiles: Profiles = None,
    slack: Slack = None,
    jobs: Jobs = None,
    ray: OnRayAt = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a build that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prune, train, export and measure: write a portfolio of variants, the dense one included."""
    options = Options(
        *(model, data, budget, recipe, mode, score, seed, device, image_size, round_to, subset, epochs),
        rule=train,
        time=time,
        point=start,
        weights=weights,
        key=weights_key,
        dense=dense,
        rounds=rounds,
        fine_tune=fine_tune,
        task=task,
        skip_broken=skip_broken or None,
        precision=precision,
        max_drop=max_drop,
        targets=target,
    )
    places = Places(jobs, ray, cpus_per_trial, gpus_per_trial)
    chosen = config_of(options, config, settings, for_fleet(fleet, profiles, slack))
    from prunit.recipe.outs import Out

    into = Out.of(out, work)
    check_build(chosen, into, resume=resume, places=places)
    listing = listed(chosen, data_dir, download)
    from prunit.cli import sending
    from prunit.cli.progress import Bars

    with Bars() as bars:
        bars.wait("loading PyTorch")
        from prunit.recipe import build as run

        bars.wait(f"reading {chosen.data}")
        dataset = dataset_of(chosen, data_dir, download, listing)
        portfolio = run(
            *(chosen.model, dataset, out), config=chosen, resume=resume, on_step=bars, jobs=places.opened(), work=work
        )
    sending.result(portfolio, into.folder, into.shown_address, as_json=as_json)
    if chosen.fleet.goals:
        from prunit.cli.fleets import served_all

        raise typer.Exit(served_all(into.folder))


@app.command()
def sweep(
    model: Model = None,
    data: DataName = None,
    task: TaskName = None,
    budgets: Budgets = None,
    recipes: Annotated[
        str | None,
        typer.Option(
            help="Recipes to try for each budget, with commas: uniform, reconvene:EVALUATOR, complexity:MODE, …"
            " (default: reconvene, reconvene:emptied, uniform, complexity:pa, complexity:fa)"
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(help="Folder of the trials, and of the portfolio in it; or an address, as for build."),
    ] = "sweep",
    work: Work = None,
    data_dir: DataDir = None,
    download: Download = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of what is trained in full. (default: 30)")] = None,
    seed: Seed = None,
    device: Device = None,
    round_to: RoundTo = None,
    subset: Subset = None,
    image_size: ImageSize = None,
    eta: Annotated[int, typer.Option(help="One of so many goes on from each rung.")] = 3,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images that judges the trials. (default: val judges them, where the data have a"
            " test too, else 0.2)"
        ),
    ] = None,
    jobs: Jobs = None,
    ray: OnRayAt = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try several recipes for each budget on short trainings, build the best, and keep the Pareto front."""
    options = Options(
        *(model, data, budgets, None, None, None, seed, device, image_size, round_to, subset, epochs), task=task
    )
    chosen, places = config_of(options, config, settings), Places(jobs, ray, cpus_per_trial, gpus_per_trial)
    from prunit.recipe.entrants import DEFAULT_RECIPES, PORTFOLIO
    from prunit.recipe.outs import Out

    names = [name.strip() for name in recipes.split(",")] if recipes else DEFAULT_RECIPES
    into = Out.of(out, work)
    check_sweep(chosen, names, into, eta=eta, held_out=held_out, resume=resume, places=places)
    listing = listed(chosen, data_dir, download)
    from prunit.cli import sending, show
    from prunit.cli.progress import Bars

    with Bars() as bars:
        bars.wait("loading PyTorch")
        from prunit.recipe import sweep as run

        bars.wait(f"reading {chosen.data}")
        dataset = dataset_of(chosen, data_dir, download, listing)
        found = run(
            *(chosen.model, dataset, out),
            recipes=names,
            config=chosen,
            eta=eta,
            held_out=held_out,
            resume=resume,
            on_step=bars,
            jobs=places.opened(),
            work=work,
        )
    if not as_json:
        show.trials(found)
    trials = {"trials": [asdict(trial) for trial in found.trials]}
    sending.result(found.portfolio, into.folder / PORTFOLIO, into.shown_address, as_json=as_json, more=trials)


@app.command()
def plan(
    model: Model = None,
    data: Annotated[
        str | None, typer.Option("--data", help="As for build; needed by scores that look at data, and sets the shape.")
    ] = None,
    task: TaskName = None,
    budget: Budgets = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; for a fleet a folder, if any. (default: plan.json)"),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    shape: Annotated[str, typer.Option("--input", help="Image shape C×H×W where no data is given.")] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Classes where no data is given.")] = 10,
    seed: Seed = None,
    device: Device = None,
    recipe: RecipeName = None,
    mode: ModeName = None,
    score: ScoreName = None,
    round_to: RoundTo = None,
    image_size: ImageSize = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time plans of several roundings here, show them, and take the fastest.")
    ] = False,
    target: Targets = None,
    fleet: FleetFor = None,
    profiles: Profiles = None,
    slack: Slack = None,
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Stop before training: show which channels would go and what that saves, and write the plan."""
    options = Options(
        *(model, data, budget, recipe, mode, score, seed, device, image_size, round_to), task=task, targets=target
    )
    chosen = config_of(options, config, settings, for_fleet(fleet, profiles, slack))
    if chosen.fleet.goals:
        from prunit.cli.fleets import plan_all

        source = (data, data_dir, download, (shape, classes))
        raise typer.Exit(plan_all(chosen, *source, out, measure=measure, as_json=as_json))
    out = out or Path("plan.json")
    check_writable(out, "plan.json")
    replaces = check_replaces(out)
    limit = check_plan(chosen, shape=None if data else (shape, classes))
    listing = listed(chosen, data_dir, download) if data else None
    from prunit.cli import show
    from prunit.cli.progress import Bars
    from prunit.files import write_atomically
    from prunit.later import loading

    with Bars() as bars:
        bars.wait("loading PyTorch")
        with loading():
            from prunit.cli.planning import decide_plan

        if data:
            bars.wait(f"reading {chosen.data}")
        dataset = dataset_of(chosen, data_dir, download, listing) if data else None
        planned = decide_plan(chosen, limit, dataset, shape=(shape, classes), measure=measure, bars=bars)
    found = planned.chosen
    write_atomically(out, found.decision.plan.to_json())
    if as_json:
        facts = show.decision_json(found.decision, planned.seconds) | found.as_dict()
        typer.echo(json.dumps(facts | _spent_json(planned.spent), indent=2))
    else:
        show.candidates(found)
        if planned.spent:
            from prunit.cli import parts

            parts.spent(planned.spent, show.console())
        show.decision(planned.graph, found.decision, planned.seconds, out, replaces=replaces)


def _spent_json(found: "Sequence[Spent]") -> dict[str, Any]:
    """What a plan takes on microcontrollers and NPUs, as plain data; nothing where none was named."""
    if not found:
        return {}
    from prunit.cli import parts

    return parts.spent_json(found)


@app.command()
def inspect(
    what: Annotated[Path, typer.Argument(help="A portfolio folder, plan.json, .safetensors, .onnx or .tflite file.")],
    as_json: AsJson = False,
) -> None:
    """Explain a plan, a portfolio, a weights file or an exported model; check what can be checked."""
    from prunit.cli.inspecting import explain

    explain(what, as_json=as_json)


for each in (
    listing.models,
    listing.methods,
    benching.bench,
    devices.layers,
    devices.probe_device,
    sparse.ladder,
    sparse.shrink,
    evaluating.evaluate,
    running.install,
    running.simulate,
    running.replay,
    serving.serve,
    serving.top,
):
    app.command()(each)
