"""Peak memory of stages, from the shape of the model and the settings: what is kept, and what a forward and backward pass
holds at its worst moment. `python -m benchmarks.memory` compares it with what is measured.

Notation: B bytes of a number in `model.dtype`, h hidden size, i intermediate size, q and v the widths of all query heads
and of all key-value heads, T tokens of one forward pass (`training.micro_batch_tokens`), V vocabulary. What autograd
keeps of a layer and a token, with the base frozen (adapters):

    norms        8 h + 8     their inputs and scales, in float32
    their sums   2 B h       inputs of the adapters of q, k, v and of gate, up
    attention    B (2 q + 2 v) + 4 heads    queries, keys, values, output, log-sums; with a dense mask keys and values are
                             repeated for every query head (2 q in place of 2 v), and a row of the mask comes on top
    MLP          4 B i       gate, its activation, up, and their product
    adapters     B r         for each projection

With all weights trained, norms keep their normalised inputs too, and under autocast every projection its own copy of its
input, and of its weights in bfloat16 until the backward pass. Checkpointing keeps one hidden state of each layer, and computes
its MLP again for a tile of tokens at a time (`trainers.recomputation`). Compiled layers keep 3 B i of the MLP, and of norms and
sums less than half: what is cheap is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from configs.schema import ONLINE, TrainingSection
from pipelines.shape import Projection, Shape

# The constants of `trainers.head`, `trainers.policy` and `trainers.recomputation`, which import torch; a test compares them.
TILE_BYTES = 512 << 20  # logits in memory at once, in float32
FROZEN_BYTES = 256 << 20  # ... where the output projection is frozen
MLP_BYTES = 256 << 20  # wide states of an MLP that is computed again
ROW_TOKENS = 512  # width of a row where attention costs its square
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes of a weight with its doubly quantised scales
EIGHT_BIT = 2.0 + 2 * 4 / 256  # two moments of a parameter with their scales
_PROMPT = 256  # tokens of a prompt, roughly
_CACHE_STEP = 64  # positions by which the transformers engine's cache grows
_ASLEEP = 1.0e9  # what a sleeping vLLM leaves on the GPU: contexts, graphs, buffers; a guess

Parts = dict[str, float]


class Setting(msgspec.Struct, frozen=True):
    """A training as memory sees it. `attention` is resolved: sdpa, flex or flash. `tokens` of one forward pass."""

    adapter: str
    rank: int
    targets: list[str] | str
    eight_bit: bool
    checkpointing: bool
    attention: str
    dtype: str
    tokens: int
    method: str = "sft"
    reference_copy: bool = False  # online: all trained weights as they were at the start
    anchor: bool = False
    average: bool = False  # of the weights of the last steps
    compiled: bool = False
    entropy: bool = False  # online: whether it is part of the objective

    @property
    def width(self) -> int:
        """B."""
        return 2 if self.dtype == "bfloat16" else 4

    @property
    def full(self) -> bool:
        return self.adapter == "full"


def setting(training: TrainingSection, dtype: str, gpu: bool, tokens: int) -> Setting:
    """From the section of a recipe; `tokens` are those that a forward pass can have at most."""
    auto = "flex" if gpu else "sdpa"
    online, rl = training.method in ONLINE, training.rl
    moving = online and (training.adapter != "full" or rl.kl != "none" or rl.anchor_decay is not None)
    return Setting(
        adapter=training.adapter, rank=training.lora.r, targets=training.lora.targets,
        eight_bit=training.optimizer == "paged_adamw_8bit", checkpointing=training.gradient_checkpointing,
        attention=auto if training.attention == "auto" else training.attention, dtype=dtype,
        tokens=min(tokens, training.micro_batch_tokens), method=training.method, reference_copy=moving,
        anchor=online and rl.anchor_decay is not None, average=training.average > 0,
        compiled=training.compile, entropy=online and rl.entropy > 0,
    )  # fmt: skip


# --- what is kept -----------------------------------------------------------------------------------------


def base_weights(shape: Shape, s: Setting) -> float:
    """The model without what an adapter adds. Full training keeps float32 weights; NF4 leaves head, embeddings and norms."""
    if s.full:
        return 4.0 * shape.parameters
    if s.adapter == "qlora":
        return NF4 * shape.linear + s.width * (shape.parameters - shape.linear)
    return float(s.width * shape.parameters)


def trained_parameters(shape: Shape, s: Setting) -> int:
    """How many numbers the optimiser moves."""
    if s.full:
        return shape.parameters
    return s.rank * sum(p.inputs + p.outputs for p in shape.adapted(s.targets))


def training_state(shape: Shape, s: Setting) -> Parts:
    """Adapter, float32 copies, gradients and moments; and what online methods keep of the start."""
    n = trained_parameters(shape, s)
    copies = 0 if s.full else n * (s.width + (4 if s.width == 2 else 0))
    parts = {
        **({"adapter and its float32 copy": float(copies)} if copies else {}),
        "gradients": 4.0 * n, "moments": n * (EIGHT_BIT if s.eight_bit else 8.0),
    }
    if s.reference_copy or s.anchor:
        own = 4 if s.full else s.width
        parts["weights at the start"] = float(n * ((own if s.reference_copy else 0) + (4 if s.anchor else 0)))
    if s.average:
        parts["mean of the weights"] = 4.0 * n
    return parts


# --- what a pass holds ------------------------------------------------------------------------------------


def saved_by_layer(shape: Shape, s: Setting) -> float:
    """Bytes that autograd keeps of one layer for one token."""
    h, i = shape.hidden, shape.intermediate
    q, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    autocast = s.full and s.width == 2
    b = s.width
    keys = kv if s.attention != "sdpa" else q
    attention = b * (2 * q + 2 * keys) + 4 * shape.heads
    if s.attention == "sdpa":  # each layer turns the mask into numbers of its own
        attention += b * min(ROW_TOKENS, s.tokens)
    mlp = 4 * b * i
    if s.compiled and autocast:  # what is cheap is computed again: norms but for their inputs, the MLP's activation
        return 8 * h + 8 + 2 * b * h + attention + 3 * b * i
    if not s.full:
        return 8 * h + 8 + 2 * b * h + attention + mlp + b * s.rank * len(shape.adapted(s.targets)) / shape.layers
    if autocast:
        return 16 * h + 8 + 5 * b * h + attention + mlp
    return 24 * h + 8 + attention + mlp


def saved_by_mlp(shape: Shape, s: Setting) -> float:
    """... of its second half, the MLP with its norm."""
    h, i, b = shape.hidden, shape.intermediate, s.width
    if s.full:
        return 12 * h + 4 + 4 * b * i
    adapted = len(_of_mlp(shape, shape.adapted(s.targets))) / shape.layers
    return (4 + b) * h + 4 + 4 * b * i + b * s.rank * adapted


def _of_mlp(shape: Shape, projections: Sequence[Projection]) -> list[Projection]:
    return [p for p in projections if shape.intermediate in (p.inputs, p.outputs)]


def boundary(shape: Shape, s: Setting) -> float:
    """Bytes between two layers for one token: all that checkpointing keeps of a layer."""
    return float(shape.hidden * (4 if s.full else s.width))


def _tile(shape: Shape, s: Setting) -> int:
    """Tokens whose logits are in memory at once."""
    size = TILE_BYTES if s.full else FROZEN_BYTES
    return 0 if s.method == "reward_model" else min(s.tokens, max(64, size // (4 * shape.vocabulary)))


def head(shape: Shape, s: Setting) -> float:
    """Bytes around the output projection at its worst moment. One with a bias, or whose logits are scaled or capped, takes a
    tile or two more."""
    tokens = _tile(shape, s)
    logits = 4.0 * tokens * shape.vocabulary
    hidden = s.tokens * shape.hidden * s.width
    if not s.full:  # the gradient is made in the forward pass; entropies take two tiles more
        return 2 * hidden + logits * (4 if s.method in ONLINE else 2)
    weight = shape.vocabulary * shape.hidden * (2.0 if s.width == 2 else 0.0)
    return 2 * hidden + weight + logits * (6 if s.entropy else 2.5)


def activations(shape: Shape, s: Setting) -> Parts:
    """Of the forward and backward pass of one micro-batch, at its worst moment."""
    layer, tokens = saved_by_layer(shape, s) * s.tokens, s.tokens
    copies = 2.0 * shape.linear if s.full and s.width == 2 else 0.0  # of the weights, under autocast
    largest = max(p.inputs * p.outputs for p in shape.projections)
    wide, gradient = 3.0 * s.width * shape.intermediate * tokens, 4.0 * largest if s.full else 0.0
    if not s.checkpointing:
        return {"activations": shape.layers * layer + copies, "output projection": head(shape, s)}
    kept, within = shape.layers * boundary(shape, s) * tokens, layer + wide + gradient + copies / shape.layers
    if not s.compiled:  # the MLP for a tile of tokens at a time, between two states and two gradients of all of them
        tile = min(1.0, max(1, MLP_BYTES // (4 * s.width * shape.intermediate)) / tokens)
        within += 2 * boundary(shape, s) * tokens - (1.0 - tile) * (saved_by_mlp(shape, s) * tokens + wide)
        if s.adapter == "qlora":  # its weights, unpacked for all of its tiles
            within += s.width * sum(p.inputs * p.outputs for p in _of_mlp(shape, shape.projections)) / shape.layers
    worst = max(("a layer computed again", within), ("output projection", head(shape, s)), key=lambda moment: moment[1])
    return dict([("activations", kept), worst])


def forward_only(shape: Shape, s: Setting) -> Parts:
    """Of a pass without gradients."""
    tokens = s.tokens
    layer = tokens * (s.width * (4 * shape.hidden + 3 * shape.intermediate) + 8 * shape.hidden)
    logits = 4.0 * _tile(shape, s) * shape.vocabulary * (3 if s.method in ONLINE else 2)
    return {"activations": float(layer), "output projection": tokens * shape.hidden * s.width + logits}


# --- processes --------------------------------------------------------------------------------------------


def training(shape: Shape, s: Setting) -> Parts:
    """One training process, without a sampling engine beside it."""
    return {"weights": base_weights(shape, s), **training_state(shape, s), **activations(shape, s)}


def scoring(shape: Shape, s: Setting) -> Parts:
    """Log-probabilities or scores of given sequences: the model with its adapter, and no gradients."""
    adapter = {} if s.full else {"adapter": float(trained_parameters(shape, s) * s.width)}
    return {"weights": base_weights(shape, s), **adapter, **forward_only(shape, s)}


def judging(shape: Shape, s: Setting) -> Parts:
    """A reward model beside a trainer: weights and adapter; its passes take turns with the trainer's."""
    adapter = 0 if s.full else trained_parameters(shape, s) * s.width
    return {"reward model": base_weights(shape, s) + adapter}


