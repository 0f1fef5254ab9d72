"""What a process does that walks and measures shards: it opens a source once and writes into the index."""

from collections.abc import Sequence
from typing import NamedTuple

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index.counts import Counts
from xgenmm_jax.data.index.manifest import Manifest, ShardEntry
from xgenmm_jax.data.index.measure import Measurer
from xgenmm_jax.data.index.source_index import SourceIndex
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer


class Measuring(NamedTuple):
    """What sizes are measured by. tokenizer: path, as `Tokenizer.load` takes it. fitting: what decides about crops."""

    tokenizer: str
    chat: ChatStyle
    fitting: tuple[AnyRes, RowConfig] | None = None

    def measurer(self) -> Measurer:
        """Raises ValueError where the tokenizer cannot be read."""
        return Measurer(Tokenizer.load(self.tokenizer), self.chat)


class Measured(NamedTuple):
    """A shard of which the sizes are there now."""

    counts: Counts
    is_new: bool


class Worker:
    """What one process does; any number of them work on different shards of the same sources."""

    def __init__(self, sources: Sequence[ShardedSource], measuring: Measuring | None):
        self._indexes: list[SourceIndex | None] = [None] * len(sources)
        self._manifests: list[Manifest | None] = [None] * len(sources)
        self._sources, self._measuring = sources, measuring
        self._measurer = None if measuring is None else measuring.measurer()

    def entry(self, task: tuple[int, int]) -> ShardEntry:
        """What the manifest will say of a shard. task: numbers of the source and of the shard."""
        source, shard = task
        return self._index(source).entry(shard)

    def measure(self, task: tuple[int, int]) -> Measured:
        """Counts the records of a shard, which is measured where it has no sizes, or damaged ones."""
        source, shard = task
        index, manifest = self._index(source), self._manifest(source)
        assert self._measurer is not None and self._measuring is not None
        try:
            sizes = index.sizes(shard, manifest)
        except SourceError:
            sizes = None  # written anew
        is_new = sizes is None
        counts = Counts()
        counts.add_sizes(
            index.measure(shard, manifest, self._measurer) if sizes is None else sizes,
            index.names[shard],
            self._measuring.fitting,
        )
        return Measured(counts, is_new)

    def _index(self, source: int) -> SourceIndex:
        index = self._indexes[source]
        if index is None:
            index = self._indexes[source] = self._sources[source].source_index()
        return index

    def _manifest(self, source: int) -> Manifest:
        manifest = self._manifests[source]
        if manifest is None:
            manifest = self._manifests[source] = self._index(source).manifest()
        assert manifest is not None, "measured before its manifest is written"
        return manifest
