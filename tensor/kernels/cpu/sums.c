/* Sums over rows, as gradients of biases and gains need them: x (rows, width) -> (width).

   float32 sums of thousands of rows one after another lose digits; here 32 rows make a block, and
   blocks are added in order. Blocks are what threads share, so the bits do not depend on the number
   of threads. */

#include "kernels.h"

void add_blocks(const float *sums, float *total, size blocks, size width) {
    for (size j = 0; j < width; j++) total[j] = sums[j];
    for (size block = 1; block < blocks; block++)
        for (size j = 0; j < width; j++) total[j] += sums[block * width + j];
}

struct rows_job {
    const float *x;
    float *out;
    size rows, width;
};

static void sum_block(size block, void *data) {
    struct rows_job *job = data;
    size width = job->width, stop = smaller((block + 1) * ROWS, job->rows);
    float *sum = job->out + block * width;
    for (size j = 0; j < width; j++) sum[j] = 0;
    for (size i = block * ROWS; i < stop; i++)
        for (size j = 0; j < width; j++) sum[j] += job->x[i * width + j];
}

/* total[j] = sum over i of x[i, j] */
KERNEL column_sums(array x, array total, size rows, size width) {
    size blocks = row_blocks(rows);
    float *sums = malloc(sizeof(float) * (blocks * width + 1));
    struct rows_job job = {floats(x), sums, rows, width};
    parallel(blocks, (double)rows * width, sum_block, &job);
    if (blocks) add_blocks(sums, floats(total), blocks, width);
    else memset(floats(total), 0, sizeof(float) * width);
    free(sums);
    return 0;
}
