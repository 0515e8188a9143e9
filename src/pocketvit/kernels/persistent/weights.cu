// The weights' gradients of all layers: dW = dY' X over all tokens, db = the sums of dY, or of keep dY behind a branch.
//
// A gradient is cut into tiles of 192 x 192, eight a layer; the sum over tokens goes in steps of 64. With L layers that
// makes 8 L rows of steps, of which each block of threads takes an equal stretch, whatever tiles it begins or ends in:
//
//      tile 0                  tile 1                  tile 2
//      |-------------------|   |-------------------|   |---------- ...
//      block 0 | block 1       | block 2 | block 3       | block 4
//
// A tile belongs to the block that has its first step. Others leave their part of the sum in memory, and its owner adds
// those in their order: no atomics, the same bits every time. What it waits for is what the others do first, so none
// waits long. Blocks are numbered from the last, so an owner waits for blocks that the GPU started before it.
//
//      layer    dY      X    tiles                 After the last layer's attention there are only `taken` tokens
//      qkv      dqkv    n    0 1 2, of rows        an image: tiles 3 to 7 of it are short.
//      proj     dx1     o    3
//      fc1      dh      n1   4 5, of rows
//      fc2      dout    a    6 7, of columns
//
// Both operands lie in shared memory with tokens as rows, so wgmma is told to read them transposed. Three warpgroups
// own 64 rows of a tile each; one thread of a fourth loads boxes of 64 tokens x 64 channels, three of dY and three of X
// a step.
constexpr int CHUNKS = 0, FACTORS = 0, BARRIERS = 0;
#include "common.cuh"

constexpr int SIDE = 192, TOKENS = 64, BOX = TOKENS * 128, STEP = 6 * BOX, DEPTH = 4;   // of the ring of steps
constexpr int PARTS = 12 * 64 * 4;                             // bytes: sums of dY by warp

struct Params {
    Map dqkv, dx1, dh, dout, n, o, n1, a;                      // (layers, tokens, channels)
    Map last_dx1, last_dh, last_dout, last_o, last_n1, last_a; // of the last layer, (1, images x taken, channels)
    float *dw[4], *db[4];                                      // of the first layer: qkv, proj, fc1, fc2
    const float* keep;                                         // (layers, 2, images)
    float* parts;                                              // of each block of threads, (SIDE + 1) x SIDE
    u32* ready;                                                // of each: 0 at first (backward.cu), 1 once it is there
    int images, layers, taken;
    int dw_layer[4], db_layer[4];                              // numbers from one layer's to the next one's
};
constexpr int ALL = DEPTH * STEP + PARTS + 2 * DEPTH * 8;
static_assert(ALL == SHARED_BYTES && sizeof(Params) == PARAMS_BYTES, "Python counts otherwise");

INLINE int block_number() { return gridDim.x - 1 - blockIdx.x; }

// All steps in a row, and where in it a tile lies.
struct Plan {
    int big, small, whole, total;                              // steps of a long and of a short tile; long tiles; steps
    INLINE Plan(const Params& P) {
        big = (P.images * N + TOKENS - 1) / TOKENS; small = (P.images * P.taken + TOKENS - 1) / TOKENS;
        whole = 8 * P.layers - 5; total = whole * big + 5 * small;
    }
    INLINE int start(int tile) const { return tile < whole ? tile * big : whole * big + (tile - whole) * small; }
    INLINE int tile_at(int step) const {
        return step < whole * big ? step / big : whole + (step - whole * big) / small;
    }
    INLINE int from(int block) const { return (int)((u64)total * block / gridDim.x); }   // a block's first step
};
// A block's share of a tile.
struct Piece {
    int tile, layer, from, to, end;                            // its own steps from .. to; its end among all steps
    int weight, row, column;                                   // which of the four, and where in it the tile lies
    bool last;                                                 // of few tokens
    INLINE Piece(const Plan& plan, int step, int block_end) {
        tile = plan.tile_at(step); layer = tile >> 3; last = tile >= plan.whole;
        const int kind = tile & 7, start = plan.start(tile), length = last ? plan.small : plan.big;
        from = step - start; to = min(length, block_end - start); end = start + length;
        weight = kind < 3 ? 0 : kind == 3 ? 1 : kind < 6 ? 2 : 3;
        row = kind < 3 ? kind * SIDE : kind == 5 ? SIDE : 0;
        column = kind == 7 ? SIDE : 0;
    }
    INLINE int columns() const { return weight == 3 ? 2 * SIDE : SIDE; }
    INLINE const Map& left(const Params& P) const {
        if (weight == 0) return P.dqkv;
        if (weight == 1) return last ? P.last_dx1 : P.dx1;
        if (weight == 2) return last ? P.last_dh : P.dh;
        return last ? P.last_dout : P.dout;
    }
    INLINE const Map& right(const Params& P) const {
        if (weight == 0) return P.n;
        if (weight == 1) return last ? P.last_o : P.o;
        if (weight == 2) return last ? P.last_n1 : P.n1;
        return last ? P.last_a : P.a;
    }
    // behind a branch, its factors weight the sums of dY
    INLINE const float* keep(const Params& P) const {
        const float* of_layer = P.keep + layer * 2 * P.images;
        return weight == 1 ? of_layer : weight == 3 && column == 0 ? of_layer + P.images : nullptr;
    }
};

