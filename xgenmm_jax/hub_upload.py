"""A folder uploaded to the Hugging Face hub, as the repository of a model; with the token of huggingface_hub."""

from dataclasses import dataclass
import pathlib

from xgenmm_jax import hub

COMMIT_S = 300.0
"""Seconds that the hub may take to answer: a commit is answered when it is made."""


@dataclass(frozen=True)
class Repository:
    """Where a folder is to go. files: those that it has; None where there is no such repository yet."""

    name: hub.HubName
    address: str
    is_private: bool
    files: int | None

    def __str__(self) -> str:
        if self.files is None:
            return f"{self.address}, a new {'private' if self.is_private else 'public'} repository"
        kind = "private" if self.is_private else "public"
        if not self.files:
            return f"{self.address}, which is there, {kind} and empty"
        return (
            f"{self.address}, which is there, {kind}, with {self.files} files: those of the same name are replaced, "
            "the others stay"
        )


def find(text: str, what: str, is_public: bool = False) -> Repository:
    """The repository that a user named, as it is now. is_public: of a new one; others stay as they are.

    Raises ValueError where it is no name, no token is known, or the hub does not answer.
    """
    # A folder of the name may lie here: it is not what is meant.
    name = hub.path_or_name(text if text.startswith(hub.SCHEME) else hub.SCHEME + text, what)
    assert isinstance(name, hub.HubName)
    if name.revision is not None:
        raise ValueError(f"{what}: got '{text}', wanted ORG/MODEL alone: what is uploaded goes to its branch main.")
    import huggingface_hub  # slow
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    address = f"{api.endpoint}/{name.repo}"
    with hub.asking(name, what):
        api.whoami()
        try:
            info = api.repo_info(name.repo)
        except errors.RepositoryNotFoundError:
            return Repository(name, address, not is_public, None)
    names = [file.rfilename for file in info.siblings or () if file.rfilename != ".gitattributes"]
    return Repository(name, address, bool(info.private), len(names))


def upload(folder: pathlib.Path, repository: Repository, what: str) -> None:
    """Uploads the files of a folder, and makes the repository where it is not there yet.

    Raises ValueError where the hub refuses it or does not answer.
    """
    import huggingface_hub

    api, repo = huggingface_hub.HfApi(), repository.name.repo
    with hub.asking(repository.name, what, COMMIT_S):
        if repository.files is None:
            api.create_repo(repo, private=repository.is_private)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload by xgenmm convert")
