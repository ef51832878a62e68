"""Worker processes that are killed from outside: time by the parent, memory by a limit of the kernel.

A worker is a fresh interpreter (`python -m rewards.worker`), neither forked from this process, which
may hold CUDA and threads, nor dependent on its `__main__`. Signals and threads are not used: a signal
does not reach a big-integer operation and is refused outside the main thread, a thread cannot be killed.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewards.limits import TEXT_TAIL
from rewards.verdict import Mode, Verdict

MEMORY_MB = 512
_START_SECONDS = 60.0
_BATCH = 8
_BATCH_BYTES = 32_000
"""Requests written ahead of their replies must fit the pipe, or both sides would wait for each other."""


class WorkerFailed(Exception):
    """The worker died or did not start: out of memory, or killed by something else."""


class WorkerTimeout(Exception):
    """No reply within the limit; the worker is killed."""


class Worker:
    """One process and its pipes. Used by one thread at a time."""

    def __init__(self, memory_mb: int) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *(p for p in sys.path if p and p != root)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rewards.worker", str(memory_mb)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True, bufsize=0,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.buffer = b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.stdout, selectors.EVENT_READ)
        self.born = time.monotonic()
        self.ready = False

    def wait_ready(self, seconds: float) -> None:
        """Raises WorkerTimeout if it is not ready by then, and leaves it starting unless that took too long."""
        if self.ready:
            return
        left = self.born + _START_SECONDS - time.monotonic()
        try:
            self.line(min(seconds, left), kill=seconds >= left)
        except WorkerTimeout as error:
            if seconds >= left:
                raise WorkerFailed("the verifier's worker process did not start") from error
            raise
        self.ready = True

    def send(self, requests: Sequence[dict[str, Any]]) -> None:
        data = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        try:
            view = memoryview(data)
            while view:
                view = view[self.stdin.write(view) or 0 :]
        except OSError as error:
            raise WorkerFailed("the verifier's worker process is gone") from error

    def line(self, seconds: float, kill: bool = True) -> bytes:
        """The next reply. Raises WorkerTimeout or WorkerFailed; the worker is dead then, unless told not to `kill`."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self.selector.select(remaining):
                if kill:
                    self.kill()
                raise WorkerTimeout
            chunk = os.read(self.stdout.fileno(), 1 << 16)
            if not chunk:
                self.kill()
                raise WorkerFailed("the verifier's worker process died")
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.selector.close()
        self.stdin.close()
        self.stdout.close()


def _request(prediction: str, gold: str, mode: Mode) -> dict[str, Any]:
    return {"prediction": prediction[-TEXT_TAIL:], "gold": gold[-TEXT_TAIL:], "mode": mode}


