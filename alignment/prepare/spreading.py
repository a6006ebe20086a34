"""Where jobs run: in this process, in several of this machine, or in the workers of a Ray cluster.

A job is some rows; whatever runs them gives the results in the order of the jobs, so that the rows of a run do not
depend on it.
"""

import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alignment.data.prepare.step import Mapper, StepError
from alignment.errors import AlignmentError, first_line, printable

Engine = Literal["local", "ray"]
AT_ONCE = 1_000  # jobs that a Ray data set holds


@contextmanager
def mapper(engine: Engine, processes: int) -> Iterator[Mapper]:
    """Give a function that applies another one to jobs.

    Raises: StepError if the engine is not installed, or cannot be reached.
    """
    if engine == "ray":
        with _ray(processes) as mapped:
            yield mapped
    elif processes == 1:
        yield map
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            yield pool.imap


@contextmanager
def _ray(workers: int) -> Iterator[Mapper]:
    require_ray()
    import ray
    import ray.data

    begun = not ray.is_initialized()
    try:
        if begun:  # the cluster that RAY_ADDRESS names, else one on this machine
            ray.init(log_to_driver=False, configure_logging=False, **_here(workers))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        yield lambda function, jobs: _results(function, jobs, workers)
    except ray.exceptions.RayError as error:
        raise StepError(f"engine: ray: {first_line(error)}") from None
    except ConnectionError as error:
        raise StepError(f"engine: ray: the cluster cannot be reached: {first_line(error)}") from None
    finally:
        if begun:
            ray.shutdown()


def require_ray() -> None:
    """Refuse the engine where Ray is not installed.

    Raises: StepError.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise StepError("engine: ray needs Ray Data; install it with `pip install 'alignment-stack[ray]'`.") from None


def _here(workers: int) -> dict[str, Any]:
    """Return the size of a cluster on this machine; nothing where RAY_ADDRESS names one."""
    import os

    return {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}


def _results(function: Callable[[Any], Any], jobs: Iterable[Any], workers: int) -> Iterator[Any]:
    import ray.data

    run = Run(function)
    pending = iter(jobs)
    while some := [{"job": pickle.dumps(job)} for job in itertools.islice(pending, AT_ONCE)]:
        dataset = ray.data.from_items(some, override_num_blocks=len(some))
        done = dataset.map(run, compute=ray.data.TaskPoolStrategy(size=workers))
        for row in done.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, AlignmentError):
                raise result
            yield result


class Run:
    """Applies a function to one job in a worker."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the pickled result, or the error that ends the run."""
        try:
            return {"result": pickle.dumps(self.function(pickle.loads(row["job"])))}
        except AlignmentError as error:
            return {"result": pickle.dumps(StepError(printable(str(error))))}
