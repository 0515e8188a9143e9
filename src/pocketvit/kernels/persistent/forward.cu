// Forward of all layers, x <- x + keep1 attention(norm(x)), then x <- x + keep2 MLP(norm(x)); common.cuh says how it is
// built.
//
// The residual stream of an image lives in float32 in its warpgroup's registers, 192 channels x ROWS tokens, and is
// where the products of the projection and of fc2 add up. A layer takes 24 tiles, in this order:
//
//      three times:  q, k, v of four heads (rows)  ->  attention, a head a warp  ->  their columns of the projection
//      three times:  two tiles of fc1 (rows)       ->  GELU                      ->  their columns of fc2 (two tiles)
//
// Chunks of an image:  n n n | q k v o        The MLP's hidden layer takes the places of k and v, in turns.
constexpr int CHUNKS = 7, FACTORS = 2, BARRIERS = 0, TILES = 24;
#include "common.cuh"

struct Params {
    Map n, qkv, o, n1;                // of all layers' tokens, for backward; boxes of N tokens x 64 channels
    Map last_o, last_n1;              // of the last layer, of which only `taken` tokens an image are kept
    const u16* x;                     // (images, N, D), bf16
    u16* out;                         // (images, taken, D)
    const char* tiles;                // forward's of the first layer
    const float* keep;                // (layers, 2, images)
    float *rstd, *lse, *rstd1;        // (layers, images, N), (layers, images, A, N), (layers, images, N), for backward
    int images, layers, pairs;        // the first `pairs` blocks of threads own two images, the others one
    int taken, save;
    float eps;
};
static_assert(SHARED == SHARED_BYTES && sizeof(Params) == PARAMS_BYTES, "Python counts otherwise");

// n = norm(stream) to three chunks; 1 / standard deviation to `rstd_out`
INLINE void norm(const float (&stream)[3][SUMS], u32 to, u32 stats, float* rstd_out, float eps, const Thread& me) {
    float r[GROUPS];
    UNROLL for (int j = 0; j < GROUPS; j++) {
        float s0 = 0, s1 = 0, q0 = 0, q1 = 0;                  // sums, and of squares, of token 8j + 2t and the next
        UNROLL for (int m = 0; m < 3; m++) {
            const float *a = &stream[m][4 * j];
            s0 += a[0] + a[2]; s1 += a[1] + a[3];
            q0 = fmaf(a[0], a[0], fmaf(a[2], a[2], q0)); q1 = fmaf(a[1], a[1], fmaf(a[3], a[3], q1));
        }
        r[j] = sums_of_lanes(s0, s1, q0, q1, me.lane);
    }
    put_sums(r, stats, me);
    if (me.tid == 0) stores_read();                            // the chunks may be written over
    me.meet();
    const u32 factors = stats + 8 * ROWS * 4;
    if (me.tid < ROWS) {
        float s, q;
        get_sums(s, q, stats, me.tid);
        const float mean = s * (1.0f / D), rstd = rsqrt_fast(fmaxf(q * (1.0f / D) - mean * mean, 0.0f) + eps);
        write2(factors + me.tid * 8, rstd, -mean * rstd);
        if (rstd_out && me.tid < N) rstd_out[me.tid] = rstd;
    }
    me.meet();
    UNROLL for (int s = 0; s < STEPS; s++) {
        float4 f[2];                                           // of two tokens of a group: factor, shift, factor, shift
        UNROLL for (int k = 0; k < halves(s) / 2; k++) f[k] = read4(factors + (8 * (2 * s + k) + 2 * me.t()) * 8);
        UNROLL for (int m = 0; m < 3; m++) {
            u32 v[4] = {};
            UNROLL for (int k = 0; k < halves(s); k++) {
                const float* a = &stream[m][8 * s + 2 * k];
                const float4 f0 = f[k >> 1];
                v[k] = pack2(fmaf(a[0], f0.x, f0.y), fmaf(a[1], f0.z, f0.w));
            }
            store_step(to + m * CHUNK + me.place(), s, v);
        }
    }
    fence_async();
    me.meet();
}

