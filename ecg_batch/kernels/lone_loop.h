// The token loop for few records: lanes are channels of one record instead of records, so a day of one patient does not leave
// fifteen lanes of sixteen empty. Every sum runs over the same terms in the same order as in decode_tile, so the tokens are the same
// to the bit, and which of the two makes a record is nobody's business but the clock's.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "token_loop.h"

INLINE int64_t vectors(int64_t count) { return (count + LANES - 1) / LANES; }

struct Rest {  // memory that is handed out piece by piece
    Lanes *next;
    Lanes *take(int64_t count) { return (next += count) - count; }
    float *floats(int64_t count) { return (float *)take(vectors(count)); }
};

// W (rows, columns), row by row or in groups of IN rows (lanes.h), as vectors of rows: (vector, column), where rows are missing 0.
template <int IN>
INLINE Lanes *turned(int64_t rows, int64_t columns, const float *W, Rest &rest) {
    Lanes *out = rest.take(vectors(rows) * columns);
    for (int64_t v = 0; v < vectors(rows); v++)
        for (int64_t j = 0; j < columns; j++)
            for (int64_t lane = 0; lane < LANES; lane++) {
                const int64_t row = v * LANES + lane;
                out[v * columns + j][lane] = row < rows ? W[(row / IN * columns + j) * IN + row % IN] : 0.0f;
            }
    return out;
}

struct LoneLayer {
    const float *norm;
    Lanes *in_proj, *conv_weight, *conv_bias, *x_proj, *dt_weight, *dt_bias, *A2, *D, *out_proj;
};

INLINE int64_t lone_layer_room(const Model &m) {
    return vectors(2 * m.d_in) * m.d + vectors(m.d_in) * (m.k + m.r + m.n + 3) + vectors(m.r + 2 * m.n) * m.d_in +
           vectors(m.d) * m.d_in + m.layers;  // the last for the pointers
}

INLINE LoneLayer lone_layer(const Model &m, const Layer &w, Rest &rest) {
    LoneLayer out;
    out.norm = w.norm;
    out.in_proj = turned<GROUP>(2 * m.d_in, m.d, w.in_proj, rest), out.conv_weight = turned<1>(m.d_in, m.k, w.conv_weight, rest);
    out.conv_bias = turned<1>(m.d_in, 1, w.conv_bias, rest), out.x_proj = turned<GROUP>(m.r + 2 * m.n, m.d_in, w.x_proj, rest);
    out.dt_weight = turned<GROUP>(m.d_in, m.r, w.dt_weight, rest), out.dt_bias = turned<1>(m.d_in, 1, w.dt_bias, rest);
    out.A2 = turned<1>(m.d_in, m.n, w.A2, rest), out.D = turned<1>(m.d_in, 1, w.D, rest);
    out.out_proj = turned<GROUP>(m.d, m.d_in, w.out_proj, rest);
    return out;
}

template <int COUNT, bool ADD>
INLINE void lone_rows(int64_t columns, const Lanes *W, const float *x, Lanes *y) {
    Lanes sum[COUNT] = {};
    for (int64_t j = 0; j < columns; j++)
        for (int i = 0; i < COUNT; i++) sum[i] += W[i * columns + j] * splat(x[j]);
    for (int i = 0; i < COUNT; i++) y[i] = ADD ? y[i] + sum[i] : sum[i];
}

// The last vectors of rows, all together: one alone takes as long, for each sum waits for itself.
template <int MOST, bool ADD>
INLINE void lone_rest(int64_t count, int64_t columns, const Lanes *W, const float *x, Lanes *y) {
    if (count == MOST) return lone_rows<MOST, ADD>(columns, W, x, y);
    if constexpr (MOST > 1) lone_rest<MOST - 1, ADD>(count, columns, W, x, y);
}

// y = W x, W as `turned` leaves it.
template <bool ADD = false>
INLINE void lone_product(int64_t rows, int64_t columns, const Lanes *W, const float *x, Lanes *y) {
    int64_t v = 0;
    for (; v + 8 <= vectors(rows); v += 8) lone_rows<8, ADD>(columns, W + v * columns, x, y + v);
    lone_rest<7, ADD>(vectors(rows) - v, columns, W + v * columns, x, y + v);
}

