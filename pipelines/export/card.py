"""The model card of an export, written from what the run has recorded. Nothing is claimed that is not in its artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.schema import PromptSection, Recipe
from data_gen.prompts import PromptEncoder
from pipelines.export.base import Base, chain, hub_set, set_in_words, set_licence
from pipelines.export.source import Figure, Source
from pipelines.markdown import cell, fenced
from pipelines.runner import summary
from pipelines.statistics import paired_difference

_METHODS = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation (arXiv 2305.18290)",
    "remax": "ReMax (arXiv 2310.10505)",
    "rloo": "RLOO (arXiv 2402.14740)",
    "grpo": "GRPO (arXiv 2402.03300)",
    "reinforce": "REINFORCE",
    "reward_model": "training of a reward model",
}
_ADAPTERS = {"full": "all weights trained", "lora": "LoRA adapter", "qlora": "LoRA adapter over a 4-bit base (QLoRA)"}


class Card:
    """The card of one export. `merged` is the data type of merged weights, "full" where the run trained all weights, None
    where the folder holds an adapter; `name` stands for the folder in examples."""

    def __init__(self, source: Source, base: Base, merged: str | None, name: str = "FOLDER") -> None:
        self.source, self.recipe, self.base, self.merged, self.name = source, source.recipe, base, merged, name
        self.trained = source.trained_by().manifest()
        self.training: dict[str, Any] = self.trained["config"]["training"]
        self.chain = chain(source)

    def write(self, folder: Path) -> None:
        """README.md in `folder`, read back by the hub's library: metadata that it does not understand is an error."""
        from huggingface_hub import ModelCard

        text = "\n".join([f"---\n{self._metadata()}\n---", "", *self._body(), ""])
        ModelCard(text)
        (folder / "README.md").write_text(text, encoding="utf-8")

    def _metadata(self) -> str:
        from huggingface_hub import ModelCardData

        adapter = self.training["adapter"]
        more: dict[str, Any] = dict(self.base.licence)
        if self.base.hub:
            more["base_model_relation"] = "finetune" if self.merged else "adapter"
        return ModelCardData(
            base_model=self.base.hub, library_name="transformers" if self.merged else "peft", pipeline_tag="text-generation",
            datasets=list(dict.fromkeys(s for r in self.chain for x in r.learned_from if (s := hub_set(x)))) or None,
            tags=["ratchet", "reasoning", *self._methods(), *([] if adapter == "full" else [adapter])], **more,
        ).to_yaml()  # fmt: skip

    def _body(self) -> list[str]:
        sections = {"Use": self._use(), "Accuracy": self._accuracy()}
        sections |= {f"Training: run {r.recipe.name}, to {_called(r)}": _training(r) for r in self.chain}
        sections |= {"Limits": self._limits(), "Licences": self._licences()}
        sections["Software"] = [", ".join(f"{k} {v}" for k, v in self.trained["software"].items())]
        sections["Recipe"] = ["What differs from the defaults:", "", *fenced(_settings(self.recipe), "yaml")]
        lines = [f"# {self.recipe.name}, {_called(self.source)}", "", *self._made()]
        for title, text in sections.items():
            lines += ["", f"## {title}", "", *text]
        return lines

    def _made(self) -> list[str]:
        first = self.chain[0]
        began = f" The run began with {_called(first)} of run {first.recipe.name}." if first is not self.source else ""
        best = self.source.best_on
        chosen = f", chosen for the highest greedy accuracy on `{best}`" if best else ""
        how = _ADAPTERS[self.training["adapter"]]
        earlier = list(self.source.upto.items())[:-1] if self.recipe.phases else []
        before = [f"{label} ({_method(r.training.method)})" for label, r in earlier]
        if self.merged != "full":
            how += f", merged into the base ({self.merged})" if self.merged else "; this folder holds the adapter"
        return [
            "Made by Ratchet, which samples solutions to problems with checkable answers, verifies them and trains on them.",
            "",
            f"- Base: {self.base.said}{began}",
            f"- Method: {_method(self.training['method'])}{self._examples()}; {how}.",
            *([f"- Trained before, in this order: {', '.join(before)}."] if before else []),
            f"- {_called(self.source).capitalize()} of {len(self.source.trained)}{chosen}.",
        ]

    def _methods(self) -> list[str]:
        """The methods of all iterations that led here, and of the run that this one began from."""
        return list(dict.fromkeys(r.training.method for s in self.chain for r in s.upto.values()))

    def _examples(self) -> str:
        """How many of the examples the model wrote itself, and how many came with the problems."""
        select = self.source.stages[self.source.trained_by().key]["inputs"].get("examples")
        if select is None:
            return ""
        m = self.source.artefact(select).manifest()["metrics"]
        human = m.get("human", 0)
        sides = [f"{m['examples'] - human} verified samples of the model"] * (m["examples"] > human)
        sides += [f"{human} solutions that came with the problems"] * (human > 0)
        return f" on {' and '.join(sides)}"

    def _use(self) -> list[str]:
        """How to load it, and the prompt that it was trained with."""
        encoder = PromptEncoder(self.source.model.path, self.recipe.data.prompt)
        code, command = loading(self.base.hub or "BASE", self.merged, self.name, self.recipe)
        others = [f.metrics["prompt"] for f in self.source.figures()]
        own = all(p == self.recipe.data.prompt.model_dump() for p in others)
        return [
            *fenced("\n".join(code), "python"), "", *fenced(command), "",
            f"The prompt of training{' and evaluation' if own else ''}, special tokens spelled out:", "",
            *fenced(encoder.text("QUESTION").removesuffix("\n")), *([] if own else self._asked(others)),
        ]  # fmt: skip

    def _asked(self, prompts: Sequence[dict[str, Any]]) -> list[str]:
        """The prompts of the evaluations, where they are not that of training."""
        lines = ["", "Evaluations asked differently:"]
        for prompt in {str(p): p for p in prompts}.values():
            text = PromptEncoder(self.source.model.path, PromptSection.model_validate(prompt)).text("QUESTION")
            lines += ["", *fenced(text.removesuffix("\n"))]
        return lines

    def _accuracy(self) -> list[str]:
        """A table of what the run has measured, of the model it began with and of its iterations."""
        figures = self.source.figures()
        if not figures:
            return ["The run has measured nothing."]
        starts = {(f.benchmark, f.decoding): f for f in figures if not f.number}
        titles = ("model", "benchmark", "decoding", "accuracy", "95 % interval", "problems", "gain over the start")
        rows = [titles, ("---",) * len(titles), *(self._row(f, starts.get((f.benchmark, f.decoding))) for f in figures)]
        m, sampling = figures[0].metrics, figures[0].metrics["sampling"]
        sets = [f"- `{b.name}`: {set_in_words(b.source)}" for b in self.recipe.evaluation.benchmarks]
        answers = "from a box or a `####` line only" if m["mode"] == "strict" else "leniently, down to the last number"
        return [
            *(f"| {' | '.join(map(cell, row))} |" for row in rows), "", *sets,
            f"- Answers are read {answers}; {sampling['max_tokens']} tokens at most; engine {sampling['engine']}, "
            f"{sampling['dtype']}.",
            "- Intervals: Wilson's for one answer a problem, clustered by problem for several; a paired bootstrap for gains.",
        ]  # fmt: skip

    def _row(self, figure: Figure, start: Figure | None) -> tuple[str, ...]:
        m, sampling = figure.metrics, figure.metrics["sampling"]
        who = _model(self.source, figure.number) if figure.number else "start"
        how = "greedy" if figure.decoding == "greedy" else f"{sampling['n']} samples at {sampling['temperature']}"
        _, _, seed = figure.decoding.partition("-seed")
        how += f", seed {seed}" if seed else ""
        gain = ""
        if figure.number and start:
            mean, low, high = paired_difference(start.shares(), figure.shares(), seed=0)
            gain = f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        return (
            f"**{who}**" if figure.number == self.source.number else who, figure.benchmark, how, f"{m['accuracy']:.1%}",
            f"[{m['low']:.1%}, {m['high']:.1%}]", str(m["problems"]), gain,
        )  # fmt: skip

    def _limits(self) -> list[str]:
        figures = self.source.figures()
        lines = ["- Nothing was measured besides the table above: no other task, no other language, no safety."]
        if self.source.best_on:
            lines.append("- The iteration was chosen by its accuracy in the table, which is therefore rather too high for it.")
        cleaned = [self.source.place(s) for s in self.source.plan["stages"] if s["kind"] == "decontaminate"]
        if cleaned:
            dropped = sum(a.manifest()["metrics"]["dropped"] for a in cleaned if a.done)
            lines.append(f"- Training problems found in an evaluation set, literally or nearly: {dropped}, left out.")
        else:
            lines.append("- Training problems were not compared with evaluation sets.")
        lines.append("- What the base itself has seen before is not known to the run.")
        if figures and self.merged not in (None, "full"):
            lines.append(
                f"- The figures were measured with the adapter beside the base in {figures[0].metrics['sampling']['dtype']}. "
                f"Merged weights ({self.merged}) round differently and were not measured again."
            )
        if self.training["adapter"] == "qlora":
            lines.append("- The adapter was trained over 4-bit weights, and measured and merged over the base's own.")
        return lines

    def _licences(self) -> list[str]:
        licence = self.base.licence
        known = licence.get("license_name") or licence.get("license") or "not recorded; ask its source"
        sections = {s.model_dump_json(): s for r in self.chain for s in r.learned_from}
        return [f"- Base: {known}.", *(f"- Data, {set_in_words(s)}: {set_licence(s)}." for s in sections.values())]


