"""The public interface, for notebooks and the command line.

    lmm = load("runs/demo/sft_multi")          # or a released folder
    lmm.processor, lmm.params, lmm.config
    out = lmm.forward([lmm.processor.prompt("How many?", ["a.png"]).token_ids], [["a.png"]], probe=("decoder/layers",))
    lmm.generate(["How many red shapes are there?"], images=[["a.png"]], max_new_tokens=20)
    lmm.generate(["Describe the picture."], images=[["a.png"]], decoding=Decoding(temperature=0.7, top_p=0.9, seed=3))

These names are stable: what is here keeps its meaning. `xgenmm_jax` re-exports them.
"""

from xgenmm_jax.api.lmm import LMM, Output
from xgenmm_jax.api.loading import load
from xgenmm_jax.api.processor import Processor
from xgenmm_jax.data.records import Crops
from xgenmm_jax.generation.text.decoding import Decoding

__all__ = ["LMM", "Crops", "Decoding", "Output", "Processor", "load"]
