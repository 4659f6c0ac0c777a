"""From logits to text. Uses whatever has `decode` and a context, and knows no model."""
