"""The weights and the tokenizer that ship with the package: what nano's stage 1 begins with, and its drawing."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Its weights.json says of each file which command, seed and commit made it, with its checksum. Commands have the names
that experiments have now; where a file itself says another one, that is "command_in_file"."""
VISION = str(WEIGHTS / "nano_vision.safetensors")
DECODER = str(WEIGHTS / "nano_language.safetensors")
PIXELS = str(WEIGHTS / "nano_pixels.safetensors")
"""What makes pixels of the features of VISION, and their scale."""
TOKENIZER = str(WEIGHTS / "nano_tokenizer.model")
