"""The official model at a tiny random size: its tensors as our parameters, its inputs as our batches.

Goldens: `tests/goldens/xgenmm_tiny28`, made by the official PyTorch code (torch 2.13, transformers 4.41.1, float32).
"""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.grouping import Sampling
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.models.vlm import VLMConfig

FOLDER = Path(__file__).parents[1] / "goldens" / "xgenmm_tiny28"
IMAGE_ID = 300
GRID = 2
"""Patches along a side of a crop."""
CONFIG = VLMConfig(
    vision=ViTConfig(image_size_px=28, patch_px=14, width=32, hidden=64, layers=2, heads=2),
    connector=ResamplerConfig(width=32, layers=6, heads=16, head_width=96, hidden=128, queries=8, out_width=64),
    decoder=Phi3Config(vocab_rows=320, initial_len=300, width=64, hidden=128, layers=2, heads=4, kv_heads=4),
    sampling=Sampling.STRIPS,
)


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@cache
def parameters() -> dict:
    tensors = load_file(FOLDER / "model.safetensors")
    tree = parameters_of({name.removeprefix("vlm."): tensor for name, tensor in tensors.items()})
    return jax.tree.map(jnp.asarray, tree)


def parameters_of(t: dict[str, np.ndarray]) -> dict:
    """Our tree of tensors in the released names."""

    def norm(name):
        return {"scale": t[f"{name}.weight"], "bias": t[f"{name}.bias"]}

    def linear(name):
        bias = {"bias": t[f"{name}.bias"]} if f"{name}.bias" in t else {}
        return {"kernel": t[f"{name}.weight"].T, **bias}

    def stack(layer, count):
        return jax.tree.map(lambda *x: np.stack(x), *[layer(i) for i in range(count)])

    def heads_in(weight, heads):  # [N*H, E] -> [E, N, H]
        return weight.reshape(heads, -1, weight.shape[1]).transpose(2, 0, 1)

    def heads_out(weight, heads):  # [E, N*H] -> [N, H, E]
        return weight.reshape(weight.shape[0], heads, -1).transpose(1, 2, 0)

    def vision_layer(i):
        name = f"vision_encoder.encoder.layers.{i}"
        projections = [f"{name}.self_attn.{x}_proj" for x in "qkv"]
        return {
            "norm1": norm(f"{name}.layer_norm1"),
            "norm2": norm(f"{name}.layer_norm2"),
            "attention": {
                "qkv": {
                    "kernel": np.stack([heads_in(t[f"{p}.weight"], 2) for p in projections], axis=1),
                    "bias": np.stack([t[f"{p}.bias"].reshape(2, -1) for p in projections]),
                },
                "out": {
                    "kernel": heads_out(t[f"{name}.self_attn.out_proj.weight"], 2),
                    "bias": t[f"{name}.self_attn.out_proj.bias"],
                },
            },
            "mlp": {"fc1": linear(f"{name}.mlp.fc1"), "fc2": linear(f"{name}.mlp.fc2")},
        }

    head = "vision_encoder.head"
    query, key, value = np.split(t[f"{head}.attention.in_proj_weight"], 3)
    query_bias, key_bias, value_bias = (x.reshape(2, -1) for x in np.split(t[f"{head}.attention.in_proj_bias"], 3))
    vision = {
        "patch_embedding": {
            "kernel": t["vision_encoder.embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
            "bias": t["vision_encoder.embeddings.patch_embedding.bias"],
        },
        "position_embedding": t["vision_encoder.embeddings.position_embedding.weight"],
        "layers": stack(vision_layer, 2),
        "post_norm": norm("vision_encoder.post_layernorm"),
        "head": {
            "probe": t[f"{head}.probe"][0],
            "query": {"kernel": heads_in(query, 2), "bias": query_bias},
            "key_value": {
                "kernel": np.stack([heads_in(key, 2), heads_in(value, 2)], axis=1),
                "bias": np.stack([key_bias, value_bias]),
            },
            "out": {
                "kernel": heads_out(t[f"{head}.attention.out_proj.weight"], 2),
                "bias": t[f"{head}.attention.out_proj.bias"],
            },
            "norm": norm(f"{head}.layernorm"),
            "mlp": {"fc1": linear(f"{head}.mlp.fc1"), "fc2": linear(f"{head}.mlp.fc2")},
        },
    }

    def resampler_layer(i):
        name = f"vision_tokenizer.layers.{i}"
        key, value = np.split(t[f"{name}.0.to_kv.weight"], 2)
        return {
            "norm_media": norm(f"{name}.0.norm_media"),
            "norm_latents": norm(f"{name}.0.norm_latents"),
            "to_q": {"kernel": heads_in(t[f"{name}.0.to_q.weight"], 16)},
            "to_kv": {"kernel": np.stack([heads_in(key, 16), heads_in(value, 16)], axis=1)},
            "to_out": {"kernel": heads_out(t[f"{name}.0.to_out.weight"], 16)},
            "norm_ff": norm(f"{name}.1.0"),
            "ff1": linear(f"{name}.1.1"),
            "ff2": linear(f"{name}.1.3"),
        }

    connector = {
        "latents": t["vision_tokenizer.latents"],
        "layers": stack(resampler_layer, 6),
        "norm": norm("vision_tokenizer.norm"),
        "projection": linear("vision_tokenizer.projection"),
    }

    def decoder_layer(i):
        name = f"lang_model.model.layers.{i}"
        # q, k and v below each other -> [D, K, G + 2, H]; here K = N, G = 1
        qkv = t[f"{name}.self_attn.qkv_proj.weight"].reshape(3, 4, 16, 64).transpose(3, 1, 0, 2)
        gate_up = t[f"{name}.mlp.gate_up_proj.weight"].reshape(2, 128, 64).transpose(2, 0, 1)
        return {
            "input_norm": {"scale": t[f"{name}.input_layernorm.weight"]},
            "post_attention_norm": {"scale": t[f"{name}.post_attention_layernorm.weight"]},
            "qkv_proj": {"kernel": qkv},
            "o_proj": {"kernel": heads_out(t[f"{name}.self_attn.o_proj.weight"], 4)},
            "gate_up_proj": {"kernel": gate_up},
            "down_proj": linear(f"{name}.mlp.down_proj"),
        }

    decoder = {
        "embedding": t["lang_model.model.embed_tokens.weight"],
        "additional_embedding": t["lang_model.model.embed_tokens.additional_embedding.weight"],
        "layers": stack(decoder_layer, 2),
        "norm": {"scale": t["lang_model.model.norm.weight"]},
        "head_kernel": t["lang_model.lm_head.weight"].T,
        "head_bias": t["lang_model.lm_head.bias"],
        "additional_head_kernel": t["lang_model.lm_head.additional_fc.weight"].T,
        "additional_head_bias": t["lang_model.lm_head.additional_fc.bias"],
    }
    return {"vision": vision, "connector": connector, "decoder": decoder}


def best_grid(size_wh, grids=((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)), unit=28) -> tuple[int, int]:
    """Columns and rows that the official code chooses (spec section 3)."""
    width, height = (int(x) for x in size_wh)
    best, best_fit, best_waste = grids[0], 0, float("inf")
    for columns, rows in grids:
        canvas_width, canvas_height = columns * unit, rows * unit
        scale = min(canvas_width / width, canvas_height / height)
        fit = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_width * canvas_height - fit
        if fit > best_fit or (fit == best_fit and waste < best_waste):
            best, best_fit, best_waste = (columns, rows), fit, waste
    return best


def valid_cells(size_wh, columns: int, rows: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of spec 2.4, step 2."""
    width, height = (int(x) for x in size_wh)
    canvas_width, canvas_height = GRID * columns, GRID * rows
    if width / height > canvas_width / canvas_height:
        kept = int(height * (canvas_width / width))
        pad = (canvas_height - kept) // 2
        return pad, canvas_height - pad, 0, canvas_width
    kept = int(width * (canvas_height / height))
    pad = (canvas_width - kept) // 2
    return 0, canvas_height, pad, canvas_width - pad


def make_batch(token_rows, image_rows, length: int, queries: int = 8, per_image: bool = False, left: bool = False):
    """A Batch of one sample a row.

    token_rows: ids with one `<image>` each. image_rows: per row, images as (pixels [n 3 S S] normalised, size, columns,
    rows). per_image: one group of vision tokens an image and not a crop.
    """
    rows = len(token_rows)
    crops = max(1, max(sum(len(image[0]) for image in images) for images in image_rows))
    images_max = max(1, max(len(images) for images in image_rows))
    batch = Batch(
        token_ids=np.zeros((rows, length), np.int32),
        segment_ids=np.zeros((rows, length), np.int32),
        positions=np.zeros((rows, length), np.int32),
        loss_mask=np.zeros((rows, length), bool),
        slot=np.full((rows, length), -1, np.int32),
        pixels=np.zeros((rows, crops, 28, 28, 3), np.uint8),
        crop_image=np.full((rows, crops), -1, np.int32),
        crop_segment=np.zeros((rows, crops), np.int32),
        image_grid=np.zeros((rows, images_max, 2), np.int32),
        image_size_px=np.zeros((rows, images_max, 2), np.int32),
        image_valid=np.zeros((rows, images_max, 4), np.int32),
    )
    pixels = np.zeros((rows, crops, 28, 28, 3), np.float32)
    for row, (ids, images) in enumerate(zip(token_rows, image_rows, strict=True)):
        first, crop, expanded, slots = [], 0, [], []
        for number, (image_pixels, size, columns, lines) in enumerate(images):
            first.append(crop)
            pixels[row, crop : crop + len(image_pixels)] = image_pixels.transpose(0, 2, 3, 1)
            batch.crop_image[row, crop : crop + len(image_pixels)] = number
            batch.crop_segment[row, crop : crop + len(image_pixels)] = 1
            batch.image_size_px[row, number] = size
            if len(image_pixels) > 1:
                batch.image_grid[row, number] = columns, lines
                batch.image_valid[row, number] = valid_cells(size, columns, lines)
            crop += len(image_pixels)
        number = 0
        for token in ids:
            if token != IMAGE_ID:
                expanded.append(token)
                slots.append(-1)
                continue
            groups = 1 if per_image else len(images[number][0])
            start = (number if per_image else first[number]) * queries
            expanded += [token] * (groups * queries)
            slots += range(start, start + groups * queries)
            number += 1
        where = slice(length - len(expanded), length) if left else slice(0, len(expanded))
        batch.token_ids[row, where] = expanded
        batch.slot[row, where] = slots
        batch.segment_ids[row, where] = 1
        batch.positions[row, where] = np.arange(len(expanded))
    # The goldens' pixels are floats that are no bytes: tests hand them to the tower past the normalisation.
    return batch, pixels
