/* GELU's tanh form, forward and backward in one pass each. With z = |x|,

       t = 2 sqrt(2/pi) (z + 0.044715 z^3),   q = e^-t / (1 + e^-t) = (1 - tanh(t/2)) / 2

       y = max(x, 0) - z q,    dx = dy (q - z q t' / (1 + e^-t)), or dy minus that where x > 0

   So no digits are lost where y is close to 0. An error of 1e-7 in t = 80, relative to t, would be
   one of 1e-5 in e^-t: t has two parts. e^-t has a factor 2^64 until it is multiplied by z:
   alone it would fall below the smallest normal float32 before y does.

   Kept: x. Read and written: forward 8 bytes an element, backward 12; the reference passes over
   memory some twenty times. */

#include "kernels.h"

/* 2 sqrt(2/pi), and 0.044715 of that, each in two parts: a float, and what is missing. Multiples of
   2^-20 have room in the first part of LINEAR for an exact difference to numbers below 16. */
static const float LINEAR = 0x1.98845p+0f, LINEAR_REST = 1.930779e-7f;
static const float CUBIC = 0x1.2444f2p-4f, CUBIC_REST = 2.3988325e-9f;
static const float FAR = 11.0f;  /* from here on z q is 0 */
static const float SMALL = 0x1p-64f;

/* 2^64 e^-t. The rounding errors of t are computed too, with multiplications that are not rounded
   before the addition (fmaf), where the processor has them. */
static inline float fall(float z) {
#ifdef FP_FAST_FMAF
    float square = z * z, p = fmaf(CUBIC, square, LINEAR), t = z * p;
    float square_rest = fmaf(z, z, -square);
    float p_rest = fmaf(CUBIC, square, LINEAR - p) + LINEAR_REST;
    p_rest = fmaf(CUBIC, square_rest, fmaf(CUBIC_REST, square, p_rest));
    float rest = fmaf(z, p_rest, fmaf(z, p, -t));
#else
    double exact = z * ((double)LINEAR + LINEAR_REST + ((double)CUBIC + CUBIC_REST) * z * z);
    float t = (float)exact, rest = (float)(exact - t);
#endif
    return scaled_exponential(-t, -rest, 64);
}

static inline float size_of(float x) { return fabsf(x) > FAR ? FAR : fabsf(x); }

void gelu_row(const float *restrict x, float *restrict y, size n) {
#pragma omp simd
    for (size j = 0; j < n; j++) {
        float v = x[j], z = size_of(v), e = fall(z);
        y[j] = (v > 0 ? v : 0.0f) - z * e * (SMALL / (1.0f + SMALL * e));
    }
}

struct gelu_job {
    const float *x, *dy;  /* (rows, width) */
    float *out, *sums;    /* (rows, width); (blocks, width) or NULL */
    size rows, width;
};

static void forward(size block, void *data) {
    struct gelu_job *job = data;
    size start = block * ROWS * job->width;
    size stop = smaller((block + 1) * ROWS, job->rows) * job->width;
    gelu_row(job->x + start, job->out + start, stop - start);
}

static void backward(size block, void *data) {
    struct gelu_job *job = data;
    size width = job->width, stop = smaller((block + 1) * ROWS, job->rows);
    float *restrict sum = job->sums ? job->sums + block * width : NULL;
    if (sum) memset(sum, 0, sizeof(float) * width);
    for (size i = block * ROWS; i < stop; i++) {
        const float *restrict x = job->x + i * width, *restrict dy = job->dy + i * width;
        float *restrict dx = job->out + i * width;
#pragma omp simd
        for (size j = 0; j < width; j++) {
            float v = x[j], z = size_of(v), e = fall(z), share = 1.0f / (1.0f + SMALL * e);
            float growth = LINEAR + 3.0f * CUBIC * z * z;  /* t' */
            float slope = e * (1.0f - z * growth * share) * (SMALL * share);
            slope = v > 0 ? 1.0f - slope : slope;
            dx[j] = dy[j] == 0 ? 0.0f : slope * dy[j];
        }
        if (sum) for (size j = 0; j < width; j++) sum[j] += dx[j];
    }
}

/* y = gelu(x) */
KERNEL gelu_forward(array x, array y, size rows, size width) {
    struct gelu_job job = {floats(x), NULL, floats(y), NULL, rows, width};
    parallel(row_blocks(rows), 4.0 * rows * width, forward, &job);
    return 0;
}

/* dx = gelu'(x) dy */
KERNEL gelu_backward(array x, array dy, array dx, size rows, size width) {
    struct gelu_job job = {floats(x), floats(dy), floats(dx), NULL, rows, width};
    parallel(row_blocks(rows), 4.0 * rows * width, backward, &job);
    return 0;
}

/* dx = gelu'(x) dy,   dbias[j] = sum over i of dx[i, j] */
KERNEL gelu_backward_sums(array x, array dy, array dx, array dbias, size rows, size width) {
    size blocks = row_blocks(rows);
    float *sums = malloc(sizeof(float) * (blocks * width + 1));
    struct gelu_job job = {floats(x), floats(dy), floats(dx), sums, rows, width};
    parallel(blocks, 4.0 * rows * width, backward, &job);
    if (blocks) add_blocks(sums, floats(dbias), blocks, width);
    free(sums);
    return 0;
}
