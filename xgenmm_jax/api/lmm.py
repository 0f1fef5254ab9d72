"""A loaded model: its parts, its forward pass with probes, and its answers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import jax
from jaxtyping import Bool, Float, Int32
import numpy as np

from xgenmm_jax.api import image_inputs
from xgenmm_jax.api.drawing import drawer_of
from xgenmm_jax.api.image_inputs import Image
from xgenmm_jax.api.processor import Processor
from xgenmm_jax.api.rows import Extent, Ids, listed_rows, make_rows
from xgenmm_jax.batch import Batch
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.generation import arguments
from xgenmm_jax.generation.images.drawer import Drawer, Drawing
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models import probes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import axis_rules, put_rows, row_sharding, sharding_context

Rows = Sequence[Ids] | np.ndarray | object
"""A row may be a list or an array of any integers."""
Images = Sequence[Sequence[Image] | None] | Sequence[Image] | None | object
"""For each row or prompt its images; for a single one also a flat list of them (`image_inputs.per_prompt`)."""
Prompts = Sequence[str | Ids | Prompt] | np.ndarray | object
"""Questions, ids with one `<image>` id an image, or what `LMM.prompt` gives."""
StopIds = Sequence[int] | int | None | object


@dataclass(frozen=True)
class Output:
    """What `LMM.forward` gives, as numpy arrays on the host.

    Rows are padded on the right to the longest one's T positions, every `<image>` expanded to its vision tokens.
    Crops n and groups g are those of all images, row after row.
    """

    logits: Float[np.ndarray, "B T V"]
    """Float32; those at t predict the token at t + 1. They mean nothing where attend_mask is False."""
    loss: float
    """Mean cross entropy over all targets; 0 without any."""
    vision_features: Float[np.ndarray, "n P E"]
    """Of each crop: the tower's last states in raster order, global views first."""
    vision_tokens: Float[np.ndarray, "g Q D"]
    """Of each group: a crop or strip, or an image with fixed sampling."""
    attend_mask: Bool[np.ndarray, "B T"]
    """False for pads."""
    token_ids: Int32[np.ndarray, "B T"]
    """The decoder's input; vision tokens have the id of `<image>`."""
    slot: Int32[np.ndarray, "B T"]
    """Which vision token of its row's crops a position takes, -1 for text."""
    probed: dict[str, np.ndarray]
    """By name. Layers lead: [L, n, P, E], [L, g, Q, E], [L, B, T, D]; attention [L, ..., N, queries, keys]."""


