/* The linear layer with weights of 8 bits, for generation: weight (outputs, inputs) ~ scale q, with
   a scale for each output.

       y = scale step sum_i q_i n_i + bias,   x ~ step n for each row

   q is a whole number of 8 bits, and n one of 16. Processors multiply those and add them in 32 bits
   faster than they make floats of 8 bits: the time of a row is that of reading the weights. The 16
   bits of n cost nothing beside that, and are 256 times finer than those of the weights.

   step is the smallest for which n has 16 bits, and no sum more than 32. So the sums are exact, and
   a row has the same bits for any number of threads, alone or among others. */

#include "kernels.h"

enum { MOST = 127, CHANNELS = 64 };  /* of |q|; outputs in an item */

struct int8_job {
    const float *x;           /* (rows, inputs) */
    int16_t *n;               /* x / step */
    float *step;              /* (rows) */
    const int8_t *weight;     /* (outputs, inputs) */
    const float *scale, *bias;
    float *y, *gelu;          /* (rows, outputs) */
    size rows, inputs, outputs;
};

/* n = round(x / step) of a row. Where x is not finite y is NaN. */
static void round_row(size row, void *data) {
    struct int8_job *job = data;
    size inputs = job->inputs;
    const float *restrict x = job->x + row * inputs;
    int16_t *restrict n = job->n + row * inputs;
    float largest = 0, sum = 0;
#pragma omp simd reduction(max : largest) reduction(+ : sum)
    for (size i = 0; i < inputs; i++) {
        float at = fabsf(x[i]);
        largest = at > largest ? at : largest;
        sum += at;
    }
    /* MOST sum |n| <= INT32_MAX: each |n| is up to 1/2 above |x| / step, and `sum` is rounded */
    float step = fmaxf(largest / INT16_MAX, sum / (float)(INT32_MAX / MOST - inputs));
    job->step[row] = sum - sum == 0 ? step : NAN;
    if (!(sum - sum == 0 && step >= FLT_MIN)) memset(n, 0, sizeof(int16_t) * inputs);
    else
        for (size i = 0; i < inputs; i++) n[i] = (int16_t)(int32_t)rintf(x[i] / step);
}

static void put(const struct int8_job *job, size row, size j, int32_t sum) {
    float bias = job->bias ? job->bias[j] : 0;
    job->y[row * job->outputs + j] = (float)sum * job->scale[j] * job->step[row] + bias;
}

static void one_sum(const struct int8_job *job, size row, size j) {
    const int16_t *restrict n = job->n + row * job->inputs;
    const int8_t *restrict q = job->weight + j * job->inputs;
    int32_t sum = 0;
    for (size i = 0; i < job->inputs; i++) sum += n[i] * (int16_t)q[i];
    put(job, row, j, sum);
}

/* Two rows by two outputs: each number that is read is used twice. */
static void four_sums(const struct int8_job *job, size row, size j) {
    size inputs = job->inputs;
    const int16_t *restrict n = job->n + row * inputs, *restrict m = n + inputs;
    const int8_t *restrict p = job->weight + j * inputs, *restrict q = p + inputs;
    int32_t np = 0, mp = 0, nq = 0, mq = 0;
    for (size i = 0; i < inputs; i++) {
        np += n[i] * (int16_t)p[i];
        mp += m[i] * (int16_t)p[i];
        nq += n[i] * (int16_t)q[i];
        mq += m[i] * (int16_t)q[i];
    }
    put(job, row, j, np);
    put(job, row + 1, j, mp);
    put(job, row, j + 1, nq);
    put(job, row + 1, j + 1, mq);
}

/* Some outputs of some rows. */
static void tile(const struct int8_job *job, size row, size rows, size start, size stop) {
    for (size j = start; j < stop; j += 2)
        for (size i = row; i < rows; i += 2) {
            int two_rows = i + 1 < rows, two_outputs = j + 1 < stop;
            if (two_rows && two_outputs) {
                four_sums(job, i, j);
                continue;
            }
            one_sum(job, i, j);
            if (two_rows) one_sum(job, i + 1, j);
            if (two_outputs) one_sum(job, i, j + 1);
        }
}

/* Some outputs of all rows. A block of rows stays in a core's cache. */
static void some_channels(size item, void *data) {
    struct int8_job *job = data;
    size start = item * CHANNELS, stop = smaller(start + CHANNELS, job->outputs);
    for (size row = 0; row < job->rows; row += ROWS)
        tile(job, row, smaller(row + ROWS, job->rows), start, stop);
    for (size row = 0; row < job->rows && job->gelu; row++) {
        size first = row * job->outputs + start;
        gelu_row(job->y + first, job->gelu + first, stop - start);
    }
}

void int8_linear(const float *x, const int8_t *weight, const float *scale, const float *bias,
                 float *y, float *gelu, size rows, size inputs, size outputs) {
    char *memory = malloc((sizeof(int16_t) * inputs + sizeof(float)) * rows);
    struct int8_job job = {x, (int16_t *)(memory + sizeof(float) * rows), (float *)memory,
                           weight, scale, bias, y, gelu, rows, inputs, outputs};
    parallel(rows, (double)rows * inputs, round_row, &job);
    parallel((outputs + CHANNELS - 1) / CHANNELS, (double)rows * inputs * outputs, some_channels,
             &job);
    free(memory);
}
