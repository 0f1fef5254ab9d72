"""Benchmarks of image generation: their prompts, their folders of pictures, and their scores of what others read of
the pictures (docs/reference/blip3o.md#image-benchmarks)."""
