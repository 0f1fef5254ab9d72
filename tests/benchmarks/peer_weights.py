"""Our parameters in the peer's modules."""

import jax
import numpy as np

from xgenmm_jax.convert import phi3_hf, siglip_hf, xgenmm
from xgenmm_jax.convert.rules import Rule
from xgenmm_jax.training.optimizer import path_name


def give(peer, config, params) -> None:
    """Writes a tree of parameters into a `Peer`."""
    import torch

    flat = {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    state = {
        **tensors(flat, siglip_hf.vision_rules(config.vision, "vision.")),
        **tensors(flat, xgenmm.connector_rules(config.connector, "resampler.")),
        **tensors(flat, phi3_hf.decoder_rules(config.decoder, "decoder.")),
    }
    state = {name: tensor for name, tensor in state.items() if not name.startswith("vision.head")}
    first = config.decoder.initial_len
    more = {"decoder.model.embed_tokens.weight": flat["decoder/additional_embedding"]}
    more["decoder.lm_head.weight"] = flat["decoder/additional_head_kernel"].T
    for name, rows in more.items():
        state[name] = np.concatenate([state[name][:first], rows])
    state["decoder.lm_head.bias"] = np.concatenate(
        [flat["decoder/head_bias"][:first], flat["decoder/additional_head_bias"]]
    )
    peer.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in state.items()})


def tensors(flat: dict[str, np.ndarray], rules: tuple[Rule, ...]) -> dict[str, np.ndarray]:
    """Names and values in the other layout; pieces of one tensor are put together in their order."""
    parts: dict[str, list[np.ndarray]] = {}
    for rule in rules:
        for layer in rule.slices():
            leaf = flat[rule.ours] if layer is None else flat[rule.ours][layer]
            pieces = rule.pieces(layer)
            for piece, part in zip(pieces, rule.transform.back(leaf, len(pieces)), strict=True):
                parts.setdefault(piece.name, []).append(part)
    return {name: np.concatenate(several) if len(several) > 1 else several[0] for name, several in parts.items()}