def loading(below: str, merged: str | None, folder: str, recipe: Recipe) -> tuple[list[str], str]:
    """Python that loads an export, and the command that serves it; `below` is the base of an adapter."""
    code = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    name = folder if merged else below
    code += [f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
             f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")']  # fmt: skip
    if merged:
        return code, f"vllm serve {folder}"
    code = ["from peft import PeftModel", *code, f'model = PeftModel.from_pretrained(model, "{folder}")']
    own = recipe.training.lora.r
    rank = next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= own), own)  # those that vLLM knows
    return code, f"vllm serve {below} --enable-lora --max-lora-rank {rank} --lora-modules {recipe.name}={folder}"


def _method(name: str) -> str:
    return _METHODS.get(name, name)


def _model(source: Source, number: int) -> str:
    """A trained model of a run in words: `iteration 2`, in a run of phases with its name there."""
    return f"iteration {number}" + (f" ({source.models[number - 1]})" if source.recipe.phases else "")


def _called(source: Source) -> str:
    return _model(source, source.number) if source.number else "the start"


def _training(source: Source) -> list[str]:
    """The data of a run, and what came out of each of its stages up to the iteration."""
    sets = "; ".join(set_in_words(s) for s in source.learned_from)
    lines = [f"Learned from: {sets}.", "", "| stage | what came out |", "| --- | --- |"]
    for stage in source.plan["stages"]:
        head, _, rest = stage["label"].partition("/")
        artefact = source.place(stage)
        if "/" not in rest and (head == "problems" or head in source.upto) and artefact.done:
            lines.append(f"| `{cell(stage['label'])}` | {cell(summary(stage['kind'], artefact.manifest()))} |")
    return lines


def _settings(recipe: Recipe) -> str:
    """What differs from the defaults, as YAML, without the executor and without folders of this machine."""
    changed = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"executor"})
    return yaml.safe_dump(_without_folders(changed), sort_keys=False, allow_unicode=True).removesuffix("\n")


def _without_folders(value: Any) -> Any:
    """The value with every absolute path cut to its last name."""
    if isinstance(value, dict):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") and "\n" not in value else value
