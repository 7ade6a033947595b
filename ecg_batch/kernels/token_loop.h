// What both token loops share: the one for many records (token_loop.cpp) and the one for few (lone_loop.h). The structs are those of
// decode_kernel.py. Letters as in mamba.py.

#pragma once

#include <cstdint>

#include "lanes.h"

constexpr int BLOCK = 16;  // tokens whose weights are summed before the sum is kept

struct Layer {  // row-major, as torch holds them, but those of products in groups (lanes.h); A2 = -exp(A_log) * log2(e)
    const float *norm, *in_proj, *conv_weight, *conv_bias, *x_proj, *dt_weight, *dt_bias, *A2, *D, *out_proj;
};

struct Model {
    int64_t layers, d, d_in, n, k, r, texture_tokens;
    const Layer *layer;
    const float *embedding, *norm_f, *head;  // (v, d), (d,), (texture_tokens, d) in groups
};

struct Call {
    int64_t records, first, stop, tokens;  // of the batch's b records, those from first to stop are decoded
    int64_t *last;          // (b,) the token before; left as the last one made
    float *conv, *ssm;      // (layer, b, d_in, k), (layer, b, d_in, n), moved on in place; null: from the beginning, and not kept
    const double *uniform;  // (b, l)
    int64_t *out;           // (b, l)
    double temperature;
    const float *condition;  // (b, d), added to the embedding of every token, or null

    float added(int64_t record, int64_t i, int64_t d) const { return condition ? condition[record * d + i] : 0.0f; }
};

INLINE Lanes silu(Lanes x) { return x / (1.0f + exp2_lanes(lower(x * -LOG2_E, splat(126.0f)))); }

// log(1 + e^x) = max(x, 0) + 2 atanh(t / (2 + t)) with t = e^-|x|: small values keep their relative precision.
INLINE Lanes softplus(Lanes x) {
    const Lanes t = exp2_lanes(lower(x, -x) * LOG2_E);
    const Lanes s = t / (2.0f + t), s2 = s * s;  // s2 <= 1/9: the first term left out is 2e-8 of the sum
    Lanes p = splat(1.0f / 15);
    p = p * s2 + 1.0f / 13;
    p = p * s2 + 1.0f / 11;
    p = p * s2 + 1.0f / 9;
    p = p * s2 + 1.0f / 7;
    p = p * s2 + 1.0f / 5;
    p = p * s2 + 1.0f / 3;
    p = p * s2 + 1.0f;
    return higher(x, Lanes{}) + 2.0f * s * p;
}
