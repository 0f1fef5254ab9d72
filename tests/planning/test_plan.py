"""The plan's arithmetic, its search and its advice; `test_plan_command.py` compiles."""

from dataclasses import replace
import importlib.util
import json
import math
from unittest.mock import NonCallableMock

import jax
import pytest

from xgenmm_jax.cli.plan import print_plan
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.hardware import CHIPS, GIB
from xgenmm_jax.models import sizes
from xgenmm_jax.models.flops import forward_flops
from xgenmm_jax.models.remat import OFFLOADED_NAMES, SAVED_NAMES
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.planning import bounds, estimates, plan, products, program, search, topology
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.program import Memory, OutOfMemoryError
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, row_sharding

OOM = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (24.11G) exceeds available HBM (15.75G). HLO module: jit_traced."
)


@pytest.fixture(scope="module")
def config():
    """4B with 512 rows of 4096 positions, abstractly."""
    row = RowConfig(length=4096, crops=16, images=16, vision_tokens=128)
    anyres = AnyRes(grids=(), view_px=384, view_cells=27)
    data = DataConfig(((Synthetic("caption", 8), 1.0),), "no.model", row, anyres, batch_rows=512)
    return TrainConfig(name="4b/stage", model=sizes.B4, data=data, objective=NextToken(), steps=1000)


def pod(kind="v5e", chips=256, slices=1):
    return topology.Topology(f"{kind}:made", slices, CHIPS[kind], (NonCallableMock(spec=jax.Device),) * chips)


def made_plan(config, on, fits=True, **changes):
    mesh = {"replica": on.slices, "fsdp": len(on.devices) // on.slices // config.mesh.tensor}
    planned = plan.Plan(
        config.name, on, mesh | {"tensor": config.mesh.tensor}, config, bounds.work(config), 1e9, 0.5, compile_s=1.0
    )
    memory = Memory(*(n * GIB for n in (1, 2, 0, 1, 0, 5, 0, 0, 9)))
    fitting = {"memory": memory, "traffic": {"all-gather": Traffic(64, 9e9, 0.0)}}
    return replace(planned, **((fitting if fits else {"failure": OutOfMemoryError(OOM)}) | changes))


def with_remat(config, remat):
    return replace(config, model=replace(config.model, decoder=replace(config.model.decoder, remat=remat)))


def test_work_of_stage_1(config):
    """The tower runs forward alone, the resampler's reading of features twice, the rest three times; what is repeated
    is the chips' work alone."""
    work = bounds.work(config)
    connector = forward_flops(config.model, bounds.full_workload(config.data, config.model)).connector
    tokens, decoder = 512 * 4096, config.model.decoder
    assert work.hardware.vision == work.model.vision
    assert 2 * connector < work.model.connector < 3 * connector
    assert work.model.connector < work.hardware.connector < work.model.connector + connector
    assert work.hardware.decoder == work.model.decoder  # 'minimal' repeats attention alone
    assert work.hardware.attention == pytest.approx(work.model.attention * 1.5)
    full = bounds.work(with_remat(config, "full"))
    assert full.model == work.model
    down = decoder.layers * tokens * 2 * decoder.width * decoder.hidden
    assert full.hardware.decoder == pytest.approx(work.model.decoder * 4 / 3 - down)


def test_every_policy_is_known():
    assert {name for names in (SAVED_NAMES | OFFLOADED_NAMES).values() for name in names} <= {
        *products.NAMES,
        "layer_input",
    }
    assert products.kept_products("save_qkv_proj") == products.kept_products("qkv_offloaded") == {"qkv"}
    assert products.kept_products("none") == set(products.NAMES) and products.kept_products("full") == set()


def test_stage_takes_tokens_by_speed(config):
    planned = made_plan(config, pod())
    bound = planned.step_tokens / planned.times.bound
    assert planned.bound.days == pytest.approx(1e9 / bound / 86400)
    assert planned.chip_hours(planned.bound) == pytest.approx(planned.bound.days * 24 * 256)
    # At half the peak by model FLOPs.
    seconds = planned.work.model.total / (256 * 197e12 * 0.5)
    assert planned.expected.tokens_per_second == pytest.approx(planned.step_tokens / seconds)
    report = json.loads(json.dumps(plan.to_json(planned)))
    assert report["fits"] and report["memory"]["peak"] == 9 * GIB and report["rows_per_chip"] == 2
    assert report["expected"]["tokens_per_second_per_chip"] * 256 == pytest.approx(planned.expected.tokens_per_second)


def test_expected_is_never_faster_than_the_bound(config):
    planned = made_plan(config, pod(), traffic={"all-gather": Traffic(1, 1e15, 0.0)})
    assert planned.expected == planned.bound


def test_what_does_not_fit_says_what_to_change(config):
    advice = made_plan(config, pod(), fits=False).advice
    for word in ("24.11 GiB of 15.75", "--accumulation 2", "--data.batch-rows 256", "remat full", "--mesh.tensor 2"):
        assert word in advice, word
    assert "--mesh.replica" not in advice
    last = replace(
        config,
        data=replace(config.data, batch_rows=256),
        model=replace(config.model, decoder=replace(config.model.decoder, remat="full", kv_heads=1)),
    )
    assert "shorter rows" in made_plan(last, pod(), fits=False).advice


@pytest.mark.parametrize("name", ["lr[1e-3]", "a[/b]", "[red]stop[/red]", "[link=x]y", "имя [bold]"])
@pytest.mark.parametrize("fits", [True, False])
def test_a_name_is_printed_as_it_is(config, capsys, name, fits):
    """Brackets were rich's markup: lost, or an error behind minutes of compiling."""
    print_plan(replace(made_plan(config, pod(), fits=fits), name=name))
    assert capsys.readouterr().out.splitlines()[0] == f"{name} on v5e:made, 256 chips"


@pytest.mark.parametrize(
    "message, sizes",
    [
        (OOM, (24.11 * GIB, 15.75 * GIB)),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 1.5M of 96.0K hbm.",
            (1.5 * 2**20, 98304),
        ),
        ("RESOURCE_EXHAUSTED: hbm", (None, None)),
    ],
)
def test_sizes_out_of_the_compilers_words(message, sizes):
    error = OutOfMemoryError(message)
    assert (error.needed_bytes, error.available_bytes) == pytest.approx(sizes)


