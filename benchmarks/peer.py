"""The peer in torch: transformers' SigLIP and Phi-3 with SDPA, the released code's perceiver resampler between them.

Needs the extra `parity`. Names of the resampler are the released ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Phi3Config, Phi3ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from benchmarks.padding import Padded
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.masks import WindowConvention


class PerceiverAttention(nn.Module):
    """Latents attend to media and to themselves (open_flamingo's, as the released code masks it)."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, media: Tensor, latents: Tensor, mask: Tensor) -> Tensor:
        media, latents = self.norm_media(media), self.norm_latents(latents)
        query = self.to_q(latents)
        key, value = self.to_kv(torch.cat([media, latents], dim=1)).chunk(2, dim=-1)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(context.transpose(1, 2).flatten(-2))


class PerceiverResampler(nn.Module):
    """Patch features to vision tokens: layers of attention and feed-forward, a norm, a projection."""

    def __init__(self, config: ResamplerConfig):
        super().__init__()
        width, hidden = config.width, config.hidden
        self.latents = nn.Parameter(torch.randn(config.queries, width))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(width, config.heads, config.head_width),
                    nn.Sequential(
                        nn.LayerNorm(width),
                        nn.Linear(width, hidden, bias=False),
                        nn.GELU(),
                        nn.Linear(hidden, width, bias=False),
                    ),
                ]
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.out_width)
        self.checkpointing = False

    def forward(self, media: Tensor, image_mask: Tensor) -> Tensor:
        """media: [m P E]; image_mask: [m P], True where attended to. Gives [m Q D]."""
        latents = self.latents.expand(len(media), -1, -1)
        # Latents always attend to themselves.
        mask = F.pad(image_mask, (0, len(self.latents)), value=True)[:, None, None]
        for attention, feed_forward in self.layers:
            if self.checkpointing:
                latents = checkpoint(self._layer, attention, feed_forward, media, latents, mask, use_reentrant=False)
            else:
                latents = self._layer(attention, feed_forward, media, latents, mask)
        return self.projection(self.norm(latents))

    @staticmethod
    def _layer(attention: nn.Module, feed_forward: nn.Module, media: Tensor, latents: Tensor, mask: Tensor) -> Tensor:
        latents = attention(media, latents, mask) + latents
        return feed_forward(latents) + latents


class TorchBatch(NamedTuple):
    """`Padded` as tensors on a device. pixels: normalised, -1..1, channels first."""

    token_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    vision_index: Tensor
    pixels: Tensor
    image_mask: Tensor


def to_device(batch: Padded, device: str, dtype: torch.dtype) -> TorchBatch:
    """dtype: of the pixels."""
    tensors = Padded(*(torch.from_numpy(array).to(device) for array in batch))
    pixels = tensors.pixels.permute(0, 3, 1, 2).to(torch.float32)
    return TorchBatch(
        token_ids=tensors.token_ids.long(),
        attention_mask=tensors.attention_mask.long(),
        labels=tensors.labels.long(),
        vision_index=tensors.vision_index.long(),
        pixels=((pixels / 255 - 0.5) / 0.5).to(dtype).contiguous(),
        image_mask=tensors.image_mask,
    )


class Peer(nn.Module):
    """The whole model; the tower is frozen."""

    def __init__(self, config: VLMConfig):
        super().__init__()
        self.vision = SiglipVisionModel(siglip_config(config.vision)).requires_grad_(False).eval()
        self.resampler = PerceiverResampler(config.connector)
        self.decoder = make_decoder(config)

    def checkpoint_layers(self) -> None:
        """Resampler and decoder layers keep their input alone, as the released training does."""
        self.resampler.checkpointing = True
        self.decoder.gradient_checkpointing_enable({"use_reentrant": False})

    def embed(self, batch: TorchBatch) -> Tensor:
        """The decoder's input: [n T D]."""
        return self.splice(self.vision_tokens(batch), batch)

    def features(self, batch: TorchBatch) -> Tensor:
        with torch.no_grad():
            return self.vision(batch.pixels).last_hidden_state

    def vision_tokens(self, batch: TorchBatch) -> Tensor:
        return self.resampler(self.features(batch), batch.image_mask)

    def splice(self, vision_tokens: Tensor, batch: TorchBatch) -> Tensor:
        text = self.decoder.get_input_embeddings()(batch.token_ids)
        flat, index = vision_tokens.flatten(0, 1), batch.vision_index
        return torch.where((index >= 0)[..., None], flat[index.clamp(min=0)].to(text.dtype), text)

    def forward(self, batch: TorchBatch) -> Tensor:
        """The loss, averaged over supervised tokens."""
        return self.decoder(
            inputs_embeds=self.embed(batch),
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            use_cache=False,
        ).loss


def siglip_config(vision: ViTConfig) -> SiglipVisionConfig:
    """The tower without its pooled head, which nothing reads."""
    return SiglipVisionConfig(
        hidden_size=vision.width,
        intermediate_size=vision.hidden,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size_px,
        patch_size=vision.patch_px,
        layer_norm_eps=vision.epsilon,
        vision_use_head=False,
        attn_implementation="sdpa",
    )


def make_decoder(config: VLMConfig) -> Phi3ForCausalLM:
    """Phi-3 with one row and one column a logit of ours, and a bias at the head as in xGen-MM."""
    decoder = config.decoder
    # transformers counts the token itself.
    window = {
        WindowConvention.NONE: None,
        WindowConvention.W: decoder.window_size,
        WindowConvention.W_PLUS_1: decoder.window_size + 1,
    }
    model = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=decoder.logits,
            hidden_size=decoder.width,
            intermediate_size=decoder.hidden,
            num_hidden_layers=decoder.layers,
            num_attention_heads=decoder.heads,
            num_key_value_heads=decoder.kv_heads,
            rms_norm_eps=decoder.epsilon,
            sliding_window=window[decoder.window],
            max_position_embeddings=131072,
            original_max_position_embeddings=131072,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )
    model.lm_head = nn.Linear(decoder.width, decoder.logits)
    return model
