"""Names of PyTorch and NumPy that are not here yet: the kind of function, and the names."""

import re

_LATER = """
    sorting and counting: sort argsort topk kthvalue unique median quantile mode bincount
        histogram histc searchsorted bucketize msort argpartition partition nanmedian
        nanquantile digitize unique_consecutive percentile nanpercentile isin lexsort
        histogramdd
    more elementwise functions: round floor ceil trunc frac fix log1p expm1 remainder fmod
        mod floor_divide divmod arctan arctan2 arcsin arccos atan atan2 asin acos asinh
        acosh atanh arcsinh arccosh arctanh erfc erfinv lgamma digamma mish hardtanh
        hardshrink i0 sinc logaddexp2 copysign heaviside signbit sgn nan_to_num polygamma
        mvlgamma igamma igammac ldexp frexp modf nextafter gcd lcm rint bitwise_left_shift
        bitwise_right_shift left_shift right_shift logcumsumexp rrelu
    more reductions: prod cumprod cummax cummin aminmax nanmean nanprod nanstd nanvar nanmax
        nanmin trapezoid trapz cumulative_sum cumulative_prod renorm cov corrcoef
    sums over named axes: einsum tensordot cross kron block_diag cartesian_prod combinations
    scattered writes: scatter scatter_add scatter_reduce index_add index_fill index_copy
        index_reduce put put_along_axis diagonal_scatter select_scatter slice_scatter
        as_strided_scatter fill_diagonal scatter_ scatter_add_ index_add_ index_fill_
        index_copy_
    more shapes: unfold as_strided rot90 triu_indices tril_indices diff gradient diag_embed
        diagflat insert delete resize resize_ rollaxis broadcast_tensors broadcast_arrays
        compress choose affine_grid convolve correlate interp vander block
    linear algebra: pinverse inverse det cholesky svd qr eig logdet slogdet solve lstsq lu
        matrix_power matrix_exp matrix_rank triangular_solve cholesky_solve cholesky_inverse
    images and sequences: conv1d conv2d conv3d max_pool1d max_pool2d avg_pool1d avg_pool2d
        interpolate fft stft batch_norm group_norm instance_norm embedding_bag Conv1d Conv2d
        Conv3d BatchNorm1d BatchNorm2d GroupNorm RNN LSTM GRU
        TransformerEncoderLayer TransformerDecoderLayer pixel_shuffle ctc_loss
        Transformer TransformerEncoder TransformerDecoder RNNCell LSTMCell GRUCell
        ConvTranspose2d MaxPool1d MaxPool2d AvgPool2d AdaptiveAvgPool2d BatchNorm3d
        InstanceNorm2d Dropout2d Upsample EmbeddingBag Bilinear CTCLoss
    more activations: Mish Hardtanh Hardswish GLU
    random draws: randperm multinomial poisson bernoulli_ exponential_ random_ log_normal_
        geometric_ cauchy_ alpha_dropout
    derivatives of higher order: jacobian hessian vmap Function
    settings: set_printoptions get_default_dtype set_default_dtype
        is_grad_enabled get_num_threads set_num_threads set_default_device
    optimisers, data: RMSprop Adagrad Adadelta Adamax NAdam RAdam LBFGS ReduceLROnPlateau
        DataLoader utils clip_grad_value_
    complex numbers: complex64 complex128 imag angle polar view_as_complex view_as_real
"""
LATER: dict[str, str] = {}
for _line in re.sub("\n {8,}", " ", _LATER).strip().splitlines():
    _kind, _, _names = _line.strip().partition(": ")
    LATER |= dict.fromkeys(_names.split(), _kind)
    LATER |= dict.fromkeys([f"{_name}_" for _name in _names.split()], _kind)