// stream += keep times the 192 biases behind a branch's first tile
INLINE void add_bias(float (&stream)[3][SUMS], u32 tile, float keep, const Thread& me) {
    UNROLL for (int m = 0; m < 3; m++) {
        const float b0 = keep * bias(tile, 64 + m * 64 + me.row()), b1 = keep * bias(tile, 64 + m * 64 + me.row() + 8);
        UNROLL for (int i = 0; i < SUMS; i++) stream[m][i] += i & 2 ? b1 : b0;
    }
}

// sum + bias to this warp's 16 channels of a chunk
INLINE void store_biased(u32 to, const float (&sum)[SUMS], float b0, float b1) {
    store_chunk(to, [&](int i, int h) {
        const float b = h ? b1 : b0;
        return pack2(sum[i] + b, sum[i + 1] + b);
    });
}

// Attention of this warp's head for 16 queries (TWO) or 8. S = Q K' has queries as rows, and its layout in registers is
// that of an operand, so P needs no way through shared memory for O' = V' P'.
template <bool TWO>
INLINE void attend(int i, u32 q_chunk, u32 o_chunk, const u32 (&k)[GROUPS][2], const u32 (&v)[GROUPS][2], float keep,
                   float* lse, const Thread& me) {
    const int g = me.g(), t = me.t();
    u32 q[4] = {0, 0, 0, 0};                                   // tokens of two groups, halves of the channels
    if (TWO) load4(q_chunk + me.place_a() + i * 2048, q[0], q[2], q[1], q[3]);
    else load2(q_chunk + me.place() + i * 2048, q[0], q[1]);
    float s[GROUPS][4];
    UNROLL for (int j = 0; j < GROUPS; j++) {
        UNROLL for (int c = 0; c < 4; c++) s[j][c] = 0.f;
        mma16(s[j], q[0], q[2], q[1], q[3], k[j][0], k[j][1]);
    }
    float top[2] = {-1e30f, -1e30f}, sum[2] = {0, 0};          // of a query's scores, and of their powers
    u32 p[GROUPS][2];
    UNROLL for (int h = 0; h < (TWO ? 2 : 1); h++) {
        UNROLL for (int j = 0; j < GROUPS; j++)
            UNROLL for (int e = 0; e < 2; e++)
                if (8 * j + e < N) {                           // some lane has such a key
                    if (8 * j + 7 >= N && 8 * j + 2 * t + e >= N) s[j][2 * h + e] = -1e30f;
                    top[h] = fmaxf(top[h], s[j][2 * h + e]);
                }
        top[h] = fmaxf(top[h], shuffle_xor(top[h], 1)); top[h] = fmaxf(top[h], shuffle_xor(top[h], 2)); top[h] *= SCORE;
    }
    UNROLL for (int j = 0; j < GROUPS; j++)
        UNROLL for (int h = 0; h < (TWO ? 2 : 1); h++) {
            const float a = exp2_fast(fmaf(s[j][2 * h], SCORE, -top[h]));
            const float b = 8 * j + 1 < N ? exp2_fast(fmaf(s[j][2 * h + 1], SCORE, -top[h])) : 0.f;
            p[j][h] = pack2(a, b);
            sum[h] += a + b;
        }
    u32 out[4] = {};
    UNROLL for (int h = 0; h < (TWO ? 2 : 1); h++) {
        sum[h] += shuffle_xor(sum[h], 1); sum[h] += shuffle_xor(sum[h], 2);
        const int query = 16 * i + 8 * h + g;
        if (lse && t == 0 && query < N) lse[query] = top[h] + log2_fast(sum[h]);
        float o[4] = {0, 0, 0, 0};
        UNROLL for (int j = 0; j + 1 < GROUPS; j += 2)
            mma16(o, v[j][0], v[j][1], v[j + 1][0], v[j + 1][1], p[j][h], p[j + 1][h]);
        if (GROUPS % 2) mma8(o, v[GROUPS - 1][0], v[GROUPS - 1][1], p[GROUPS - 1][h]);
        const float f = __fdividef(keep, sum[h]), f0 = __shfl_sync(~0u, f, 8 * t), f1 = __shfl_sync(~0u, f, 8 * t + 4);
        out[2 * h] = pack2(o[0] * f0, o[1] * f1); out[2 * h + 1] = pack2(o[2] * f0, o[3] * f1);
    }
    if (TWO) store4T(o_chunk + i * 2048 + me.place(), out[0], out[1], out[2], out[3]);
    else store2T(o_chunk + i * 2048 + me.place(), out[0], out[1]);
}

