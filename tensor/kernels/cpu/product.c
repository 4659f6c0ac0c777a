/* Matrix products, and the linear layer with its bias and GELU in the same pass.

   A product is cut into bands of rows or columns of the result, whichever it has more of. Each band
   is one call of BLAS's sgemm with BLAS held to one thread; bands need nothing of each other.
   BLAS's own threads wait for each other inside a product, and spin for some 25 ms after it: where
   another program wants a core, or threads of ours do, that makes a product ten times slower. The
   sums run over what is not cut, so they are the same for any number of threads: as long as every
   band is large enough to meet the same code in BLAS.

   A band's bias and GELU are added while its results are still in a core's cache. */

#include "kernels.h"

#include <pthread.h>

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };
typedef void (*sgemm_64)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t,
                         const float *, int64_t, float, float *, int64_t);
typedef void (*sgemm_32)(int, int, int, int32_t, int32_t, int32_t, float, const float *, int32_t,
                         const float *, int32_t, float, float *, int32_t);
static void *sgemm;
static int wide;  /* whether sgemm counts in 64 bits */
static void (*set_blas_threads)(int);
static int (*get_blas_threads)(void);

/* BLAS's own setting is put aside while any thread of the program is in here, and back when the
   last one leaves. */
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
static int inside, set_aside;

void come_or_go(int change) {
    pthread_mutex_lock(&door);
    if (change > 0 && inside == 0) {
        set_aside = get_blas_threads();
        set_blas_threads(1);
    }
    inside += change;
    if (inside == 0) set_blas_threads(set_aside);
    pthread_mutex_unlock(&door);
}

/* A fork waits until nobody changes the setting, since the child would inherit BLAS's own lock as
   it is then. */
static void close_door(void) { pthread_mutex_lock(&door); }
static void open_door(void) { pthread_mutex_unlock(&door); }
static void nobody_inside(void) {  /* in the child, which has only the thread that forked */
    pthread_mutex_init(&door, NULL);
    if (inside) set_blas_threads(set_aside);
    inside = 0;
}

/* The addresses of BLAS's functions, found by compiled.py. */
KERNEL use_blas(size sgemm_address, size counts_in_64_bits, size set_threads_address,
                size get_threads_address) {
    sgemm = (void *)sgemm_address;
    wide = (int)counts_in_64_bits;
    set_blas_threads = (void (*)(int))set_threads_address;
    get_blas_threads = (int (*)(void))get_threads_address;
    static int prepared = 0;
    /* a door that is closed twice never opens */
    if (!prepared++) pthread_atfork(close_door, open_door, nobody_inside);
    return 0;
}

void product(int turn_a, int turn_b, size m, size n, size k, const float *a, size lda,
             const float *b, size ldb, float keep, float *c, size ldc) {
    int ta = turn_a ? TRANSPOSED : AS_IT_IS, tb = turn_b ? TRANSPOSED : AS_IT_IS;
    if (wide) ((sgemm_64)sgemm)(ROW_MAJOR, ta, tb, m, n, k, 1.0f, a, lda, b, ldb, keep, c, ldc);
    else
        ((sgemm_32)sgemm)(ROW_MAJOR, ta, tb, (int)m, (int)n, (int)k, 1.0f, a, (int)lda, b, (int)ldb,
                          keep, c, (int)ldc);
}

struct linear_job {
    /* c = a b, either of them turned;   c += bias, where there is one */
    const float *a, *b, *bias;
    float *c, *gelu;            /* gelu = gelu(c), where there is one */
    /* a block is 16 rows or columns, whole vectors; the last band has what is left over too */
    size m, n, k, bands, blocks;
    int turn_a, turn_b, by_rows, single;
    /* 1: what c holds stays, and the product is added to it; 0: it is overwritten */
    float keep;
};

/* The columns of a band for a single row, as generation needs them: the matrix is read once, in the
   order in which it lies. */
static void one_row(const struct linear_job *job, size start, size stop) {
    size n = job->n, k = job->k;
    const float *restrict x = job->a;
    float *restrict y = job->c;
    if (job->turn_b) {
        for (size j = start; j < stop; j++) {
            const float *restrict w = job->b + j * k;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (size i = 0; i < k; i++) sum += x[i] * w[i];
            y[j] = sum;
        }
        return;
    }
    for (size j = start; j < stop; j++) y[j] = 0;
    size i = 0;
    /* four rows of the matrix at a time, so that y is read and written less */
    for (; i + 4 <= k; i += 4) {
        const float *restrict w0 = job->b + i * n, *restrict w1 = w0 + n, *restrict w2 = w1 + n;
        const float *restrict w3 = w2 + n;
        for (size j = start; j < stop; j++)
            y[j] += x[i] * w0[j] + x[i + 1] * w1[j] + x[i + 2] * w2[j] + x[i + 3] * w3[j];
    }
    for (; i < k; i++)
        for (size j = start; j < stop; j++) y[j] += x[i] * job->b[i * n + j];
}

