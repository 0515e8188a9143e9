// What forward.cu and backward.cu share, and how they work.
//
// A model of 192 channels is too narrow to keep a GPU busy one operation at a time: between two kernels its tokens go
// to memory and come back. Here a block of threads takes two images through ALL layers in one launch, and the stream of
// tokens never leaves the multiprocessor. What moves instead are the weights, which everybody needs and the L2 cache
// holds.
//
//      memory        L2                shared memory (227 KB)                 registers
//     --------   ----------   ---------------------------------------   ------------------------
//      weights -> 24 KB tile -> ring of 3 tiles --------+
//                                                       |  wgmma
//      x ------------------------> chunks, image 0 -----+-> warpgroup 0: residual stream of image 0
//                                    |  q k v o n       |
//      x ------------------------> chunks, image 1 -----+-> warpgroup 1: residual stream of image 1
//                                    |
//      n, qkv, o, n1 <---------------+  (for backward, by the copy engine)
//
// A block of threads is three warpgroups of 128 threads. The first two each own an image and compute; one thread of the
// third asks the copy engine for weight tiles and sleeps in between (in backward two more move their image's tensors).
//
// THE PRODUCT. `wgmma` is one instruction by which four warps multiply a 64 x 16 matrix A by a 16 x n matrix B, both
// read from shared memory, and add to 64 x n sums in their registers. We compute Y' = W X' (the transpose of Y = X W'):
// rows are output channels, columns the tokens of one image. So n is the number of tokens, rounded up to a multiple of
// 8 and no further, and of a tile of 64 output channels warp w gets 16w .. 16w + 15: exactly one head, so that
// attention needs no exchange between warps. With lane = 4g + t, a thread holds of every group j of eight tokens four
// numbers:
//
//      sum[4j + 2h + e]  =  Y[token 8j + 2t + e][channel 16w + 8h + g]          h, e = 0 or 1
//
// A TILE is the unit in which weights travel: 64 x 192 numbers ("rows": 64 output channels, all 192 inputs) or 192 x 64
// ("columns": all 192 output channels, 64 inputs), as three sub-tiles of 64 x 64, with up to 256 biases behind. The
// order of tiles in memory is the order of their use (layout.py defines it), so the ring needs no addresses.
//
// A CHUNK holds the tokens of one image in 64 channels, in bf16: rows of 128 bytes. Sub-tiles have the same form. Eight
// rows would hit the same banks of shared memory, so in row r the 16-byte piece c lies at piece c ^ (r % 8). That is
// the "128-byte swizzle" which wgmma and the copy engine know by name; `stmatrix` and `ldmatrix`, which move 8 x 8
// blocks between a chunk and registers in the layout above, are given swizzled addresses (Thread::place).
//
// TALKING. Each tile of the ring has two mbarriers: `full` (the copy engine has written it) and `empty` (all consumer
// warps are done with it). A warpgroup's four warps meet at a named barrier; the two images never wait for each other.
//
// TRAPS, each met once:
// - What one thread writes to shared memory by ordinary stores, wgmma and the copy engine see only after fence_async().
// - A read of shared memory is not ordered before the mbarrier arrival behind it until its value is used: see `bias`.
// - Sums of a wgmma may not be touched before it is waited for; `hold` keeps the compiler from moving code across.
// - A wgmma that overwrites its sums still counts as reading them. Zero them, or their old values occupy registers.
// - Shared memory leaves 28 KB of L1 cache: a register that spills costs some 350 cycles. Look at ptxas -v.
// - An mbarrier's parity tells odd phases from even ones only: never be two phases ahead.
// - Rows of a chunk behind the last token must hold finite numbers, because 0 times NaN is NaN.
//
// Built by build.py with N (tokens), TANH, GELU_0 .. GELU_2, SHARED_BYTES and PARAMS_BYTES defined. No includes of CUDA's.

#include "instructions.cuh"

