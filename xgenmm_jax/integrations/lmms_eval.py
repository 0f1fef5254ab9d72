"""A run or released weights as a model of lmms-eval 0.7: `--model xgenmm_jax --model_args pretrained=RUN`.

Only lmms-eval imports this module, through the entry point that `lmms_eval_manifest.py` answers. See
docs/evaluation.md, In lmms-eval and VLMEvalKit.
"""

from collections.abc import Callable, Sequence
import difflib
import functools
import os
from typing import Any

try:
    from lmms_eval.api.model import lmms
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"lmms-eval: no module {error.name!r}; this module is for an environment with lmms-eval "
        "(docs/evaluation.md, In lmms-eval and VLMEvalKit).",
        name=error.name,
    ) from error

from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.integrations.toolkit_model import ToolkitModel
from xgenmm_jax.integrations.toolkit_requests import (
    AnswerSettings,
    UserTurn,
    answer_settings,
    batch_rows,
    chat_message,
    check_device,
)

ARGUMENTS = ("pretrained", "batch_size", "max_batch_size", "device", "dtype", "tokenizer", "base")
DOCUMENTS_KEPT = 8
"""Documents whose decoded images are kept: one with several is not decoded anew for each of them."""


class XGenMM(lmms):
    """The model as lmms-eval calls it.

    pretrained: a run folder, or a released xGen-MM folder. batch_size: rows decoded together; 1, which is lmms-eval's
    default, and "auto" leave it to the model. device: "cpu" or "cuda", only to be checked: JAX chooses its devices, all
    of them, by JAX_PLATFORMS. dtype, tokenizer, base: as `xgenmm_jax.load`.

    Raises ValueError for an argument that it does not know, and in one of several processes.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "",
        batch_size: str | int = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        tokenizer: str | None = None,
        base: bool | None = None,
        **unknown: Any,
    ):
        super().__init__()
        if unknown:
            name = next(iter(unknown))
            near = difflib.get_close_matches(name, ARGUMENTS, 1)
            hint = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(ARGUMENTS)}."
            raise ValueError(f"model_args: no argument '{name}'; {hint}")
        if not pretrained:
            raise ValueError("model_args: got no pretrained; give --model_args pretrained=RUN.")
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError(
                f"xgenmm_jax: got {os.environ['WORLD_SIZE']} processes; one drives all devices, so start lmms-eval "
                "with python -m, not with accelerate or torchrun."
            )
        # JAX starts here, not where lmms-eval lists its models.
        import jax

        from xgenmm_jax import api
        from xgenmm_jax.generation.text.schedule import Limits

        check_device(device, jax.default_backend())
        rows = batch_rows(max_batch_size if batch_size == "auto" and max_batch_size else batch_size)
        limits = Limits() if rows is None else Limits(rows=rows)
        lmm = api.load(pretrained, dtype=dtype, tokenizer=tokenizer, base=base, official_images=True)
        self._model = ToolkitModel(lmm, limits)
        self._opened = functools.lru_cache(maxsize=DOCUMENTS_KEPT)(self._message)
        self._said: set[str] = set()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers to the requests of all tasks, in order.

        Raises: ValueError that names task and document where a message cannot be asked.
        """
        from tqdm import tqdm

        asked: list[Callable[[], Prompt]] = []
        settings: list[AnswerSettings] = []
        # Prompts are made when their chunk is due: each needs its images opened once.
        for request in requests:
            _, doc_to_messages, arguments, doc_id, task, split = request.args
            settings.append(answer_settings(arguments))
            self._say(task, settings[-1])
            asked.append(functools.partial(self._prompt, doc_to_messages, doc_id, task, split))
        with tqdm(total=len(asked), desc="xgenmm_jax") as bar:
            return self._model.answers(asked, settings, bar.update)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raises NotImplementedError."""
        raise NotImplementedError("xgenmm_jax: log-likelihoods of given answers are not computed; choose other tasks.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises NotImplementedError."""
        raise NotImplementedError("xgenmm_jax: tasks of several rounds are not asked; choose others.")

    def _prompt(self, doc_to_messages: Callable[[Any], Any], doc_id: int, task: str, split: str) -> Prompt:
        try:
            return self._model.lazy_prompt(functools.partial(self._opened, doc_to_messages, doc_id, task, split))
        except ValueError as error:
            raise ValueError(f"{task}, document {doc_id}: {error}") from error

    def _message(self, doc_to_messages: Callable[[Any], Any], doc_id: int, task: str, split: str) -> UserTurn:
        return chat_message(doc_to_messages(self.task_dict[task][split][doc_id]))

    def _say(self, task: str, settings: AnswerSettings) -> None:
        """Remarks on a task's arguments, each once."""
        for remark in settings.remarks:
            if (said := f"{task}: {remark}") not in self._said:
                self._said.add(said)
                from loguru import logger

                logger.warning(f"xgenmm_jax, {said}")
