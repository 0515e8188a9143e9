// Backward of all layers with respect to tokens; common.cuh says how it is built.
//
// Leaves, of every layer, what the weights' gradients are made of: the gradients of the layer's output (dout), of the
// stream between its branches (dx1), of q, k, v (dqkv) and of the MLP's hidden layer before its GELU (dh), and the
// hidden layer itself times keep2 (a). Below dY is the gradient of Y. A layer takes 30 tiles, from the last layer to
// the first:
//
//      six times:    fc1 (rows)  -> h, GELU(h) and its slope         n1 -> a, again as in forward
//                    fc2' (rows) -> da, dh = da slope                 dout -> dh
//                    fc1' (columns) -> dn1 +=                         then through the norm: dx1 = dout + norm'(dn1)
//      three times:  projection' (rows) -> dO of four heads           then attention's backward, a head a warp
//      nine times:   qkv' (columns) -> dn +=                          then through the norm: dx = dx1 + norm'(dn)
//
// Chunks of an image:  n1 n1 n1 | g g g | a | dh      n1's places then hold q, k, v of four heads, which their
// gradients replace, and at last n; g is the gradient of the stream, in bf16; a's place then holds dO, and a's and dh's
// what the last product reads.
//
// An image has a copy thread in the third warpgroup, which stores and loads its chunks, so that no warp which computes
// waits for the copy engine. See `copies` for what the two say to each other.
constexpr int CHUNKS = 8, FACTORS = 4, BARRIERS = 6, TILES = 30;
#include "common.cuh"
#include "attention_backward.cuh"

struct Params {
    Map n, n1, qkv, dout, a, dh, dx1, dqkv, dx;       // of all layers' tokens, dx of one's; boxes of N x 64 channels
    Map last_dout, last_a, last_dh, last_dx1, last_n1;   // of the last layer, with `taken` tokens an image
    const float *rstd, *rstd1, *lse, *keep;           // as forward left them
    const char* tiles;                                // backward's of the first layer
    u32* ready;                                       // to be cleared for the weights' gradients
    int images, layers, pairs, taken, num_ready;      // as in forward
};
static_assert(SHARED == SHARED_BYTES && sizeof(Params) == PARAMS_BYTES, "Python counts otherwise");

// An image's own mbarriers: loads into the first three chunks, into a's and dh's; jobs for the copy thread, even and odd
// ones; a and dh have been read
struct Bars {
    u32 first, pieces, go, read;
    INLINE Bars(u32 smem, int image) {
        first = own_barriers(smem, image);
        pieces = first + 8; go = first + 24; read = first + 40;
    }
};
struct Chunks {
    u32 n, g, a, h;
    INLINE Chunks(u32 smem, int image) {
        n = smem + AT_CHUNKS + image * IMAGE;
        g = n + 3 * CHUNK; a = n + 6 * CHUNK; h = a + CHUNK;
    }
};

// ---------------------------------------------------------------- norm

