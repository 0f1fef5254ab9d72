"""Which parameters answered or drew, as `training.runs.fingerprints.of_model` names them."""

import re

_PARAMETERS = re.compile(r"(?:step \S+ )?[0-9a-f]{8}$")


def without_folder(model: str) -> str:
    """The step and the hash of "sft_multi step 400 1f3a90c2"; the run's folder may be renamed. Other names as they are.

    Released tensors have no step: "model 1f3a90c2".
    """
    match = _PARAMETERS.search(model)
    return model if match is None else match[0]
