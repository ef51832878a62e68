"""The command line. Heavy imports happen inside the commands: `ratchet --help` must be quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.errors import RatchetError
from pipelines.quiet import quiet_libraries

if TYPE_CHECKING:
    from configs.schema import Recipe

app = typer.Typer(
    name="ratchet",
    help="Makes a language model a better reasoner by itself: sample, verify, select, train, evaluate, repeat.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings by dotted key, e.g. sampling.temperature=0.8")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Folder of the run (default: runs/NAME)")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see `ratchet recipes`) or a .yaml file")],
    overrides: Overrides = None,
    run_dir: RunDir = None,
) -> None:
    """Run a self-improvement pipeline; finished stages are reused, a broken-off run goes on."""
    from configs.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    _execute(loaded, run_dir or Path("runs") / loaded.name)


@app.command()
def resume(folder: Annotated[Path, typer.Argument(help="Folder of the run")]) -> None:
    """Continue a run that was interrupted or killed, repeating nothing that is finished."""
    from pipelines.runfolder import RunFolder

    _execute(RunFolder.existing(folder).recipe(), folder)


def _execute(recipe: Recipe, folder_path: Path) -> None:
    """Plan and run a recipe in a folder; prints progress and the accuracies."""
    from pipelines.evaluation import shown_prompt
    from pipelines.home import store_root
    from pipelines.memorisation import report
    from pipelines.models import resolve_model
    from pipelines.outcome import accuracy_table
    from pipelines.plan import build, resolve
    from pipelines.progress import Reporter
    from pipelines.runfolder import RunFolder
    from pipelines.runner import run_plan
    from pipelines.store import Store

    quiet_libraries()
    recipe = resolve(recipe)
    RunFolder(folder_path).begun_with(recipe)
    store = Store(store_root())
    plan = build(recipe, resolve_model(recipe.model))
    folder = RunFolder.create(folder_path, recipe)  # last: a recipe that cannot run leaves no folder
    reporter = Reporter()
    with folder.locked():
        try:
            folder.write_plan(plan, store)
            reporter.line(f"{recipe.name}: {len(plan.stages)} stages in {folder_path}, model {plan.model.name}, "
                          f"engine {recipe.sampling.engine} ({recipe.model.dtype}), executor {recipe.executor.kind} "
                          f"x{recipe.executor.workers}")
            folder.event("run started", stages=len(plan.stages))
            results = run_plan(plan, store, folder, reporter)
            folder.event("run finished")
            for line in [*accuracy_table(plan, store), *report(plan, store, folder_path)]:
                reporter.line(line)
            if not plan.trained and results:
                reporter.line(f"prompt: {shown_prompt(plan, store)!r}")
                reporter.line(f"per-problem rows: {folder_path}/artefacts")
        except KeyboardInterrupt:
            reporter.line(f"interrupted; continue with: ratchet resume {folder_path}")
            raise typer.Exit(130) from None
        except RatchetError:
            reporter.line(f"stopped; after mending the cause continue with: ratchet resume {folder_path}")
            raise


@app.command()
def plan(recipe: Annotated[str, typer.Argument(help="A shipped recipe or a .yaml file")], overrides: Overrides = None,
         json: AsJson = False) -> None:
    """Show the stages of a recipe: what is cached, estimated tokens, memory and time. Runs nothing."""
    from configs.load import load_recipe
    from pipelines.estimate import estimate, estimate_table
    from pipelines.home import store_root
    from pipelines.models import resolve_model
    from pipelines.plan import build, resolve
    from pipelines.runner import as_json
    from pipelines.store import Store

    quiet_libraries()
    loaded = resolve(load_recipe(recipe, overrides or []))
    estimated = estimate(build(loaded, resolve_model(loaded.model)), Store(store_root()))
    typer.echo(as_json(estimated) if json else "\n".join(estimate_table(estimated)))


@app.command()
def status(folder: Annotated[Path, typer.Argument(help="Folder of the run")], json: AsJson = False) -> None:
    """Show how far a run is, from its folder alone; it may be running or not."""
    from pipelines.outcome import status_of, status_table
    from pipelines.runner import as_json

    state = status_of(folder)
    typer.echo(as_json(state) if json else "\n".join(status_table(state)))


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="bundled:NAME, a folder, a hub id, or a run folder (its last model)")],
    overrides: Overrides = None,
    benchmarks: Annotated[str, typer.Option(help="Names, separated by commas: gsm8k, math500, procedural, knights")] = "gsm8k",
    limit: Annotated[int | None, typer.Option(help="Only so many problems of each")] = None,
    iteration: Annotated[int | None, typer.Option(help="Of a run folder: which iteration (0: the initial model)")] = None,
    run_dir: RunDir = None,
) -> None:
    """Evaluate a model: greedy accuracy with a 95 % interval; settings as in a recipe (evaluation.samples=4 ...)."""
    from pipelines.evaluation import evaluation_recipe

    recipe = evaluation_recipe(model, benchmarks, limit, iteration, overrides or [])
    _execute(recipe, run_dir or _own_folder(recipe))


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="As for `ratchet eval`, or RUN@ITERATION")],
    overrides: Overrides = None,
    trained: Annotated[str | None, typer.Option(help="Run whose training puzzles are the seen ones (default: MODEL)")] = None,
    people: Annotated[str | None, typer.Option(help="No run: numbers of people in the puzzles, e.g. 2,3")] = None,
    seed: Annotated[int | None, typer.Option(help="No run: seed of the puzzles")] = None,
    variants: Annotated[str | None, typer.Option(help="Some of leaf,statement,names,order,roles (default: all)")] = None,
    limit: Annotated[int | None, typer.Option(help="Puzzles seen, and as many new ones (default: 100)", min=1)] = None,
    iteration: Annotated[int | None, typer.Option(help="Of a run folder: which iteration (0: the initial model)")] = None,
    run_dir: RunDir = None,
) -> None:
    """Measure memorisation on Knights and Knaves: accuracy on seen, perturbed and new puzzles."""
    from pipelines.probe import probe_recipe

    recipe = probe_recipe(
        model, iteration=iteration, trained=trained, people=people, seed=seed, variants=variants, limit=limit,
        overrides=overrides or [],
    )
    _execute(recipe, run_dir or _own_folder(recipe))


def _own_folder(recipe: Recipe) -> Path:
    """runs/NAME-HASH: another folder for other settings."""
    from configs.keys import content_key

    return Path("runs") / f"{recipe.name}-{content_key(recipe.model_dump(mode='json', exclude={'executor'}))[:8]}"


@app.command()
def verify(
    input: Annotated[Path, typer.Option(help="JSON lines with id, gold, prediction and optionally mode")],
    output: Annotated[Path, typer.Option(help="JSON lines with id, outcome, extracted, rule, seconds")],
    mode: Annotated[str, typer.Option(help="strict (boxed or ####) or lenient (also phrases, last number)")] = "strict",
    workers: Annotated[int, typer.Option(help="Worker processes for the hard cases")] = 1,
) -> None:
    """Judge answers in a file; verdicts come out in the same order."""
    from rewards import verify_file

    if mode not in ("strict", "lenient"):
        raise typer.BadParameter("must be strict or lenient", param_hint="--mode")
    counts = verify_file(input, output, mode=mode, workers=workers)
    typer.echo(", ".join(f"{name} {count}" for name, count in counts.items()) + f" -> {output}")


@app.command()
def score(
    input: Annotated[Path, typer.Option(help="JSON lines with problem_id, answer, response and optionally reward")],
    mode: Annotated[str, typer.Option(help="strict (boxed or ####) or lenient (also phrases, last number)")] = "lenient",
    equal: Annotated[str, typer.Option(help="which answers vote together: of equal value, or of equal text")] = "value",
    weights: Annotated[str, typer.Option(help="of the weighted vote: sigmoid (of alpha * reward) or raw")] = "sigmoid",
    alpha: Annotated[float, typer.Option(help="of the sigmoid")] = 0.5,
    workers: Annotated[int, typer.Option(help="Worker processes of the verifier")] = 1,
    json: AsJson = False,
) -> None:
    """pass@k, maj@k, RM@k and the weighted vote of stored samples, exactly over all subsets of k."""
    from pipelines.picks import lines
    from pipelines.runner import as_json
    from pipelines.stored import score_file

    choices = (("--mode", mode, ("strict", "lenient")), ("--equal", equal, ("value", "text")),
               ("--weights", weights, ("sigmoid", "raw")))
    for option, value, allowed in choices:
        if value not in allowed:
            raise typer.BadParameter(f"must be {' or '.join(allowed)}", param_hint=option)
    found = score_file(input, "strict" if mode == "strict" else "lenient", equal, weights, alpha, workers)
    if json:
        typer.echo(as_json(found))
        return
    counts = ", ".join(f"{name} {count}" for name, count in found["outcomes"].items())
    typer.echo(f"{found['samples']} samples of {found['problems']} problems: {counts}")
    typer.echo("\n".join(lines(found["at"])))
    if found["left_out"]:
        typer.echo(f"{found['left_out']} samples could not be judged and are left out")


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from configs.load import RECIPES, shipped

    for name in shipped():
        first = (RECIPES / f"{name}.yaml").read_text().splitlines()[0]
        typer.echo(f"{name:24} {first.removeprefix('#').strip()}")


@app.command()
def doctor() -> None:
    """What works on this machine, and what to install for the rest."""
    from pipelines.doctor import checks

    quiet_libraries()
    worst = 0
    for check in checks():
        typer.echo(f"{'ok  ' if check.ok else 'FAIL' if check.needed else 'no  '} {check.name}: {check.detail}")
        worst = max(worst, 0 if check.ok or not check.needed else 1)
    raise typer.Exit(worst)


def main() -> None:
    """Entry point: errors meant for the user are one message and an exit code."""
    try:
        app()
    except (RatchetError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(getattr(e, "exit_code", 2)) from None


if __name__ == "__main__":
    main()
