"""Cross-check of the evaluation with lm-evaluation-harness (extra `lm-eval`): same model, same prompts, both scorers.

    python -m benchmarks.lm_eval                                          the bundled model, 50 problems of GSM8K's test set
    python -m benchmarks.lm_eval runs/demo@2 --limit 200 --few-shot 0     what a run has trained, without worked examples
    python -m benchmarks.lm_eval --plain --few-shot 5                     lm-eval's classic prompt, without a chat template

lm-eval runs its own task `gsm8k` (its prompts, stop strings, filters and metric) on files made from Ratchet's data, with
its own Hugging Face model. Ratchet's engine then answers the same prompts, and each set of answers is scored by both: by
lm-eval's filters `strict-match` and `flexible-extract`, and by Ratchet's verifier, strict and lenient. So that two questions
are told apart: do both generate the same, and do both judge the same? Every disagreement of the scorers is listed with its
reason. Nothing is downloaded where RATCHET_DATA holds GSM8K and the model is on the disk.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import accelerator, write_results
from configs.schema import ModelSection
from data_gen.problems import load_problems
from pipelines.statistics import wilson
from rewards import Mode, verify

MODES: dict[Mode, str] = {"strict": "strict-match", "lenient": "flexible-extract"}  # ours and lm-eval's
NOTHING = "[invalid]"  # what lm-eval's regular expressions give where they find nothing
_LONGEST = 2048


@dataclass(frozen=True)
class Judged:
    """One answer and what both say of it. `theirs` is the text that lm-eval's filter takes, `ours` what Ratchet extracts."""

    problem: str
    gold: str
    text: str
    mode: Mode
    theirs: str
    their_verdict: bool
    ours: str | None
    our_verdict: bool


@dataclass(frozen=True)
class Disagreement:
    """`generator` says whose answer it is; `text` is its end."""

    generator: str
    problem: str
    mode: Mode
    gold: str
    lm_eval: str
    ratchet: str
    reason: str
    text: str


def reason(judged: Judged) -> str:
    """Why the verdicts on one answer differ."""
    theirs, ours = judged.theirs.strip(), judged.ours
    if theirs == NOTHING:
        return "lm-eval's pattern finds nothing where Ratchet finds an answer"
    if ours is None:
        return "Ratchet finds no answer where lm-eval's pattern does"
    if verify(f"\\boxed{{{ours}}}", theirs.rstrip(".")).correct:
        return "the same value: lm-eval compares characters, Ratchet values"
    return "another part of the text: each takes its own"


def disagreements(generator: str, judged: Sequence[Judged]) -> list[Disagreement]:
    """Answers that only one of the scorers holds for right."""
    return [
        Disagreement(
            generator, j.problem, j.mode, j.gold, _said(j.theirs, j.their_verdict), _said(j.ours, j.our_verdict), reason(j),
            j.text[-300:],
        )
        for j in judged
        if j.their_verdict != j.our_verdict
    ]


def _said(extracted: str | None, right: bool) -> str:
    return f"{'nothing' if extracted in (None, NOTHING) else extracted}: {'right' if right else 'wrong'}"


