// The token loop of decode.py on a CPU. LANES records go together, one in each lane of a vector; their state, the
// weights and the sampling stay in the core's cache from the first token to the last. No sum runs across lanes and every
// sum has one order, so a record's tokens depend on no neighbour, no thread count, and not on how wide the vectors are.
// Letters as in mamba.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "lone_loop.h"
#include "token_loop.h"

constexpr int LONE = LANES / 2;  // so many records at the end of a batch, or fewer, are faster one after another: lone_loop.h
constexpr int MOST = LANES == 16 ? 4 : 3;  // groups of rows side by side in a product: AVX2 has half the registers

// Half the lanes, and their sums: GCC takes a vector wider than the registers apart element by element.
typedef float HalfLanes __attribute__((vector_size(2 * LANES)));
typedef double Doubles __attribute__((vector_size(4 * LANES)));

// Room for one tile. Sizes in Lanes, rounded up to groups.
struct Tile {
    Lanes *x, *u, *xz, *xc, *dbc, *delta, *conv, *ssm, *weight;  // d, d, 2 d_in, d_in, r + 2n, d_in, state, state, K
    Doubles *sum;  // K / BLOCK, two halves each
};

// y = W x for GROUPS groups of rows at a time: each x is loaded once for all of them, the sums stay in registers.
template <int GROUPS, bool ADD>
INLINE int64_t some_rows(int64_t row, int64_t rows, int64_t columns, const float *W, const Lanes *x, Lanes *y) {
    for (; row + GROUP * (GROUPS - 1) < rows; row += GROUP * GROUPS) {
        const float *w = W + row * columns;
        Lanes sum[GROUPS][GROUP] = {};
        for (int64_t j = 0; j < columns; j++)
            for (int g = 0; g < GROUPS; g++)
                for (int i = 0; i < GROUP; i++) sum[g][i] += w[(g * columns + j) * GROUP + i] * x[j];
        for (int g = 0; g < GROUPS; g++)
            for (int i = 0; i < GROUP; i++) {
                Lanes &to = y[row + g * GROUP + i];
                to = ADD ? to + sum[g][i] : sum[g][i];
            }
    }
    return row;
}

template <bool ADD = false>
INLINE void product(int64_t rows, int64_t columns, const float *W, const Lanes *x, Lanes *y) {
    some_rows<1, ADD>(some_rows<MOST, ADD>(0, rows, columns, W, x, y), rows, columns, W, x, y);
}

INLINE void rms_norm(int64_t d, const float *weight, const Lanes *x, Lanes *u) {
    Lanes sum = {}, scale = {};
    for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
    sum = sum / (float)d + 1e-5f;
    for (int lane = 0; lane < LANES; lane++) scale[lane] = 1.0f / std::sqrt(sum[lane]);
    for (int64_t i = 0; i < d; i++) u[i] = x[i] * scale * weight[i];
}

INLINE void mixer(const Model &m, const Layer &w, const Tile &t, Lanes *conv, Lanes *ssm) {
    product(2 * m.d_in, m.d, w.in_proj, t.u, t.xz);
    for (int64_t c = 0; c < m.d_in; c++) {
        Lanes *taps = conv + c * m.k, sum = splat(w.conv_bias[c]);
        const float *weight = w.conv_weight + c * m.k;
        for (int64_t j = 0; j + 1 < m.k; j++) sum += weight[j] * (taps[j] = taps[j + 1]);
        sum += weight[m.k - 1] * (taps[m.k - 1] = t.xz[c]);
        t.xc[c] = silu(sum);
    }
    product(m.r + 2 * m.n, m.d_in, w.x_proj, t.xc, t.dbc);
    product(m.d_in, m.r, w.dt_weight, t.dbc, t.delta);
    for (int64_t c = 0; c < m.d_in; c++) {  // not in the loop below: there each channel would wait for its divisions
        t.delta[c] = softplus(t.delta[c] + w.dt_bias[c]);
        t.xz[m.d_in + c] = silu(t.xz[m.d_in + c]);
    }
    const Lanes *B = t.dbc + m.r, *C = B + m.n;
    for (int64_t c = 0; c < m.d_in; c++) {
        const Lanes delta = t.delta[c], dx = delta * t.xc[c];
        const float *A2 = w.A2 + c * m.n;
        Lanes *h = ssm + c * m.n, y = w.D[c] * t.xc[c];
        for (int64_t i = 0; i < m.n; i++) {
            const Lanes next = h[i] * exp2_lanes(delta * A2[i]) + dx * B[i];
            h[i] = next;
            y += next * C[i];
        }
        t.xc[c] = y * t.xz[m.d_in + c];
    }
    product<true>(m.d, m.d_in, w.out_proj, t.xc, t.x);
}

