// GELU in its tanh form, and its gradient.      Hendrycks & Gimpel 2016, section 2
//
//   y = x P,  P = (1 + tanh u) / 2 = 1 / (1 + e^(-2u)),  u = sqrt(2 / pi) (x + 0.044715 x^3)
//   dx = slope * dy
//
// From the side of 0, where no digits are lost, with z = |x| and q = 1 / (1 + e^(2u)) at z:
//
//   y = max(x, 0) - z q,   slope = s for x <= 0, else 1 - s,   s = q (1 - 2 z u' (1 - q))

// e^(2u). In float32 an error of 2u = 80 would grow: 2u is kept as two floats, and
// e^(t + rest) = e^t (1 + rest).
__device__ inline W exp_2u(W z) {
    const double linear = 1.5957691216057308, cubic = 0.07135481627260025;  // of z and z^3 in 2u
    if constexpr (sizeof(T) == 2) {
        return __expf((float)linear * z + (float)cubic * z * z * z);
    } else if constexpr (sizeof(T) == 8) {
        return exp((linear + cubic * z * z) * z);
    } else {
        const float a = linear, b = cubic, a_rest = linear - a, b_rest = cubic - b;
        float square = z * z, bend = b * square, rate = a + bend, t = rate * z;
        float square_rest = fmaf(z, z, -square);
        float bend_rest = fmaf(b, square, -bend) + b * square_rest + b_rest * square;
        float larger = a > bend ? a : bend, smaller = a > bend ? bend : a;
        float rate_rest = (smaller - (rate - larger)) + bend_rest + a_rest;
        float rest = fmaf(rate, z, -t) + rate_rest * z;
        return expf(t) * (1 + rest);
    }
}

// 1 / (1 + e^(2u))
__device__ inline W tail(W z) {
    if constexpr (sizeof(T) == 8) return 1 / (1 + exp_2u(z));
    return __fdividef(1, 1 + exp_2u(z));
}

// |x|; q is 0 long before 1000, and infinity times 0 would be NaN
__device__ inline W magnitude(W x) { return fabs(x) > 1000 ? (W)1000 : fabs(x); }

__device__ inline W gelu(W x) {
    W z = magnitude(x);
    return (x > 0 ? x : (W)0) - z * tail(z);
}

__device__ inline W gelu_gradient(W dy, W x) {
    const W linear = 1.5957691216057308, cubic = 0.21406444881780073;  // 2u' = linear + cubic z^2
    W z = magnitude(x), q = tail(z);
    W s = q * (1 - z * (linear + cubic * z * z) * (1 - q));
    return dy == 0 ? (W)0 : dy * (x > 0 ? 1 - s : s);
}