class VerifierPool:
    """`workers` processes, started when first needed, replaced when killed; usable from any thread.

    Pickling a pool (to a Ray actor, say) gives a new pool with the same settings. `replaced` counts
    workers that were killed or died.
    """

    def __init__(self, workers: int = 1, memory_mb: int = MEMORY_MB) -> None:
        if workers < 1:
            raise ValueError("workers must be at least 1")
        self.workers = workers
        self.memory_mb = memory_mb
        self.replaced = 0
        self._slots: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return VerifierPool, (self.workers, self.memory_mb)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all idle workers; the pool starts new ones when it is used again."""
        for _ in range(self.workers):
            try:
                worker = self._slots.get_nowait()
            except queue.Empty:
                return
            if worker is not None:
                worker.kill()
            self._slots.queue.insert(0, None)

    def warm(self) -> None:
        """Start every worker now: the first start takes about a second, mostly the import of sympy."""
        held = [self._slots.get() for _ in range(self.workers)]
        workers = [worker or Worker(self.memory_mb) for worker in held]
        try:
            for worker in workers:
                worker.wait_ready(_START_SECONDS)
        finally:
            for worker in workers:
                self._slots.put(worker)

    def verify(
        self, prediction: str, gold: str, mode: Mode = "strict", timeout: float = 1.0, within: float | None = None
    ) -> Verdict:
        """Like rewards.verify, with all of the work in a worker, which gets `timeout` seconds for it.

        Waiting for a free worker and for its start come on top, unless `within` bounds all of it: then
        the caller has its verdict, "timeout" if need be, after that many seconds.
        """
        if within is None:
            return self._run([(prediction, gold)], mode, timeout)[0]
        start = time.monotonic()
        late = Verdict("timeout", None, "time-limit", within)
        try:
            worker = self._slots.get(timeout=max(0.0, within))
        except queue.Empty:
            return late
        verdicts: list[Verdict] = []
        try:
            for _ in range(2):  # again if the worker had died while it was idle
                worker = worker or Worker(self.memory_mb)
                worker.wait_ready(max(0.0, start + within - time.monotonic()))
                left = max(0.0, start + within - time.monotonic())
                worker = self._batch(worker, [(prediction, gold)], mode, min(timeout, left), verdicts)
                if verdicts:
                    break
        except WorkerTimeout:
            return late  # it goes on starting, for the next one
        except (WorkerFailed, OSError):
            worker = None
        finally:
            self._slots.put(worker)
        return verdicts[0] if verdicts else Verdict("error", None, "error:WorkerFailed", time.monotonic() - start)

    def verify_many(
        self, pairs: Sequence[tuple[str, str]], mode: Mode = "strict", timeout: float = 1.0
    ) -> list[Verdict]:
        """Verdicts of (prediction, gold) pairs in their order, on all workers at once."""
        verdicts: list[Verdict | None] = [None] * len(pairs)
        starts = iter(range(0, len(pairs), _BATCH))
        lock = threading.Lock()

        def drain() -> None:
            while True:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                done = self._run(pairs[start : start + _BATCH], mode, timeout)
                verdicts[start : start + len(done)] = done

        threads = [threading.Thread(target=drain, daemon=True) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        missing = Verdict("error", None, "error:WorkerFailed", 0.0)
        return [verdict or missing for verdict in verdicts]

    def _run(self, pairs: Sequence[tuple[str, str]], mode: Mode, timeout: float) -> list[Verdict]:
        worker = self._slots.get()
        verdicts: list[Verdict] = []
        try:
            while len(verdicts) < len(pairs):
                try:
                    worker = worker or Worker(self.memory_mb)
                    worker.wait_ready(_START_SECONDS)
                except (WorkerFailed, WorkerTimeout, OSError):
                    worker = None
                    verdicts.append(Verdict("error", None, "error:WorkerFailed", 0.0))
                    continue
                worker = self._batch(worker, pairs, mode, timeout, verdicts)
        finally:
            self._slots.put(worker)
        return verdicts

    def _batch(
        self,
        worker: Worker,
        pairs: Sequence[tuple[str, str]],
        mode: Mode,
        timeout: float,
        verdicts: list[Verdict],
    ) -> Worker | None:
        """Send what fits, append the verdicts that come; None if the worker was lost on the way."""
        requests: list[dict[str, Any]] = []
        size = 0
        for prediction, gold in pairs[len(verdicts) :]:
            size += 4 * (len(prediction) + len(gold)) + 100
            if requests and size > _BATCH_BYTES:
                break
            requests.append(_request(prediction, gold, mode))
        try:
            worker.send(requests)
        except WorkerFailed:
            worker.kill()
            self.replaced += 1
            return None
        for _ in requests:
            start = time.perf_counter()
            try:
                reply = json.loads(worker.line(timeout))
            except (WorkerTimeout, WorkerFailed) as error:
                self.replaced += 1
                late = isinstance(error, WorkerTimeout)
                rule = "time-limit" if late else "error:WorkerFailed"
                verdicts.append(
                    Verdict("timeout" if late else "error", None, rule, time.perf_counter() - start)
                )
                return None
            seconds = time.perf_counter() - start
            verdicts.append(Verdict(reply["outcome"], reply["extracted"], reply["rule"], seconds))
        return worker


_default: tuple[int, VerifierPool] | None = None
_default_lock = threading.Lock()


def default_pool() -> VerifierPool:
    """The pool of this process for the rare answers that need sympy; one worker, started on first use."""
    global _default
    with _default_lock:
        if _default is None or _default[0] != os.getpid():  # a forked child must not share its parent's pipes
            _default = (os.getpid(), VerifierPool(1))
            atexit.register(_default[1].close)
        return _default[1]
