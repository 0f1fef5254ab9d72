"""How a task asks its model: as a chat turn, or after demonstrations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xgenmm_jax.data.records import Turn
from xgenmm_jax.data.text import prompts
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.prompts import Demonstration, Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.evaluation.tasks.example import Example


def images_first(example: Example) -> str:
    """The question behind one `<image>` line for each image."""
    return "<image>\n" * len(example.images) + example.question


def no_demonstrations(example: Example) -> tuple[Demonstration, ...]:
    """None for any example."""
    return ()


@dataclass(frozen=True)
class ChatPrompt:
    """One user turn of a fine-tuned model's chat template.

    style: the template that the model was tuned with. text: the turn, with an `<image>` for each of the example's
    images.
    """

    style: ChatStyle = ChatStyle()
    text: Callable[[Example], str] = images_first

    def __call__(self, example: Example, tokenizer: Tokenizer) -> Prompt:
        return prompts.chat_prompt([Turn("user", self.text(example))], example.images, tokenizer, self.style)


@dataclass(frozen=True)
class FewShotPrompt:
    """OpenFlamingo's prompt for base models, about the example's only image.

    demonstrations: those in front of an example. text_only: their images are left out. caption: a caption is asked for,
    and the example's question does not stand in the prompt.
    """

    demonstrations: Callable[[Example], Sequence[Demonstration]] = no_demonstrations
    text_only: bool = False
    caption: bool = False

    def __call__(self, example: Example, tokenizer: Tokenizer) -> Prompt:
        (image,) = example.images
        question = None if self.caption else example.question
        return prompts.few_shot_prompt(self.demonstrations(example), image, question, tokenizer, self.text_only)


@dataclass(frozen=True)
class MessagePrompt:
    """One user turn of texts and images in any order (`data.text.prompts.message_prompt`).

    style: the template that the model was tuned with. message: an example's parts, each a text or the index of one of
    its images.
    """

    message: Callable[[Example], Sequence[str | int]]
    style: ChatStyle = ChatStyle()

    def __call__(self, example: Example, tokenizer: Tokenizer) -> Prompt:
        return prompts.message_prompt(self.message(example), example.images, tokenizer, self.style)