INLINE void box_load(const Map& map, u32 to, int channel, int row, int layer, u32 bar) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];"
                 ::"r"(to), "l"(&map), "r"(channel), "r"(row), "r"(layer), "r"(bar) : "memory");
}
// One thread loads all steps of its block.
INLINE void load_steps(const Params& P, u32 smem) {
    const Plan plan(P);
    const u32 full = smem + DEPTH * STEP + PARTS, empty = full + DEPTH * 8;
    const int end = plan.from(block_number() + 1);
    u32 stage = 0, phase = 1;
    for (int step = plan.from(block_number()); step < end;) {
        const Piece piece(plan, step, end);
        const Map &left = piece.left(P), &right = piece.right(P);
        for (int s = piece.from; s < piece.to; s++) {
            const u32 to = smem + stage * STEP, bar = full + stage * 8;
            const int layer = piece.last && piece.weight ? 0 : piece.layer;
            wait(empty + stage * 8, phase);
            expect(bar, STEP);
            for (int i = 0; i < 3; i++) {
                box_load(left, to + i * BOX, piece.row + 64 * i, s * TOKENS, layer, bar);
                box_load(right, to + (3 + i) * BOX, piece.column + 64 * i, s * TOKENS, layer, bar);
            }
            if (++stage == DEPTH) { stage = 0; phase ^= 1; }
        }
        step += piece.to - piece.from;
    }
}

// d (64 x 192) += A' B, A (16 x 64) and B (16 x 192) with tokens as rows; B's three boxes lie behind each other
INLINE void wgmma_transposed(float (&d)[96], u64 left, u64 right) {
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
        "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
        "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95}, "
        "%96, %97, 1, 1, 1, 1, 1;"
        : D16(0), D16(16), D16(32), D16(48), D16(64), D16(80) : "l"(left), "l"(right));
}
// 64 channels in a row, the next 64 a box behind; eight tokens every 1,024 bytes
INLINE u64 transposed_descriptor(u32 at) {
    return (u64)((at & 0x3FFFF) >> 4) | ((u64)(BOX >> 4) << 16) | (64ull << 32) | (1ull << 62);
}
// sum += this warp's 16 tokens of a step, of 64 channels of dY: a lane sums two. Token i's factor lies with lane i
template <bool KEPT> INLINE void sum_tokens(float (&sum)[2], u32 box, float factor, const Thread& me) {
    UNROLL for (int i = 0; i < 16; i++) {
        u32 v;
        const u32 at = box + at_piece(16 * me.warp + i, me.lane >> 2) + (me.lane & 3) * 4;
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(at));
        const float f = KEPT ? __shfl_sync(~0u, factor, i) : 1.0f;
        sum[0] = fmaf(f, low(v), sum[0]); sum[1] = fmaf(f, high(v), sum[1]);
    }
}

