/* AdamW, and the norm and scaling of gradients before it: each one pass over flat arrays, shared out in stretches of 16 K elements.

       m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,   w = keep w - step (m / (spread sqrt(v) + eps))

   step = lr / (1 - b1^t), spread = 1 / sqrt(1 - b2^t), keep = 1 - lr * weight_decay: worked out by who calls. 28 bytes an element. */

#include "kernels.h"

enum { STRETCH = 16 * 1024 };
static size stretches(size n) { return (n + STRETCH - 1) / STRETCH; }

struct adamw_job {
    float *w, *g, *m, *v;
    double *sums;
    size n;
    float b1, b2, new1, new2, step, spread, eps, keep;  /* new = 1 - b, taken in float64: of 0.999 as a float32 it would be off by 1e-5 */
};

static void update(size item, void *data) {
    struct adamw_job *job = data;
    size start = item * STRETCH, stop = smaller(start + STRETCH, job->n);
    float *restrict w = job->w, *restrict m = job->m, *restrict v = job->v;
    const float *restrict g = job->g;
    const float b1 = job->b1, b2 = job->b2, new1 = job->new1, new2 = job->new2, step = job->step, spread = job->spread, eps = job->eps, keep = job->keep;
    for (size i = start; i < stop; i++) {
        m[i] = b1 * m[i] + new1 * g[i];
        v[i] = b2 * v[i] + new2 * (g[i] * g[i]);
        w[i] = w[i] * keep - step * (m[i] / (sqrtf(v[i]) * spread + eps));
    }
}

KERNEL adamw(array w, array g, array m, array v, size n, real b1, real b2, real step, real spread, real eps, real keep) {
    struct adamw_job job = {.w = floats(w), .g = floats(g), .m = floats(m), .v = floats(v), .n = n, .b1 = (float)b1, .b2 = (float)b2,
                            .new1 = (float)(1 - b1), .new2 = (float)(1 - b2), .step = (float)step, .spread = (float)spread, .eps = (float)eps,
                            .keep = (float)keep};
    parallel(stretches(n), 8.0 * n, update, &job);
    return 0;
}

static void square(size item, void *data) {
    struct adamw_job *job = data;
    size start = item * STRETCH, stop = smaller(start + STRETCH, job->n);
    const float *restrict g = job->g;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (size i = start; i < stop; i++) total += (double)g[i] * g[i];
    job->sums[item] = total;
}

/* The sum of g^2, in float64. */
KERNEL squared_norm(array g, size n) {
    double *sums = malloc(sizeof(double) * (stretches(n) + 1)), total = 0;
    struct adamw_job job = {.g = floats(g), .sums = sums, .n = n};
    parallel(stretches(n), n, square, &job);
    for (size i = 0; i < stretches(n); i++) total += sums[i];
    free(sums);
    return total;
}

static void shrink(size item, void *data) {
    struct adamw_job *job = data;
    size start = item * STRETCH, stop = smaller(start + STRETCH, job->n);
    for (size i = start; i < stop; i++) job->g[i] *= job->keep;
}

/* g *= factor, in place */
KERNEL scale_all(array g, size n, real factor) {
    struct adamw_job job = {.g = floats(g), .n = n, .keep = (float)factor};
    parallel(stretches(n), n, shrink, &job);
    return 0;
}
