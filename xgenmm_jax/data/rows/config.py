"""What a run trains on and how its batches are loaded."""

from dataclasses import dataclass

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.rows.phases import Phase, check_phases
from xgenmm_jax.data.source import Source
from xgenmm_jax.data.text.chat import ChatStyle


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are loaded; it never changes which.

    threads: read and decode samples, in each process. workers: processes beside this one, which build a batch each; 0
    (the default) is threads alone, which was as fast on two cores. ahead: batches prepared before they are asked for.
    """

    threads: int = 2
    workers: int = 0
    ahead: int = 4


@dataclass(frozen=True)
class Asking:
    """How a trained model is asked: the views of an image, and how a conversation is written."""

    anyres: AnyRes
    chat: ChatStyle = ChatStyle()


@dataclass(frozen=True)
class DataConfig:
    """What a run trains on.

    mixture: (source, weight); weights are relative numbers of samples.
    tokenizer: path of a SentencePiece model, or of a tokenizer.json or its folder.
    batch_rows: rows of the global batch. window: samples that are packed together.
    max_bad_rate: the run stops where more than this share of the last 10,000 samples of one source cannot be read.
    phases: (window, weights of the first sources), each in force from its window on, the last of them the mixture's;
    (): the mixture's from the beginning. A run that goes on with other weights writes its own.
    held_out_one_in: of sources without shards that are held out, every so many-th record is kept from training, for
    the held-out loss: 100 is one in a hundred; 0: none.
    target_px: side of the images that captions are to become (`records.TextToImage`), of which a row has room for as
    many as for segments; 0: nothing is drawn, and rows are a `Batch` alone.
    asked: how the trained model is asked where rows say nothing of it, as those of captions to draw; None: by `anyres`
    and `chat`, as it is trained.
    """

    mixture: tuple[tuple[Source, float], ...]
    tokenizer: str
    row: RowConfig
    anyres: AnyRes
    batch_rows: int
    window: int = 2048
    chat: ChatStyle = ChatStyle()
    loader: LoaderConfig = LoaderConfig()
    max_bad_rate: float = 0.01
    phases: tuple[tuple[int, tuple[float, ...]], ...] = ()
    held_out_one_in: int = 0
    target_px: int = 0
    asked: Asking | None = None

    def __post_init__(self):
        crops, row = self.anyres.max_crops, self.row
        if crops > row.crops:
            raise ValueError(
                f"data: an image takes up to {crops} crops and a row holds {row.crops}; "
                f"raise row.crops to {crops} or leave large grids out of anyres.grids."
            )
        tokens = row.vision_tokens * (crops if row.vision_tokens_per == "crop" else 1)
        if tokens >= row.length:
            raise ValueError(
                f"data: an image takes up to {tokens} vision tokens and a row holds {row.length} positions; "
                "raise row.length or leave large grids out of anyres.grids."
            )
        if self.window < 1 or self.batch_rows < 1:
            raise ValueError(f"data: window {self.window}, batch_rows {self.batch_rows}; wanted 1 or more.")
        if self.target_px < 0:
            raise ValueError(f"data.target_px: got {self.target_px}; wanted 0, or the side of images to draw.")
        if self.held_out_one_in < 0 or self.held_out_one_in == 1:
            raise ValueError(
                f"data.held_out_one_in: got {self.held_out_one_in}; wanted 0, or 2 or more: with 100, one record in a "
                "hundred is kept from training."
            )
        if self.phases:
            check_phases(self.order_phases, len(self.mixture))
            last, weights = self.order_phases[-1].weights, tuple(float(weight) for _, weight in self.mixture)
            if last != weights:
                raise ValueError(
                    f"data.phases: got the weights {last} from window {self.phases[-1][0]} on, wanted the mixture's "
                    f"{weights}; make them equal, or leave phases out (a run that goes on keeps its own)."
                )

    @property
    def asking(self) -> Asking:
        return self.asked or Asking(self.anyres, self.chat)

    @property
    def order_phases(self) -> tuple[Phase, ...]:
        """All weights, as the order takes them."""
        phases = self.phases or ((0, tuple(weight for _, weight in self.mixture)),)
        return tuple(Phase(window, tuple(map(float, weights))) for window, weights in phases)