// As decode_tile adds it. Left to itself, GCC multiplies first, a vector at a time.
INLINE float add_square(float x, float sum) {
#ifdef FP_FAST_FMAF
    return std::fma(x, x, sum);
#else
    return sum + x * x;
#endif
}

INLINE void lone_norm(int64_t d, const float *weight, const float *x, float *u) {
    float sum = 0.0f;
    for (int64_t i = 0; i < d; i++) sum = add_square(x[i], sum);
    sum = sum / (float)d + 1e-5f;
    const float scale = 1.0f / std::sqrt(sum);
    for (int64_t i = 0; i < d; i++) u[i] = x[i] * scale * weight[i];
}

struct LoneRoom {
    float *x, *u, *dbc;
    Lanes *xz, *xc, *delta, *weight;
    double *sum;
};

INLINE void lone_mixer(const Model &m, const LoneLayer &w, const LoneRoom &t, Lanes *conv, Lanes *ssm) {
    const int64_t wide = vectors(m.d_in);
    lone_product(2 * m.d_in, m.d, w.in_proj, t.u, t.xz);
    const float *xz = (const float *)t.xz;
    for (int64_t v = 0; v < wide; v++) {
        Lanes *taps = conv + v * m.k, sum = w.conv_bias[v];
        const Lanes *weight = w.conv_weight + v * m.k;
        for (int64_t j = 0; j + 1 < m.k; j++) sum += weight[j] * (taps[j] = taps[j + 1]);
        sum += weight[m.k - 1] * (taps[m.k - 1] = t.xz[v]);
        t.xc[v] = silu(sum);
    }
    lone_product(m.r + 2 * m.n, m.d_in, w.x_proj, (const float *)t.xc, (Lanes *)t.dbc);
    lone_product(m.d_in, m.r, w.dt_weight, t.dbc, t.delta);
    for (int64_t v = 0; v < wide; v++) t.delta[v] = softplus(t.delta[v] + w.dt_bias[v]);  // by itself, as in mixer
    const float *B = t.dbc + m.r, *C = B + m.n;
    for (int64_t v = 0; v < wide; v++) {
        const Lanes delta = t.delta[v], dx = delta * t.xc[v];
        const Lanes *A2 = w.A2 + v * m.n;
        Lanes *h = ssm + v * m.n, y = w.D[v] * t.xc[v];
        for (int64_t i = 0; i < m.n; i++) {
            const Lanes next = h[i] * exp2_lanes(delta * A2[i]) + dx * splat(B[i]);
            h[i] = next;
            y += next * splat(C[i]);
        }
        t.xc[v] = y;
    }
    for (int64_t v = 0; v < wide; v++) {
        const Lanes z = *(const Anywhere *)(xz + m.d_in + v * LANES);  // the last may end in what follows xz: lanes that nobody reads
        t.xc[v] = t.xc[v] * silu(z);
    }
    lone_product<true>(m.d, m.d_in, w.out_proj, (const float *)t.xc, (Lanes *)t.x);
}

INLINE int64_t lone_sample(const Model &m, const LoneRoom &t, double uniform, float temperature) {
    const int64_t K = m.texture_tokens;
    const float *weight = (const float *)t.weight;
    Lanes tops = splat(weight[0]);
    for (int64_t v = 0; v < K / LANES; v++) tops = higher(t.weight[v], tops);
    float top = tops[0];
    for (int lane = 1; lane < LANES; lane++) top = tops[lane] > top ? tops[lane] : top;
    for (int64_t i = K / LANES * LANES; i < K; i++) top = weight[i] > top ? weight[i] : top;
    for (int64_t v = 0; v < vectors(K); v++) t.weight[v] = exp2_lanes((t.weight[v] - top) / temperature * LOG2_E);
    double sum = 0.0;
    for (int64_t start = 0; start < K; start += BLOCK) {
        for (int64_t i = start; i < K && i < start + BLOCK; i++) sum += weight[i];
        t.sum[start / BLOCK] = sum;
    }
    const double target = uniform * sum;
    int64_t block = 0;
    while ((block + 1) * BLOCK < K && t.sum[block] <= target) block++;
    double reached = block ? t.sum[block - 1] : 0.0;
    int64_t i = block * BLOCK;
    while (i < K - 1 && (reached += weight[i]) <= target) i++;
    return i;
}