// g += the gradient of the norm's input, from that of its output, dn, and its output, n:
// rstd (dn - mean(dn) - n mean(dn n)), means over channels
INLINE void norm_backward(const float (&dn)[3][SUMS], u32 n, u32 g, u32 stats, const float* rstd, const Thread& me) {
    const u32 factors = stats + 8 * ROWS * 4, place = me.place();
    const float mine = me.tid < N ? rstd[me.tid] : 0.f;
    float r[2 * STEPS];
    UNROLL for (int s = 0; s < STEPS; s++) {
        float sum[4] = {}, along[4] = {};                      // of tokens 16 s + 2t, the next, and those eight behind
        UNROLL for (int m = 0; m < 3; m++) {
            u32 v[4];
            load_step(n + m * CHUNK + place, s, v);
            UNROLL for (int k = 0; k < halves(s); k++) {
                const float d0 = dn[m][8 * s + 2 * k], d1 = dn[m][8 * s + 2 * k + 1];
                const int i = k & 2;                           // which group's tokens
                sum[i] += d0; sum[i + 1] += d1;
                along[i] = fmaf(d0, low(v[k]), along[i]); along[i + 1] = fmaf(d1, high(v[k]), along[i + 1]);
            }
        }
        UNROLL for (int k = 0; k < halves(s); k += 2)
            r[2 * s + k / 2] = sums_of_lanes(sum[k], sum[k + 1], along[k], along[k + 1], me.lane);
    }
    put_sums((const float (&)[GROUPS])r, stats, me);
    me.meet();
    if (me.tid < ROWS) {
        float s, q;
        get_sums(s, q, stats, me.tid);
        write2(factors + me.tid * 16, -s * (1.0f / D) * mine, -q * (1.0f / D) * mine);
        write(factors + me.tid * 16 + 8, mine);
    }
    me.meet();
    UNROLL for (int s = 0; s < STEPS; s++) {
        float4 f[4];                                           // of four tokens: what is added, of n, of dn
        UNROLL for (int k = 0; k < halves(s); k++)
            f[k] = read4(factors + (16 * s + 8 * (k >> 1) + 2 * me.t() + (k & 1)) * 16);
        UNROLL for (int m = 0; m < 3; m++) {
            const u32 at = m * CHUNK + place;
            u32 v[4], d[4];
            load_step(n + at, s, v);
            load_step(g + at, s, d);
            UNROLL for (int k = 0; k < halves(s); k++) {
                const float4 f0 = f[k & 2], f1 = f[(k & 2) + 1];
                const float x0 = fmaf(dn[m][8 * s + 2 * k], f0.z, fmaf(low(v[k]), f0.y, f0.x)) + low(d[k]);
                const float x1 = fmaf(dn[m][8 * s + 2 * k + 1], f1.z, fmaf(high(v[k]), f1.y, f1.x)) + high(d[k]);
                d[k] = pack2(x0, x1);
            }
            store_step(g + at, s, d);
        }
    }
    fence_async();
    me.meet();
}

// ---------------------------------------------------------------- the copy thread

