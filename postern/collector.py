"""Python's collector of reference cycles, in a process that makes many short-lived objects for a long time."""

import gc

_NEW = 50_000  # objects that may come until the collector looks at those; 700 by default


def settle() -> None:
    """Let the collector look no more at what is there by now, and at new objects less often.

    Call it when all is imported and started. What is there then, some hundred thousand objects of libraries, lasts
    as long as the process; to go through them again and again took a worker more than a quarter of its
    time (docs/benchmarks.md). Cycles that come afterwards are still collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW)
