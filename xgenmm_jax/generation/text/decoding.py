"""How answers are written: their length, beam search, sampling."""

from dataclasses import dataclass, fields, replace

from xgenmm_jax.generation.arguments import real, whole

LEAST_TEMPERATURE = 1e-30
"""The lowest above 0: logits divided by less overflow."""


@dataclass(frozen=True)
class Decoding:
    """How answers are written; by default greedily, the likeliest token at each step.

    Examples: Decoding(temperature=0.7, top_p=0.9, seed=3) samples, Decoding(num_beams=5) searches.

    Numbers may be of any kind, also NumPy's or JAX's scalars; they are stored as Python's. Raises ValueError for what
    is no such number, is out of range or means nothing, as top_p at temperature 0.

    Source: names, order and meaning are those of Hugging Face's generate (transformers 4.41.1). The defaults are those
    of the base model's demonstration, docs/reference/tokens.md#base-prompts.
    """

    max_new_tokens: int = 256
    """The longest answer in tokens: 1 to 1024."""
    num_beams: int = 1
    """More than 1: beam search with this many beams, at temperature 0."""
    length_penalty: float = 1.0
    """Of beam search: an answer's score is its log-probability / length^penalty; above 0 favours long answers, below 0
    short ones."""
    temperature: float = 0.0
    """Above 0: samples from softmax(logits / temperature) instead of taking the likeliest token."""
    top_k: int = 0
    """Samples from this many likeliest tokens; 0: from all."""
    top_p: float = 1.0
    """Samples from the fewest tokens whose probabilities add up to this: above 0, at most 1."""
    seed: int = 0
    """Of the samples: another seed, any whole number, gives another answer."""
    min_new_tokens: int = 0
    """The shortest answer in tokens: before so many none ends, which may not be more than max_new_tokens."""

    def __post_init__(self):
        numbers = {
            "max_new_tokens": whole("max_new_tokens", self.max_new_tokens, 1),
            "num_beams": whole("num_beams", self.num_beams, 1),
            "length_penalty": real("length_penalty", self.length_penalty),
            "temperature": real("temperature", self.temperature),
            "top_k": whole("top_k", self.top_k, 0),
            "top_p": real("top_p", self.top_p),
            "seed": whole("seed", self.seed),
            "min_new_tokens": whole("min_new_tokens", self.min_new_tokens, 0),
        }
        for name, number in numbers.items():
            object.__setattr__(self, name, number)
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"generation: got min_new_tokens {self.min_new_tokens} above max_new_tokens {self.max_new_tokens}; "
                "give at most as many."
            )
        if self.num_beams > 1 and self.temperature:
            raise ValueError(
                f"generation: got num_beams {self.num_beams} and temperature {self.temperature}; give 1 beam, or for "
                "several temperature 0."
            )
        if self.temperature:
            self._check_sampling()
        elif self.top_k or self.top_p != 1:
            raise ValueError(
                f"sampling: got top_k {self.top_k} and top_p {self.top_p} at temperature 0, where nothing is drawn; "
                "give a temperature, as 1.0."
            )

    def _check_sampling(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"sampling: got temperature {self.temperature}; give more than 0, or decode greedily.")
        if self.temperature < LEAST_TEMPERATURE:
            raise ValueError(
                f"sampling: got temperature {self.temperature}, by which float32 cannot divide; give "
                f"{LEAST_TEMPERATURE} or more, or 0 for the likeliest token."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling: got top_p {self.top_p}; give more than 0 and at most 1.")

    def __repr__(self) -> str:
        """As a dataclass's, `min_new_tokens` only where it is given: files of answers, also old ones, keep it."""
        shown = [one.name for one in fields(self) if one.name != "min_new_tokens" or self.min_new_tokens]
        return f"Decoding({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def static(self) -> "Decoding":
        """What programs are compiled for: the same at every limit and seed, which they take as arguments."""
        return replace(self, max_new_tokens=max(self.min_new_tokens, 1), seed=0)
