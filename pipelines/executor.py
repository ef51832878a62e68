"""Where shards run. One interface; `local` here, `ray` in `executor_ray.py`; the same tests for both.

A worker that dies costs the shards in flight: it is replaced and they run again, at most `attempts` times. An
error raised by a stage is not retried: the same input would raise it again.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from configs.errors import RatchetError
from configs.schema import ExecutorSection
from pipelines import work
from pipelines.quiet import quiet_libraries
from pipelines.stage import Task

Tick = Callable[[int], None]  # called now and then with the number of shards done so far


class Executor(Protocol):
    """Runs shards of a task on workers."""

    def run(self, task: Task, shards: Sequence[int], tick: Tick) -> None:
        """Run all `shards`; returns when every one has its marker, raises the first error."""
        ...

    def rest(self) -> None:
        """Make workers give back accelerator memory."""
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...


def open_executor(section: ExecutorSection) -> Executor:
    """The executor that the recipe names; its `threads` must be resolved."""
    if section.kind == "ray":
        from pipelines.executor_ray import RayExecutor

        return RayExecutor(section)
    return LocalExecutor(section) if section.workers > 1 else InProcessExecutor()


class InProcessExecutor:
    """One worker: this process."""

    def run(self, task: Task, shards: Sequence[int], tick: Tick) -> None:
        with _Ticking(tick) as done:
            for shard in shards:
                work.run_shard(task, shard)
                done()

    def rest(self) -> None:
        work.rest()

    def close(self) -> None:
        from pipelines.engines import close_engine

        work.forget()
        close_engine()


class LocalExecutor:
    """Several worker processes on this machine. They are spawned, never forked: a CUDA parent cannot fork."""

    def __init__(self, section: ExecutorSection) -> None:
        if section.threads == "auto":
            raise ValueError("executor.threads must be resolved before workers start")
        self._section, self._threads = section, section.threads
        self._pool: ProcessPoolExecutor | None = None

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._section.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(os.getpid(), self._threads),
            )
        return self._pool

    def run(self, task: Task, shards: Sequence[int], tick: Tick) -> None:
        for attempt in range(1, self._section.attempts + 1):
            try:
                self._run_once(task, shards, tick)
                return
            except BrokenProcessPool as e:
                self.close()
                if attempt == self._section.attempts:
                    raise RatchetError(
                        f"{task.label}: a worker process died {attempt} times (out of memory?); lower "
                        "executor.workers or sampling.batch_size"
                    ) from e

    def _run_once(self, task: Task, shards: Sequence[int], tick: Tick) -> None:
        pool = self._open()
        left = [s for s in shards if not work.marker(task, s).is_file()]
        futures: set[Future[None]] = {pool.submit(work.run_shard, task, s) for s in left}
        try:
            while futures:
                finished, futures = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                tick(len(shards) - len(futures))
        except BaseException:
            self.close()  # shards in flight are not waited for: what they leave is safe to resume from
            raise

    def rest(self) -> None:
        self.close()  # processes are quick to start again, and this frees everything

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            workers = list((pool._processes or {}).values())  # no public way to end them before Python 3.14
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.kill()
                worker.join()


class _Ticking:
    """Calls `tick` twice a second from a thread while the block runs; the yielded function counts a shard.

    Never from both threads at once: `tick` keeps figures between its calls.
    """

    def __init__(self, tick: Tick) -> None:
        self._tick, self._count = tick, 0
        self._stop, self._ticking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Callable[[], None]:
        self._thread.start()
        return self._done

    def _done(self) -> None:
        with self._ticking:
            self._count += 1
            self._tick(self._count)

    def _loop(self) -> None:
        while not self._stop.wait(0.5):
            with self._ticking:
                self._tick(self._count)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _start_worker(parent: int, threads: int) -> None:
    """Prepare a worker process: its threads, and its end when the parent is gone (killed -9, say)."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    os.environ["OMP_NUM_THREADS"] = str(threads)
    quiet_libraries()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