INLINE void load3(const Map& map, u32 chunks, int stride, int channel, int row, u32 bar) {   // three chunks
    for (int m = 0; m < 3; m++) tensor_load(map, chunks + m * CHUNK, m * stride + channel, row, bar);
}
INLINE void store3(const Map& map, u32 chunks, int stride, int channel, int row) {
    for (int m = 0; m < 3; m++) tensor_store(map, chunks + m * CHUNK, m * stride + channel, row);
    stores_commit();
}
INLINE void prefetch3(const Map& map, int stride, int channel, int row) {
    for (int m = 0; m < 3; m++) tensor_prefetch(map, m * stride + channel, row);
}
// An image's copy thread. It does its jobs in the order in which the warps that compute ask for them, by an arrival on
// `go`. They may be two asks ahead, while one piece of dqkv is multiplied and the other is there, but not three: before
// the third they wait for what the first job gave them. A single mbarrier's parity would be back where it was after two,
// so there are two, for even and odd jobs: with one, a copy thread that was late missed both asks, and the kernel hung
// (seen where another process took the GPU in between). Each tensor is fetched to the L2 cache one job before it is
// loaded; earlier, and others would drive it out again.
INLINE void copies(const Params& P, u32 smem, int which, int image) {
    const Chunks c(smem, which);
    const Bars bars(smem, which);
    const int rows = P.images * N, mine = image * N;           // of a layer; this image's first
    u32 done = 0;
    auto job = [&]() { wait(bars.go + (done & 1) * 8, done >> 1 & 1); done++; };
    job();
    expect(bars.first, 6 * P.taken * 128);
    load3(P.last_dout, c.g, 64, 0, image * P.taken, bars.first);
    load3(P.last_n1, c.n, 64, 0, image * P.taken, bars.first);
    for (int l = P.layers - 1; l >= 0; l--) {
        const int at = l * rows + mine;
        const bool last = l == P.layers - 1;
        const int at_taken = last ? image * P.taken : at;      // behind the last layer's attention there are no others
        for (int i = 0; i < 6; i++) {                          // a and dh of 64 hidden channels
            job();
            tensor_store(last ? P.last_a : P.a, c.a, i * 64, at_taken);
            tensor_store(last ? P.last_dh : P.dh, c.h, i * 64, at_taken);
            stores_commit();
            stores_read();
            arrive(bars.read);
            if (i == 3) prefetch3(P.qkv, D, 0, at);
        }
        job();                                                 // dx1 is in g; n1 is done with
        expect(bars.first, 3 * N * 128);
        load3(P.qkv, c.n, D, 0, at, bars.first);
        store3(last ? P.last_dx1 : P.dx1, c.g, 64, 0, at_taken);
        prefetch3(P.qkv, D, 64, at);
        for (int heads = 0; heads < 3; heads++) {              // dq, dk, dv of four heads are in n
            job();
            for (int m = 0; m < 3; m++) {
                tensor_store(P.dqkv, c.n + m * CHUNK, m * D + heads * 64, at);
                stores_commit();
            }
            if (heads < 2) {                                   // each chunk is loaded as soon as it has been read
                expect(bars.first, 3 * N * 128);
                stores_read<2>();
                tensor_load(P.qkv, c.n, (heads + 1) * 64, at, bars.first);
                stores_read<1>();
                tensor_load(P.qkv, c.n + CHUNK, D + (heads + 1) * 64, at, bars.first);
                stores_read<0>();
                tensor_load(P.qkv, c.n + 2 * CHUNK, 2 * D + (heads + 1) * 64, at, bars.first);
                if (heads == 0) prefetch3(P.qkv, D, 128, at);
                else prefetch3(P.n, 64, 0, at);
            } else {                                           // the other heads' are in memory: back with two pieces
                stores_done<3>();
                for (int i = 0; i < 2; i++) {
                    expect(bars.pieces + i * 8, N * 128);
                    tensor_load(P.dqkv, i ? c.h : c.a, i * D, at, bars.pieces + i * 8);
                }
                if (l) prefetch3(P.n1, 64, 0, at - rows);
            }
        }
        for (int i = 2; i < 6; i++) {                          // one of the two pieces has been multiplied
            job();
            if (i == 2) {                                      // and so have those of the last heads, in n
                stores_read();
                expect(bars.first, 3 * N * 128);
                load3(P.n, c.n, 64, 0, at, bars.first);
            }
            expect(bars.pieces + (i & 1) * 8, N * 128);
            tensor_load(P.dqkv, i & 1 ? c.h : c.a, i % 3 * D + i / 3 * 64, at, bars.pieces + (i & 1) * 8);
        }
        job();                                                 // the layer's input's gradient is in g; n is done with
        if (l) {
            expect(bars.first, 3 * N * 128);
            load3(P.n1, c.n, 64, 0, at - rows, bars.first);
        }
        store3(l ? P.dout : P.dx, c.g, 64, 0, l ? at - rows : at);
    }
    stores_done();
}

// ---------------------------------------------------------------- the kernel

