"""`xgenmm demo [FOLDER] [--workdir DIR]`: all stages, one after the other, each evaluated, and the page about them."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

import tyro

from xgenmm_jax.cli import errors, interrupts
from xgenmm_jax.cli.options import LocalPath, LocalRunPath, parse, refuse_file

if TYPE_CHECKING:
    from xgenmm_jax.nano.demo import Stage

STAGES = ("stage1", "stage2", "sft_single", "sft_multi", "dpo")


@dataclass(frozen=True)
class Arguments:
    """Trains all stages of a folder of experiments and writes report.html and report.json. Run again, it continues."""

    experiments: tyro.conf.Positional[LocalPath] = Path("experiments/nano")
    """A folder with stage1.py, stage2.py, sft_single.py, sft_multi.py and dpo.py, or a file with these functions."""
    workdir: LocalRunPath = Path("runs/demo")
    """Where the stages' run folders and the report go."""


def main(argv: Sequence[str]) -> int:
    """Runs what is left to do; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm demo")
    refuse_file(arguments.workdir)
    # Imported here: --help does not wait for JAX.
    from xgenmm_jax.training.runs.run_lock import RunLock

    with errors.writing(arguments.workdir), _leaving_on_signals(), interrupts.raising(), RunLock(arguments.workdir):
        stages = load_stages(arguments.experiments, arguments.workdir)
        from xgenmm_jax.nano import demo, demo_steps
        from xgenmm_jax.reporting.machine import accelerator_name, describe_machine
        from xgenmm_jax.training.runs.run_folder import CONFIG_FILE, commit, prepare

        for stage in stages:
            if (arguments.workdir / stage.name / CONFIG_FILE).is_file():
                prepare(stage.config, arguments.workdir / stage.name)  # a changed config is told before hours are spent
        facts = demo.ReportFacts(
            demo_steps.parameter_count(stages[0].config), describe_machine(accelerator_name()), commit()
        )
        return demo.run_demo(
            stages, arguments.workdir, facts, demo_steps.train, demo_steps.evaluate, demo_steps.on_compilation
        )


def load_stages(experiments: Path, workdir: Path) -> list["Stage"]:
    """The stages of a folder of experiments, or of one file, each but the first starting from the one before.

    Raises ValueError where a file is missing or gives no TrainConfig.
    """
    from xgenmm_jax.cli.experiment_files import load_experiment
    from xgenmm_jax.nano.demo import Stage

    if not experiments.is_dir() and experiments.suffix != ".py":
        names = ", ".join(f"{name}.py" for name in STAGES)
        file = Path(f"{experiments}.py")
        near = f"'{file}' holds its stages now" if file.is_file() else f"give one that holds {names}"
        raise ValueError(f"demo: no folder '{experiments}'; {near}.")
    stages: list[Stage] = []
    for name in STAGES:
        is_file = experiments.suffix == ".py"
        config = load_experiment(Path(f"{experiments}:{name}") if is_file else experiments / f"{name}.py")
        if stages:
            # Absolute, so that a run goes on from whatever folder the user stands in.
            before = str((workdir / stages[-1].name).absolute())
            config = dataclasses.replace(config, initialize=dataclasses.replace(config.initialize, run=before))
        stages.append(Stage(name, config, config.steps))
    return stages


@contextlib.contextmanager
def _leaving_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP outside of training end the command with code 143 or 129 and everything closed.

    Training has its own way. A SIGHUP that was ignored before, as under nohup, stays ignored.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from xgenmm_jax.training.hosts.signals import is_ignored

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if not is_ignored(number)]
    previous = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
