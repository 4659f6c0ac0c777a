// What attention/mma.cuh defines, by loops. A copy arrives when it is waited for, and not before.

struct Fragment { unsigned x[4]; };

inline T element(const Fragment &f, int reg, int half) {
    uint16_t bits = f.x[reg] >> 16 * half;
    T x;
    std::memcpy(&x, &bits, 2);
    return x;
}
inline unsigned rounded(float first, float second) {
    T two[] = {(T)first, (T)second};
    unsigned both;
    std::memcpy(&both, two, 4);
    return both;
}
inline Fragment load_matrices(const T *row, bool transposed = false) {
    if ((uintptr_t)row % 16) std::fputs("a row is not aligned\n", stderr), abort();
    show_warp(row);
    Fragment f;
    for (int m = 0; m < 4; m++) {
        T two[2];
        for (int half = 0; half < 2; half++) {
            int r = self->lane / 4, c = self->lane % 4 * 2 + half;
            if (transposed) std::swap(r, c);
            two[half] = shown<const T *>(8 * m + r)[c];
        }
        std::memcpy(&f.x[m], two, 4);
    }
    __syncwarp();
    return f;
}
inline Fragment load_transposed(const T *row) { return load_matrices(row, true); }

inline void multiply_add(float (&s)[4], const Fragment &a, unsigned b0, unsigned b1) {
    struct Operands { Fragment a; Fragment b; };
    show_warp(Operands{a, {b0, b1}});
    for (int i = 0; i < 4; i++) {
        int row = self->lane / 4 + i / 2 * 8, column = self->lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            int reg = row / 8 + k / 8 * 2;
            T left = element(shown<Operands>(row % 8 * 4 + k % 8 / 2).a, reg, k % 2);
            T right = element(shown<Operands>(column * 4 + k % 8 / 2).b, k / 8, k % 2);
            s[i] += (float)left * (float)right;
        }
    }
    __syncwarp();
}
inline float power_of_2(float x) { return std::exp2(x); }

template <int BYTES> void start_copy(void *shared, const void *global, bool there) {
    if ((uintptr_t)shared % BYTES || (there && (uintptr_t)global % BYTES))
        std::fputs("a copy is not aligned\n", stderr), abort();
    self->copies.push_back([=] {
        if (there) std::memcpy(shared, global, BYTES);
        else std::memset(shared, 0, BYTES);
    });
}
inline void wait_for_copies() {
    for (auto &copy : self->copies) copy();
    self->copies.clear();
}