def rows(generator: str, judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """A record for each mode: both accuracies with their Wilson intervals, and on how many answers both agree."""
    found = []
    for mode, name in MODES.items():
        mine = [j for j in judged if j.mode == mode]
        ours, theirs, n = sum(j.our_verdict for j in mine), sum(j.their_verdict for j in mine), len(mine)
        agree = sum(j.our_verdict == j.their_verdict for j in mine)
        (low, high), (peer_low, peer_high) = wilson(ours, n), wilson(theirs, n)
        found.append({
            "what": f"GSM8K, answers of {generator}: accuracy, {mode}", "ours": ours / n, "peer": theirs / n,
            "peer_name": f"lm-eval {name}", "ratio": ours / theirs if theirs else None, "unit": "share", "n": n,
            "low": low, "high": high, "peer_low": peer_low, "peer_high": peer_high,
            "note": f"same verdict on {agree} of {n} answers",
        })  # fmt: skip
    return found


# --- lm-eval --------------------------------------------------------------------------------------


def local_task(folder: Path) -> dict[str, Any]:
    """lm-eval's own task `gsm8k`, reading files in `folder` made from Ratchet's data in place of the hub's set."""
    import lm_eval.tasks
    import yaml

    for split in ("train", "test"):
        records = [{"question": p.question, "answer": p.solution, "id": p.id} for p in load_problems("gsm8k", split)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    config = yaml.safe_load((Path(lm_eval.tasks.__file__).parent / "gsm8k" / "gsm8k.yaml").read_text())
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    kept = {k: v for k, v in config.items() if k not in ("tag", "dataset_name")}
    return {**kept, "dataset_path": "json", "dataset_kwargs": {"data_files": files}}


def open_model(name: str, dtype: str, batch_size: int) -> tuple[Any, Path, Path | None]:
    """lm-eval's Hugging Face model, which can also repeat given answers; and the folders of weights and adapter."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from pipelines.home import store_root
    from pipelines.models import resolve_model

    class Model(HFLM):
        """`given`: answers by prompt that are returned instead of generated ones."""

        given: dict[str, str] | None = None

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            if self.given is not None:
                return [self.given[r.args[0]] for r in requests]
            return super().generate_until(requests, disable_tqdm)

    model = resolve_model(ModelSection(name=name))
    base, adapter = model.path, None
    if model.trained is not None:
        trained = store_root() / "train" / model.trained / "model"
        base, adapter = (base, trained) if (trained / "adapter_config.json").is_file() else (trained, None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peft = {"peft": str(adapter)} if adapter else {}
    lm = Model(pretrained=str(base), dtype=dtype, device=device, batch_size=batch_size, max_length=_LONGEST, **peft)
    return lm, base, adapter


def evaluate(lm: Any, task: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """lm-eval's logged samples: one for each problem and filter."""
    lm_eval: Any = importlib.import_module("lm_eval")  # by name: a type checker would take this file for it
    found = lm_eval.simple_evaluate(
        model=lm, tasks=[task], num_fewshot=args.few_shot, limit=args.limit, apply_chat_template=not args.plain,
        gen_kwargs={"max_gen_toks": args.max_tokens}, bootstrap_iters=0, log_samples=True,
    )  # fmt: skip
    return found["samples"]["gsm8k"]


def generate(
    lm: Any, base: Path, adapter: Path | None, samples: Sequence[dict[str, Any]], args: argparse.Namespace
) -> dict[str, str]:
    """What Ratchet's engine answers to lm-eval's prompts, by prompt, greedily and with lm-eval's stop strings."""
    from data_gen.engine import EngineConfig, Request, open_engine

    asked: dict[str, dict[str, Any]] = {s["arguments"][0][0]: s["arguments"][0][1] for s in samples}
    stop = next(iter(asked.values()))["until"]
    config = EngineConfig(
        kind="transformers", model=str(base), dtype=args.dtype, batch_size=args.batch_size, max_model_len=_LONGEST,
        gpu_memory=0.3, stop=stop,
    )  # fmt: skip
    engine = open_engine(config)
    engine.set_adapter(adapter)
    requests = [
        Request(id=prompt, prompt_ids=lm.tok_encode(prompt), seeds=[0], temperature=0.0, top_p=1.0, max_tokens=args.max_tokens)
        for prompt in asked
    ]
    texts = {c.request: c.text for group in engine.generate(requests) for c in group}
    engine.close()
    return texts


def judge(samples: Sequence[dict[str, Any]]) -> list[Judged]:
    """Both verdicts on every answer that lm-eval has logged."""
    golds = {p.id: p.answer for p in load_problems("gsm8k", "test")}
    ours: dict[str, Mode] = {name: mode for mode, name in MODES.items()}
    judged = []
    for s in samples:
        mode, text, problem = ours[s["filter"]], s["resps"][0][0], s["doc"]["id"]
        verdict = verify(text, golds[problem], mode)
        judged.append(Judged(
            problem, golds[problem], text, mode, str(s["filtered_resps"][0]), s["exact_match"] == 1.0, verdict.extracted,
            verdict.correct,
        ))  # fmt: skip
    return judged


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Rows of the result, the disagreements, and a prompt."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder  # nothing of this is worth keeping
        task = local_task(Path(folder))
        lm, base, adapter = open_model(args.model, args.dtype, args.batch_size)
        theirs = evaluate(lm, task, args)
        texts = generate(lm, base, adapter, theirs, args)
        lm.given = texts
        ours = evaluate(lm, task, args)
    answers = {s["arguments"][0][0]: s["resps"][0][0] for s in theirs}
    same = sum(answers[prompt].strip() == text.strip() for prompt, text in texts.items())
    generators = {"lm-eval": judge(theirs), "Ratchet": judge(ours)}
    first = {"what": "GSM8K: greedy answers with the same text", "ours": same, "peer": len(texts), "peer_name": "all problems",
             "ratio": same / len(texts), "unit": "answers", "note": f"{args.dtype}, batches of {args.batch_size}"}  # fmt: skip
    return {
        "rows": [first, *(row for name, judged in generators.items() for row in rows(name, judged))],
        "disagreements": [d for name, judged in generators.items() for d in disagreements(name, judged)],
        "prompt": next(iter(texts)),
    }


def show(found: dict[str, Any]) -> None:
    print(f"\n{'':44} {'Ratchet':>8} {'lm-eval':>8}")
    for r in found["rows"][1:]:
        print(f"{r['what']:44} {r['ours']:>8.1%} {r['peer']:>8.1%}  {r['peer_name']}; {r['note']}")
    first = found["rows"][0]
    print(f"{first['what']}: {first['ours']} of {first['peer']} ({first['note']})")
    counts = Counter((d.mode, d.reason) for d in found["disagreements"])
    print(f"disagreements of the scorers: {len(found['disagreements'])}")
    for (mode, why), count in counts.most_common():
        print(f"  {count} {mode}: {why}")
    for d in found["disagreements"]:
        print(f"- {d.problem} ({d.generator}, {d.mode}), gold {d.gold}: lm-eval {d.lm_eval}; Ratchet {d.ratchet}")
        print(f"  {d.reason}; its end: {d.text[-80:]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lm_eval", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="bundled:smollm2-135m-instruct", help="as model.name in a recipe")
    parser.add_argument("--limit", type=int, default=50, help="so many problems of GSM8K's test set")
    parser.add_argument("--few-shot", type=int, default=5, help="worked examples, chosen by lm-eval from the training split")
    parser.add_argument("--plain", action="store_true", help="without the model's chat template")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16, of both models")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "lm_eval.json")
    args = parser.parse_args()
    found = compare(args)
    show(found)
    write_results(
        args.output, "lm_eval", found["rows"], ("lm-eval", "torch", "transformers"), accelerator(),
        disagreements=[asdict(d) for d in found["disagreements"]], prompt=found["prompt"],
    )  # fmt: skip
    print(f"-> {args.output}")


if __name__ == "__main__":
    main()
