"""What a CUDA graph does, on a CPU: a step's operations are recorded once and repeated on the same tensors."""

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class Recording(TorchDispatchMode):
    """Records each operation with its inputs; numbers of the host are those of the recorded step for ever."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, output))
        return output

    def repeat(self):
        """Do all of it again; what an operation gave goes to those that used it."""
        new = {}
        kept = []  # ids of tensors that are gone may come back

        def current(value):
            return new.get(id(value), value)

        for func, args, kwargs, before in self.operations:
            output = func(*tree_map(current, args), **tree_map(current, kwargs))
            kept.append(output)
            for old, now in zip(_flat(before), _flat(output), strict=True):
                new[id(old)] = now


def _flat(output):
    return list(output) if isinstance(output, tuple | list) else [output]


class Recorder:
    """Stands in for `CudaCapture`."""

    def __init__(self):
        self.captures = self.repeats = 0

    def __call__(self, work):
        self.captures += 1
        recording = Recording()
        with recording:
            work()

        def repeat():
            self.repeats += 1
            recording.repeat()

        return repeat
