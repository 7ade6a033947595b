// VqVae.decode of vqvae.py on a CPU: tokens and noise in, texture out. Here a vector's lanes are successive tokens of one record, so
// one record keeps the core as busy as many do. Every sum has one order and none runs across lanes: an output's bits depend on the
// tokens and noise within the decoder's context, and not on neighbours, threads, the width of vectors or where a piece begins.
// Letters as in vqvae.py.

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "lanes.h"

constexpr int V = 2;                    // vectors of time side by side: a weight is loaded once for both
constexpr int R = LANES == 16 ? 8 : 4;  // rows of weights at a time: R x V sums stay in registers
constexpr int BLOCK = 64;               // tokens that go through a layer together: 20 KB of input, in the first-level cache
constexpr float LIMIT = 5.5f;           // vqvae.COMPANDED_LIMIT

struct Conv {  // weight (out, in * taps) in groups (lanes.h), bias (out,)
    const float *weight, *bias;
    int64_t out, in, taps, dilation;
};

struct Decoder {
    int64_t leads, samples, dim, channels, noise, blocks, drift_tokens, codes;  // samples: of one lead a token
    const float *codebook, *scale_mv, *loudness_mix, *loudness_spread;
    const float *hann;  // (samples, drift_tokens + 1), see texture_kernel.py
    const Conv *first, *inner, *outer, *last;
};

struct Piece {
    int64_t length, first, stop;  // l; of the batch's records, those from first to stop are decoded
    const int64_t *token;         // (b, l)
    const float *noise;           // (b, l, e + lead), or null for zeros
    float *out;                   // (b, lead, l * samples)
};

// One array in time for each channel, with zeros before and after it, which the convolutions read as padding.
struct Rows {
    float *data;
    int64_t stride;
    float *operator[](int64_t row) const { return data + row * stride; }
};

INLINE Lanes load(const float *from) { return *(const Anywhere *)from; }

INLINE void store(float *to, Lanes value) { *(Anywhere *)to = value; }

// Adds W x to COUNT x V sums. row: COUNT rows of W, whose numbers are GROUP apart; x: its first channel at the first token.
template <int COUNT, int TAPS>
INLINE void add_products(const float *const *row, const Conv &c, const float *x, int64_t stride, Lanes (*sum)[V]) {
    for (int64_t i = 0; i < c.in; i++)
        for (int64_t k = 0; k < TAPS; k++) {
            const float *at = x + i * stride + (k - TAPS / 2) * c.dilation;
            Lanes now[V];
            for (int v = 0; v < V; v++) now[v] = load(at + v * LANES);
            for (int r = 0; r < COUNT; r++)
                for (int v = 0; v < V; v++) sum[r][v] += row[r][(i * TAPS + k) * GROUP] * now[v];
        }
}

// Rows `of` of a convolution over one block of tokens; use(r, v, sum) takes each sum.
template <int COUNT, int TAPS, class Use>
INLINE void some_rows(const Conv &c, const int64_t *of, const float *x, int64_t stride, Use use) {
    const float *row[COUNT];
    for (int r = 0; r < COUNT; r++) row[r] = c.weight + of[r] / GROUP * GROUP * c.in * TAPS + of[r] % GROUP;
    for (int64_t t = 0; t < BLOCK; t += V * LANES) {
        Lanes sum[COUNT][V];
        for (int r = 0; r < COUNT; r++)
            for (int v = 0; v < V; v++) sum[r][v] = splat(c.bias[of[r]]);
        add_products<COUNT, TAPS>(row, c, x + t, stride, sum);
        use(t, sum);
    }
}

// All rows of a convolution over one block; finish(row, lanes, to) puts each vector where it belongs.
template <int TAPS, class Finish>
INLINE void convolve(const Conv &c, const float *x, int64_t stride, Finish finish) {
    int64_t first = 0;
    for (; first + R <= c.out; first += R) {
        int64_t of[R];
        for (int r = 0; r < R; r++) of[r] = first + r;
        some_rows<R, TAPS>(c, of, x, stride, [&](int64_t t, Lanes(*sum)[V]) {
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) finish(first + r, t + v * LANES, sum[r][v]);
        });
    }
    for (; first < c.out; first++)
        some_rows<1, TAPS>(c, &first, x, stride, [&](int64_t t, Lanes(*sum)[V]) {
            for (int v = 0; v < V; v++) finish(first, t + v * LANES, sum[0][v]);
        });
}

