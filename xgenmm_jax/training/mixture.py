"""What a run has really seen of each source of its mixture, beside the weights that it was to be seen with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


class MixtureShares:
    """Shares of each source in the samples and in the tokens of this host's rows, since the run began.

    Tokens are positions of a row, vision tokens included. They differ from the weights, which count samples: a document
    is longer than a caption.

    seen: `counts` of the checkpoint that the run goes on from; one of before they were kept has none.
    """

    def __init__(self, seen: Mapping[str, Sequence[int]]):
        self._samples = Counter({name: samples for name, (samples, _) in seen.items()})
        self._tokens = Counter({name: tokens for name, (_, tokens) in seen.items()})

    def add(self, seen: Mapping[str, Any]) -> None:
        """seen: of a batch, `rows.loading.Seen` by the name of the source; empty where the data do not tell."""
        for name, one in seen.items():
            self._samples[name] += one.samples
            self._tokens[name] += one.positions

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Samples and tokens of each source."""
        return {name: (count, self._tokens[name]) for name, count in self._samples.items()}

    @property
    def figures(self) -> dict[str, float]:
        """{"share/samples/obelics": 0.175, "share/tokens/obelics": 0.41, ...}; nothing where there is one source."""
        if len(self._samples) < 2:
            return {}
        figures = {}
        for kind, counts in (("samples", self._samples), ("tokens", self._tokens)):
            total = max(1, sum(counts.values()))
            figures |= {f"share/{kind}/{name}": count / total for name, count in sorted(counts.items())}
        return figures
