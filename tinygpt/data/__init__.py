"""From text to windows of token ids. Uses tokenizers, files and the configuration."""
