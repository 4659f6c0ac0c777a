/* AdamW, and the norm and scaling of gradients before it: each is one pass over flat arrays, shared
   out in stretches of 16 K elements.

       m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,
       w = decay w - step_size (m / (bias_correction sqrt(v) + eps))

       step_size = lr / (1 - b1^t),   bias_correction = 1 / sqrt(1 - b2^t),
       decay = 1 - lr * weight_decay

   The caller works out the last three. 28 bytes an element. */

#include "kernels.h"

enum { STRETCH = 16 * 1024 };
static size stretches(size n) { return (n + STRETCH - 1) / STRETCH; }

struct adamw_job {
    float *w, *g, *m, *v;
    double *sums;
    size n;
    /* new = 1 - b, taken in float64: of 0.999 as a float32 it would be off by 1e-5 */
    float b1, b2, new1, new2, step_size, bias_correction, eps, decay;
};

static void update(size item, void *data) {
    struct adamw_job *job = data;
    size start = item * STRETCH, stop = smaller(start + STRETCH, job->n);
    float *restrict w = job->w, *restrict m = job->m, *restrict v = job->v;
    const float *restrict g = job->g;
    const float b1 = job->b1, b2 = job->b2, new1 = job->new1, new2 = job->new2;
    const float step_size = job->step_size, bias_correction = job->bias_correction;
    const float eps = job->eps, decay = job->decay;
    for (size i = start; i < stop; i++) {
        m[i] = b1 * m[i] + new1 * g[i];
        v[i] = b2 * v[i] + new2 * (g[i] * g[i]);
        w[i] = w[i] * decay - step_size * (m[i] / (sqrtf(v[i]) * bias_correction + eps));
    }
}

KERNEL adamw(array w, array g, array m, array v, size n, real b1, real b2, real step_size,
             real bias_correction, real eps, real decay) {
    struct adamw_job job = {.w = floats(w), .g = floats(g), .m = floats(m), .v = floats(v), .n = n,
                            .b1 = (float)b1, .b2 = (float)b2, .new1 = (float)(1 - b1),
                            .new2 = (float)(1 - b2), .step_size = (float)step_size,
                            .bias_correction = (float)bias_correction, .eps = (float)eps,
                            .decay = (float)decay};
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
    for (size i = start; i < stop; i++) job->g[i] *= job->decay;
}

/* g *= factor, in place */
KERNEL scale_all(array g, size n, real factor) {
    struct adamw_job job = {.g = floats(g), .n = n, .decay = (float)factor};
    parallel(stretches(n), n, shrink, &job);
    return 0;
}
