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
    from pipelines.home import store_root
    from pipelines.memorisation import report as memorisation_report
    from pipelines.models import resolve_model
    from pipelines.outcome import accuracy_table
    from pipelines.plan import build, resolve
    from pipelines.progress import Reporter
    from pipelines.results import write_results
    from pipelines.runfolder import RunFolder
    from pipelines.runner import run_plan
    from pipelines.store import Store

    quiet_libraries()
    recipe = resolve(recipe)
    RunFolder(folder_path).begun_with(recipe)
    store = Store(store_root())
    plan = build(recipe, resolve_model(recipe.model))
    folder = RunFolder.create(folder_path, recipe)  # last: a recipe that cannot run leaves no folder
    with folder.locked(), Reporter(folder_path) as reporter:
        try:
            folder.write_plan(plan, store)
            if untold := folder.estimate_plan(plan, store):
                reporter.line(f"no estimate of time and memory: {untold}")
            reporter.line(f"{recipe.name}: {len(plan.stages)} stages in {folder_path}, model {plan.model.name}, "
                          f"engine {recipe.sampling.engine} ({recipe.model.dtype}), executor {recipe.executor.kind} "
                          f"x{recipe.executor.workers}")
            folder.event("run started", stages=len(plan.stages))
            run_plan(plan, store, folder, reporter)
            results = write_results(folder_path, plan, store)
            folder.event("run finished")
            for line in [*accuracy_table(results), *memorisation_report(plan, store, folder_path)]:
                reporter.line(line)
            if results is not None:
                if not plan.trained:
                    reporter.line(f"prompt: {results['evaluations'][0]['prompt_example']!r}")
                reporter.line(f"results: {folder_path}/results.md; every answer: {folder_path}/answers")
        except KeyboardInterrupt:
            reporter.line(f"interrupted; continue with: ratchet resume {folder_path}")
            raise typer.Exit(130) from None
        except RatchetError:
            reporter.line(f"stopped; after mending the cause continue with: ratchet resume {folder_path}")
            raise


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a .yaml file")],
    overrides: Overrides = None,
    gpu: Annotated[float | None, typer.Option(help="Plan for one GPU of so many GB, not for this machine")] = None,
    json: AsJson = False,
) -> None:
    """Show the stages of a recipe: what is cached, estimated tokens, memory and time. Runs nothing, and needs no weights."""
    from configs.load import load_recipe
    from pipelines.estimate import Device, estimate, estimate_table
    from pipelines.home import store_root
    from pipelines.models import model_for_plan
    from pipelines.plan import build, resolve
    from pipelines.runner import as_json
    from pipelines.store import Store

    quiet_libraries()
    if gpu is not None and gpu <= 0:
        raise typer.BadParameter("must be above 0", param_hint="--gpu")
    device = Device.here() if gpu is None else Device(f"one GPU of {gpu:g} GB", int(gpu * 1e9), True)
    loaded = resolve(load_recipe(recipe, overrides or []), device.gpu)
    model, shape = model_for_plan(loaded.model)
    estimated = estimate(build(loaded, model), Store(store_root()), shape, device)
    typer.echo(as_json(estimated) if json else "\n".join(estimate_table(estimated)))


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Folder of the run")],
    json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run until it ends (exit code 1: it failed)")] = False,
) -> None:
    """Show how far a run is, from its folder alone; it may be running or not, here or on another machine."""
    from pipelines.runner import as_json
    from pipelines.status import run_state, status_of, status_table

    if json and watch:
        raise typer.BadParameter("is for the eye: leave out --json", param_hint="--watch")
    if watch:
        from pipelines.watch import watch as follow

        try:
            state = follow(folder)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        raise typer.Exit(0 if run_state(state) == "finished" else 1)
    state = status_of(folder)
    typer.echo(as_json(state) if json else "\n".join(status_table(state)))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs: one is reported, several compared")],
    output: Annotated[Path | None, typer.Option(help="The file (default: report.html in the first folder)")] = None,
) -> None:
    """Write a report of a run, or a comparison of several, as one HTML file that needs no network."""
    from pipelines.report import write_report

    typer.echo(write_report(folders, output))


