/* Matrix products, and the linear layer with its bias and GELU in the same pass.

   A product is cut into bands of rows or columns of the result, whichever it has more of. Each band is one call of BLAS's sgemm with BLAS held
   to one thread; bands need nothing of each other. BLAS's own threads wait for each other inside a product, and spin for some 25 ms after it:
   where another program wants a core, or threads of ours do, that makes a product ten times slower. The sums run over what is not cut, so they
   are the same for any number of threads.

   A band's bias and GELU are added while its results are still in a core's cache. */

#include "kernels.h"

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };
typedef void (*sgemm_64)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *, int64_t);
typedef void (*sgemm_32)(int, int, int, int32_t, int32_t, int32_t, float, const float *, int32_t, const float *, int32_t, float, float *, int32_t);
static void *sgemm;
static int wide;  /* whether sgemm counts in 64 bits */
static void (*set_blas_threads)(int);
static int (*get_blas_threads)(void);

/* The addresses of BLAS's functions, found by compiled.py. */
KERNEL use_blas(size sgemm_address, size counts_in_64_bits, size set_threads_address, size get_threads_address) {
    sgemm = (void *)sgemm_address;
    wide = (int)counts_in_64_bits;
    set_blas_threads = (void (*)(int))set_threads_address;
    get_blas_threads = (int (*)(void))get_threads_address;
    return 0;
}

struct linear_job {
    const float *a, *b, *bias;  /* c = a b, either of them turned;   c += bias, where there is one */
    float *c, *gelu;            /* gelu = gelu(c), where there is one */
    size m, n, k, bands, band;
    int turn_a, turn_b, by_rows;
    float keep;                 /* 1: what c holds stays, and the product is added to it; 0: it is overwritten */
};

static void one_band(size item, void *data) {
    struct linear_job *job = data;
    size start = item * job->band, m = job->m, n = job->n, k = job->k, row = 0, column = 0;
    if (job->by_rows) {
        row = start;
        m = smaller(job->band, m - start);
    } else {
        column = start;
        n = smaller(job->band, n - start);
    }
    const float *a = job->a + (job->turn_a ? row : row * k), *b = job->b + (job->turn_b ? column * k : column);
    float *c = job->c + row * job->n + column;
    size lda = job->turn_a ? job->m : k, ldb = job->turn_b ? k : job->n;
    int ta = job->turn_a ? TRANSPOSED : AS_IT_IS, tb = job->turn_b ? TRANSPOSED : AS_IT_IS;
    if (wide) ((sgemm_64)sgemm)(ROW_MAJOR, ta, tb, m, n, k, 1.0f, a, lda, b, ldb, job->keep, c, job->n);
    else ((sgemm_32)sgemm)(ROW_MAJOR, ta, tb, (int)m, (int)n, (int)k, 1.0f, a, (int)lda, b, (int)ldb, job->keep, c, (int)job->n);
    for (size i = 0; i < m && job->bias; i++) {
        const float *restrict bias = job->bias + column;
        float *restrict out = c + i * job->n;
        for (size j = 0; j < n; j++) out[j] += bias[j];
    }
    for (size i = 0; i < m && job->gelu; i++) gelu_row(c + i * job->n, job->gelu + (row + i) * job->n + column, n);
}

static void multiply(struct linear_job *job) {
    job->by_rows = job->m >= job->n;
    size extent = job->by_rows ? job->m : job->n;
    job->bands = 1;
    if ((double)job->m * job->n * job->k > 1 << 19) job->bands = smaller(thread_count(), (extent + 31) / 32);
    job->band = (extent + job->bands - 1) / job->bands;
    job->band = (job->band + 15) / 16 * 16;  /* whole vectors */
    job->bands = (extent + job->band - 1) / job->band;
    int before = get_blas_threads();
    set_blas_threads(1);
    parallel(job->bands, (double)job->m * job->n * job->k, one_band, job);
    set_blas_threads(before);
}

/* y = x weight + bias:   x (rows, inputs), weight (inputs, outputs), or (outputs, inputs) when turned */
KERNEL linear_forward(array x, array weight, array bias, array y, size rows, size inputs, size outputs, size turned, size has_bias) {
    struct linear_job job = {.a = floats(x), .b = floats(weight), .bias = has_bias ? floats(bias) : NULL, .c = floats(y),
                             .m = rows, .n = outputs, .k = inputs, .turn_b = (int)turned};
    multiply(&job);
    return 0;
}

/* h = x weight + bias,   y = gelu(h) */
KERNEL linear_gelu_forward(array x, array weight, array bias, array h, array y, size rows, size inputs, size outputs, size has_bias) {
    struct linear_job job = {.a = floats(x), .b = floats(weight), .bias = has_bias ? floats(bias) : NULL, .c = floats(h), .gelu = floats(y),
                             .m = rows, .n = outputs, .k = inputs};
    multiply(&job);
    return 0;
}

/* dx = dy weight^T */
KERNEL linear_dx(array dy, array weight, array dx, size rows, size inputs, size outputs, size turned) {
    struct linear_job job = {.a = floats(dy), .b = floats(weight), .c = floats(dx), .m = rows, .n = inputs, .k = outputs, .turn_b = !turned};
    multiply(&job);
    return 0;
}

/* dweight = x^T dy, or dy^T x when turned;   added to what dweight holds when `keep` is 1 */
KERNEL linear_dweight(array x, array dy, array dweight, size rows, size inputs, size outputs, size turned, size keep) {
    struct linear_job job = {.a = floats(turned ? dy : x), .b = floats(turned ? x : dy), .c = floats(dweight), .m = turned ? outputs : inputs,
                             .n = turned ? inputs : outputs, .k = rows, .turn_a = 1, .keep = (float)keep};
    multiply(&job);
    return 0;
}
