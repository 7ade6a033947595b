// Vectors of LANES floats for the compiled kernels, by GCC's and clang's vector extensions; setup.py builds each kernel once per kind
// of CPU. All with fused multiply-add give the same bits; without it, as in SSE2, sums round otherwise, and build.kernels says so.

#pragma once

#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

constexpr float LOG2_E = 1.44269504f;
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef Lanes Anywhere __attribute__((aligned(4)));  // a vector that need not begin at a multiple of its size

constexpr int GROUP = 4;  // rows of a matrix that lie side by side, column by column: read from one end to the other (decode_kernel.packed)

constexpr int64_t in_groups(int64_t rows) { return (rows + GROUP - 1) / GROUP * GROUP; }

INLINE Lanes splat(float value) { return Lanes{} + value; }

// b where either is no number, as the instructions of x86 have it; by itself, GCC does not find them where b is a constant.
#if defined(__AVX512F__) && LANES == 16
INLINE Lanes lower(Lanes a, Lanes b) { return _mm512_maskz_min_ps(0xffff, a, b); }
INLINE Lanes higher(Lanes a, Lanes b) { return _mm512_maskz_max_ps(0xffff, a, b); }
#elif defined(__AVX2__) && LANES == 8
INLINE Lanes lower(Lanes a, Lanes b) { return _mm256_min_ps(a, b); }
INLINE Lanes higher(Lanes a, Lanes b) { return _mm256_max_ps(a, b); }
#elif defined(__SSE2__) && LANES == 4
INLINE Lanes lower(Lanes a, Lanes b) { return _mm_min_ps(a, b); }
INLINE Lanes higher(Lanes a, Lanes b) { return _mm_max_ps(a, b); }
#else
INLINE Lanes lower(Lanes a, Lanes b) { return a < b ? a : b; }
INLINE Lanes higher(Lanes a, Lanes b) { return a > b ? a : b; }
#endif

// 2^x for x <= 126, relative error 2e-7; 2^-126 below.
INLINE Lanes exp2_lanes(Lanes x) {
    x = higher(x, splat(-126.0f));
    const Lanes shifted = x + 12582912.0f;  // 1.5 * 2^23: what is left of x is a whole number, in the lowest bits
    const Lanes f = x - (shifted - 12582912.0f);  // -0.5 .. 0.5
    Lanes p = splat(1.54035303e-4f);  // (ln 2)^i / i!
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return (Lanes)((Ints)p + ((Ints)shifted << 23));  // the whole number goes to the exponent
}

INLINE Lanes sigmoid(Lanes x) { return 1.0f / (1.0f + exp2_lanes(lower(x * -LOG2_E, splat(126.0f)))); }

// A product of its own, rounded as numpy rounds it: the sum that follows takes it as it is, whatever the flags say of contraction.
template <typename Number>
INLINE Number product(Number a, Number b) {
    Number made = a * b;
#if defined(__aarch64__)
    asm("" : "+w"(made));
#else
    asm("" : "+x"(made));
#endif
    return made;
}

// Each number holds two of 16 bits: the sum of the two products.
INLINE Ints pair_products(Ints a, Ints b) {
#if defined(__AVX512BW__) && LANES == 16
    return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && LANES == 8
    return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && LANES == 4
    return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
