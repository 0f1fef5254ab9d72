"""Sides that compute nothing; they import nothing either, so that their processes start at once."""


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
