// Dropout, and random bits.      Srivastava et al. 2014
//
//   y[row, c] = x[row, c] * (bits[row, c] >= threshold ? scale : 0),   scale = 1 / (1 - p)
//   bits[row, c] = word c % 4 of philox((c / 4, step, module, sample + row), seed)
//
// x, y, bits: (rows, C)   seed, step, module, sample: of the Key
//
// The mask follows from the key alone: backward makes it again, and nothing is kept. Bytes moved
// per element of bf16: 4 (x in, y out).

// One thread for each pack.
KERNEL dropout(const T *x, T *y, unsigned rows, unsigned C, unsigned threshold, W scale, Key key) {
    unsigned pack = blockIdx.x * blockDim.x + threadIdx.x, packs = C / V;
    unsigned row = pack / packs, c = (pack - row * packs) * V;
    if (row >= rows) return;
    long long at = (long long)pack * V;
    Pack values = load(x + at);
#pragma unroll
    for (int v = 0; v < V; v += 4) {
        uint4 words = key.words((c + v) / 4, row);
#pragma unroll
        for (int i = v; i < v + 4 && i < V; i++) {
            W factor = word(words, (c + i) % 4) >= threshold ? scale : (W)0;
            values.v[i] = (T)((W)values.v[i] * factor);
        }
    }
    store(y + at, values);
}

// One thread for each counter; `bits` starts on a multiple of 16 bytes.
KERNEL random_bits(unsigned *bits, unsigned rows, unsigned C, Key key) {
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x, counters = C / 4 + (C % 4 > 0);
    unsigned row = at / counters, block = at - row * counters;
    if (row >= rows) return;
    uint4 words = key.words(block, row);
    unsigned c = 4 * block;
    unsigned *to = bits + (long long)row * C + c;
    if (C % 4 == 0)
        *reinterpret_cast<uint4 *>(to) = words;
    else
        for (unsigned i = 0; i < 4 && c + i < C; i++) to[i] = word(words, i);
}