extern "C" __global__ void __launch_bounds__(384, 1) vit_backward(const __grid_constant__ Params P) {
    extern __shared__ __align__(1024) char shared[];
    const u32 smem = address(shared);
    const Thread me;
    const bool two = blockIdx.x < P.pairs;
    const int first = two ? 2 * blockIdx.x : P.pairs + blockIdx.x;   // image of the block of threads
    set_up(smem, two ? 2 : 1);
    if (blockIdx.x == 0 && threadIdx.x < P.num_ready) P.ready[threadIdx.x] = 0;
    if (me.group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (me.lane == 0 && me.warp == 0) produce(P.tiles, P.layers, TILES, -1, smem);
        if (me.lane == 0 && (me.warp == 1 || (me.warp == 2 && two))) copies(P, smem, me.warp - 1, first + me.warp - 1);
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    if (me.group == 1 && !two) return;
    const int image = first + me.group;
    const Chunks c(smem, me.group);
    const Bars bars(smem, me.group);
    const u32 stats = smem + AT_STATS + me.group * STATS, place = me.place();
    Ring ring{smem, 0, 0};
    u32 parity_first = 0, parity_pieces = 0, parity_read = 0, odd = 0;
    auto ask = [&]() { if (me.tid == 0) arrive(bars.go + odd * 8); odd ^= 1; };
    // Rows behind the tokens stay zero; and at first those of tokens of the last layer that nobody reads.
    for (int i = me.tid; i < IMAGE / 16; i += 128) write16(c.n + i * 16, make_uint4(0, 0, 0, 0));
    fence_async();
    me.meet();
    ask();
    const int rows = P.images * N, mine = image * N;
    float dn[3][SUMS];
    ROLLED for (int l = P.layers - 1; l >= 0; l--) {
        const int at = l * rows + mine;
        const float keep1 = P.keep[l * 2 * P.images + image], half2 = 0.5f * P.keep[(l * 2 + 1) * P.images + image];
        zero(dn);
        wait(bars.first, parity_first); parity_first ^= 1;     // n1
        // ------------------------------------------------------------ MLP
        ROLLED for (int i = 0; i < 6; i++) {
            float h[SUMS], da[SUMS];
            const u32 t0 = ring.take();
            const float b0 = bias(t0, me.row()), b1 = bias(t0, me.row() + 8);
            rows_product(h, t0, c.n);
            const u32 t1 = ring.take();
            rows_product(da, t1, c.g);
            products_wait<1>();
            hold(h);
            ring.give_back(t0, me.lane);
            if (i) { wait(bars.read, parity_read); parity_read ^= 1; }   // a and dh before have been read
            store_chunk(c.a + place, [&](int k, int half) {    // h turns into the slope
                float y[2];
                UNROLL for (int e = 0; e < 2; e++) {
                    y[e] = h[k + e] + (half ? b1 : b0);
                    h[k + e] = gelu_slope(y[e], half2);
                }
                return pack2(y[0], y[1]);
            });
            products_wait<0>();
            hold(da);
            ring.give_back(t1, me.lane);
            store_chunk(c.h + place, [&](int k, int) { return pack2(da[k] * h[k], da[k + 1] * h[k + 1]); });
            fence_async();
            me.meet();
            ask();                                             // store a and dh
            const u32 t2 = ring.take();
            columns_product(dn, t2, c.h);
            products_wait<0>();
            hold(dn);
            ring.give_back(t2, me.lane);
            me.meet();
        }
        norm_backward(dn, c.n, c.g, stats, P.rstd1 + at, me);
        wait(bars.read, parity_read); parity_read ^= 1;
        ask();                                                 // store dx1, load q, k, v
        // ------------------------------------------------------------ attention, four heads at a time
        ROLLED for (int heads = 0; heads < 3; heads++) {
            const float* from = P.lse + ((u64)(l * P.images + image) * A + heads * 4 + me.warp) * N;
            const float lse[3] = {lse_of(from, 0, me.lane), lse_of(from, 1, me.lane), lse_of(from, 2, me.lane)};
            {
                float d[SUMS];
                const u32 tile = ring.take();
                rows_product(d, tile, c.g);
                products_wait<0>();
                hold(d);
                ring.give_back(tile, me.lane);
                store_chunk(c.a + place, [&](int i, int) { return pack2(keep1 * d[i], keep1 * d[i + 1]); });
                __syncwarp();                                  // a warp reads its own head only
            }
            wait(bars.first, parity_first); parity_first ^= 1; // q, k, v
            attention_backward(c.n, c.a, lse, l < P.layers - 1 ? STEPS : (P.taken + 15) / 16, me);
            fence_async();
            me.meet();
            ask();                                             // store dq, dk, dv; load what comes next
        }
        // ------------------------------------------------------------ dn = dqkv W: the last heads' from n, the others'
        // from L2
        zero(dn);
        auto add = [&](u32 chunk) {
            const u32 tile = ring.take();
            columns_product(dn, tile, chunk);
            products_wait<0>();
            hold(dn);
            ring.give_back(tile, me.lane);
        };
        for (int m = 0; m < 3; m++) add(c.n + m * CHUNK);
        ROLLED for (int i = 0; i < 6; i++) {
            const u32 half = i & 1;
            wait(bars.pieces + half * 8, parity_pieces); parity_pieces ^= half;
            add(half ? c.h : c.a);
            if (i < 4) { me.meet(); ask(); }                   // load the next but one
        }
        wait(bars.first, parity_first); parity_first ^= 1;     // n
        norm_backward(dn, c.n, c.g, stats, P.rstd + at, me);
        ask();                                                 // store the gradient; load the next layer's n1
    }
}