constexpr int D = 192, H = 384, A = 12;                        // width, hidden width of the MLP, heads (of 16 channels)
constexpr int GROUPS = (N + 7) / 8, ROWS = 8 * GROUPS;         // of eight tokens; rows of a chunk
constexpr int PAIRS = GROUPS / 2, STEPS = (GROUPS + 1) / 2;    // groups go in pairs, an odd last one alone
constexpr int SUMS = 4 * GROUPS;                               // numbers of a 64 x ROWS product in a thread
constexpr int SUB = 64 * 64 * 2, TILE = 3 * SUB + 1024, CHUNK = ROWS * 128;   // bytes
constexpr int STAGES = 3;                                      // tiles of the ring
constexpr u64 LAYER_BYTES = 54 * TILE;                         // of packed weights: forward's tiles and backward's
constexpr int AT_CHUNKS = STAGES * TILE, IMAGE = CHUNKS * CHUNK;
constexpr int AT_STATS = AT_CHUNKS + 2 * IMAGE, STATS = (8 + FACTORS) * ROWS * 4;   // of norms: sums by warp, results
constexpr int AT_BARRIERS = AT_STATS + 2 * STATS;              // full, empty, then each image's own
constexpr int SHARED = AT_BARRIERS + (2 * STAGES + 2 * BARRIERS) * 8;
static_assert(CHUNK % 1024 == 0 && TILE % 1024 == 0, "a swizzled tile starts at a multiple of 1,024 bytes");
constexpr float SCORE = 0.25f * 1.4426950408889634f;           // 1 / sqrt(16), for powers of two

// ---------------------------------------------------------------- who a thread is

// where the 16-byte piece c of row r lies in a swizzled chunk
INLINE u32 at_piece(int r, int c) { return r * 128 + ((c ^ (r & 7)) << 4); }

struct Thread {
    int group;        // its warpgroup: 0 or 1 is also the image of the block of threads
    int tid, warp, lane;
    INLINE Thread() {
        group = __shfl_sync(~0u, threadIdx.x >> 7, 0);         // by a shuffle: the compiler sees it equal in a warp
        tid = threadIdx.x & 127; lane = threadIdx.x & 31;
        warp = __shfl_sync(~0u, tid >> 5, 0);
    }
    INLINE int g() const { return lane >> 2; }
    INLINE int t() const { return lane & 3; }
    INLINE int row() const { return 16 * warp + g(); }         // its first of a tile's 64; the other is row() + 8
    INLINE void meet() const { asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); }   // its warpgroup
    // stmatrix and ldmatrix: this lane's row is token 8 (lane / 16) + lane % 8, its piece the half lane / 8 % 2 of the
    // warp's channels
    INLINE u32 place() const { return at_piece((lane >> 4) * 8 + (lane & 7), 2 * warp + (lane >> 3 & 1)); }
    // the same with the two bits of the lane swapped: blocks come in the order of the operand A of mma16
    INLINE u32 place_a() const { return at_piece((lane >> 3 & 1) * 8 + (lane & 7), 2 * warp + (lane >> 4)); }
};

// ---------------------------------------------------------------- the ring of weight tiles

INLINE u32 full(u32 smem, u32 stage) { return smem + AT_BARRIERS + stage * 8; }
INLINE u32 empty(u32 smem, u32 stage) { return smem + AT_BARRIERS + (STAGES + stage) * 8; }
INLINE u32 own_barriers(u32 smem, int image) { return smem + AT_BARRIERS + (2 * STAGES + image * BARRIERS) * 8; }

