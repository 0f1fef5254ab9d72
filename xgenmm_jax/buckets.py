"""Objects of gs:// and s3:// buckets that appear, change and go as a whole: what `files.py` does without renames.

Every request ends, with an answer or with one sentence (`requests.py`).
"""

from collections.abc import Mapping
import contextlib
import pathlib
from typing import Any
from urllib.parse import quote

from xgenmm_jax import requests
from xgenmm_jax.paths import BucketPath
from xgenmm_jax.requests import Request, RequestError

BYTES_PER_S = 2**20
"""The slowest upload that is waited for."""

CHECK_S = 45.0
"""Seconds until a bucket is held for silent: a mistyped command ends within a minute, imports included."""


def check(path: BucketPath, what: str) -> None:
    """Raises ValueError, within `requests.TIMEOUT_S`, where the bucket of a path is not there or does not answer."""
    protocol, _, rest = str(path).partition("://")
    bucket = rest.partition("/")[0]

    def question(request: Request) -> None:
        if protocol == "gs":
            request.call("_call", "GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        else:
            request.call("_call_s3", "list_objects_v2", Bucket=bucket, MaxKeys=1)

    try:
        requests.answer(f"{protocol}://{bucket}", question, "listed", min(CHECK_S, requests.TIMEOUT_S))
    except FileNotFoundError as error:
        raise RequestError(f"{what}: no bucket '{protocol}://{bucket}'; check its name, or make it.") from error
    except RequestError as error:
        raise RequestError(f"{what}: {error}") from error


def read(path: BucketPath) -> bytes | None:
    """An object; None where there is none."""
    try:
        return requests.answer(str(path), lambda request: request.ask("cat_file"))
    except FileNotFoundError:
        return None


def read_version(path: BucketPath, seconds: float | None = None) -> tuple[bytes, str] | None:
    """An object and the version that it had, for `write_if`; None where there is none.

    seconds: other than `requests.TIMEOUT_S`.

    What was replaced between the two questions is given with the older version, with which nothing can be written.
    """
    def question(request: Request) -> tuple[bytes, str]:
        info = request.ask("info")
        if info["type"] != "file":
            raise FileNotFoundError(str(path))
        return request.ask("cat_file"), str(info.get("generation") or info["ETag"])

    try:
        return requests.answer(str(path), question, seconds=seconds)
    except FileNotFoundError:
        return None


def write(path: BucketPath, data: bytes) -> None:
    """One upload, after which the object is there, or what was there before."""
    _upload(path, lambda request: request.ask("pipe_file", data), len(data))


def upload(local: pathlib.Path, path: BucketPath) -> None:
    """As `write`, of a file of any size."""
    _upload(path, lambda request: request.call("_put_file", str(local), request.path), local.stat().st_size)


def download(path: BucketPath, local: pathlib.Path) -> None:
    """An object into a file. Raises FileNotFoundError."""
    def question(request: Request) -> None:
        request.ask("get_file", str(local))

    requests.answer(str(path), question, seconds=_seconds(size(path)))


def write_if(path: BucketPath, data: bytes, version: str | None, seconds: float | None = None) -> str | None:
    """Replaces an object of a version, or makes it where version is None; exactly one of several processes can.

    Gives the new version; None where the object has another version, or is there, or (version given) is gone. An answer
    that is lost on its way is None too, though the object is written: read it again. seconds: as for `read_version`.
    """
    def question(request: Request) -> str | None:
        ask = _write_if_s3 if str(path).startswith("s3:") else _write_if_gs
        return ask(request, data, version)

    try:
        return requests.answer(str(path), question, "written", seconds)
    except FileNotFoundError as error:
        if version is not None:
            return None
        raise RequestError(f"'{path}' cannot be written: no such bucket; check its name.") from error


def delete(path: BucketPath) -> None:
    """Deletes an object, where it is there."""
    with contextlib.suppress(FileNotFoundError):
        requests.answer(str(path), lambda request: request.ask("rm_file"), "deleted")


def tree(folder: BucketPath) -> dict[str, int]:
    """Bytes of every object below a folder by its name there, "a/b.bin", sorted as paths; {} where it is not there."""
    def question(request: Request) -> Mapping[str, Mapping[str, Any]]:
        return request.ask("find", detail=True)

    try:
        answer = requests.answer(str(folder), question, "listed")
    except FileNotFoundError:
        return {}
    start = str(folder).partition("://")[2].rstrip("/") + "/"
    sizes = {name.removeprefix(start): info["size"] for name, info in answer.items() if name.startswith(start)}
    names = (name for name in sizes if name and not name.endswith("/"))
    return {name: sizes[name] for name in sorted(names, key=lambda name: name.split("/"))}


def size(path: BucketPath) -> int:
    """Bytes of an object. Raises FileNotFoundError."""
    info = requests.answer(str(path), lambda request: request.ask("info"))
    if info["type"] != "file":
        raise FileNotFoundError(str(path))
    return info["size"]


def copy(source: BucketPath, target: BucketPath) -> None:
    """An object of the same kind of bucket; its bytes do not come here. Raises FileNotFoundError."""
    path_in_bucket = str(target).partition("://")[2]
    requests.answer(
        str(source), lambda request: request.ask("cp_file", path_in_bucket), "copied", _seconds(size(source))
    )


def delete_tree(folder: BucketPath) -> None:
    """Deletes every object below a folder, and what stands for the folder itself."""
    with contextlib.suppress(FileNotFoundError):  # nothing is there, or another host was faster
        requests.answer(
            str(folder), lambda request: request.call("_rm", request.path, recursive=True), "deleted",
            10 * requests.TIMEOUT_S,
        )  # fmt: skip


def _seconds(bytes_: int) -> float:
    return requests.TIMEOUT_S + bytes_ / BYTES_PER_S


def _upload(path: BucketPath, question: Any, bytes_: int) -> None:
    try:
        requests.answer(str(path), question, "written", _seconds(bytes_))
    except FileNotFoundError as error:
        raise RequestError(f"'{path}' cannot be written: no such bucket; check its name.") from error


def _write_if_gs(request: Request, data: bytes, version: str | None) -> str | None:
    fs = request.file_system
    bucket, key, _ = fs.split_path(request.path)
    try:
        answer = request.call(
            "_call", "POST", f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o", name=key,
            uploadType="media", ifGenerationMatch=version or "0", data=data, json_out=True,
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
    except FileExistsError:  # so gcsfs calls a condition that does not hold
        return None
    return str(answer["generation"])


def _write_if_s3(request: Request, data: bytes, version: str | None) -> str | None:
    bucket, key, _ = request.file_system.split_path(request.path)
    condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
    try:
        return request.call("_call_s3", "put_object", Bucket=bucket, Key=key, Body=data, **condition)["ETag"]
    except Exception as error:
        # s3fs has no name for a condition that does not hold: 412, or 409 where two write at the same moment.
        cause = error.__cause__ if error.__cause__ is not None else error
        code = getattr(cause, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in (409, 412):
            return None
        raise
