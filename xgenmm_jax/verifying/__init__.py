"""What one checks by hand after a download or a conversion: tensors, tokenizer, views, outputs, a few steps."""
