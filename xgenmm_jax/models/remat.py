"""Rematerialisation: what a layer saves for the backward pass, and layers repeated by a scan.

All else is computed again in the backward pass. Every block that is scanned marks these results (`checkpoint_name`):

    layer_input   the stream that enters the layer
    qkv           queries, keys and values as they leave their linear maps
    context       attention's result, and the sums of its softmax where a kernel gives them
    out_proj      the linear map behind attention
    mlp_in        the linear maps into the feed-forward, before the activation
    MATMUL        the result of every linear map

The feed-forward's result has no name of its own: no backward pass needs it, only the sum that enters the next layer.
"""

from typing import Any, Literal, get_args

from flax import linen as nn
import jax

from xgenmm_jax.models import dropout, lora
from xgenmm_jax.ops.matmul import MATMUL

Remat = Literal[
    "none",
    "minimal_with_context",
    "minimal",
    "save_dot_with_context_except_mlp",
    "save_dot_except_mlp",
    "save_qkv_proj",
    "save_out_proj",
    "full",
    "minimal_offloaded",
    "qkv_offloaded",
    "inputs_offloaded",
]
"""What a layer saves for the backward pass, from most memory and least time to the reverse; then what goes to the
host's memory meanwhile. none: everything is saved. minimal: results of linear maps (not attention's products);
minimal_with_context: attention's too. full: the layer's input alone. The others: see SAVED_NAMES. The ladder and its
names are MaxText's (published: minimal on v5p, full on v5e, inputs_offloaded on v6e)."""

SAVED_NAMES: dict[str, tuple[str, ...]] = {
    "save_dot_with_context_except_mlp": ("qkv", "context", "out_proj"),
    "save_dot_except_mlp": ("qkv", "out_proj"),
    "save_qkv_proj": ("qkv",),
    "save_out_proj": ("out_proj",),
}
"""Policies that save named results on the device."""

OFFLOADED_NAMES: dict[str, tuple[str, ...]] = {
    "minimal_offloaded": ("qkv", "out_proj", "mlp_in"),
    "qkv_offloaded": ("qkv",),
    "inputs_offloaded": ("layer_input", "qkv", "out_proj"),
}
"""Policies that move named results to the host's memory and back."""

UNROLLED_LAYERS = 4
"""Stacks of at most so many layers, nano's, are unrolled in the compiled program; their parameters stay stacked.
Unrolled layers of full size run no faster and compile for long."""


def remat_policy(remat: str) -> Any:
    """The jax.checkpoint policy of a name. None saves nothing ('full'); do not call it for 'none'.

    Raises ValueError that lists the names where there is no such policy.
    """
    policies = jax.checkpoint_policies
    if remat == "full":
        return None
    if remat == "minimal":
        return policies.save_only_these_names(MATMUL)
    if remat == "minimal_with_context":
        return policies.save_only_these_names(MATMUL, "context")
    if remat in SAVED_NAMES:
        return policies.save_only_these_names(*SAVED_NAMES[remat])
    if remat in OFFLOADED_NAMES:
        return policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=list(OFFLOADED_NAMES[remat]),
            offload_src="device",
            offload_dst="pinned_host",
        )
    raise ValueError(f"remat: got {remat!r}, wanted one of {', '.join(get_args(Remat))}; choose one of these.")


def scan_layers(block: type[nn.Module], layers: int, remat: Remat, *, scanned_inputs: int = 0, broadcast_inputs: int):
    """`block` repeated `layers` times, its parameters stacked on a leading axis named "layers".

    block's call is (carry, *scanned, *broadcast) -> (carry, output); scanned inputs and outputs are stacked by layer.
    """
    if remat != "none":
        block = nn.remat(block, policy=remat_policy(remat), prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0, "attention": 0},
        split_rngs={"params": True, lora.STREAM: True, dropout.STREAM: True},
        in_axes=(0,) * scanned_inputs + (nn.broadcast,) * broadcast_inputs,
        length=layers,
        # A loop of few small layers costs more in copies than it saves in compilation: 20 to 30 % of a nano step.
        unroll=layers if layers <= UNROLLED_LAYERS else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