INLINE void set_up(u32 smem, int images) {                     // all threads
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) { barrier_new(full(smem, s), 1); barrier_new(empty(smem, s), 4 * images); }
        for (int i = 0; i < 2 * BARRIERS; i++) barrier_new(own_barriers(smem, 0) + i * 8, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async();
    }
    __syncthreads();
}
// one thread: streams `layers` times `tiles` tiles; `step` is 1, or -1 from the last layer to the first
INLINE void produce(const char* from, int layers, int tiles, int step, u32 smem) {
    u32 stage = 0, phase = 1;
    for (int l = 0; l < layers; l++) {
        const char* tile = from + (u64)(step > 0 ? l : layers - 1 - l) * LAYER_BYTES;
        for (int i = 0; i < tiles; i++, tile += TILE) {
            wait(empty(smem, stage), phase);
            expect(full(smem, stage), TILE);
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                         ::"r"(smem + stage * TILE), "l"(tile), "r"(TILE), "r"(full(smem, stage)) : "memory");
            if (++stage == STAGES) { stage = 0; phase ^= 1; }
        }
    }
}
struct Ring {                                                  // a consumer's place in it
    u32 smem, stage, phase;
    INLINE u32 take() {                                        // wait for the next tile; its address
        const u32 s = stage;
        wait(full(smem, s), phase);
        if (++stage == STAGES) { stage = 0; phase ^= 1; }
        return smem + s * TILE;
    }
    // One lane speaks for its warp (racecheck, which does not know that, reports all reads of biases; with every lane
    // arriving it reports nothing).
    INLINE void give_back(u32 tile, int lane) const {
        __syncwarp();
        if (lane == 0) arrive(empty(smem, (tile - smem) / TILE));
    }
};
// a number from behind a tile. The addition waits for it: nothing but a use of what was read orders the read before the
// arrival that gives the tile back (without it, now and then, biases were those of a later tile)
INLINE float bias(u32 tile, int i) {
    float v = read(tile + 3 * SUB + i * 4);
    asm volatile("add.f32 %0, %0, 0f00000000;" : "+f"(v)::"memory");
    return v;
}

// ---------------------------------------------------------------- products

INLINE void products_start() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INLINE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT> INLINE void products_wait() {              // for all but the last LEFT groups
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
template <int S> INLINE void hold(float (&d)[S]) {             // reads and writes of d stay on their side of this
    UNROLL for (int i = 0; i < S; i++) asm volatile("" : "+f"(d[i])::"memory");
}
INLINE void hold(float (&d)[3][SUMS]) { hold(d[0]); hold(d[1]); hold(d[2]); }
INLINE void zero(float (&d)[3][SUMS]) {
    UNROLL for (int m = 0; m < 3; m++) UNROLL for (int i = 0; i < SUMS; i++) d[m][i] = 0.f;
}
INLINE u64 descriptor(u32 at) {                                // of swizzled rows of 128 bytes, eight every 1,024 bytes
    return (u64)((at & 0x3FFFF) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}
// d (64 x ROWS) = or += A (64 x 16) B (ROWS x 16)', A and B swizzled in shared memory
#define COMMA ,
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D28 D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24)
#define T28 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27"
#define WGMMA(n, names, a, b, add, sums) \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" add ", 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 " \
                 names "}, %" a ", %" b ", p, 1, 1, 0, 0;\n}" \
                 : sums : "l"(left), "l"(right), "r"(adding))
INLINE void wgmma(float (&d)[SUMS], u64 left, u64 right, int adding) {
#if (N + 7) / 8 == 7
    WGMMA("56", T28, "28", "29", "30", D28);
#elif (N + 7) / 8 == 8
    WGMMA("64", T28 ",%28,%29,%30,%31", "32", "33", "34", D28 COMMA D4(28));
#elif (N + 7) / 8 == 9
    WGMMA("72", T28 ",%28,%29,%30,%31,%32,%33,%34,%35", "36", "37", "38", D28 COMMA D4(28) COMMA D4(32));
#else
#error "49 to 72 tokens"
#endif
}
// sum (64 x ROWS) = a tile of rows (64 x 192) times three chunks
INLINE void rows_product(float (&sum)[SUMS], u32 tile, u32 chunks) {
    const u64 a = descriptor(tile), b = descriptor(chunks);
    hold(sum);
    products_start();
    UNROLL for (int c = 0; c < 3; c++)
        UNROLL for (int k = 0; k < 4; k++)
            wgmma(sum, a + (c * SUB + k * 32) / 16, b + (c * CHUNK + k * 32) / 16, c + k > 0);
    products_commit();
}
// sum (192 x ROWS) += a tile of columns (192 x 64) times a chunk
INLINE void columns_product(float (&sum)[3][SUMS], u32 tile, u32 chunk) {
    const u64 a = descriptor(tile), b = descriptor(chunk);
    hold(sum);
    products_start();
    UNROLL for (int m = 0; m < 3; m++)
        UNROLL for (int k = 0; k < 4; k++) wgmma(sum[m], a + (m * SUB + k * 32) / 16, b + k * 32 / 16, 1);
    products_commit();
}

