"""The Ray executor: workers are actors. Ray is started by us and stopped by us, or joined with `address`.

On a cluster, RATCHET_HOME must be a folder that every node sees.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from configs.errors import ConfigError, RatchetError
from configs.schema import ExecutorSection
from pipelines import work
from pipelines.executor import Tick
from pipelines.hardware import cores, gpu
from pipelines.quiet import quiet_libraries
from pipelines.stage import Task


class _Worker:
    """The actor: runs shards, keeps its engine between stages."""

    def __init__(self, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        quiet_libraries()

    def run(self, task: Task, shard: int) -> int:
        work.run_shard(task, shard)
        return shard

    def rest(self) -> None:
        work.rest()


class RayExecutor:
    """Shards on Ray actors; an actor that dies is replaced."""

    def __init__(self, section: ExecutorSection) -> None:
        try:
            import ray
        except ImportError as e:
            raise ConfigError("executor.kind is `ray`, but Ray is not installed: pip install '.[ray]'") from e
        self._ray, self._section = ray, section
        self._gpus = 1 / section.workers_per_gpu if gpu() is not None else 0
        self._started = not ray.is_initialized()
        if self._started:
            settings: dict[str, Any] = {"address": section.address} if section.address else {
                # Logical CPUs: enough for all actors, whatever the machine has, or Ray would wait for ever.
                "num_cpus": max(section.workers, cores()) + 1, "include_dashboard": False,
            }
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **settings)
        actor = ray.remote(_Worker)
        self._new = lambda: actor.options(num_cpus=1, num_gpus=self._gpus).remote(section.threads)
        self._actors: list[Any] = []

    def run(self, task: Task, shards: Sequence[int], tick: Tick) -> None:
        ray = self._ray
        wanted = min(self._section.workers, max(1, len(shards)))
        self._actors += [self._new() for _ in range(wanted - len(self._actors))]
        waiting, running, idle = list(shards), {}, list(self._actors)
        attempts = dict.fromkeys(shards, 0)
        done = 0
        while waiting or running:
            while waiting and idle:
                shard, actor = waiting.pop(0), idle.pop(0)
                attempts[shard] += 1
                running[actor.run.remote(task, shard)] = (shard, actor)
            finished, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
            for reference in finished:
                shard, actor = running.pop(reference)
                try:
                    ray.get(reference)
                    done += 1
                except ray.exceptions.RayTaskError as e:
                    raise (e.cause if isinstance(e.cause, RatchetError) else e) from e
                except ray.exceptions.RayActorError as e:
                    if attempts[shard] >= self._section.attempts:
                        raise RatchetError(
                            f"{task.label}: shard {shard} lost its worker {attempts[shard]} times ({e}); "
                            "lower executor.workers or sampling.batch_size"
                        ) from e
                    self._actors.remove(actor)
                    actor = self._new()
                    self._actors.append(actor)
                    waiting.insert(0, shard)
                idle.append(actor)
            tick(done)

    def rest(self) -> None:
        self._ray.get([a.rest.remote() for a in self._actors])

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._started:
            self._ray.shutdown()