static void one_band(size item, void *data) {
    struct linear_job *job = data;
    size m = job->m, n = job->n, k = job->k, row = 0, column = 0;
    size start = job->blocks * item / job->bands * 16, stop = job->by_rows ? m : n;
    if (item + 1 < job->bands) stop = job->blocks * (item + 1) / job->bands * 16;
    if (job->by_rows) {
        row = start;
        m = stop - start;
    } else {
        column = start;
        n = stop - start;
    }
    const float *a = job->a + (job->turn_a ? row : row * k);
    const float *b = job->b + (job->turn_b ? column * k : column);
    float *c = job->c + row * job->n + column;
    size lda = job->turn_a ? job->m : k, ldb = job->turn_b ? k : job->n;
    if (job->single) one_row(job, start, stop);
    else product(job->turn_a, job->turn_b, m, n, k, a, lda, b, ldb, job->keep, c, job->n);
    for (size i = 0; i < m && job->bias; i++) {
        const float *restrict bias = job->bias + column;
        float *restrict out = c + i * job->n;
        for (size j = 0; j < n; j++) out[j] += bias[j];
    }
    for (size i = 0; i < m && job->gelu; i++)
        gelu_row(c + i * job->n, job->gelu + (row + i) * job->n + column, n);
}

/* OpenBLAS has other code, which adds in another order, for products of up to 100^3
   multiplications. So no band is as small as that unless the whole is: else the bits would depend
   on the number of bands. */
static const double LEAST = 1 << 20;

static void multiply(struct linear_job *job) {
    job->single = job->m == 1 && !job->keep && !job->turn_a;
    job->by_rows = job->m >= job->n && !job->single;
    size other = job->by_rows ? job->n : job->m;
    job->blocks = (job->by_rows ? job->m : job->n) / 16;
    /* blocks in a band */
    size least = 1 + (size)((job->single ? LEAST / 8 : LEAST) / (16.0 * other * job->k));
    job->bands = smaller(thread_count(), job->blocks / least);
    if (job->bands < 1) job->bands = 1;
    if (!job->single) come_or_go(+1);
    parallel(job->bands, (double)job->m * job->n * job->k, one_band, job);
    if (!job->single) come_or_go(-1);
}

/* y = x weight + bias:   x (rows, inputs), weight (inputs, outputs), or (outputs, inputs) when
   turned;   gelu = gelu(y);   bias and gelu may be NULL */
void linear(const float *x, const float *weight, const float *bias, float *y, float *gelu,
            size rows, size inputs, size outputs, int turned) {
    struct linear_job job = {.a = x, .b = weight, .bias = bias, .c = y, .gelu = gelu, .m = rows,
                             .n = outputs, .k = inputs, .turn_b = turned};
    multiply(&job);
}

KERNEL linear_forward(array x, array weight, array bias, array y, size rows, size inputs,
                      size outputs, size turned, size has_bias) {
    linear(floats(x), floats(weight), has_bias ? floats(bias) : NULL, floats(y), NULL, rows, inputs,
           outputs, (int)turned);
    return 0;
}

/* h = x weight + bias,   y = gelu(h) */
KERNEL linear_gelu_forward(array x, array weight, array bias, array h, array y, size rows,
                           size inputs, size outputs, size has_bias) {
    linear(floats(x), floats(weight), has_bias ? floats(bias) : NULL, floats(h), floats(y), rows,
           inputs, outputs, 0);
    return 0;
}

/* dx = dy weight^T */
KERNEL linear_dx(array dy, array weight, array dx, size rows, size inputs, size outputs,
                 size turned) {
    struct linear_job job = {.a = floats(dy), .b = floats(weight), .c = floats(dx), .m = rows,
                             .n = inputs, .k = outputs, .turn_b = !turned};
    multiply(&job);
    return 0;
}

/* dweight = x^T dy, or dy^T x when turned;   added to what dweight holds when `keep` is 1 */
KERNEL linear_dweight(array x, array dy, array dweight, size rows, size inputs, size outputs,
                      size turned, size keep) {
    struct linear_job job = {.a = floats(turned ? dy : x), .b = floats(turned ? x : dy),
                             .c = floats(dweight), .m = turned ? outputs : inputs,
                             .n = turned ? inputs : outputs, .k = rows, .turn_a = 1,
                             .keep = (float)keep};
    multiply(&job);
    return 0;
}
