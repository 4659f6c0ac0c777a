"""From text to windows of token ids, and from pairs of texts to batches. Uses tokenizers, files and
the configuration.
"""
