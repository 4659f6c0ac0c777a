"""Generation on the GPU: a decoder's step, and the draw of the next token, as one CUDA graph.

few_rows.cu    the step of one or two texts: five kernels a layer
many_rows.py   the step of more texts, and the reading of prompts, by cuBLASLt
attention.cu   one query of each text over the cache
sampling.cu    the draw
"""

from tensor.kernels.cuda.generation import writing

__all__ = ["writing"]
