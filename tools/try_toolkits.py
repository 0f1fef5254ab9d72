"""Are the scores that lmms-eval and VLMEvalKit print of a run those of `xgenmm evaluate`?

    python -m tools.try_toolkits FOLDER [--run RUN | --start RUN]

Makes both environments, a nano run and drawn rows of POPE and MuirBench in FOLDER; what is there already stays. Asks
the run in each toolkit's own process, with the tasks and the scoring that it ships, and by `xgenmm evaluate`; compares
every answer and every score. Exits 1 where one differs. Some 20 minutes and 5 GB the first time, on 2 CPU cores.
"""

import argparse
import os
from pathlib import Path
import shutil
import subprocess
import sys

from tools import toolkit_environments, toolkit_files, toolkit_results, toolkit_rows
from tools.toolkit_environments import ROOT, python

POPE_PICTURES, MUIR_QUESTIONS, CONVERSATIONS = 30, 36, 3000

XGENMM = (sys.executable, "-c", "from xgenmm_jax.cli.main import main; raise SystemExit(main())")
"""The command `xgenmm` of this checkout."""

LMMS_TASK = """include: {shipped}
task: {task}_local
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {file}
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, help="a run folder; by default one is trained")
    parser.add_argument("--start", type=Path, help="what that training begins with, as runs/demo/sft_multi")
    arguments = parser.parse_args(argv)
    folder = arguments.folder.resolve()
    lmms, vlmevalkit = folder / "lmms", folder / "vlm"
    toolkit_environments.make(lmms, toolkit_environments.LMMS_EVAL, toolkit_environments.LMMS_EVAL_NEEDS)
    toolkit_environments.make(vlmevalkit, toolkit_environments.VLMEVALKIT, toolkit_environments.VLMEVALKIT_NEEDS)

    # VLMEvalKit does not write a picture again that it finds; both toolkits go on with results that they find.
    data = folder / "data"
    for written in (data, folder / "lmms_eval", folder / "vlmevalkit", folder / "xgenmm"):
        shutil.rmtree(written, ignore_errors=True)
    toolkit_files.write_all(data, toolkit_rows.pope_rows(POPE_PICTURES), toolkit_rows.muir_rows(MUIR_QUESTIONS))
    run = arguments.run.resolve() if arguments.run else trained(folder, arguments.start)

    ask_lmms_eval(lmms, run, data, folder)
    ask_vlmevalkit(vlmevalkit, run, data, folder)
    ours = {profile: ask_here(run, data, profile, folder) for profile in ("lmms", "fork")}
    rows = [
        *toolkit_results.compare_lmms_eval(folder / "lmms_eval", ours["lmms"]),
        *toolkit_results.compare_vlmevalkit(folder / "vlmevalkit", ours["fork"], python(vlmevalkit)),
    ]
    print(toolkit_results.table(rows))
    wrong = [row for row in rows if not row.is_equal]
    print(f"{len(rows) - len(wrong)} of {len(rows)} equal")
    for profile, output in ours.items():
        said = toolkit_results.answers_of(output, "pope")
        if not {"Yes", "No"} <= said:
            print(f"POPE, {profile}: got only {', '.join(sorted(said))}, which shows little; give another --run.")
            return 1
    return 1 if wrong else 0


def trained(folder: Path, start: Path | None) -> Path:
    """A nano run that answers with the words that the two benchmarks want, and not always with the same.

    start: the run to begin with, by which answers go by what is in the pictures; None: the weights that ship.
    """
    conversations, run = folder / "conversations", folder / ("run" if start is None else "run_on_start")
    if not (conversations / "conversations.json").is_file():
        toolkit_rows.conversations(conversations, CONVERSATIONS)
    begun = {} if start is None else {"TOOLKIT_START": str(start.resolve())}
    command = ["train", str(ROOT / "tools" / "toolkit_run.py"), "--workdir", str(run)]
    call([*XGENMM, *command], folder, TOOLKIT_CONVERSATIONS=str(conversations), **begun)
    return run


def ask_lmms_eval(environment: Path, run: Path, data: Path, folder: Path) -> None:
    """lmms-eval's shipped tasks over local rows: what they read, ask and score is theirs."""
    (package,) = environment.glob("lib/python*/site-packages/lmms_eval")
    tasks = folder / "lmms_tasks"
    tasks.mkdir(exist_ok=True)
    rows = {"pope": toolkit_files.pope_parquet(data), "muirbench": toolkit_files.muir_parquet(data)}
    for task, file in rows.items():
        shipped = package / "tasks" / task / f"{task}.yaml"
        text = LMMS_TASK.format(shipped=shipped, task=task, file=file)
        (tasks / f"{task}_local.yaml").write_text(text, encoding="utf-8")
    call(
        [str(python(environment)), "-m", "lmms_eval", "--model", "xgenmm_jax", "--model_args", f"pretrained={run}",
         "--include_path", str(tasks), "--tasks", ",".join(f"{task}_local" for task in rows), "--batch_size", "16",
         "--log_samples", "--output_path", str(folder / "lmms_eval")],
        folder,
        HF_HOME=str(folder / "hf"), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
    )  # fmt: skip


def ask_vlmevalkit(environment: Path, run: Path, data: Path, folder: Path) -> None:
    """VLMEvalKit's fork by our launcher, over tables of the published names."""
    call(
        [str(python(environment)), "-m", "xgenmm_jax.integrations.vlmevalkit", "--run", str(run), "--stand-ins",
         "--local-data", "--", "--data", "POPE", "MUIRBench", "--judge", "exact_matching", "--work-dir",
         str(folder / "vlmevalkit")],
        folder,
        LMUData=str(data),
    )  # fmt: skip


def ask_here(run: Path, data: Path, profile: str, folder: Path) -> Path:
    """The folder of predictions and scores of `xgenmm evaluate`."""
    output = folder / "xgenmm" / profile
    call(
        [*XGENMM, "evaluate", str(run), "--tasks", "pope,muirbench", "--data", str(data),
         "--profile", profile, "--reading", "as_published", "--output", str(output)],
        folder,
    )  # fmt: skip
    return output


def call(command: list[str], folder: Path, **variables: str) -> None:
    """Raises subprocess.CalledProcessError where the process fails."""
    print("$", " ".join(command), flush=True)
    own = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    platforms = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, **own, **platforms, **variables})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