class LMM:
    """A vision-language model ready for use; `xgenmm_jax.load` makes it.

    processor: how inputs are made. params: the tree {vision, connector, decoder}, on the devices. config: the model's.
    run: the whole config of its training, or of its import. folder: where it was loaded from. mesh: its devices.
    """

    def __init__(self, folder: Path, run: TrainConfig, params: Any, processor: Processor, mesh: jax.sharding.Mesh):
        assert isinstance(run.model, VLMConfig), "load() lets nothing else through"
        self.folder, self.run, self.params, self.processor, self.mesh = folder, run, params, processor, mesh
        self.config = run.model
        self._drawer: Drawer | None = None
        self._generators: dict[tuple[int, ...] | None, Generator] = {}

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    @property
    def probe_names(self) -> tuple[str, ...]:
        """What `forward` can probe."""
        return probes.names(self.config)

    def batch(
        self,
        token_ids: Rows,
        images: Images = None,
        labels: Rows | None = None,
    ) -> Batch:
        """The rows as training takes them, at shapes from a bucket list; arguments as `forward`."""
        return self._rows(token_ids, images, labels)[0]

    def forward(
        self,
        token_ids: Rows,
        images: Images = None,
        *,
        labels: Rows | None = None,
        probe: Sequence[str] | str | object | None = (),
    ) -> Output:
        """One pass over rows of ids, each with one `<image>` id an image.

        images: for each row its images, whatever of them `image_inputs.Image` names; of a single row also a flat list.
        labels: for each row the token itself where it is a target, -100 elsewhere; by default every token but pads,
        `<image>` and the other decoupled ids. probe: intermediates to keep, one or several of `probe_names`.

        Calls whose sizes fall into the same buckets share a compilation.

        Raises ValueError where a row has fewer images than `<image>` ids (more are encoded and not read, as in the
        official code), an id is none of the model, a label is not its token, or an intermediate is unknown.
        """
        probe = probes.check_names(self.config, _names(probe))
        batch, extent = self._rows(token_ids, images, labels)
        targets = batch.loss_mask
        if labels is None:
            # An instruction-aware resampler reads the text that is no target; without labels that is all of it.
            batch = batch._replace(loss_mask=np.zeros_like(targets))
        on_devices = put_rows((batch, targets), row_sharding(self.mesh))
        with jax.set_mesh(self.mesh), axis_rules():
            result = probes.forward(self.config, self.params, *on_devices, probe)
        # Rows, positions, crops and groups that only fill the batch are dropped on the host.
        rows, length = extent.rows, extent.length
        host = jax.device_get(result)
        return Output(
            logits=host.logits[:rows, :length],
            loss=float(host.loss),
            vision_features=_present(host.vision_features, extent.crops),
            vision_tokens=_present(host.vision_tokens, extent.groups),
            attend_mask=batch.segment_ids[:rows, :length] > 0,
            token_ids=batch.token_ids[:rows, :length],
            slot=batch.slot[:rows, :length],
            probed={name: _used(name, array, extent) for name, array in host.probed.items()},
        )

    def generate(
        self,
        prompts: Prompts,
        images: Images = None,
        decoding: Decoding | object = Decoding(),  # noqa: B008 - frozen
        *,
        max_new_tokens: SupportsIndex | None = None,
        stream: bool = False,
        chat_template: bool | None = None,
        stop_ids: StopIds = None,
    ) -> list[str] | Iterator[str]:
        """The answer to each prompt, in order, without special strings.

        Greedily by default; `decoding=Decoding(temperature=0.7, top_p=0.9, seed=3)` samples and
        `Decoding(num_beams=5)` searches.

        prompts: questions, or ids with one `<image>` id an image. images: for each prompt its images, whatever of
        them `image_inputs.Image` names, None for none; of a single prompt also a flat list. max_new_tokens: in place of
        `decoding.max_new_tokens`. chat_template: as `prompt`. stream: True gives the answer to a single prompt in
        pieces, while it is written. stop_ids: ends of an answer, one or several; by default `<|end|>`,
        `<|endofchunk|>` and `<|endoftext|>`; of none, `()`, only the limit ends it.

        Raises ValueError where images and `<image>` differ in number, a prompt is empty or has an id that the model
        has not, or decoding means nothing; before anything is computed.
        """
        converted = self._prompts(prompts, images, chat_template)
        generator, decoding = self._generator(stop_ids), _decoding(decoding, max_new_tokens)
        if not stream:
            return generator.generate(converted, decoding)
        if len(converted) != 1 or decoding.num_beams != 1:
            raise ValueError(
                f"generate: got stream=True with {len(converted)} prompts and {decoding.num_beams} beams; a stream has "
                "one prompt and no beams."
            )
        return generator.stream(converted[0], decoding)

    def generate_ids(
        self,
        prompts: Prompts,
        images: Images = None,
        decoding: Decoding | object = Decoding(),  # noqa: B008 - frozen
        *,
        max_new_tokens: SupportsIndex | None = None,
        chat_template: bool | None = None,
        stop_ids: StopIds = None,
    ) -> list[list[int]]:
        """As `generate`, the new ids alone, without the stop id: for folders without a tokenizer."""
        prompts = self._prompts(prompts, images, chat_template)
        return self._generator(stop_ids).generate_ids(prompts, _decoding(decoding, max_new_tokens))

    def draw(
        self,
        prompts: Sequence[str] | object,
        count: int = 1,
        *,
        seed: int = 0,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> list[Drawing]:
        """`count` images of each prompt with the features that they were made of, in order.

        seed: of the noise, which follows from it, the prompt's number and the image's. sampling: steps and guidance.

        Raises ValueError where the model does not draw, a prompt is empty or exceeds the context.
        """
        if isinstance(prompts, str):
            raise ValueError(f"draw: got the text {prompts[:30]!r}; give a list of prompts, [{prompts[:30]!r}].")
        prompts = listed_rows(prompts, "draw", "a list of prompts")
        count = arguments.whole("count", count, least=1)
        if not isinstance(sampling, Sampling):
            raise ValueError(f"draw: got sampling {arguments.shown(sampling)}; give a Sampling, Sampling(steps=30).")
        return list(self.drawer().draw(prompts, count, arguments.whole("seed", seed, least=0), sampling))

    def drawer(self) -> Drawer:
        """A `Drawer` of this model. Raises ValueError where the model does not draw."""
        if self._drawer is None:
            self._drawer = drawer_of(self.run, self.params, self.processor, self.mesh)
        return self._drawer

    def generator(self, limits: Limits = Limits(), stop_ids: StopIds = None) -> Generator:  # noqa: B008 - frozen
        """A `Generator` of this model, for many prompts under other limits; images are cut as in training."""
        return Generator(
            self.config, self.params, self.tokenizer, self.processor.anyres, limits=limits, stop_ids=stop_ids,
            sharding_context=sharding_context(self.mesh),
        )  # fmt: skip

    def is_tuned(self) -> bool:
        """Whether its run trained on the chat template; else it is a base model."""
        return self.run.prompt == "chat"

    def prompt(
        self, question: str | object, images: Sequence[Image] | Image | None = (), chat_template: bool | None = None
    ) -> Prompt:
        """A question about images, in the form that the model was trained on.

        chat_template: True: a user's turn. False: a text that the model continues. None: a user's turn for a model that
        was trained on conversations; a base model continues "<image>Question:how many? Short answer:", the prompt of
        the evaluation suite, or the text itself where it has an `<image>`.

        Raises ValueError where a file is no image.
        """
        if chat_template is None:
            chat_template = self.is_tuned()
            if not chat_template and not (isinstance(question, str) and chat.IMAGE in question):
                return self.processor.question_prompt(question, images)
        return self.processor.prompt(question, images, chat_template)

    def _prompts(self, prompts: Prompts, images: Images, chat_template: bool | None) -> list[Prompt]:
        if isinstance(prompts, str):
            raise ValueError(f"generate: got the text {prompts[:30]!r}; give a list of prompts, [{prompts[:30]!r}].")
        listed = listed_rows(prompts, "generate", "a list of prompts")
        count, converted = self.config.decoder.logits, []
        for number, (prompt, prompt_images) in enumerate(
            zip(listed, image_inputs.per_prompt(images, len(listed), "generate", "prompts and"), strict=True)
        ):
            if isinstance(prompt, str):
                converted.append(self.prompt(prompt, prompt_images, chat_template))
            elif isinstance(prompt, Prompt):
                if prompt_images:
                    raise ValueError(f"generate: prompt {number} has its images already; give none beside it.")
                converted.append(prompt)
            else:
                ids = arguments.token_ids(prompt, count, f"generate: prompt {number}")
                converted.append(Prompt(tuple(ids.tolist()), self.processor.images(prompt_images)))
        return converted

    def _generator(self, stop_ids: StopIds) -> Generator:
        stops = None if stop_ids is None else arguments.stop_ids(stop_ids, self.config.decoder.logits)
        if stops not in self._generators:
            self._generators[stops] = self.generator(stop_ids=stops)
        return self._generators[stops]

    def _rows(self, token_ids: Rows, images: Images, labels: Rows | None) -> tuple[Batch, Extent]:
        listed = listed_rows(token_ids, "forward", "a list of rows of ids")
        if not listed:
            raise ValueError("forward: got no rows; give a list of rows of ids, [[1, 2, 3]].")
        per_row = image_inputs.per_prompt(images, len(listed), "forward", "rows of ids,")
        row_images = [self.processor.images(row) for row in per_row]
        shards = self.mesh.shape["replica"] * self.mesh.shape["fsdp"]
        return make_rows(
            listed, row_images, labels, self.config, self.processor.anyres, self.tokenizer, row_multiple=shards
        )


def _decoding(decoding: Any, max_new_tokens: SupportsIndex | None) -> Decoding:
    """The decoding with another limit, if one is given. Raises ValueError for what is none."""
    if not isinstance(decoding, Decoding):
        raise ValueError(f"generate: got {arguments.shown(decoding)} for decoding; give Decoding(temperature=0.7).")
    return decoding if max_new_tokens is None else replace(decoding, max_new_tokens=max_new_tokens)


def _names(probe: Any) -> tuple[str, ...]:
    """Names of intermediates, of one or several; None is none. Raises ValueError for what is no name."""
    if probe is None or isinstance(probe, str):
        return () if probe is None else (probe,)
    names = tuple(probe) if isinstance(probe, Iterable) else (probe,)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"probe: got {arguments.shown(probe)}; give names of intermediates, see probe_names.")
    return names


def _present(array: np.ndarray, exists: Bool[np.ndarray, "B n"]) -> np.ndarray:
    return array[exists.reshape(-1)] if len(array) else array


def _used(name: str, array: np.ndarray, extent: Extent) -> np.ndarray:
    """A probed array without what only fills the batch."""
    part, *rest = name.split("/")
    attention = rest == [probes.ATTENTION]
    stacked = attention or rest[:1] in (["layers"], ["last_layers"])
    if array.ndim == 2:  # a Q-Former's queries before they read an image
        return array
    if part not in ("decoder", probes.EMBEDDINGS):
        exists = np.flatnonzero(extent.crops if part == "vision" else extent.groups)
        return array[:, exists] if stacked else array[exists]
    used = (slice(None),) * stacked + (slice(extent.rows),)
    if attention:
        return array[(*used, slice(None), slice(extent.length), slice(extent.length))]
    return array[(*used, slice(extent.length))]