// A part in memory: the sums in the order in which threads hold them, then those of dY
constexpr int PART = (SIDE + 1) * SIDE;
INLINE void leave_part(const Params& P, const float (&d)[96], float of_dy, const Thread& me) {
    float* part = P.parts + (u64)block_number() * PART;
    const int thread = me.group * 128 + me.tid;
    UNROLL for (int i = 0; i < 24; i++)
        ((float4*)part)[i * 384 + thread] = make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
    if (me.tid < 64) part[SIDE * SIDE + me.group * 64 + me.tid] = of_dy;
    __threadfence();
    asm volatile("bar.sync 5, 384;" ::: "memory");
    if (thread == 0) asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(P.ready + block_number()) : "memory");
}
INLINE void add_part(const Params& P, int block, float (&d)[96], float& of_dy, const Thread& me) {
    const float* part = P.parts + (u64)block * PART;
    u32 there = 0;
    while (!there) asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(P.ready + block) : "memory");
    UNROLL for (int i = 0; i < 24; i++) {
        const float4 v = __ldcg((const float4*)part + i * 384 + me.group * 128 + me.tid);
        d[4 * i] += v.x; d[4 * i + 1] += v.y; d[4 * i + 2] += v.z; d[4 * i + 3] += v.w;
    }
    if (me.tid < 64) of_dy += __ldcg(part + SIDE * SIDE + me.group * 64 + me.tid);
}
INLINE void write_tile(const Params& P, const Piece& piece, const float (&d)[96], float of_dy, const Thread& me) {
    const int columns = piece.columns(), row = piece.row + me.group * 64;   // of this warpgroup
    float* dw = P.dw[piece.weight] + (u64)piece.layer * P.dw_layer[piece.weight];
    dw += (row + me.row()) * columns + piece.column + 2 * me.t();
    UNROLL for (int j = 0; j < 24; j++) {
        *(float2*)(dw + 8 * j) = make_float2(d[4 * j], d[4 * j + 1]);
        *(float2*)(dw + 8 * columns + 8 * j) = make_float2(d[4 * j + 2], d[4 * j + 3]);
    }
    if (piece.column == 0 && me.tid < 64) P.db[piece.weight][piece.layer * P.db_layer[piece.weight] + row + me.tid] = of_dy;
}

extern "C" __global__ void __launch_bounds__(512, 1) vit_weights(const __grid_constant__ Params P) {
    extern __shared__ __align__(1024) char shared[];
    const u32 smem = address(shared), full = smem + DEPTH * STEP + PARTS, empty = full + DEPTH * 8;
    const Thread me;                                           // `image` is the warpgroup here
    if (threadIdx.x == 0) {
        for (int s = 0; s < DEPTH; s++) { barrier_new(full + s * 8, 1); barrier_new(empty + s * 8, 12); }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async();
    }
    __syncthreads();
    if (me.group == 3) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (me.tid == 0) load_steps(P, smem);
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 152;");
    const Plan plan(P);
    const int end = plan.from(block_number() + 1);
    const u32 sums = smem + DEPTH * STEP + me.group * 4 * 64 * 4;   // of dY, by warp
    u32 stage = 0, phase = 0;
    float d[96];
    ROLLED for (int step = plan.from(block_number()); step < end;) {
        const Piece piece(plan, step, end);
        const float* keep = piece.keep(P);
        float sum[2] = {0, 0};
        UNROLL for (int i = 0; i < 96; i++) d[i] = 0.f;
        ROLLED for (int s = piece.from; s < piece.to; s++) {
            const u32 left = smem + stage * STEP + me.group * BOX, right = smem + stage * STEP + 3 * BOX;
            wait(full + stage * 8, phase);
            hold(d);
            products_start();
            const u64 a = transposed_descriptor(left), b = transposed_descriptor(right);
            UNROLL for (int k = 0; k < 4; k++) wgmma_transposed(d, a + k * 2048 / 16, b + k * 2048 / 16);
            products_commit();
            if (keep) {
                const int token = s * TOKENS + 16 * me.warp + (me.lane & 15);
                sum_tokens<true>(sum, left, keep[min(token / (piece.last ? P.taken : N), P.images - 1)], me);
            } else if (piece.column == 0) sum_tokens<false>(sum, left, 1.0f, me);
            products_wait<0>();
            hold(d);
            if (me.lane == 0) arrive(empty + stage * 8);
            if (++stage == DEPTH) { stage = 0; phase ^= 1; }
        }
        step += piece.to - piece.from;
        write2(sums + me.warp * 256 + me.lane * 8, sum[0], sum[1]);
        me.meet();
        float of_dy = 0;                                       // of channel `tid` of the warpgroup's 64
        if (me.tid < 64) UNROLL for (int w = 0; w < 4; w++) of_dy += read(sums + w * 256 + me.tid * 4);
        me.meet();
        if (piece.from > 0) leave_part(P, d, of_dy, me);
        else {
            for (int other = block_number() + 1; other < gridDim.x && plan.from(other) < piece.end; other++)
                add_part(P, other, d, of_dy, me);
            write_tile(P, piece, d, of_dy, me);
        }
    }
}
