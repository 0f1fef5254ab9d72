"""The pipeline: each input shard is made by a worker of Apache Beam, in processes of this machine or on a cluster.

Workers share the folder that is written to. What is done stays done: a command that was killed goes on with the shards
that have no note.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import logging
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
import signal
import threading
from typing import Any, NamedTuple

from xgenmm_jax import user_files
from xgenmm_jax.curation import destination, faces
from xgenmm_jax.curation.destination import Curated
from xgenmm_jax.curation.duplicates import ShardHasher, hashes_file, note_duplicates
from xgenmm_jax.curation.extra import import_extra
from xgenmm_jax.curation.makers import Maker
from xgenmm_jax.curation.shards import Options, ShardMaker, failed_file, note_file
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.user_files import UserFile

DIRECT = "DirectRunner"
PROGRESS_S = 1.0
BEAM_WORKER_THREAD = "run_worker"
"""What Beam calls the thread that waits for a worker process of its direct runner."""

Progress = Callable[[str, int, int], None]
RunTasks = Callable[["Work", Sequence[int]], None]
"""Runs `work` with each of some numbers of shards."""


class Work(NamedTuple):
    """What a worker does with the number of a shard: `kind(*arguments).run(number)`, the object kept in its process."""

    files: tuple[UserFile, ...]
    pickled: bytes

    def run(self, number: int) -> None:
        if self not in _MADE:
            user_files.load_again(self.files)
            kind, arguments = ForkingPickler.loads(self.pickled)
            _MADE[self] = kind(*arguments)
        _MADE[self].run(number)


_MADE: dict[Work, Any] = {}
"""Objects of this process."""


def work_of(kind: Callable[..., Any], arguments: tuple[Any, ...]) -> Work:
    """arguments: the source, then the maker of rows.

    Raises ValueError where the source, its reader or what makes the rows cannot be sent to another process."""
    try:
        pickled = bytes(ForkingPickler.dumps((kind, arguments)))
    except Exception as error:
        what = "the annotator or engine" if _is_pickled(arguments[0]) else "the source"
        raise ValueError(
            f"curate: {what} cannot be sent to a worker ({error}); define what it has at the top of a file."
        ) from error
    work = Work(user_files.loaded_for(arguments), pickled)
    # Where the work stays in this process, the user's file is not executed a second time.
    _MADE[work] = kind(*arguments)
    return work


def _is_pickled(value: Any) -> bool:
    try:
        ForkingPickler.dumps(value)
    except Exception:
        return False
    return True


def curate(
    source: ShardedSource,
    maker: Maker,
    folder: Path,
    options: Options,
    run_tasks: RunTasks,
    progress: Progress | None = None,
) -> Curated:
    """Makes what is not there yet; of shards that fail whole it says which.

    Raises ValueError where the folder holds something else, or a library is missing.
    """
    names = source.source_index().names
    maker.check()
    faces.check(options.faces)
    with destination.opened(source, maker, options, folder):
        destination.delete_leftovers(folder)
        left = destination.undone(folder, len(names))
        if options.deduplicate and left:
            _find_duplicates(source, maker, folder, len(names), run_tasks, progress)
        for number in left:
            note_file(folder, number).unlink(missing_ok=True)
            failed_file(folder, number).unlink(missing_ok=True)
        if left:
            with _watched(folder, note_file, len(names), f"{maker.command}: shards made", progress):
                _run(run_tasks, work_of(ShardMaker, (source, maker, options, folder)), left)
        notes = [note for number in range(len(names)) if (note := destination.noted(folder, number)) is not None]
        failed = destination.failures(folder, left, names)
        destination.write_left_out(folder, tuple(notes))
        return Curated(len(names), len(left), tuple(notes), tuple(failed))


def _run(run_tasks: RunTasks, work: Work, numbers: Sequence[int]) -> None:
    """Raises SourceError where the pipeline itself fails: a shard's own failure is noted and ends nothing."""
    try:
        run_tasks(work, numbers)
    except ValueError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise SourceError(
            f"curate: the pipeline failed ({type(error).__name__}: {said}); perhaps a worker was killed for memory, so "
            "take fewer --processes. What is made stays: the same command goes on."
        ) from error


