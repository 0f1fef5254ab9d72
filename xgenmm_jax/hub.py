"""Models on the Hugging Face hub by name, `org/model` or `org/model@revision`: as folders of the hub's cache here.

Wherever weights or a tokenizer are named, a string is a path or such a name, and `local_folder` gives the folder.
Cache, token and offline use are those of huggingface_hub: HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT.
"""

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass
import fnmatch
import os
import pathlib
import sys
from typing import Any, Literal

from xgenmm_jax.paths import Path, hub_name, user_path

SCHEME = "hf://"
"""Before a name that is one whatever lies here."""

TIMEOUT_S = 10.0
"""Seconds without a byte after which a request to the hub is given up."""

TOKENIZER = ("tokenizer.model", "tokenizer.json", "vocab.txt", "tokenizer_config.json")
WEIGHTS = ("*.safetensors", "*.json", *TOKENIZER)
"""Files that are fetched, of the repository's root alone: no pickles and no code."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_FILES = (".safetensors", ".npz", ".json", ".model", ".pt", ".bin")
"""Ends of paths of files, which no model's name has."""
_LIBRARIES = ("huggingface_hub", "httpx2", "httpcore2", "hf_xet")
"""Packages whose errors are told in a sentence; those of the disk are the system's."""


@dataclass(frozen=True)
class HubName:
    """A model on the hub. revision: a branch, a tag or a commit; None: the branch main."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @property
    def name(self) -> str:
        """As of a path, its last part."""
        return self.repo.partition("/")[2]


def path_or_name(
    value: str | os.PathLike | object,
    what: str,
    read: Callable[[Any, str], Path] = user_path,
    is_kept: bool = False,
) -> Path | HubName:
    """What a user's string names; asks nobody. A `pathlib.Path` is always a path.

    A name has exactly two parts, and nothing lies here by its first: "runs/stag1" is a path where there is a folder
    runs. After SCHEME it is a name in any case.
    is_kept: the string is kept in a config, which is read in other places too: without SCHEME it is a path.

    Raises ValueError as `read`, and for what is no name after SCHEME.
    """
    name = _named(value, what, is_kept)
    return read(value, what) if name is None else name


def _named(value: str | os.PathLike | object, what: str, is_kept: bool) -> HubName | None:
    if not isinstance(value, str) or is_kept and not value.startswith(SCHEME):
        return None
    text = value.removeprefix(SCHEME)
    named = hub_name(text)
    if text != value and named is None:
        raise ValueError(f"{what}: got '{value}', wanted {SCHEME}ORG/MODEL or {SCHEME}ORG/MODEL@REVISION.")
    if named is None or text == value and (text.endswith(_FILES) or os.path.lexists(text.partition("/")[0])):
        return None
    return HubName(*named)


def local_folder(
    value: str | os.PathLike | object,
    what: str,
    kind: Literal["weights", "tokenizer"] = "weights",
    is_kept: bool = False,
) -> Path:
    """The path that a user's string names, or the folder of the hub's cache that holds the named model.

    Raises ValueError as `path_or_name` and `fetch`, which say what the arguments are.
    """
    return fetch(path_or_name(value, what, is_kept=is_kept), what, kind)


def fetch(source: Path | HubName, what: str, kind: Literal["weights", "tokenizer"] = "weights") -> Path:
    """A path as it is; a name's snapshot in the hub's cache, with the files of its kind fetched that are not there yet.

    what: what errors call it, as "--tokenizer". Where the hub does not answer, what the cache has of the revision is
    taken, if it is whole.

    Raises ValueError where the hub has no such model, revision or files, they may not be read, or it does not answer.
    """
    if not isinstance(source, HubName):
        return source
    import huggingface_hub  # slow

    # Names with a slash are left out: none leads out of the snapshot.
    patterns, needed = (WEIGHTS, ("*.safetensors",)) if kind == "weights" else (TOKENIZER, TOKENIZER[:3])
    with asking(source, what):
        folder = huggingface_hub.snapshot_download(
            source.repo, revision=source.revision, allow_patterns=list(patterns), ignore_patterns=["*/*"],
            etag_timeout=TIMEOUT_S,
        )  # fmt: skip
        path = pathlib.Path(folder)
        if not any(file for pattern in needed for file in path.glob(pattern)):
            raise ValueError(f"{what}: {_lacking(source, path.name, needed)}")
    return path


def _lacking(source: HubName, commit: str, needed: tuple[str, ...]) -> str:
    """What to tell of a model without the files that are needed."""
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        names = sorted(file.path for file in get_cached_repo_tree(source.repo, revision=commit))
    except errors.CachedRepoTreeNotFoundError:
        names = []
    pickles = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in PICKLES)]
    deeper = [name for name in names if any(fnmatch.fnmatch(name, f"*/{pattern}") for pattern in needed)]
    why = ""
    if deeper:
        why = f", only {deeper[0]} in a folder of it, which is not fetched"
    elif pickles and needed == ("*.safetensors",):
        why = f", only {pickles[0]}, a pickle, which can run any code and is not read"
    return (
        f"'{source}' on the hub holds no {' and no '.join(needed)} beside its config{why}; give a model or a revision "
        "that has one, or download it and name the folder."
    )


def model_of(path: Path) -> str | None:
    """The model that a snapshot in the hub's cache is of, without its organization; None for another path."""
    folder = path.parent.parent.name
    return folder.rpartition("--")[2] if path.parent.name == "snapshots" and folder.startswith("models--") else None


