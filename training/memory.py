"""Out of memory, which each backend says in its own way, said in ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import MemoryExhaustedError
from training.options import FitOptions

#: Names of exceptions: TensorFlow's, and torch's (of CUDA and of the CPU's allocator).
_NAMES = {"ResourceExhaustedError", "OutOfMemoryError"}
#: What JAX and torch's CPU allocator write into an exception that may be of anything.
_TEXTS = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory", "OOM when allocating")


@contextmanager
def memory_errors(doing: str, *advice: str) -> Iterator[None]:
    """Turn a backend's exception into `MemoryExhaustedError`: what it was ``doing``, and what might be lowered."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryExhaustedError(f"out of memory while {doing}: {', or '.join(advice)}") from error


def to_train_with_less(options: FitOptions, input_shape: tuple[int, int, int]) -> list[str]:
    """What lowers the memory of a training, as advice."""
    height, width, _ = input_shape
    advice = [
        f"lower batch_size (it is {options.batch_size}; accumulate keeps what one update sees)",
        f"train on smaller photos or parts of them (augmentation.crop; they are {height}×{width})",
    ]
    if options.mixed_precision is None:
        advice.append("set mixed_precision = 'bfloat16'")
    return advice


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of any backend, says that memory is exhausted."""
    if isinstance(error, MemoryError) or any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
