"""Text to token ids and back."""

from tinygpt.tokenizers.character import CharacterTokenizer, TokenizerError

__all__ = ["CharacterTokenizer", "TokenizerError"]