def hint(path: Path | str) -> str:
    """For the error of a path that is not there: how the hub's model of that name is had; "" where it cannot be one."""
    if hub_name(str(path)) is None or str(path).endswith(_FILES):
        return ""
    parent = os.path.dirname(path)
    because = f" ('{parent}' is a folder here)" if os.path.isdir(parent) else ""
    return f", or for a model of the hub give {SCHEME}{path}{because}"


@contextlib.contextmanager
def asking(source: HubName, what: str, seconds: float | None = None) -> Iterator[None]:
    """While huggingface_hub is asked: requests end, its bars are for terminals alone, and its errors are sentences.

    seconds: without a byte, after which a request is given up; TIMEOUT_S.

    Raises ValueError for them, but not for the disk's.
    """
    import huggingface_hub
    from huggingface_hub import utils

    def limit(request: Any) -> None:
        # huggingface_hub sets no time for some of its requests.
        given = request.extensions.get("timeout", {})
        ends = dict.fromkeys(("connect", "read", "write", "pool"), seconds or TIMEOUT_S) | {"connect": TIMEOUT_S}
        request.extensions["timeout"] = {kind: given.get(kind) or end for kind, end in ends.items()}

    hooks = huggingface_hub.get_session().event_hooks["request"]
    hides = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    hooks.append(limit)
    if hides:
        utils.disable_progress_bars()
    try:
        yield
    except Exception as error:
        # Transfers of large files tell theirs as a RuntimeError.
        if not isinstance(error, RuntimeError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        cause = error.__cause__ if isinstance(error, RuntimeError) else None
        raise ValueError(f"{what}: {_sentence(cause or error, source)}") from error
    finally:
        hooks.remove(limit)
        if hides:
            utils.enable_progress_bars()


def _sentence(error: BaseException, source: HubName) -> str:
    """What is wrong, in one sentence."""
    from huggingface_hub import constants, errors

    address = f"{constants.ENDPOINT}/{source.repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"'{source.repo}' is gated: agree to its conditions at {address}, then give that account's token "
            "(HF_TOKEN, or hf auth login)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"no folder '{source}' here, and no model '{source.repo}' at {constants.ENDPOINT} that this account may "
            "read; correct the name, or for a private model give a token (HF_TOKEN)."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"'{source.repo}' on the hub has no revision '{source.revision}'; give a branch, tag or commit of it."
    if isinstance(error, errors.LocalEntryNotFoundError):  # with what came before it, where anything was asked
        cache, missing = constants.HF_HUB_CACHE, isinstance(error, errors.IncompleteSnapshotError)
        has = f"the cache {cache} has {'only a part of it' if missing else 'none'}"
        if constants.is_offline_mode():
            return f"no folder '{source}' here, and {has}, while HF_HUB_OFFLINE forbids to ask the hub; unset it once."
        return (
            f"no folder '{source}' here, {constants.ENDPOINT} does not answer ({_reason(error.__cause__ or error)}), "
            f"and {has}; check the name and the network, or name a folder that is here."
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "no token of the hub is known here; give one that may write: HF_TOKEN, or hf auth login."
    if status in (401, 403):
        return f"{constants.ENDPOINT} refuses this for '{source.repo}' ({status}); give a token that may (HF_TOKEN)."
    return f"{address}: {_reason(error)}; try again, or name a folder that is here."


def _reason(error: BaseException) -> str:
    """Its kind and the first words of it."""
    words = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}{': ' * bool(words)}{words[:200].rstrip('.')}"