// The token in whose share of [0, 1) each lane's uniform falls; sums in double, as in sampling.inverse_cdf.
INLINE void sample(const Model &m, const Tile &t, const double *uniform, int64_t stride, float temperature, int64_t *token) {
    const int64_t K = m.texture_tokens;
    Lanes top = t.weight[0];
    for (int64_t i = 1; i < K; i++) top = higher(top, t.weight[i]);
    for (int64_t i = 0; i < K; i++) t.weight[i] = exp2_lanes((t.weight[i] - top) / temperature * LOG2_E);
    Doubles sum[2] = {};
    for (int64_t start = 0; start < K; start += BLOCK) {
        for (int64_t i = start; i < K && i < start + BLOCK; i++)
            for (int half = 0; half < 2; half++) sum[half] += __builtin_convertvector(((const HalfLanes *)(t.weight + i))[half], Doubles);
        for (int half = 0; half < 2; half++) t.sum[start / BLOCK * 2 + half] = sum[half];
    }
    const double *sums = (const double *)t.sum;  // (block, lane)
    for (int lane = 0; lane < LANES; lane++) {
        const double target = uniform[lane * stride] * sums[(K - 1) / BLOCK * LANES + lane];
        int64_t block = 0;
        while ((block + 1) * BLOCK < K && sums[block * LANES + lane] <= target) block++;
        double reached = block ? sums[(block - 1) * LANES + lane] : 0.0;
        int64_t i = block * BLOCK;
        while (i < K - 1 && (reached += t.weight[i][lane]) <= target) i++;
        token[lane] = i;
    }
}

INLINE void load(int64_t channels, int64_t lanes, const float *from, Lanes *to) {
    for (int64_t lane = 0; lane < LANES; lane++)  // lanes without a record repeat the last one
        for (int64_t i = 0; i < channels; i++) to[i][lane] = from[(lane < lanes ? lane : lanes - 1) * channels + i];
}

INLINE void store(int64_t channels, int64_t lanes, const Lanes *from, float *to) {
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t i = 0; i < channels; i++) to[lane * channels + i] = from[i][lane];
}

INLINE void decode_tile(const Model &m, const Call &call, const Tile &t, int64_t first) {
    const int64_t lanes = call.stop - first < LANES ? call.stop - first : LANES;
    const int64_t taps = m.d_in * m.k, states = m.d_in * m.n;
    if (!call.conv) std::fill_n(t.conv, m.layers * taps, Lanes{}), std::fill_n(t.ssm, m.layers * states, Lanes{});
    for (int64_t layer = 0; call.conv && layer < m.layers; layer++) {
        load(taps, lanes, call.conv + (layer * call.records + first) * taps, t.conv + layer * taps);
        load(states, lanes, call.ssm + (layer * call.records + first) * states, t.ssm + layer * states);
    }
    int64_t token[LANES];
    double uniform[LANES];
    for (int lane = 0; lane < LANES; lane++) token[lane] = call.last[first + (lane < lanes ? lane : lanes - 1)];
    for (int64_t at = 0; at < call.tokens; at++) {
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t record = first + (lane < lanes ? lane : lanes - 1);
            uniform[lane] = call.uniform[record * call.tokens + at];
            for (int64_t i = 0; i < m.d; i++) t.x[i][lane] = m.embedding[token[lane] * m.d + i] + call.added(record, i, m.d);
        }
        for (int64_t layer = 0; layer < m.layers; layer++) {
            rms_norm(m.d, m.layer[layer].norm, t.x, t.u);
            mixer(m, m.layer[layer], t, t.conv + layer * taps, t.ssm + layer * states);
        }
        rms_norm(m.d, m.norm_f, t.x, t.u);
        product(m.texture_tokens, m.d, m.head, t.u, t.weight);
        sample(m, t, uniform, 1, (float)call.temperature, token);
        for (int64_t lane = 0; lane < lanes; lane++) call.out[(first + lane) * call.tokens + at] = token[lane];
    }
    for (int64_t lane = 0; lane < lanes; lane++) call.last[first + lane] = token[lane];
    for (int64_t layer = 0; call.conv && layer < m.layers; layer++) {
        store(taps, lanes, t.conv + layer * taps, call.conv + (layer * call.records + first) * taps);
        store(states, lanes, t.ssm + layer * states, call.ssm + (layer * call.records + first) * states);
    }
}

// 0 done, 1 out of memory.
extern "C" int ecg_decode(const Model *model, const Call *call) {
    const Model &m = *model;
    const int64_t K = m.texture_tokens, blocks = (K + BLOCK - 1) / BLOCK;
    const int64_t room = 2 * m.d + 4 * m.d_in + m.r + 2 * m.n + m.layers * m.d_in * (m.k + m.n) + K + 2 * blocks + 8 * GROUP;
    Lanes *memory = (Lanes *)std::aligned_alloc(2 * sizeof(Lanes), (room + 1) / 2 * 2 * sizeof(Lanes));
    if (!memory) return 1;
    Tile t;
    Lanes *next = memory;
    const auto take = [&](int64_t count) { return (next += in_groups(count)) - in_groups(count); };
    t.sum = (Doubles *)take(2 * blocks);
    t.x = take(m.d), t.u = take(m.d), t.xz = take(2 * m.d_in), t.xc = take(m.d_in), t.dbc = take(m.r + 2 * m.n);
    t.delta = take(m.d_in), t.weight = take(K);
    t.conv = take(m.layers * m.d_in * m.k), t.ssm = take(m.layers * m.d_in * m.n);
    int64_t first = call->first;
    for (; call->stop - first > LONE; first += LANES) decode_tile(m, *call, t, first);
    std::free(memory);
    return first < call->stop ? decode_lone(m, *call, first, call->stop) : 0;
}

// Whether this CPU has the instructions that the flags of this build allow.
extern "C" int ecg_decode_runs_here() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw");
#elif defined(__AVX2__) && defined(__FMA__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;  // SSE2 and NEON: whatever loads the file has them
#endif
}

extern "C" const char *ecg_decode_compiler() { return __VERSION__; }

extern "C" int ecg_kernels_version() { return KERNELS_VERSION; }