extern "C" __global__ void __launch_bounds__(384, 1) vit_forward(const __grid_constant__ Params P) {
    extern __shared__ __align__(1024) char shared[];
    const u32 smem = address(shared);
    const Thread me;
    const bool two = blockIdx.x < P.pairs;
    set_up(smem, two ? 2 : 1);
    if (me.group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (me.tid == 0) produce(P.tiles, P.layers, TILES, 1, smem);
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    if (me.group == 1 && !two) return;
    const int image = two ? 2 * blockIdx.x + me.group : P.pairs + blockIdx.x;
    const bool saves = P.save && me.tid == 0;
    const u32 n = smem + AT_CHUNKS + me.group * IMAGE, q = n + 3 * CHUNK, k = q + CHUNK, v = k + CHUNK, o = v + CHUNK;
    const u32 stats = smem + AT_STATS + me.group * STATS, place = me.place();
    Ring ring{smem, 0, 0};
    float stream[3][SUMS];

    // tokens to registers by way of shared memory
    for (int i = me.tid; i < ROWS * 24; i += 128) {
        const int token = i / 24, c = i % 24;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (token < N) x = *(const uint4*)(P.x + ((u64)image * N + token) * D + c * 8);
        write16(n + (c >> 3) * CHUNK + at_piece(token, c & 7), x);
    }
    me.meet();
    UNROLL for (int m = 0; m < 3; m++)
        UNROLL for (int s = 0; s < STEPS; s++) {
            u32 x[4];
            load_step(n + m * CHUNK + place, s, x);
            UNROLL for (int i = 0; i < halves(s); i++) {
                stream[m][8 * s + 2 * i] = low(x[i]);
                stream[m][8 * s + 2 * i + 1] = high(x[i]);
            }
        }

    for (int l = 0; l < P.layers; l++) {
        const u64 at = (u64)l * P.images + image;              // among all layers' images
        const int rows = (int)at * N;
        const bool last = l == P.layers - 1;
        const float keep1 = P.keep[l * 2 * P.images + image], keep2 = P.keep[(l * 2 + 1) * P.images + image];
        norm(stream, n, stats, P.save ? P.rstd + at * N : nullptr, P.eps, me);
        if (saves) {
            UNROLL for (int m = 0; m < 3; m++) tensor_store(P.n, n + m * CHUNK, m * 64, rows);
            stores_commit();
        }
        // ------------------------------------------------------------ attention, four heads at a time: one a warp
        ROLLED for (int heads = 0; heads < 3; heads++) {
            u32 kr[GROUPS][2], vr[GROUPS][2];                  // this warp's keys and values
            {
                float a[SUMS], b[SUMS];                        // two products under way
                const u32 tq = ring.take();
                if (heads == 0) add_bias(stream, tq, keep1, me);
                const float q0 = bias(tq, me.row()), q1 = bias(tq, me.row() + 8);
                rows_product(a, tq, n);
                const u32 tk = ring.take();
                const float k0 = bias(tk, me.row()), k1 = bias(tk, me.row() + 8);
                rows_product(b, tk, n);
                products_wait<1>();
                hold(a);
                ring.give_back(tq, me.lane);
                store_biased(q + place, a, q0, q1);
                const u32 tv = ring.take();
                const float v0 = bias(tv, me.row()), v1 = bias(tv, me.row() + 8);
                rows_product(a, tv, n);
                products_wait<1>();
                hold(b);
                ring.give_back(tk, me.lane);
                store_biased(k + place, b, k0, k1);
                products_wait<0>();
                hold(a);
                ring.give_back(tv, me.lane);
                UNROLL for (int j = 0; j < GROUPS; j++) {
                    vr[j][0] = pack2(a[4 * j] + v0, a[4 * j + 1] + v0);
                    vr[j][1] = pack2(a[4 * j + 2] + v1, a[4 * j + 3] + v1);
                }
                store_chunk(v + place, [&](int i, int h) { return vr[i >> 2][h]; });
                fence_async();
                if (saves) stores_read();                      // of the heads before, and of n
                me.meet();                                     // q, k, v are there; all warps are done with o
                if (saves) {
                    UNROLL for (int i = 0; i < 3; i++) tensor_store(P.qkv, q + i * CHUNK, i * D + heads * 64, rows);
                    stores_commit();
                }
                UNROLL for (int j = 0; j + 1 < GROUPS; j += 2)
                    load4(k + place + j * 1024, kr[j][0], kr[j][1], kr[j + 1][0], kr[j + 1][1]);
                if (GROUPS % 2) load2(k + place + PAIRS * 2048, kr[GROUPS - 1][0], kr[GROUPS - 1][1]);
            }
            float* lse = P.save ? P.lse + (at * A + heads * 4 + me.warp) * N : nullptr;
            const int wanted = last ? P.taken : N;             // what the last layer makes of other tokens nobody reads
            UNROLL for (int i = 0; i < PAIRS; i++)
                if (16 * i < wanted) attend<true>(i, q, o, kr, vr, keep1, lse, me);
            if (GROUPS % 2 && 16 * PAIRS < wanted) attend<false>(PAIRS, q, o, kr, vr, keep1, lse, me);
            fence_async();
            if (saves) stores_read();                          // of q, k, v
            me.meet();
            if (saves) {
                tensor_store(last ? P.last_o : P.o, o, heads * 64, last ? image * P.taken : rows);
                stores_commit();
            }
            const u32 tp = ring.take();
            columns_product(stream, tp, o);
            products_wait<0>();
            hold(stream);
            ring.give_back(tp, me.lane);
        }
        // ------------------------------------------------------------ MLP, 2 x 64 hidden channels at a time
        norm(stream, n, stats, P.save ? P.rstd1 + at * N : nullptr, P.eps, me);
        if (saves) {
            UNROLL for (int m = 0; m < 3; m++)
                tensor_store(last ? P.last_n1 : P.n1, n + m * CHUNK, m * 64, last ? image * P.taken : rows);
            stores_commit();
        }
        const float half = 0.5f * keep2;
        auto activate = [&](const float (&sum)[SUMS], float b0, float b1, u32 chunk) {
            store_chunk(chunk + place, [&](int i, int h) {
                const float b = h ? b1 : b0;
                return pack2(gelu(sum[i] + b, half), gelu(sum[i + 1] + b, half));
            });
            fence_async();
            me.meet();
        };
        ROLLED for (int c = 0; c < 3; c++) {
            float a[SUMS], b[SUMS];
            const u32 ta = ring.take();
            if (c == 0) add_bias(stream, ta, keep2, me);
            const float a0 = bias(ta, me.row()), a1 = bias(ta, me.row() + 8);
            rows_product(a, ta, n);
            const u32 tb = ring.take();
            const float b0 = bias(tb, me.row()), b1 = bias(tb, me.row() + 8);
            rows_product(b, tb, n);
            products_wait<1>();
            hold(a);
            ring.give_back(ta, me.lane);
            activate(a, a0, a1, k);
            const u32 tc = ring.take();
            columns_product(stream, tc, k);
            products_wait<1>();
            hold(b);
            ring.give_back(tb, me.lane);
            activate(b, b0, b1, v);
            const u32 td = ring.take();
            products_wait<0>();
            hold(stream);
            ring.give_back(tc, me.lane);
            columns_product(stream, td, v);
            products_wait<0>();
            hold(stream);
            ring.give_back(td, me.lane);
            me.meet();                                         // all warps are done with the first chunk
        }
    }
    // ---------------------------------------------------------------- out: the first `taken` tokens
    if (saves) stores_read();
    me.meet();
    UNROLL for (int m = 0; m < 3; m++)
        store_chunk(n + m * CHUNK + place, [&](int i, int) { return pack2(stream[m][i], stream[m][i + 1]); });
    me.meet();
    for (int i = me.tid; i < P.taken * 24; i += 128) {
        const int token = i / 24, c = i % 24;
        const uint4 x = read16(n + (c >> 3) * CHUNK + at_piece(token, c & 7));
        *(uint4*)(P.out + ((u64)image * P.taken + token) * D + c * 8) = x;
    }
    if (saves) stores_done();
}
