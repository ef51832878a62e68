"""Manners of the libraries, in this process and in workers: no progress bars or advice on the screen, no spinning."""

from __future__ import annotations

import os
import warnings

_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # OpenMP threads that spin at barriers come to a near stop when another process wants a core too: decoding beside
    # another run on two cores gave 127 tokens/s with spinning threads and 369 with sleeping ones.
    "OMP_WAIT_POLICY": "passive",
}


def quiet_libraries() -> None:
    """Call before the libraries are imported; what the user has set stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\b")