// (d_in, count) of one record to and from vectors of channels, (vector, count).
INLINE void lone_load(int64_t channels, int64_t count, const float *from, Lanes *to) {
    for (int64_t c = 0; c < vectors(channels) * LANES; c++)
        for (int64_t i = 0; i < count; i++) to[c / LANES * count + i][c % LANES] = c < channels ? from[c * count + i] : 0.0f;
}

INLINE void lone_store(int64_t channels, int64_t count, const Lanes *from, float *to) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < count; i++) to[c * count + i] = from[c / LANES * count + i][c % LANES];
}

// Records first .. stop - 1, one after another. 0 done, 1 out of memory.
static int decode_lone(const Model &m, const Call &call, int64_t first, int64_t stop) {
    const int64_t K = m.texture_tokens, wide = vectors(m.d_in), taps = m.d_in * m.k, states = m.d_in * m.n;
    const int64_t room = m.layers * (lone_layer_room(m) + wide * (m.k + m.n)) + vectors(K) * (m.d + 1) + 2 * vectors(m.d) +
                         vectors(m.r + 2 * m.n) + vectors(2 * m.d_in) + 2 * wide + 2 * vectors((K + BLOCK - 1) / BLOCK) + 2;
    const int64_t pointers = vectors(m.layers * (int64_t)(sizeof(LoneLayer) / sizeof(float)));
    Lanes *memory = (Lanes *)std::aligned_alloc(2 * sizeof(Lanes), (room + pointers + 1) / 2 * 2 * sizeof(Lanes));
    if (!memory) return 1;
    Rest rest{memory};
    LoneLayer *layer = (LoneLayer *)rest.take(pointers);
    for (int64_t i = 0; i < m.layers; i++) layer[i] = lone_layer(m, m.layer[i], rest);
    const Lanes *head = turned<GROUP>(K, m.d, m.head, rest);
    LoneRoom t;
    t.sum = (double *)rest.take(2 * vectors((K + BLOCK - 1) / BLOCK));
    t.x = rest.floats(m.d), t.u = rest.floats(m.d), t.dbc = rest.floats(m.r + 2 * m.n);
    t.xz = rest.take(vectors(2 * m.d_in)), t.xc = rest.take(wide), t.delta = rest.take(wide), t.weight = rest.take(vectors(K));
    Lanes *conv = rest.take(m.layers * wide * m.k), *ssm = rest.take(m.layers * wide * m.n);
    for (int64_t record = first; record < stop; record++) {
        if (!call.conv) std::fill_n(conv, m.layers * wide * m.k, Lanes{}), std::fill_n(ssm, m.layers * wide * m.n, Lanes{});
        for (int64_t i = 0; call.conv && i < m.layers; i++) {
            lone_load(m.d_in, m.k, call.conv + (i * call.records + record) * taps, conv + i * wide * m.k);
            lone_load(m.d_in, m.n, call.ssm + (i * call.records + record) * states, ssm + i * wide * m.n);
        }
        int64_t token = call.last[record];
        for (int64_t at = 0; at < call.tokens; at++) {
            for (int64_t i = 0; i < m.d; i++) t.x[i] = m.embedding[token * m.d + i] + call.added(record, i, m.d);
            for (int64_t i = 0; i < m.layers; i++) {
                lone_norm(m.d, layer[i].norm, t.x, t.u);
                lone_mixer(m, layer[i], t, conv + i * wide * m.k, ssm + i * wide * m.n);
            }
            lone_norm(m.d, m.norm_f, t.x, t.u);
            lone_product(K, m.d, head, t.u, t.weight);
            token = lone_sample(m, t, call.uniform[record * call.tokens + at], (float)call.temperature);
            call.out[record * call.tokens + at] = token;
        }
        call.last[record] = token;
        for (int64_t i = 0; call.conv && i < m.layers; i++) {
            lone_store(m.d_in, m.k, conv + i * wide * m.k, call.conv + (i * call.records + record) * taps);
            lone_store(m.d_in, m.n, ssm + i * wide * m.n, call.ssm + (i * call.records + record) * states);
        }
    }
    std::free(memory);
    return 0;
}
