"""Traffic out of the text of a program that libtpu 0.0.51 compiled; the text is cut down to what is read."""

import numpy as np
import pytest

from xgenmm_jax.planning.collectives import Traffic, _group, traffic

TEXT = """HloModule jit_traced, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
}

%async_collective_fusion.1 (param_0.1: bf16[32,64]) -> bf16[128,64] {
  %all-gather.2 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=4] {'axis_0'}
}

%fused_computation.1 (param_0.2: bf16[32,64]) -> (bf16[32,64], bf16[128,64]) {
  %all-gather.1 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=4] {'axis_0'}
  ROOT %custom-call.1 = (bf16[32,64], bf16[128,64]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%fused_computation.2 (param_0.3: bf16[32,64]) -> bf16[128,64] {
  %all-gather.3 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=4] {'axis_0'}
  ROOT %custom-call.2 = bf16[128,64] custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.25 (input_0: f32[96,384]) -> f32[24,384] {
  %all-reduce.9 = f32[96,384]{1,0:T(8,128)} all-reduce(%input_0), channel_id=9, replica_groups=[1,4]<=[4], to_apply=%add
}

%taken (param: f32[]) -> f32[8] {
  ROOT %all-reduce.5 = f32[8]{0:T(128)} all-reduce(%param), channel_id=3, replica_groups={{0,1},{2,3}}, to_apply=%add
}

%other (param: f32[]) -> f32[8] {
  ROOT %broadcast = f32[8]{0:T(128)} broadcast(%param)
}

%condition (arg: (s32[], f32[8])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(32)
  ROOT %lt = pred[]{:T(512)} compare(%number, %constant.3), direction=LT
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = (bf16[32,64], bf16[128,64]) fusion(%w), kind=kCustom, calls=%fused_computation.1
  %fusion.2 = bf16[128,64] fusion(%fusion.1), kind=kOutput, calls=%async_collective_fusion.1
  %fusion.3 = bf16[128,64] fusion(%fusion.2), kind=kCustom, calls=%fused_computation.2
  %kernel.1 = f32[8] custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
  "block_q": 512
}}, metadata={op_name="splash"}, calls=%nothing
  %conditional.1 = f32[8] conditional(%p, %a, %b), branch_computations={%other, %taken}
}

ENTRY %main.1 (state: f32[8]) -> f32[8] {
  %while.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%tuple), condition=%condition, body=%body, metadata={}
  %fusion.4 = f32[24,384] fusion(%g), kind=kCustom, calls=%all-reduce-scatter.25
  %collective-permute-start.1 = (f32[24,128]{1,0:T(8,128)S(1)}, f32[24,128]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%s), channel_id=1, source_target_pairs={{0,1},{1,2}}
  %collective-permute-done.1 = f32[24,128]{1,0} collective-permute-done(%collective-permute-start.1)
  ROOT %all-reduce.7 = (f32[8]{0:T(128)}, f32[4]{0}) all-reduce(%x, %y), channel_id=2, replica_groups=[1,4]<=[4], to_apply=%add
}
"""  # noqa: E501


def test_loops_multiply_and_overlapped_collectives_count_once():
    measured = traffic(TEXT, devices=4)
    assert measured == {
        "all-gather": Traffic(32, 32 * 128 * 64 * 2 * 3 / 4, 0.0),
        "all-reduce": Traffic(33, 32 * 2 * 32 / 2 + 2 * 48 * 3 / 4, 0.0, 32 * 2 * 32 / 2 + 2 * 48 * 3 / 4),
        "reduce-scatter": Traffic(1, 96 * 384 * 4 * 3 / 4, 0.0, 96 * 384 * 4 * 3 / 4),
        "collective-permute": Traffic(1, 24 * 128 * 4, 0.0),
    }


def test_what_has_no_start_of_its_own_runs_alone():
    """Of two gathers in a loop one begins before other work and ends behind it."""
    alone = "  %all-gather.8 = bf16[128,64]{1,0} all-gather(%w), channel_id=8, replica_groups=[1,4]<=[4]\n"
    gathered = traffic(TEXT.replace("  %fusion.2 =", alone + "  %fusion.2 ="), devices=4)["all-gather"]
    assert gathered.link_bytes == 2 * gathered.exposed_bytes == 2 * 32 * 128 * 64 * 2 * 3 / 4


RECV = (
    "  %recv.2 = (f32[40,8,128]{2,1,0:T(8,128)}, u32[], token[]) recv(%after-all.2), channel_id=5, "
    'is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.7_0",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}\n'
)


IN_SLICES = TEXT.replace("mesh['axis_0'=4] {'axis_0'}", "{{0,1,2,3}}").replace("[1,4]<=[4]", "{{0,1,2,3}}")


@pytest.mark.parametrize("layout", ["", "{:S(2)}"])  # as jaxlib 0.10.2 and 0.12 write it
def test_what_goes_through_the_hosts_to_other_slices_counts(layout):
    """Inside the loop 32 times; of two slices each chip receives the other's share of the sum, and of four the rest."""
    text = IN_SLICES.replace("  %fusion.1 =", RECV.replace("u32[]", f"u32[]{layout}") + "  %fusion.1 =")
    one, two, four = traffic(TEXT, 4), traffic(text, 8, slices=2), traffic(text, 16, slices=4)
    share = 40 * 8 * 128 * 4
    assert two["all-reduce"].network_bytes == 32 * share and four["all-reduce"].network_bytes == 32 * 1.5 * share
    assert two["all-reduce"].times == one["all-reduce"].times + 32
    assert two["all-reduce"].link_bytes == one["all-reduce"].link_bytes


def test_what_is_not_understood_is_told():
    """A loop, or an exchange of slices, that is written in another way must not count as no traffic."""
    with pytest.raises(ValueError, match="nothing is exchanged between the 2 slices"):
        traffic(IN_SLICES, devices=8, slices=2)
    with pytest.raises(ValueError, match="exchange by MAIL"):
        traffic(IN_SLICES.replace("  %fusion.1 =", RECV.replace("ALL_REDUCE", "MAIL") + "  %fusion.1 ="), 8, 2)
    with pytest.raises(ValueError, match="communicates and nothing runs it"):
        traffic(TEXT.replace("body=%body", "steps=%body"), devices=4)


def test_what_crosses_slices_goes_over_the_network():
    """Two slices of two chips: a group of all four halves its array inside the slice before it leaves it."""
    measured = traffic(TEXT, devices=4, slices=2)
    assert measured["all-gather"] == Traffic(32, 32 * 16384 / 2, 32 * 16384 / 2 / 2)
    # {0, 1} lies in one slice: nothing of it leaves.
    links = 32 * 2 * 32 / 2 + 2 * 48 / 2
    assert measured["all-reduce"] == Traffic(33, links, 2 * 48 / 2 / 2, links)


@pytest.mark.parametrize(
    "written, expected",
    [
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", [0, 4]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", list(range(8))),
        ("replica_groups=[4,2]<=[2,4]T(1,0), use", [0, 4]),
        ("replica_groups=[2,4]<=[8], use", [0, 1, 2, 3]),
        ("replica_groups={{0,2},{1,3}}, use", [0, 2]),
        ("replica_groups={}, use", list(range(8))),
    ],
)
def test_groups_of_chips_in_every_notation(written, expected):
    np.testing.assert_array_equal(_group(written, 8), expected)
