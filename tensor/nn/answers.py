"""Names of PyTorch's modules, and what to write here. In the answers, a is the input of a model; x
and v are as in tensor/answers.py.
"""

from tensor.answers import HERE
from tensor.names import Answer, OtherNames

# name there -> code here, that does the same
MODEL = {
    "half": "model.to('float16')",
    "bfloat16": "model.to('bfloat16')",
    "float": "model.to('float32')",
    "double": "model.to('float64')",
    "type": "model.to('float64')",
    "cpu": "model.to('cpu')",
    "cuda": "model.to('cuda')",
    "register_forward_hook": "with tensor.record() as recording: model(a)",
    "register_forward_pre_hook": "with tensor.record() as recording: model(a)",
    "register_full_backward_hook": "model(a).register_hook(print)",
    "register_backward_hook": "model(a).register_hook(print)",
    "register_parameter": "model.scale = nn.Parameter([1.0])",
    "add_module": "model.last = nn.Linear(3, 3)",
    "register_module": "model.last = nn.Linear(3, 3)",
    "named_children": "list(model.named_modules())",
    "get_parameter": "dict(model.named_parameters())['weight']",
    "get_submodule": "dict(model.named_modules())['']",
    "get_buffer": "dict(model.named_buffers()).get('name')",
}

# class there -> code here
CLASSES = {
    "CosineSimilarity": HERE["cosine_similarity"],
    "PairwiseDistance": HERE["pairwise_distance"],
    "Buffer": "model.register_buffer('mean', v)",
    "LogSoftmax": "x.log_softmax(-1)",
    "ParameterDict": "{'scale': nn.Parameter([1.0])}",
}


class ModuleNames(OtherNames):
    """The names that Module answers."""


for _name, _code in MODEL.items():
    setattr(ModuleNames, _name, Answer(_name, _code))
