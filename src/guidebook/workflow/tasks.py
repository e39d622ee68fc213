"""Tasks side by side, in processes here or on a dask cluster; those that a lost worker leaves are done again."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar, cast

SECONDS_TO_CONNECT = 30

T = TypeVar("T")
Result = TypeVar("Result")


class Done(NamedTuple, Generic[Result]):
    """What came of a task."""

    result: Result | None  # None if no worker lived to return it
    lost: int  # workers that ended while they were at it, or, on this machine, while another one was


def run_tasks(
    function: Callable[[T], Result],
    tasks: Sequence[T],
    *,
    workers: int | None = None,
    cluster: str | None = None,
    retries: int = 2,
    note: Callable[[int], Any] = lambda count: None,
) -> list[Done[Result]]:
    """Call a function on every task, and return what came of each.

    Parameters
    ----------
    function : callable
        One of a module, which workers can import; what it raises ends the run.
    tasks : sequence
        What can be pickled.
    workers : int, optional
        Processes on this machine. Default: one per core; one runs the tasks in this process.
    cluster : str, optional
        Address of a dask scheduler whose workers take the tasks, such as ``tcp://10.0.0.1:8786``.
    retries : int
        How often a task is done again whose worker was lost; a dask cluster has a setting of its own
        (``distributed.scheduler.allowed-failures``, 3).
    note : callable
        Called with the number of tasks done, after each.

    Raises
    ------
    ValueError
        If dask is not installed, or the cluster has no worker.
    OSError
        If there is no scheduler at the address.
    """
    if cluster is not None:
        return _on_cluster(function, tasks, cluster, note)
    import joblib  # slow to import

    workers = min(workers or joblib.cpu_count(), len(tasks))
    found: dict[int, Result] = {}
    lost = dict.fromkeys(range(len(tasks)), 0)
    left = list(lost)

    def take(places: Sequence[int]) -> list[int]:
        """Return those that were being done when a worker was lost; none if all have been done."""
        begun: list[int] = []
        with warnings.catch_warnings(), suppress(BrokenProcessPool):
            warnings.filterwarnings(
                "ignore", "A worker stopped while some jobs", UserWarning
            )  # one that grew: replaced
            for place, result in _in_processes(function, tasks, places, workers, begun):
                found[place] = result
                note(len(found))
        interrupted = [place for place in begun if place not in found]
        lost.update({place: lost[place] + 1 for place in interrupted})
        return interrupted

    while left:
        suspects = take(left)
        for place in suspects:  # alone: so one that brings its worker down is known, and takes no other with it
            for _ in range(retries):
                if not take([place]):
                    break
        left = [place for place in left if place not in found and place not in suspects]
    return [Done(found.get(place), count) for place, count in lost.items()]


def _in_processes(
    function: Callable[[T], Result], tasks: Sequence[T], places: Sequence[int], workers: int, begun: list[int]
) -> Iterator[tuple[int, Result]]:
    """Yield the results of tasks as they are done; ``begun`` gets the places of those that workers have taken."""
    if workers == 1:
        yield from ((place, function(tasks[place])) for place in places)
        return
    import joblib  # slow to import

    from guidebook.inference.mcmc.workers import parallel

    def calls() -> Iterator[Any]:
        for place in places:
            begun.append(place)
            yield joblib.delayed(_placed)(function, place, tasks[place])

    yield from parallel(workers, return_as="generator_unordered", pre_dispatch=workers, batch_size=1)(calls())


def _placed(function: Callable[[T], Result], place: int, task: T) -> tuple[int, Result]:
    return place, function(task)


def _on_cluster(
    function: Callable[[T], Result], tasks: Sequence[T], address: str, note: Callable[[int], Any]
) -> list[Done[Result]]:
    try:
        from dask.distributed import Client, KilledWorker, as_completed  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("--cluster needs dask: pip install 'guidebook[dask]'") from None

    def lost_at(key: str, dask_scheduler: Any = None) -> int:  # defined here: it goes by value, to a bare scheduler too
        return dask_scheduler.tasks[key].suspicious

    with Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False) as client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
        except TimeoutError:
            raise ValueError(f"--cluster: {address} has no worker: start one by `dask worker {address}`") from None
        futures = client.map(function, tasks, pure=False, batch_size=None)
        places = {future: place for place, future in enumerate(futures)}
        found: dict[int, Result] = {}
        lost = dict.fromkeys(range(len(tasks)), 0)
        for future in as_completed(futures, loop=client.loop):
            place = places[future]
            with suppress(KilledWorker):
                found[place] = future.result()
            lost[place] = cast("int", client.run_on_scheduler(lost_at, key=future.key))
            future.release()  # or it would be done again if its worker were lost later
            note(len(found))
    return [Done(found.get(place), count) for place, count in lost.items()]
