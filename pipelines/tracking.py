"""Metrics to an experiment tracker, besides the run folder's own metrics.jsonl, which is always written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.errors import ConfigError


class Tracker:
    """Logs numbers to Trackio, or nothing at all for `none`."""

    def __init__(self, kind: str, name: str, config: Mapping[str, Any]) -> None:
        self._trackio: Any = None
        if kind == "trackio":
            try:
                import trackio
            except ImportError as e:
                raise ConfigError("track is `trackio`, but Trackio is not installed: pip install '.[track]'") from e
            trackio.init(project="ratchet", name=name, config=dict(config))
            self._trackio = trackio

    def log(self, stage: str, metrics: Mapping[str, Any]) -> None:
        """The numeric metrics of a finished stage, as STAGE/METRIC."""
        numbers = {f"{stage}/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
        if self._trackio is not None and numbers:
            self._trackio.log(numbers)

    def finish(self) -> None:
        """Flush what is left."""
        if self._trackio is not None:
            self._trackio.finish()