def test_options_that_a_chip_does_not_take_are_one_sentence():
    words = "FAILED_PRECONDITION: Continuation fusion is enabled on platform viperfish. Please disable it \n*** trace"
    error = program._explained(jax.errors.JaxRuntimeError(words))
    assert str(error) == (
        "--compiler-option: libtpu refuses the step with what it was given: Continuation fusion is enabled on platform "
        "viperfish. Please disable it."
    )


def test_rows_have_the_shapes_of_the_pipeline(config):
    """A shape of its own here would be a plan of another step."""
    mesh = make_mesh(MeshConfig())
    rows = program.abstract_rows(config.data, row_sharding(mesh))
    real = build.empty_rows(2, config.data.row, config.data.anyres, 0)
    for name, abstract, array in zip(rows._fields, rows, real, strict=True):
        assert abstract.shape == (512, *array.shape[1:]) and abstract.dtype == array.dtype, name
    assert program.bytes_per_device(rows) * 8 == sum(array.nbytes for array in real) * 256


def made_up_compiler(peak_of):
    """`make_plan` without a compiler: memory by a formula; counts its calls."""
    calls = []

    def make(name, config, on, options, utilisation, tokens):
        calls.append(config)
        needed = peak_of(config)
        if needed > on.chip.hbm_bytes:
            error = OutOfMemoryError(f"hbm ({needed / GIB:.2f}G) exceeds ({on.chip.hbm_bytes / GIB:.2f}G)")
            return made_plan(config, on, fits=False, failure=error)
        return made_plan(config, on, memory=Memory(*[0] * 8, peak=int(needed)), traffic={})

    return make, calls