// value * sigmoid(gate), whose rows are c apart.
template <int COUNT>
INLINE void gated_rows(const Conv &inner, int64_t first, const float *x, int64_t stride, const Rows &z) {
    int64_t of[2 * COUNT];
    for (int r = 0; r < COUNT; r++) of[r] = first + r, of[COUNT + r] = inner.out / 2 + first + r;
    some_rows<2 * COUNT, 3>(inner, of, x, stride, [&](int64_t t, Lanes(*sum)[V]) {
        for (int r = 0; r < COUNT; r++)
            for (int v = 0; v < V; v++) store(z[first + r] + t + v * LANES, sum[r][v] * sigmoid(sum[COUNT + r][v]));
    });
}

// x + outer(gated inner(x)) -> y, over one block.
INLINE void gated_block(const Conv &inner, const Conv &outer, const Rows &x, const Rows &y, const Rows &z, int64_t start) {
    int64_t row = 0;
    for (; row + R / 2 <= inner.out / 2; row += R / 2) gated_rows<R / 2>(inner, row, x[0] + start, x.stride, z);
    for (; row < inner.out / 2; row++) gated_rows<1>(inner, row, x[0] + start, x.stride, z);
    convolve<1>(outer, z[0], z.stride, [&](int64_t r, int64_t t, Lanes sum) {
        store(y[r] + start + t, load(x[r] + start + t) + sum);
    });
}

INLINE Lanes sinh_lanes(Lanes x) {
    const Lanes s = x * x, e = exp2_lanes(x * LOG2_E);
    Lanes p = splat(1.0f / 362880);  // near zero by its series, which keeps small values precise
    p = p * s + 1.0f / 5040;
    p = p * s + 1.0f / 120;
    p = p * s + 1.0f / 6;
    const Lanes near = x + x * s * p, far = 0.5f * (e - 1.0f / e);
    return s < 1.0f ? near : far;
}

INLINE Lanes companded(Lanes x) {
    const Lanes bounded = higher(lower(x, splat(LIMIT)), splat(-LIMIT));
    return x == x ? sinh_lanes(bounded) : x;  // NaN stays: damaged weights must be seen
}

// x (channels, l) from the numbers of each token, at(t); 16 tokens at a time, so that whole lines of cache are written.
template <class At>
INLINE void transpose(int64_t channels, int64_t length, const Rows &x, At at) {
    for (int64_t t0 = 0; t0 < length; t0 += 16)
        for (int64_t i = 0; i < channels; i++)
            for (int64_t t = t0; t < length && t < t0 + 16; t++) x[i][t] = at(t)[i];
}

// Codebook rows, noise as loud as it is to go out, and loudness: x (d + e + lead, l).
INLINE void fill_input(const Decoder &m, const Piece &piece, int64_t record, const Rows &x) {
    const int64_t *token = piece.token + record * piece.length;
    transpose(m.dim, piece.length, x, [&](int64_t t) { return m.codebook + token[t] * m.dim; });
    const int64_t drawn = m.noise + m.leads, each = m.noise / m.leads;
    const Rows noise = {x[m.dim], x.stride}, loudness = {noise[m.noise], x.stride};
    if (!piece.noise) {
        for (int64_t i = 0; i < drawn; i++) std::memset(noise[i], 0, piece.length * sizeof(float));
        return;
    }
    const float *from = piece.noise + record * piece.length * drawn;
    transpose(drawn, piece.length, noise, [&](int64_t t) { return from + t * drawn; });
    for (int64_t t = 0; t < piece.length; t += LANES) {
        Lanes mixed[16];  // leads: at most 16, see texture_kernel.fits
        for (int64_t lead = 0; lead < m.leads; lead++) {
            Lanes sum = {};
            for (int64_t i = 0; i < m.leads; i++) sum += m.loudness_mix[lead * m.leads + i] * load(loudness[i] + t);
            mixed[lead] = sum;
        }
        for (int64_t lead = 0; lead < m.leads; lead++) {
            store(loudness[lead] + t, mixed[lead]);
            const Lanes log2_gain = mixed[lead] * m.loudness_spread[lead] * LOG2_E;
            const Lanes gain = log2_gain == log2_gain ? exp2_lanes(lower(log2_gain, splat(126.0f))) : log2_gain;  // NaN stays
            for (int64_t i = lead * each; i < (lead + 1) * each; i++) store(noise[i] + t, load(noise[i] + t) * gain);
        }
    }
}

