"""What the pipeline costs: a whole `ratchet run` beside a bare script that does the same work, in wall and CPU seconds.

    python -m benchmarks.overhead                                   the demo, smaller, three times each, in turns
    python -m benchmarks.overhead --repeats 5 data.train.limit=256 evaluation.benchmarks.0.source.limit=60

The bare script calls engine, verifier and trainer one after the other in one process: no store, no journal, no hashes, no
run folder, nothing to resume from. It takes its seeds from the plan, so both draw the same samples, learn the same examples
and end with the same accuracies, which is checked. Both are whole processes, imports included. On a busy machine the CPU
seconds are the ones to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import accelerator, write_results

SMALL = (
    "data.train.limit=128", "evaluation.benchmarks.0.source.limit=40", "sampling.engine=transformers", "executor.threads=1",
    "sampling.shard_size=1024",  # one shard: a bare script has none, and shards decide which sequences share a batch
)  # fmt: skip


class Bare:
    """Rejection sampling written down as a script. `keys`: of the plan's stages, for the seeds."""

    def __init__(self, recipe: Any, model: Path, keys: dict[str, str], folder: Path) -> None:
        from data_gen.engine import EngineConfig
        from data_gen.engine_transformers import TransformersEngine
        from data_gen.prompts import PromptEncoder

        self.recipe, self.model, self.keys, self.folder = recipe, model, keys, folder
        s = recipe.sampling
        self.encoder = PromptEncoder(model, recipe.data.prompt)
        self.engine = TransformersEngine(EngineConfig(
            kind="transformers", model=str(model), dtype=recipe.model.dtype, batch_size=s.batch_size,
            max_model_len=s.max_model_len, gpu_memory=s.gpu_memory, stop=s.stop, max_lora_rank=recipe.training.lora.r,
        ))  # fmt: skip

    def run(self) -> dict[str, float]:
        """Accuracies by model and benchmark."""
        from data_gen.decontaminate import decontaminate
        from data_gen.problems import load_problems

        recipe = self.recipe
        sets = {
            b.name: load_problems(**b.source.model_dump(exclude_none=True)) for b in recipe.evaluation.benchmarks
        }
        train = load_problems(**recipe.data.train.model_dump(exclude_none=True))
        train, _ = decontaminate(train, [p for s in sets.values() for p in s], recipe.data.ngram, recipe.data.lcs_ratio)
        found = {f"initial/{name}": self.accuracy(f"initial/{name}", problems) for name, problems in sets.items()}
        adapter: Path | None = None
        for i in range(1, recipe.iterations.count + 1):
            adapter = self.improve(i, train, adapter)
            self.engine.set_adapter(adapter)
            found |= {f"iteration{i}/{n}": self.accuracy(f"iteration{i}/{n}", problems) for n, problems in sets.items()}
        return found

    def draw(self, label: str, problems: Sequence[Any], n: int, temperature: float, max_tokens: int, shots: Any) -> list[Any]:
        """Completions of all problems, n each."""
        import torch

        from configs.keys import derive_seed
        from data_gen.engine import Request

        torch.set_num_threads(self.recipe.executor.threads)
        seed, key, top_p = self.recipe.seed, self.keys[label], self.recipe.sampling.top_p
        requests = [
            Request(
                id=p.id, prompt_ids=self.encoder.encode(p.question, shots), temperature=temperature,
                top_p=top_p if temperature else 1.0, max_tokens=max_tokens,
                seeds=[derive_seed(seed, key, p.id, i) if temperature else 0 for i in range(n)],
            )
            for p in problems
        ]  # fmt: skip
        found = {(c.request, c.index): c for group in self.engine.generate(requests) for c in group}
        return [found[p.id, i] for p in problems for i in range(n)]

    def accuracy(self, label: str, problems: Sequence[Any]) -> float:
        from rewards import verify

        e = self.recipe.evaluation
        drawn = self.draw(f"{label}/greedy/sample", problems, 1, 0.0, e.max_tokens, ())
        right = [verify(c.text, p.answer, mode=e.mode).outcome == "correct" for c, p in zip(drawn, problems, strict=True)]
        return sum(right) / len(right)

    def improve(self, i: int, train: Sequence[Any], adapter: Path | None) -> Path:
        """One iteration; the folder of the next adapter."""
        import torch

        from configs.keys import derive_seed
        from pipelines.hardware import cores
        from rewards import verify
        from trainers.loop import train as train_on
        from trainers.sft import SupervisedFineTuning

        recipe, s = self.recipe, self.recipe.sampling
        size = recipe.data.train.limit // recipe.iterations.count
        problems = train[(i - 1) * size : i * size]
        shots = s.shots if i <= s.shots_iterations else ()
        drawn = self.draw(f"iteration{i}/sample", problems, s.n, s.temperature, s.max_tokens, shots)
        by_id = {p.id: p for p in problems}
        right = [c for c in drawn if verify(c.text, by_id[c.request].answer, mode=recipe.rewards.mode).outcome == "correct"]
        examples = self.examples(f"iteration{i}/select", by_id, right)
        torch.set_num_threads(cores())
        seed = derive_seed(recipe.seed, self.keys[f"iteration{i}/train"], "train")
        work, output = self.folder / f"work{i}", self.folder / f"model{i}"
        train_on(
            SupervisedFineTuning(examples, recipe.training, seed), recipe.training, base=self.model, dtype=recipe.model.dtype,
            start=adapter, seed=seed, work=work, output=output, report=lambda _: None,
        )  # fmt: skip
        return output

    def examples(self, label: str, problems: dict[str, Any], right: Sequence[Any]) -> list[Any]:
        """Different right solutions, at most so many of a problem, in the plan's seeded order."""
        from configs.keys import derive_seed
        from configs.rows import Example, Sample
        from data_gen.select import at_most, unique_correct

        samples = [
            Sample(
                id=f"{c.request}#{c.index}", parents=[], stage="sample", problem=c.request, prompt_ids=[],
                token_ids=c.token_ids, text=c.text, logprobs=c.logprobs, logprob=0.0, finish_reason=c.finish_reason,
                temperature=0.0, top_p=1.0, seed=c.seed, model="",
            )
            for c in right
        ]  # fmt: skip
        unique = unique_correct(samples, {s.id for s in samples})
        seed, key = self.recipe.seed, self.keys[label]
        chosen = at_most(
            unique, self.recipe.selection.max_per_problem, lambda s: (float(derive_seed(seed, key, s.id)), s.id)
        )
        return [
            Example(
                id=f"{s.id}/example", parents=[], stage="select", problem=s.problem,
                prompt_ids=self.encoder.encode(problems[s.problem].question),
                token_ids=self.encoder.trimmed(s.token_ids, s.text), text=s.text, kind="model",
            )
            for s in chosen
        ]  # fmt: skip