@pytest.mark.parametrize("scale", [0.4, 0.95, 1.0, 1.7, 3.0])
def test_search_finds_the_best_that_fits_in_few_compilations(config, monkeypatch, scale):
    """Whatever the estimate of memory is off by: the best of all candidates, those that should not fit among them."""
    on = pod("v5e", 256)
    estimated = {str(candidate.config): candidate.bytes for candidate in search.ranked(config, on)}
    make, calls = made_up_compiler(lambda tried: scale * estimated[str(tried)])
    monkeypatch.setattr(search, "make_plan", make)
    lines = []
    result = search.search("4b", config, on, {}, 0.5, 1e9, lines.append)
    assert result.fits and len(lines) == len(calls) <= 5
    best = next(c for c in search.ranked(config, on) if scale * c.bytes <= on.chip.hbm_bytes)
    assert bounds.work(result.config).hardware.total <= bounds.work(best.config).hardware.total
    assert result.config.data.batch_rows == 512 and result.config.steps == config.steps


def test_where_nothing_fits_the_one_that_needs_least_is_told(config, monkeypatch):
    """A failure that tells no size is not the least."""
    planned = iter([OutOfMemoryError("RESOURCE_EXHAUSTED: hbm"), OutOfMemoryError(OOM)])
    on = pod("v5e", 256)
    monkeypatch.setattr(search, "MOST_COMPILATIONS", 2)
    monkeypatch.setattr(
        search, "make_plan", lambda name, tried, *_: made_plan(tried, on, fits=False, failure=next(planned))
    )
    result = search.search("4b", config, on, {}, 0.5, 1e9, lambda line: None)
    assert result.failure.needed_bytes == pytest.approx(24.11 * GIB)


def test_search_gives_every_chip_a_row(config):
    few = replace(config, data=replace(config.data, batch_rows=16), optimizer=OptimizerConfig(warmup_steps=100))
    for tried in search.candidates(few, pod("v5e", 512, slices=2)):
        mesh = tried.mesh
        assert mesh.replica % 2 == 0 and mesh.replica * mesh.fsdp * mesh.tensor == 512
        assert tried.data.batch_rows == 512 // mesh.tensor
        # As many positions: what is printed is what was priced.
        assert tried.steps * tried.data.batch_rows == pytest.approx(few.steps * 16, rel=0.02)
        assert tried.optimizer.warmup_steps == pytest.approx(0.1 * tried.steps, abs=1)
        assert f"--steps={tried.steps}" in search.settings(tried)
    grown = {tried.data.batch_rows for tried in search.candidates(config, pod("v5e", 96))}
    assert grown == {576, 528, 516}, "512 rows on 96, 48, 24 and 12 shards"
    words = search.settings(few)
    assert "--data.batch-rows=16" in words and "--model.decoder.remat=minimal" in words


def test_state_is_what_the_shardings_hold(config):
    """The tower's and the resampler's widths do not divide by 256: every chip holds them whole."""
    parameters = estimates.parameters_of(config)
    assert sum(math.prod(parameter.shape) for parameter in parameters) == 4_359_257_219

    def held(replica, fsdp):
        return estimates.held(replace(config, mesh=MeshConfig(replica, fsdp)), parameters)

    frozen = sum(math.prod(parameter.shape) for parameter in parameters if not parameter.trains)
    assert held(1, 1).state == 4 * (4 * (4_359_257_219 - frozen) + frozen) and held(1, 1).gathered == 0
    assert held(2, 128).state < 0.3 * held(1, 256).state
    assert held(2, 128).reduced < 0.6 * held(1, 256).reduced


def test_a_run_of_another_model_is_no_plan(config):
    with pytest.raises(ValueError, match="only stages of the whole model"):
        bounds.work(replace(config, model=sizes.PHI3_MINI))


@pytest.mark.parametrize("name", ["v5litepod-8", "v5e", "v5p:16", "v9:2x2", "v4:4x4", "v6e:2x2x2", "V5E:2x2", ""])
def test_topologies_that_do_not_exist(name):
    with pytest.raises(ValueError, match=f"--topology: got '{name}', wanted .*v5e:16x16"):
        topology.find_topology(name)


def test_without_libtpu_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"compiler is missing; `pip install xgenmm_jax\[plan\]`"):
        topology.find_topology("v5e:2x2")


def test_a_program_that_this_jaxlib_cannot_read_is_told():
    compiled = NonCallableMock(spec=jax.stages.Compiled)
    compiled.as_text.side_effect = jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure async-update")
    with pytest.raises(ValueError, match="cannot read the program .* v6e need 0.12"):
        program.text_of(compiled)
