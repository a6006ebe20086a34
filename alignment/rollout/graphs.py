"""CUDA graphs of decoding steps: one for each bucket."""

from collections.abc import Callable, Hashable

import torch

from alignment.errors import ModelError, first_line

Work = Callable[[], None]  # a step that reads and writes the same tensors each time
Capture = Callable[[Work], Work]  # do the work once, and return what repeats it


class Graphs:
    """Repeats a step with one launch of its kernels.

    The first step of a bucket runs as it is, which loads its kernels; the second is captured.

    Args:
        capture: None: run every step as it is.
    """

    def __init__(self, capture: Capture | None) -> None:
        self.capture = capture
        self._seen: dict[Hashable, Work | None] = {}

    def run(self, bucket: Hashable, work: Work) -> None:
        """Do the work, or repeat what was captured for the bucket."""
        if self.capture is None:
            work()
        elif bucket not in self._seen:
            work()
            self._seen[bucket] = None
        else:
            repeat = self._seen[bucket]
            if repeat is None:
                self._seen[bucket] = self.capture(work)
            else:
                repeat()

    def clear(self) -> None:
        """Forget all graphs: the tensors that they use are gone."""
        self._seen.clear()


def capture_for(device: torch.device) -> Capture | None:
    """Return what captures on a device; None: it has no graphs."""
    return CudaCapture() if device.type == "cuda" else None


class CudaCapture:
    """Captures CUDA graphs that share one pool of memory, as one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """Capture, and replay once: a capture computes nothing.

        Raises: ModelError if the model's step waits for the host or allocates outside the pool.
        """
        graph = torch.cuda.CUDAGraph()
        kind = "cuda"
        # a weight that autocast had cast within the graph must not be used outside
        cast = torch.autocast(
            kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
        )
        try:
            with cast, torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            raise ModelError(
                f"a decoding step of this model cannot be captured as a CUDA graph ({first_line(error)}); use "
                "cache_implementation: dynamic"
            ) from error
        graph.replay()
        return graph.replay