Benchmarks = "gsm8k, math, math500, procedural, knights, or files FILE.jsonl; separated by commas"


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="bundled:NAME, a folder, a hub id, or a run folder (its last model)")],
    overrides: Overrides = None,
    benchmarks: Annotated[str, typer.Option(help=Benchmarks)] = "gsm8k",
    limit: Annotated[int | None, typer.Option(help="Only so many problems of each")] = None,
    iteration: Annotated[int | None, typer.Option(help="Of a run folder: which iteration (0: the initial model)")] = None,
    run_dir: RunDir = None,
) -> None:
    """Evaluate a model: greedy accuracy with a 95 % interval; settings as in a recipe: evaluation.samples=8 adds pass@k
    and maj@k, evaluation.prompt=few_shot (chat, plain) chooses the prompt."""
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
def compare(
    first: Annotated[str, typer.Argument(help="A: a run (its last model), RUN@ITERATION (0: initial), or an evaluation")],
    second: Annotated[str, typer.Argument(help="B: the same")],
    benchmark: Annotated[str | None, typer.Option(help="Only this one")] = None,
    json: AsJson = False,
) -> None:
    """Compare two evaluated models on the same problems: difference, 95 % interval, exact p-value."""
    from pipelines import compare as comparing
    from pipelines.runner import as_json

    found = comparing.compare(comparing.measured(first), comparing.measured(second), benchmark)
    typer.echo(as_json(found) if json else "\n".join(comparing.lines(found)))


@app.command()
def contamination(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run")],
    benchmarks: Annotated[str | None, typer.Option(help=f"{Benchmarks} (default: those of the run)")] = None,
    ngram: Annotated[int, typer.Option(help="Words in a row that count as shared")] = 13,
    worst: Annotated[int, typer.Option(help="So many overlaps of each benchmark are shown")] = 5,
    json: AsJson = False,
) -> None:
    """Look for evaluation problems and their solutions in what a run has trained on."""
    from pipelines.contamination import check_run, lines
    from pipelines.runner import as_json

    quiet_libraries()
    found = check_run(folder, benchmarks, ngram)
    typer.echo(as_json(found) if json else "\n".join(lines(found, worst)))


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
def export(
    run: Annotated[str, typer.Argument(help="Folder of a run, or RUN@ITERATION: a number, last or best")],
    to: Annotated[Path, typer.Option(help="A new folder (model, adapter), or a .jsonl or .parquet file (rows)")],
    what: Annotated[str, typer.Option(help="model (merged), adapter, or rows: sft, pairs, unpaired, steps, groups, samples, "
                                           "problems")] = "model",
    style: Annotated[str, typer.Option(help="of prompts in rows: conversational, standard, or auto: as in the run")] = "auto",
    benchmark: Annotated[str | None, typer.Option(help="samples, steps, problems of this evaluation; what best means")] = None,
    base_model: Annotated[str | None, typer.Option(help="The base's name on the hub, where the run used a local copy")] = None,
) -> None:
    """Write weights or rows of a run in the formats of transformers, PEFT, vLLM, TRL and datasets."""
    from pipelines.export.rows import FORMATS, export_rows
    from pipelines.export.source import Source
    from pipelines.export.weights import export_weights

    choices = (("--what", what, ("model", "adapter", *FORMATS)), ("--style", style, ("auto", "conversational", "standard")))
    for option, value, allowed in choices:
        if value not in allowed:
            raise typer.BadParameter(f"must be one of {', '.join(allowed)}", param_hint=option)
    quiet_libraries()
    source, rows = Source(run, benchmark), what in FORMATS
    if benchmark and source.best_on is None and not (rows and FORMATS[what].of_benchmark):
        raise typer.BadParameter(f"--what {what} belongs to training, not to a benchmark", param_hint="--benchmark")
    lines = export_rows(source, what, to, benchmark, style) if rows else export_weights(source, what, to, base_model)
    typer.echo("\n".join(lines))


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from configs.load import RECIPES, shipped

    for name in shipped():
        first = (RECIPES / f"{name}.yaml").read_text().splitlines()[0]
        typer.echo(f"{name:24} {first.removeprefix('#').strip()}")


@app.command()
def doctor(json: AsJson = False) -> None:
    """What works on this machine, and what to install for the rest; exit code 1 when something essential is broken."""
    from pipelines.doctor import Check, checks, healthy
    from pipelines.runner import as_json

    quiet_libraries()
    found: list[Check] = []
    for check in checks():
        found.append(check)
        if not json:
            typer.echo(check.line)
    if json:
        typer.echo(as_json({"ok": healthy(found), "checks": found}))
    raise typer.Exit(0 if healthy(found) else 1)


def main() -> None:
    """Entry point: errors meant for the user are one message and an exit code."""
    try:
        app()
    except (RatchetError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(getattr(e, "exit_code", 2)) from None


if __name__ == "__main__":
    main()
