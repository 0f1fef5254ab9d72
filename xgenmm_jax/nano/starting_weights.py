"""The weights and the tokenizer that ship with the package: what nano's stage 1 begins with."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Its weights.json says of each file which command, seed and commit made it, with its checksum."""
VISION = str(WEIGHTS / "nano_vision.safetensors")
DECODER = str(WEIGHTS / "nano_language.safetensors")
TOKENIZER = str(WEIGHTS / "nano_tokenizer.model")
