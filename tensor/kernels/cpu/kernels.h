/* What the kernels of this folder share. All files are compiled as one library, for the very
   processor they run on (compiled.py).

   arrays  a Python tuple of them: floats(item_of(t, i)) is the i-th one's
   array   a NumPy array, as Python holds it; floats(a) is the address of its first element. The
           caller has made sure that it is contiguous, aligned and holds float32 (int64 for
           integers(a), int8 for bytes(a)): nothing is checked here.
   size    a whole number: rows, width, items
   real    a float

   A function that Python calls starts a line with `KERNEL`: compiled.py reads its parameters from
   there. */

#ifndef TENSOR_KERNELS
#define TENSOR_KERNELS

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void *array;
typedef void *arrays;
typedef ptrdiff_t size;
typedef double real;

#define KERNEL __attribute__((visibility("default"))) double

/* The fields of a NumPy array come right after the object's head, whose size Python tells the
   compiler (and then checks). Strides are in bytes. */
struct numpy_array { char head[OBJECT_HEAD]; void *data; int ndim; size *shape, *strides; };
static inline void *data_of(array a) { return ((struct numpy_array *)a)->data; }
static inline float *floats(array a) { return data_of(a); }
static inline int64_t *integers(array a) { return data_of(a); }
static inline int8_t *bytes(array a) { return data_of(a); }
static inline size *shape_of(array a) { return ((struct numpy_array *)a)->shape; }
static inline size *strides_of(array a) { return ((struct numpy_array *)a)->strides; }

/* A tuple holds its items right after its length. */
static inline array item_of(arrays a, size i) {
    return ((array *)((char *)a + OBJECT_HEAD + sizeof(size)))[i];
}

/* Set what a job tells its caller. Several threads may do so at once. */
static inline void tell(int *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELAXED); }

static inline int all_finite(const float *x, size n) {
    float zero = 0;
#pragma omp simd reduction(+ : zero)
    for (size j = 0; j < n; j++) zero += x[j] * 0.0f;
    return zero == 0;
}

static inline size smaller(size a, size b) { return a < b ? a : b; }
static inline size larger(size a, size b) { return a > b ? a : b; }

/* parallel.c: function(item, job) for every item from 0, on all threads where `work` (elements
   touched, say) makes that worthwhile. What an item is must not depend on the number of threads:
   then neither do the bits of the result. */
void parallel(size items, double work, void (*function)(size item, void *job), void *job);

int thread_count(void);

enum { ROWS = 32 };  /* rows in an item, where rows are shared out */
static inline size row_blocks(size rows) { return (rows + ROWS - 1) / ROWS; }

/* random.c: words start to start + count of row 0 of the bits of a key. start: a multiple of 4 */
struct key { uint32_t step, module, sample, seed[2]; };
void random_words(struct key key, size start, size count, uint32_t *out);

/* sums.c: the sums of blocks of rows, sums (blocks, width), added up into total (width): block by
   block, always in that order. */
void add_blocks(const float *sums, float *total, size blocks, size width);

/* product.c: y = x weight + bias; weight (inputs, outputs), or (outputs, inputs) when turned;
   gelu = gelu(y).   bias and gelu may be NULL. */
void linear(const float *x, const float *weight, const float *bias, float *y, float *gelu,
            size rows, size inputs, size outputs, int turned);

/* int8.c: y = x weight + bias; weight (outputs, inputs) ~ scale q: the 8 bits of q, and a scale for
   each output. gelu as above. */
void int8_linear(const float *x, const int8_t *weight, const float *scale, const float *bias,
                 float *y, float *gelu, size rows, size inputs, size outputs);

/* product.c: c = keep c + a b, either of them turned; c (m, n), k summed over, rows lda, ldb, ldc
   apart. One thread, on which BLAS is held by come_or_go(+1) before any thread of a job calls it,
   and come_or_go(-1) after. */
void product(int turn_a, int turn_b, size m, size n, size k, const float *a, size lda,
             const float *b, size ldb, float keep, float *c, size ldc);
void come_or_go(int change);

/* layer_norm.c: out = layer_norm(s), s = x + y;   or of x, when y and s are NULL. Returns 1 when a
   variance is not finite. */
int normalise(const float *x, const float *y, float *s, const float *gain, const float *bias,
              float *out, size rows, size width, float eps);

/* attention.c: qkv (B, T, 3, H, D) -> y (B, T, H, D), kept (2, B, H, T); causal. Returns 1 when
   something was not finite: y is then worthless. */
int packed_attention(float *qkv, float *y, float *kept, size B, size T, size H, size D,
                     float scale);

/* gelu.c: y = gelu(x), n elements. */
void gelu_row(const float *x, float *y, size n);

/* 2^k e^(x + rest) = 2^(k + n) e^r with n = round(x / ln 2) and |r| <= ln(2) / 2, where a
   polynomial of degree 6 is good to float32's last bit or two. k + n must be in -126 to 127. The
   function has no branches, so that a loop over it becomes vector instructions. */
static inline float scaled_exponential(float x, float rest, uint32_t k) {
    /* 1.5 * 2^23: the sum is rounded to a whole number, which its low bits hold */
    float shifted = x * 1.44269504f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f + rest;  /* ln 2 in two parts */
    float p = 1.3981999507e-3f + r * 1.9875691500e-4f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = ((bits + k) << 23) + 0x3f800000;  /* 2^(k + n): the low bits, as an exponent */
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* e^x of x <= 0: 0 where that is below the smallest normal number; NaN stays NaN. */
static inline float exponential(float x) {
    const float least = -87.33654f;
    float t = x < least ? least : x;
    return x < least ? 0.0f : scaled_exponential(t, 0.0f, 0);
}

#endif
