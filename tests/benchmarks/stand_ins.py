"""Sides that compute nothing; they import next to nothing, so that their processes start at once."""

import fcntl


class OutOfMemoryError(RuntimeError):
    """Named and worded as torch's."""


class Peer:
    """Lacks the memory to run without checkpointing."""

    def __init__(self, checkpointing: bool | None = False):
        self.checkpointing = checkpointing

    def run(self, steps):
        if self.checkpointing is False:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return 2.0

    def info(self):
        return {"checkpointing": self.checkpointing}


class Good:
    def __init__(self):
        self.runs = 0

    def run(self, steps):
        self.runs += 1
        return 0.5

    def info(self):
        return {"runs": self.runs}


class Bad:
    def __init__(self):
        raise ValueError("no compiler")


class Large:
    """Needs all of a memory, which is a file's lock: the kernel gives it back when the process ends."""

    def __init__(self, memory: str):
        self.memory = open(memory, "w")
        try:
            fcntl.flock(self.memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory") from None

    def run(self, steps):
        return 3.0
