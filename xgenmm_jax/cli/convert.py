"""`xgenmm convert SRC DST`: released weights to a run folder; with `--to`, a run to a released layout or the hub."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass
import sys
from typing import TYPE_CHECKING, Literal

import tyro

from xgenmm_jax import hub, hub_upload
from xgenmm_jax.cli import errors, interrupts
from xgenmm_jax.cli.options import RunPath, Source, parse
from xgenmm_jax.paths import is_in_bucket, run_path

if TYPE_CHECKING:
    from xgenmm_jax.convert.trees import Config

PARTS = ("vision", "connector", "decoder", "dit", "tower")


@dataclass(frozen=True)
class Arguments:
    """Released weights to a run folder; with --to, a run to a released layout. The format is told by tensor names."""

    source: tyro.conf.Positional[Source]
    """A folder, a .safetensors or .npz file, an index of shards, or a model of the hub, ORG/MODEL or
    ORG/MODEL@REVISION; with --to a run folder."""
    destination: tyro.conf.Positional[RunPath]
    """A folder that does not exist yet."""
    to: Literal["xgenmm", "siglip", "phi3", "llama", "blip3o", "blip2", "lavis", "peft", "peft_phi3"] | None = None
    """Export: what the official xGen-MM code loads, or transformers' SiglipVisionModel, Phi3ForCausalLM or
    LlamaForCausalLM (with biases Qwen2ForCausalLM), or BLIP3-o's parts beside its language model, or BLIP-2's without
    one, for transformers (blip2) or LAVIS; of a run with low-rank updates with these merged. peft: the updates alone,
    for PEFT over the official code's model, peft_phi3 over Phi3ForCausalLM."""
    push: str | None = None
    """ORG/MODEL: upload what --to has written to this repository of the hub, once you have typed yes. A new one is
    private."""
    public: tyro.conf.FlagCreatePairsOff[bool] = False
    """A repository that --push makes is one that all can read."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Upload without asking."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the parameters that are written."""
    base: bool | None = None
    """Import of the base model, which sees one view of an image. By default as preprocessor_config.json says; without
    that file, base and instruct models look the same and an instruct model is assumed."""
    vision: Source | None = None
    """A tower, of a path or of the hub, for a training checkpoint of xGen-MM, which lacks its own."""
    tokenizer: Source | None = None
    """A tokenizer.model or tokenizer.json, or a model of the hub with one; of BLIP-2's first stage BERT's vocab.txt; by
    default the one beside the tensors."""
    vision_heads: int | None = None
    """Heads of the tower, where neither config.json nor a released size tells."""
    decoder_heads: int | None = None
    """Query heads of the language model, where neither config.json nor a released size tells."""
    connector_heads: int | None = None
    """Heads of BLIP-2's Q-Former, where neither config.json nor a released size tells."""
    activation: Literal["gelu_tanh", "gelu", "quick_gelu"] | None = None
    """Of the tower. Without config.json: SigLIP's is gelu_tanh, open_clip's taken for quick_gelu, as DFN's."""


