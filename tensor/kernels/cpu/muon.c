/* Muon's update of many matrices, each by one thread: none waits for another inside a matrix.

       u = momentum u + g,   w = decay w - lr sqrt(max(1, outputs / inputs)) Z,
       Z = orthogonal(u, or g + momentum u)

   orthogonal: X <- (a + b G + c G^2) X, with G = X X^T, `steps` times. All these polynomials of one
   G commute, so of a wide X, m x n, only G need be stepped, and a product Q of the polynomials kept
   for X:

       P = a + b G + c G^2,   Q <- P Q,   G <- P G P;   at the end   X <- Q X

   instead of m x n products in every step.

   In float32 G loses the smallest singular values after some steps, so X and then G are made anew
   after 3: as exact as stepping X, and at n = 4 m two thirds of the multiplications. A tall matrix
   has G = X^T X, and X <- X Q. A square one is stepped by X itself. */

#include "kernels.h"

static const float A = 3.4445f, B = -4.7750f, C = 2.0315f;  /* as in tensor/optim/muon.py */
enum { ANEW = 3 };

struct muon_job {
    float *w, *u;
    const float *g;
    const int64_t *slots;  /* (count, 3): start, inputs, outputs */
    float lr, momentum, decay;
    int nesterov, steps;
};

/* p = a + b g + c g^2, all m x m */
static void polynomial(const float *g, float *p, size m) {
    product(0, 0, m, m, m, g, m, g, m, 0, p, m);
    for (size i = 0; i < m * m; i++) p[i] = B * g[i] + C * p[i];
    for (size i = 0; i < m; i++) p[i * m + i] += A;
}

static void swap(float **a, float **b) {
    float *c = *a;
    *a = *b;
    *b = c;
}

/* The matrix in x, R x S, is stepped there or in `other`; returns where it is. `small`: 4 m x m. */
static float *orthogonal(float *x, float *other, float *small, size R, size S, int steps) {
    int wide = R <= S;
    size m = wide ? R : S, n = wide ? S : R;
    float *g = small, *p = g + m * m, *q = p + m * m, *t = q + m * m;
    for (int left = steps; left > 0;) {
        int now = n == m ? 1 : left <= ANEW ? left : ANEW;
        product(!wide, wide, m, m, n, x, S, x, S, 0, g, m);
        for (int i = 0; i < now; i++) {
            polynomial(g, i ? p : q, m);
            if (i) {
                product(0, 0, m, m, m, p, m, q, m, 0, t, m);
                swap(&q, &t);
            }
            if (i == now - 1) continue;
            float *last = i ? p : q;
            product(0, 0, m, m, m, last, m, g, m, 0, t, m);
            product(0, 0, m, m, m, t, m, last, m, 0, g, m);
        }
        if (wide) product(0, 0, m, n, m, q, m, x, S, 0, other, S);
        else product(0, 0, n, m, m, x, S, q, m, 0, other, S);
        swap(&x, &other);
        left -= now;
    }
    return x;
}

static void one_matrix(size item, void *data) {
    struct muon_job *job = data;
    size start = job->slots[item * 3], R = job->slots[item * 3 + 1], S = job->slots[item * 3 + 2];
    size n = R * S, m = smaller(R, S);
    float *restrict w = job->w + start, *restrict u = job->u + start, momentum = job->momentum;
    const float *restrict g = job->g + start;
    float *memory = malloc(sizeof(float) * (2 * n + 4 * m * m)), *x = memory, most = 0;
    double squares = 0;
    int broken = 0;
    for (size i = 0; i < n; i++) {
        u[i] = momentum * u[i] + g[i];
        x[i] = job->nesterov ? g[i] + momentum * u[i] : u[i];
        most = fmaxf(most, fabsf(x[i]));
        broken |= x[i] != x[i];
    }
    if (broken) most = NAN;
    else if (most < 1.17549435e-38f) most = 1.17549435e-38f;  /* zero stays zero */
#pragma omp simd reduction(+ : squares)
    for (size i = 0; i < n; i++) {
        x[i] /= most;  /* first by the largest, so that no square vanishes or overflows */
        squares += (double)x[i] * x[i];
    }
    float norm = (float)sqrt(squares);
    /* NaN stays NaN, as fmaxf would not let it */
    if (norm < 1.17549435e-38f) norm = 1.17549435e-38f;
    for (size i = 0; i < n; i++) x[i] /= norm;
    x = orthogonal(x, memory + n, memory + 2 * n, R, S, job->steps);
    float rate = job->lr * sqrtf(R < S ? (float)S / R : 1.0f), decay = job->decay;
    for (size i = 0; i < n; i++) w[i] = decay * w[i] - rate * x[i];
    free(memory);
}

/* w, g, u: flat arrays with `count` matrices in them */
KERNEL muon(array w, array g, array u, array slots, size count, real lr, real momentum,
            size nesterov, size steps, real decay) {
    struct muon_job job = {.w = floats(w), .u = floats(u), .g = floats(g), .slots = integers(slots),
                           .lr = (float)lr, .momentum = (float)momentum, .decay = (float)decay,
                           .nesterov = (int)nesterov, .steps = (int)steps};
    come_or_go(+1);
    parallel(count, 1e9, one_matrix, &job);
    come_or_go(-1);
    return 0;
}