def run_bare(file: Path) -> None:
    """The child process of the bare script: accuracies as the last line."""
    from configs.load import load_recipe
    from configs.schema import Recipe

    asked = json.loads(file.read_text())
    assert load_recipe(asked["name"]), "a recipe is read either way"
    with tempfile.TemporaryDirectory() as folder:
        bare = Bare(Recipe.model_validate(asked["recipe"]), Path(asked["model"]), asked["keys"], Path(folder))
        print(json.dumps(bare.run()))


def plan_of(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What the bare script is told: recipe, model folder, keys."""
    from configs.load import load_recipe
    from pipelines.models import resolve_model
    from pipelines.plan import build, resolve

    recipe = resolve(load_recipe(name, overrides))
    if recipe.training.method != "sft" or recipe.phases or not recipe.data.fresh_per_iteration:
        raise SystemExit("the bare script knows rejection sampling on fresh slices, as the demo has it")
    model = resolve_model(recipe.model)
    keys = {s.label: s.key for s in build(recipe, model).stages}
    return {"name": name, "recipe": recipe.model_dump(mode="json"), "model": str(model.path), "keys": keys}


def timed(command: Sequence[str], home: Path) -> tuple[dict[str, float], str]:
    """Wall and CPU seconds of a process to its end, and what it printed."""
    environment = {**os.environ, "RATCHET_HOME": str(home)}
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        out.seek(0)
        printed = out.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{printed}")
    return {"wall": seconds, "cpu": usage.ru_utime + usage.ru_stime}, printed


def pipeline_accuracies(home: Path, keys: dict[str, str]) -> dict[str, float]:
    manifests = {
        label.removesuffix("/greedy"): json.loads((home / "store" / "score" / key / "manifest.json").read_text())
        for label, key in keys.items()
        if label.endswith("/greedy")
    }
    return {who: manifest["metrics"]["accuracy"] for who, manifest in manifests.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the recipe `demo`")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    options = parser.parse_args()
    if options.bare:
        run_bare(options.bare)
        return
    overrides = [*SMALL, *options.overrides]
    asked = plan_of("demo", overrides)
    times: dict[str, list[dict[str, float]]] = {"pipeline": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bare.json"
        file.write_text(json.dumps(asked))
        from pipelines.home import home as own_home

        for number in range(options.repeats):
            home = Path(folder) / f"home{number}"
            home.mkdir()
            for part in ("models", "fingerprints"):  # converted before, as on any machine that is in use
                (home / part).symlink_to(own_home() / part)
            run = [sys.executable, "-m", "pipelines.cli", "run", "demo", *overrides, "--run-dir", str(home / "run")]
            spent, _ = timed(run, home)
            times["pipeline"].append(spent)
            spent, printed = timed([sys.executable, "-m", "benchmarks.overhead", "--bare", str(file)], home)
            times["bare"].append(spent)
            theirs, ours = json.loads(printed.strip().splitlines()[-1]), pipeline_accuracies(home, asked["keys"])
            if theirs != ours:
                raise SystemExit(f"not the same work: {ours} by the pipeline, {theirs} by the script")
            print({k: {c: round(v, 2) for c, v in t[-1].items()} for k, t in times.items()}, flush=True)
    rows = []
    for clock in ("wall", "cpu"):
        ours, bare = (statistics.median(t[clock] for t in times[k]) for k in ("pipeline", "bare"))
        rows.append({"what": f"demo ({', '.join(overrides)}): {clock} seconds of the whole", "ours": ours, "peer": bare,
                     "peer_name": "bare script, same samples and weights", "ratio": ours / bare, "unit": "s",
                     "note": f"median of {options.repeats}, in turns"})  # fmt: skip
        print(f"{clock:5} pipeline {ours:.1f} s, bare {bare:.1f} s: {ours / bare - 1:+.1%}")
    write_results(options.out, "overhead", rows, ("torch", "transformers", "peft"), accelerator(), times=times)


if __name__ == "__main__":
    main()