def main(argv: Sequence[str]) -> int:
    """Converts; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm convert")
    # Imported here: --help does not wait for JAX.
    from xgenmm_jax.api.conversion import refuse_existing

    refuse_existing(arguments.destination)
    repository = _repository(arguments)
    with errors.writing(arguments.destination), interrupts.raising():  # what is half-written goes away
        if arguments.to is None:
            import_checkpoint(arguments)
        else:
            export_run(arguments)
    if repository is not None:
        _upload(arguments, repository)
    return 0


def _repository(arguments: Arguments) -> hub_upload.Repository | None:
    """Where --push uploads to, None without it. Raises ValueError for what would fail after an export of hours."""
    if arguments.push is None:
        if arguments.public or arguments.yes:
            option = "--public" if arguments.public else "--yes"
            raise ValueError(f"{option}: nothing is uploaded; give --push ORG/MODEL, or leave {option} away.")
        return None
    if arguments.to is None:
        raise ValueError("--push: what is imported is a run folder, which the hub's programs do not know; give --to.")
    if is_in_bucket(arguments.destination):
        raise ValueError(f"--push: '{arguments.destination}' is in a bucket; give a DST on a disk.")
    if not arguments.yes and not sys.stdin.isatty():
        raise ValueError("--push: nobody can be asked, as there is no terminal; give --yes to upload without asking.")
    return hub_upload.find(arguments.push, "--push", arguments.public)


def _upload(arguments: Arguments, repository: hub_upload.Repository) -> None:
    """Asks and uploads. Raises ValueError where the answer is another than yes; what was exported stays."""
    folder = arguments.destination
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    question = f"upload {len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB, to {repository}? yes or no: "
    try:
        answer = "yes" if arguments.yes else input(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ValueError(f"--push: nothing was uploaded, as the answer was no; what was exported is in '{folder}'.")
    try:
        hub_upload.upload(folder, repository, "--push")
    except ValueError as error:
        again = f"hf upload {repository.name.repo} {folder}"
        raise ValueError(f"{str(error).rstrip('.')}; what was exported is in '{folder}', later: {again}.") from error
    print(f"uploaded to {repository.address}")


def import_checkpoint(arguments: Arguments) -> None:
    from xgenmm_jax.api.conversion import LLAMA_FAMILIES, import_run
    from xgenmm_jax.convert.importing import open_source
    from xgenmm_jax.convert.tensor_shapes import Overrides

    overrides = Overrides(
        arguments.vision_heads, arguments.decoder_heads, arguments.activation, arguments.connector_heads
    )
    path = hub.fetch(arguments.source, "SOURCE")
    vision = None if arguments.vision is None else hub.fetch(arguments.vision, "--vision")
    given = None if arguments.tokenizer is None else hub.fetch(arguments.tokenizer, "--tokenizer", "tokenizer")
    with open_source(path, overrides, vision) as source:
        count = source.parameters
        print(f"{arguments.source}: {source.family}, {count:,} parameters, {' and '.join(source.dtypes)}")
        print(describe(source.config))
        if not getattr(source.config, "language_head", True):
            print("the file has neither temperature nor language head: it can be evaluated, not trained on in stage 1")
        if source.initialized:
            print(f"initialized, because the checkpoint has none: {', '.join(source.initialized)}")
        with bar("importing", count) as progress:
            tokenizer = import_run(
                source, arguments.destination, arguments.dtype, arguments.base, given, progress
            )
    print(f"wrote {arguments.destination}, parameters in {arguments.dtype}")
    if tokenizer is None and arguments.tokenizer is None and needs_tokenizer(source.config):
        is_llama = source.family in LLAMA_FAMILIES
        name, whose = ("tokenizer.json", "the model's") if is_llama else ("tokenizer.model", "Phi-3's")
        if not hasattr(source.config, "decoder"):
            name, whose = "vocab.txt", "BERT's (bert-base-uncased)"
        print(f"no {name} beside the tensors: copy {whose} to {arguments.destination}/{name}")


def export_run(arguments: Arguments) -> None:
    from xgenmm_jax.api.conversion import export_adapter, export_checkpoint

    if isinstance(arguments.source, hub.HubName):
        raise ValueError(f"SOURCE: no run folder '{arguments.source}' here; --to exports a run, no model of the hub.")
    run = run_path(arguments.source, "SOURCE")
    if arguments.to in ("peft", "peft_phi3"):
        notes = export_adapter(run, arguments.destination, arguments.to)
        print(f"wrote {arguments.destination}, tensors in float32")
        for note in notes:
            print(f"note: {note}")
        return
    with bar("exporting", None) as progress:
        notes = export_checkpoint(run, arguments.destination, arguments.to, arguments.dtype, progress)
    print(f"wrote {arguments.destination}, tensors in {arguments.dtype}")
    for note in notes:
        print(f"note: {note}")


def needs_tokenizer(config: "Config") -> bool:
    """Whether a run of it is asked in words: a model with a language model, or BLIP-2's first stage."""
    return hasattr(config, "decoder") or hasattr(config, "vision") and hasattr(config, "text")


def describe(config: "Config") -> str:
    """The sizes that were told from the shapes, one line a part."""
    parts = {name: getattr(config, name) for name in PARTS if getattr(config, name, None) is not None}
    lines = []
    for name, part in parts.items() if parts else [(type(config).__name__.removesuffix("Config"), config)]:
        sizes = ("image_size_px", "patch_px", "width", "hidden", "layers", "heads", "kv_heads", "queries", "vocab_size")
        known = [f"{size} {getattr(part, size)}" for size in sizes if hasattr(part, size)]
        lines.append(f"  {name}: {', '.join(known)}")
    return "\n".join(lines)


@contextlib.contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, on terminals alone; gives what advances it."""
    import rich.console
    import rich.progress

    console = rich.console.Console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description}", style="bold", markup=False),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    is_shown = console.is_terminal and not console.is_dumb_terminal
    with rich.progress.Progress(*columns, console=console, disable=not is_shown) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
