// GELU of arrays, and its gradient. The formulas are in gelu.cuh.
//
// x, y, dy, dx: (N, C)   lines: (shares, C), W: the sums of dx over each share of the rows
//
// Bytes moved per element of bf16: forward 4 (x in, y out), backward 6 (dy, x in; dx out), also
// with the sums for a bias gradient.

KERNEL gelu_forward(const T *x, T *y, long long count) {
    long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (at >= count) return;
    Pack values = load(x + at);
    for (int v = 0; v < V; v++) values.v[v] = (T)gelu((W)values.v[v]);
    store(y + at, values);
}

KERNEL gelu_backward(const T *dy, const T *x, T *dx, long long count) {
    long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (at >= count) return;
    Pack upstream = load(dy + at), values = load(x + at);
    for (int v = 0; v < V; v++)
        values.v[v] = (T)gelu_gradient((W)upstream.v[v], (W)values.v[v]);
    store(dx + at, values);
}

KERNEL __launch_bounds__(256, 4) gelu_backward_lines(const T *dy, const T *x, T *dx, W *lines,
                                                     int N, int C) {
    int c = stripe_column();
    W sums[V] = {};
    if (c < C) {
#pragma unroll 2
        for (int row = blockIdx.y * STACK + threadIdx.y; row < N; row += gridDim.y * STACK) {
            long long at = (long long)row * C + c;
            Pack upstream = load(dy + at), values = load(x + at);
            for (int v = 0; v < V; v++) {
                W gradient = gelu_gradient((W)upstream.v[v], (W)values.v[v]);
                sums[v] += gradient;
                values.v[v] = (T)gradient;
            }
            store(dx + at, values);
        }
    }
    write_line(sums, lines, C);
}