class Engine(msgspec.Struct, frozen=True):
    """A sampling engine as memory sees it. `share`: what vLLM may take of a GPU of `gpu` bytes; `gpu` None: a CPU."""

    kind: str
    dtype: str
    rank: int
    rows: int
    max_tokens: int
    max_model_len: int
    share: float
    gpu: int | None

    @property
    def width(self) -> int:
        return 2 if self.dtype == "bfloat16" else 4


def sampling(shape: Shape, e: Engine) -> Parts:
    """Weights, adapter, and what a batch holds. vLLM fills its share of the GPU with cache, and cannot begin where the share
    does not hold the weights and one sequence: the sum then is the GPU that it would need."""
    adapter = e.rank * sum(p.inputs + p.outputs for p in shape.projections)
    weights = float(e.width * (shape.parameters + adapter))
    token = 2 * shape.layers * shape.kv_heads * shape.head_size * e.width
    if e.kind == "vllm" and e.gpu is not None:
        least = weights + token * e.max_model_len
        enough = least <= e.share * e.gpu
        return {"sampler weights": weights, "KV cache": (e.share * e.gpu if enough else least / e.share) - weights}
    length = min(e.max_model_len, _PROMPT + e.max_tokens) + _CACHE_STEP
    logits = 4.0 * e.rows * shape.vocabulary * 4  # as they are, tempered, as probabilities, and summed up
    return {"sampler weights": weights, "KV cache": float(token * e.rows * length), "logits": logits}


def resting(shape: Shape, e: Engine) -> Parts:
    """What an engine keeps of the memory that training needs: on a CPU its weights, on a GPU next to nothing."""
    if e.gpu is None:
        return {"sampler weights": sampling(shape, e)["sampler weights"]}
    return {"sleeping sampler": _ASLEEP} if e.kind == "vllm" else {}


def online(shape: Shape, s: Setting, e: Engine, asleep: bool) -> Parts:
    """Sampler and trainer in one process: while one works, the other rests (or not: `training.rl.share_gpu: split`)."""
    kept = {"weights": base_weights(shape, s), **training_state(shape, s)}
    drawing = {name: size for name, size in kept.items() if name != "gradients"} | sampling(shape, e)
    learning = kept | activations(shape, s) | (resting(shape, e) if asleep or e.gpu is None else sampling(shape, e))
    return max(drawing, learning, key=lambda parts: sum(parts.values()))
