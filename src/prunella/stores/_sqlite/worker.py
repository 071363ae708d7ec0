"""One thread that does one job after the other, in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """A thread and its queue. Jobs that are cancelled before their turn are not done."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue `job`; its result, or what it raises, comes in the future."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - it is the asker's, who will raise it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(run)
        return future

    def end(self) -> None:
        """Take no more jobs, and return when all are done."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while job := self._jobs.get():
            job()
            # A job holds its asker's values: not until the next one comes.
            del job
