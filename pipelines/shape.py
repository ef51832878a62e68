"""The shape of a model: what memory depends on, counted on the model itself without its weights (torch's meta device)."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import yaml

from configs.errors import InputError, RatchetError
from configs.keys import content_key
from pipelines.files import TORN, writing
from pipelines.home import home

_COUNTING = 1  # raise when `_count` changes
SHAPES = Path(__file__).parents[1] / "configs" / "shapes.yaml"


class Projection(msgspec.Struct, frozen=True):
    """A linear layer other than the output projection: where adapters go and what QLoRA quantises."""

    name: str
    inputs: int
    outputs: int


class Shape(msgspec.Struct, frozen=True):
    """Sizes of a causal language model. `parameters` count a tied embedding once; `source` says where they come from."""

    source: str
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    biased: bool
    context: int | None
    projections: list[Projection]

    @property
    def linear(self) -> int:
        """Weights of the projections, without biases."""
        return sum(p.inputs * p.outputs for p in self.projections)

    def adapted(self, targets: Sequence[str] | str) -> list[Projection]:
        """The projections that `training.lora.targets` names."""
        if targets == "all-linear":
            return self.projections
        return [p for p in self.projections if p.name.rpartition(".")[2] in targets or p.name in targets]


def shape_of_folder(folder: Path) -> Shape:
    """From the config.json of a model's folder."""
    file = folder / "config.json"
    try:
        return _counted(file.read_text(), f"{file}")
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as e:
        raise InputError(f"{file}: not the config of a causal language model that transformers knows ({e})") from e


def published_config(name: str) -> dict[str, Any] | None:
    """What the shipped table of published architectures holds of a model, or None."""
    found = yaml.safe_load(SHAPES.read_text()).get(name)
    return None if found is None else {k: v for k, v in found.items() if k != "parameters"}


def published_shape(name: str) -> Shape | None:
    """From that table, or None."""
    config = published_config(name)
    return None if config is None else _counted(json.dumps(config), f"configs/{SHAPES.name} (published values)")


@functools.cache
def _counted(text: str, source: str) -> Shape:
    """The shape of a config.json with this text. What was counted once is kept in RATCHET_HOME: to import what builds models
    takes seconds."""
    file = home() / "shapes" / f"{content_key(_COUNTING, version('transformers'), text)}.json"
    try:
        shape = msgspec.json.decode(file.read_bytes(), type=Shape)
    except (OSError, *TORN):
        shape = _count(text)
        with suppress(RatchetError), writing(file) as temporary:  # where nothing can be written it is counted each time
            temporary.write_bytes(msgspec.json.encode(shape))
    return msgspec.structs.replace(shape, source=source)


def _count(text: str) -> Shape:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values: dict[str, Any] = json.loads(text)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    config = config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 0  # none: a state-space model
    return Shape(
        source="", parameters=sum(p.numel() for p in model.parameters()), layers=config.num_hidden_layers,
        hidden=config.hidden_size, intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        heads=heads, kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // max(1, heads), vocabulary=config.vocab_size,
        tied=model.get_input_embeddings().weight is head.weight, biased=any(m.bias is not None for m in linear.values()),
        context=getattr(config, "max_position_embeddings", None),
        projections=[Projection(name, m.in_features, m.out_features) for name, m in linear.items()],
    )  # fmt: skip