// ---------------------------------------------------------------- between sums and chunks

// two groups of tokens (step s) of this warp's 16 channels: v[0], v[1] are the two halves of the channels, v[2], v[3]
// those of the second group
INLINE void store_step(u32 to, int s, const u32 (&v)[4]) {
    if (s < PAIRS) store4T(to + s * 2048, v[0], v[1], v[2], v[3]);
    else store2T(to + s * 2048, v[0], v[1]);
}
INLINE void load_step(u32 from, int s, u32 (&v)[4]) {
    v[2] = v[3] = 0;
    if (s < PAIRS) load4T(from + s * 2048, v[0], v[1], v[2], v[3]);
    else load2T(from + s * 2048, v[0], v[1]);
}
INLINE constexpr int halves(int s) { return s < PAIRS ? 4 : 2; }   // of step s that exist
// all tokens: value(i, h) gives the two numbers of sums i and i + 1, channel half h
template <class F> INLINE void store_chunk(u32 to, F value) {
    UNROLL for (int s = 0; s < STEPS; s++) {
        u32 v[4] = {};
        UNROLL for (int k = 0; k < halves(s); k++) v[k] = value(8 * s + 2 * k, k & 1);
        store_step(to, s, v);
    }
}

// ---------------------------------------------------------------- norm and GELU

// two sums a token (s, q) for two tokens over the eight lanes that share them: each lane is left with one of the four
INLINE float sums_of_lanes(float s0, float s1, float q0, float q1, int lane) {
    const bool second = lane & 16, odd = lane & 8;
    float k0 = second ? q0 : s0, k1 = second ? q1 : s1;
    k0 += shuffle_xor(second ? s0 : q0, 16); k1 += shuffle_xor(second ? s1 : q1, 16);
    float k = odd ? k1 : k0;
    k += shuffle_xor(odd ? k0 : k1, 8);
    return k + shuffle_xor(k, 4);
}
// what they are left with, of all groups, to this warp's two rows of `stats`
INLINE void put_sums(const float (&r)[GROUPS], u32 stats, const Thread& me) {
    if (me.lane & 4) return;
    const u32 at = stats + ((me.warp * 2 + (me.lane >> 4)) * ROWS + 2 * me.t() + (me.lane >> 3 & 1)) * 4;
    UNROLL for (int j = 0; j < GROUPS; j++) write(at + j * 32, r[j]);
}
INLINE void get_sums(float& s, float& q, u32 stats, int token) {   // over all channels
    s = q = 0;
    UNROLL for (int w = 0; w < 4; w++) {
        s += read(stats + (w * 2 * ROWS + token) * 4);
        q += read(stats + ((w * 2 + 1) * ROWS + token) * 4);
    }
}

// GELU(h) = h Phi(h), Phi(h) = (1 + tanh(argument(h))) / 2. For the error function the argument is h p(h^2), p fitted
// (gelu.py)
constexpr float ROOT = 0.7978845608028654f;                    // of 2 / pi
INLINE float gelu_argument(float h) {
#if TANH
    return h * fmaf(h * h, ROOT * 0.044715f, ROOT);
#else
    const float u = fminf(h * h, 16.0f);
    return h * fmaf(fmaf(u, GELU_2, GELU_1), u, GELU_0);
#endif
}
INLINE float gelu(float h, float half_keep) {                  // keep GELU(h)
    const float x = h * half_keep;
    return fmaf(x, tanh_fast(gelu_argument(h)), x);
}
INLINE float gelu_slope(float& h, float half_keep) {           // likewise, in h; returns keep times the derivative
    const float th = tanh_fast(gelu_argument(h)), phi = fmaf(th, half_keep, half_keep), u = h * h;
#if TANH
    const float density = half_keep * fmaf(-th, th, 1.0f) * fmaf(u, 3 * ROOT * 0.044715f, ROOT);
#else
    const float density = ROOT * half_keep * exp2_fast(u * -0.7213475204f);
#endif
    const float slope = fmaf(h, density, phi);
    h *= phi;
    return slope;
}
