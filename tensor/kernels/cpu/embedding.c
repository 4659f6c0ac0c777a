/* Embeddings: y[i] = scale tokens[ids[i]] + positions[i mod T], and the gradients of the tables. */

#include "kernels.h"

struct embed_job {
    const int64_t *ids;
    const float *tokens, *positions;
    float *y;
    size rows, context, width, count;
    float scale;
    int out_of_range;
};

static void forward(size block, void *data) {
    struct embed_job *job = data;
    size width = job->width, stop = smaller((block + 1) * ROWS, job->rows);
    for (size i = block * ROWS; i < stop; i++) {
        if (job->ids[i] < 0 || job->ids[i] >= job->count) {
            tell(&job->out_of_range);
            continue;
        }
        const float *restrict token = job->tokens + job->ids[i] * width;
        const float *restrict position = job->positions + i % job->context * width;
        float *restrict y = job->y + i * width;
        for (size j = 0; j < width; j++) y[j] = job->scale * token[j] + position[j];
    }
}

/* y (rows, width);   returns 1 when an id is not in 0 to count - 1 */
KERNEL embed_forward(array ids, array tokens, array positions, array y, size rows, size context,
                     size width, size count, real scale) {
    struct embed_job job = {integers(ids), floats(tokens), floats(positions), floats(y), rows,
                            context, width, count, (float)scale, 0};
    parallel(row_blocks(rows), (double)rows * width, forward, &job);
    return job.out_of_range;
}

/* dtokens[ids[i]] += scale dy[i], in the order of the rows: always the same sums; ids out of range,
   written uncounted since, are passed over */
KERNEL add_rows(array ids, array dy, array dtokens, size rows, size width, size count,
                real scale) {
    const int64_t *id = integers(ids);
    const float *from = floats(dy);
    float *to = floats(dtokens);
    for (size i = 0; i < rows; i++)
        for (size j = 0; j < width && id[i] >= 0 && id[i] < count; j++)
            to[id[i] * width + j] += (float)scale * from[i * width + j];
    return 0;
}
