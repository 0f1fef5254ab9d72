"""Writes tests/goldens/llama_tiny/: tiny Llama and Qwen2 models of transformers with their logits.

    python -m tools.make_llama_goldens        # needs the extra `parity`

Each folder is as `save_pretrained` writes it, with outputs.npz beside: token_ids [2, 12] and logits [2, 12, vocab].
"""

from pathlib import Path
import shutil

import numpy as np

FOLDER = Path(__file__).parents[1] / "tests/goldens/llama_tiny"
SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "pad_token_id": 0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES = {
    "plain": ("llama", {"num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
    "llama3_grouped_tied": (
        "llama",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "tie_word_embeddings": True,
            "rope_parameters": LLAMA3,
        },
    ),
    "qwen2": ("qwen2", {"num_attention_heads": 4, "num_key_value_heads": 1, "rms_norm_eps": 1e-6}),
}


def make(kind: str, options: dict, folder: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Saves a model with random weights, norms and biases too; gives token ids and its logits."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config_class, model_class = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[
        kind
    ]
    model = model_class(config_class(**{**SIZES, **options}, attn_implementation="eager")).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(std * torch.randn_like(parameter) + (parameter.ndim == 1))
        ids = np.random.default_rng(seed).integers(0, model.config.vocab_size, (2, 12)).astype(np.int32)
        logits = model(torch.from_numpy(ids).long()).logits.numpy()
    model.save_pretrained(folder, max_shard_size="6KB")
    return ids, logits


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, (kind, options) in CASES.items():
        ids, logits = make(kind, options, FOLDER / name)
        np.savez_compressed(FOLDER / name / "outputs.npz", token_ids=ids, logits=logits)


if __name__ == "__main__":
    main()