// What the last block left beyond the end is no input of the next layer.
INLINE void clear_tail(const Rows &x, int64_t rows, int64_t length, int64_t padded) {
    for (int64_t row = 0; row < rows; row++) std::memset(x[row] + length, 0, (padded - length) * sizeof(float));
}

// Drift through the Hann kernel, plus the rest, in mV: y (lead + p, l) -> out (lead, l * samples). Drift's end values go on.
INLINE void put_out(const Decoder &m, int64_t length, int64_t padded, const Rows &y, float *out) {
    const int64_t half = m.drift_tokens / 2;
    for (int64_t lead = 0; lead < m.leads; lead++) {
        float *drift = y[lead];
        for (int64_t t = -half; t < 0; t++) drift[t] = drift[0];
        for (int64_t t = length; t < padded + half; t++) drift[t] = drift[length - 1];
        for (int64_t t = 0; t < length; t += BLOCK)
            for (int64_t s = 0; s < m.samples; s++) {
                const float *hann = m.hann + s * (m.drift_tokens + 1), *rest = y[m.leads + lead * m.samples + s] + t;
                Lanes sum[BLOCK / LANES] = {};
                for (int64_t q = 0; q <= m.drift_tokens; q++)
                    for (int v = 0; v < BLOCK / LANES; v++) sum[v] += hann[q] * load(drift + t + q - half + v * LANES);
                float block[BLOCK], *to = out + (lead * length + t) * m.samples + s;
                for (int v = 0; v < BLOCK / LANES; v++) store(block + v * LANES, (sum[v] + load(rest + v * LANES)) * m.scale_mv[lead]);
                for (int64_t i = 0; i < BLOCK && t + i < length; i++) to[i * m.samples] = block[i];
            }
    }
}

// 0 done, 1 out of memory.
extern "C" int ecg_texture(const Decoder *decoder, const Piece *piece) {
    const Decoder &m = *decoder;
    int64_t margin = m.drift_tokens / 2;
    for (int64_t i = 0; i < m.blocks; i++)
        if (m.inner[i].dilation > margin) margin = m.inner[i].dilation;
    margin = (margin + 15) / 16 * 16;
    const int64_t length = piece->length, padded = (length + BLOCK - 1) / BLOCK * BLOCK;
    const int64_t stride = ((padded + 2 * margin) / 16 | 1) * 16;  // odd in cache lines: rows do not fall on each other
    const int64_t into = m.first->in, c = m.channels, out = m.last->out;
    const int64_t bytes = (into + 2 * c + out) * stride * sizeof(float);
    float *memory = (float *)std::aligned_alloc(64, bytes + c * BLOCK * sizeof(float));
    if (!memory) return 1;
    std::memset(memory, 0, bytes);
    float *next = memory + margin;
    const auto take = [&](int64_t rows) { return Rows{(next += rows * stride) - rows * stride, stride}; };
    const Rows input = take(into), y = take(out);
    Rows x = take(c), other = take(c);
    const Rows z = {memory + bytes / sizeof(float), BLOCK};
    for (int64_t record = piece->first; record < piece->stop; record++) {
        fill_input(m, *piece, record, input);
        clear_tail(input, into, length, padded);
        for (int64_t t0 = 0; t0 < padded; t0 += BLOCK)
            convolve<3>(*m.first, input[0] + t0, stride, [&](int64_t r, int64_t t, Lanes sum) { store(x[r] + t0 + t, sum); });
        clear_tail(x, c, length, padded);
        for (int64_t i = 0; i < m.blocks; i++) {
            for (int64_t t0 = 0; t0 < padded; t0 += BLOCK) gated_block(m.inner[i], m.outer[i], x, other, z, t0);
            clear_tail(other, c, length, padded);
            const Rows before = x;
            x = other, other = before;
        }
        for (int64_t t0 = 0; t0 < padded; t0 += BLOCK)
            convolve<3>(*m.last, x[0] + t0, stride, [&](int64_t r, int64_t t, Lanes sum) { store(y[r] + t0 + t, companded(sum)); });
        put_out(m, length, padded, y, piece->out + record * m.leads * length * m.samples);
    }
    std::free(memory);
    return 0;
}