def _find_duplicates(
    source: ShardedSource, maker: Maker, folder: Path, shards: int, run_tasks: RunTasks, progress: Progress | None
) -> None:
    left = destination.unhashed(folder, shards)
    if left:
        with _watched(folder, hashes_file, shards, "shards hashed", progress):
            _run(run_tasks, work_of(ShardHasher, (source, maker, folder)), left)
    # Of a shard that is done it changes nothing any more; at worst an image stays twice.
    note_duplicates(folder, shards)


@contextlib.contextmanager
def _watched(
    folder: Path, file_of: Callable[[Path, int], Path], shards: int, what: str, progress: Progress | None
) -> Iterator[None]:
    """Tells of files as they appear: Beam says nothing before its end."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PROGRESS_S):
            progress(what, sum(file_of(folder, number).is_file() for number in range(shards)), shards)

    watcher = threading.Thread(target=watch, name="curation", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def check_beam(runner: str, beam_options: Sequence[str]) -> None:
    """Raises ValueError where Beam is missing, has no such runner, or its direct runner has no such option.

    Other runners take options that their own server knows.
    """
    logging.disable(logging.WARNING)  # it warns of libraries of Google's cloud that are not there
    try:
        import_extra("apache_beam")
        pipeline_options = import_extra("apache_beam.options.pipeline_options")
        if runner != DIRECT:
            import_extra("apache_beam.runners.runner").create_runner(runner)
            return
        options = pipeline_options.PipelineOptions(list(beam_options))
        unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    except ImportError as error:
        raise ValueError(f"--runner: '{runner}' cannot be loaded ({error}).") from error
    finally:
        logging.disable(logging.NOTSET)
    if unknown:
        raise ValueError(f"curate: Beam has no option '--{min(unknown)}' for {DIRECT}; its options stand behind --.")


@contextlib.contextmanager
def _ending_with_a_worker() -> Iterator[None]:
    """Raises RuntimeError where a worker process is killed: Beam's direct runner waits for it for ever.

    Beam tells of it by an exception in the thread that waits for the process.
    """
    before, ended = threading.excepthook, []

    def on_thread_error(what: threading.ExceptHookArgs) -> None:
        if what.thread is None or what.thread.name != BEAM_WORKER_THREAD:
            before(what)
        elif not ended:
            ended.append(str(what.exc_value))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.excepthook = on_thread_error
    try:
        yield
    except KeyboardInterrupt:
        if not ended:
            raise
        raise RuntimeError(ended[0]) from None
    finally:
        threading.excepthook = before


def with_beam(processes: int, runner: str, beam_options: Sequence[str]) -> RunTasks:
    """Runs tasks by Beam.

    processes: of the direct runner, on this machine. runner: Beam's name of one. beam_options: its further options.
    """

    def run_tasks(work: Work, numbers: Sequence[int]) -> None:
        beam = import_extra("apache_beam")
        options_of = import_extra("apache_beam.options.pipeline_options").PipelineOptions
        logging.getLogger("apache_beam").setLevel(logging.ERROR)
        flags = [f"--runner={runner}", "--default_sdk_harness_log_level=WARNING", *beam_options]
        if runner == DIRECT and processes > 1:
            workers = min(processes, len(numbers))
            flags += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
        pipeline = beam.Pipeline(options=options_of(flags))
        shards = pipeline | "shards" >> beam.Create(list(numbers)) | "spread" >> beam.Reshuffle()
        shards | "make" >> beam.Map(work.run)
        with _ending_with_a_worker():
            pipeline.run().wait_until_finish()

    return run_tasks
