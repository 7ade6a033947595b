// What one thread does at most of what the kernels are made of: roofline.py compiles this for the machine it runs on. Accumulators are
// many, so that none waits for its own last sum, and few enough to stay in registers.

#include "../ecg_batch/kernels/lanes.h"

constexpr int MANY = 12;
typedef double Doubles __attribute__((vector_size(4 * LANES)));
typedef int64_t Longs __attribute__((vector_size(4 * LANES)));

// The compiler may not leave out what is loaded or stored.
INLINE void keep(Lanes &one) {
#if defined(__aarch64__)
    asm("" : "+w"(one));
#else
    asm("" : "+x"(one));
#endif
}

template <typename Number, typename Step>
INLINE double repeated(int64_t times, Number start, Step step) {
    Number sum[MANY];
    for (int i = 0; i < MANY; i++) sum[i] = start + (decltype(start[0] + 0))i;
    for (int64_t t = 0; t < times; t++)
        for (int i = 0; i < MANY; i++) sum[i] = step(sum[i], t);
    double all = 0;
    for (int i = 0; i < MANY; i++) all += (double)sum[i][0];
    return all;
}

// Multiply-adds of MANY vectors, so many times: of float32, of float64, of pairs of 16 bits.
extern "C" double peak_single(int64_t times, float by) {
    return repeated(times, Lanes{}, [&](Lanes sum, int64_t) { return sum * by + by; });
}

extern "C" double peak_double(int64_t times, double by) {
    return repeated(times, Doubles{}, [&](Doubles sum, int64_t) { return sum * by + by; });
}

extern "C" double peak_pairs(int64_t times, int32_t by) {
    return repeated(times, Ints{}, [&](Ints sum, int64_t) { return sum + pair_products(sum, Ints{} + by); });
}

// Vectors of a buffer that lies in a cache, each loaded once a round, and, where asked, stored again.
extern "C" double peak_loads(const float *buffer, int64_t vectors, int64_t rounds) {
    Lanes sum[MANY] = {};
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t v = 0; v + MANY <= vectors; v += MANY)
            for (int i = 0; i < MANY; i++) {
                Lanes one = *(const Anywhere *)(buffer + (v + i) * LANES);
                keep(one);
                sum[i] += one;
            }
    double all = 0;
    for (int i = 0; i < MANY; i++) all += sum[i][0];
    return all;
}

extern "C" void peak_stores(float *buffer, int64_t vectors, int64_t rounds, float value) {
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t v = 0; v < vectors; v++) {
            Lanes one = splat(value);
            keep(one);
            *(Anywhere *)(buffer + v * LANES) = one;
        }
}
