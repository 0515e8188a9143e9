// Instructions of the GPU that CUDA C++ has no name for, and short names for some that it has; common.cuh says what they are for.
// PTX: https://docs.nvidia.com/cuda/parallel-thread-execution/ (wgmma, mbarrier, cp.async.bulk, ldmatrix, mma)

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
#define INLINE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")

// ---------------------------------------------------------------- single instructions

INLINE u32 address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
INLINE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
INLINE u32 pack2(float low, float high) {                      // two bf16
    u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r;
}
INLINE float low(u32 v) { return __uint_as_float(v << 16); }
INLINE float high(u32 v) { return __uint_as_float(v & 0xffff0000u); }
INLINE float exp2_fast(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE float log2_fast(float x) { float y; asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE float rsqrt_fast(float x) { float y; asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
INLINE float tanh_fast(float x) { float y; asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }   // to 2^-11
INLINE float shuffle_xor(float x, int lanes) { return __shfl_xor_sync(~0u, x, lanes); }
INLINE u32 transposed(u32 a) {                                 // an 8 x 8 block over the warp
    u32 r; asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(a)); return r;
}

// ordinary reads and writes of shared memory
INLINE float read(u32 at) { float v; asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory"); return v; }
INLINE float4 read4(u32 at) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(at) : "memory");
    return v;
}
INLINE uint4 read16(u32 at) {
    uint4 v;
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at) : "memory");
    return v;
}
INLINE void write(u32 at, float v) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory"); }
INLINE void write2(u32 at, float a, float b) {
    asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(at), "f"(a), "f"(b) : "memory");
}
INLINE void write16(u32 at, uint4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// 8 x 8 blocks of bf16, two or four at a time, between shared memory and registers; T: transposed on the way
#define MATRIX "sync.aligned.m8n8"
INLINE void store4T(u32 at, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix." MATRIX ".x4.trans.shared.b16 [%0], {%1,%2,%3,%4};"
                 ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
INLINE void store2T(u32 at, u32 a, u32 b) {
    asm volatile("stmatrix." MATRIX ".x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(at), "r"(a), "r"(b) : "memory");
}
INLINE void store4(u32 at, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix." MATRIX ".x4.shared.b16 [%0], {%1,%2,%3,%4};"
                 ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
INLINE void store2(u32 at, u32 a, u32 b) {
    asm volatile("stmatrix." MATRIX ".x2.shared.b16 [%0], {%1,%2};" ::"r"(at), "r"(a), "r"(b) : "memory");
}
INLINE void load4T(u32 at, u32& a, u32& b, u32& c, u32& d) {
    asm volatile("ldmatrix." MATRIX ".x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at) : "memory");
}
INLINE void load2T(u32 at, u32& a, u32& b) {
    asm volatile("ldmatrix." MATRIX ".x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(a), "=r"(b) : "r"(at) : "memory");
}
INLINE void load4(u32 at, u32& a, u32& b, u32& c, u32& d) {
    asm volatile("ldmatrix." MATRIX ".x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at) : "memory");
}
INLINE void load2(u32 at, u32& a, u32& b) {
    asm volatile("ldmatrix." MATRIX ".x2.shared.b16 {%0,%1}, [%2];" : "=r"(a), "=r"(b) : "r"(at) : "memory");
}

// c (16 x 8) += a (16 x 16 or 16 x 8) b, by one warp, all in registers: for attention
INLINE void mma16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
INLINE void mma8(float (&c)[4], u32 a0, u32 a1, u32 b0) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(b0));
}

// ---------------------------------------------------------------- mbarriers and the copy engine

INLINE void barrier_new(u32 bar, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
INLINE void arrive(u32 bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory"); }
INLINE void expect(u32 bar, u32 bytes) {                       // arrive; the phase waits for these bytes as well
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
INLINE void wait(u32 bar, u32 parity) {
    asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra DONE;\nbra AGAIN;\nDONE:\n}" ::"r"(bar), "r"(parity) : "memory");
}

// A tensor map describes rows of tokens in memory and a box of 64 channels: the copy engine moves boxes from and to
// chunks.
struct alignas(64) Map { u64 v[16]; };
INLINE void tensor_load(const Map& map, u32 chunk, int channel, int row, u32 bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];"
                 ::"r"(chunk), "l"(&map), "r"(channel), "r"(row), "r"(bar) : "memory");
}
INLINE void tensor_prefetch(const Map& map, int channel, int row) {   // to L2
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];"
                 ::"l"(&map), "r"(channel), "r"(row) : "memory");
}
INLINE void tensor_store(const Map& map, u32 chunk, int channel, int row) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];"
                 ::"l"(&map), "r"(channel), "r"(row), "r"(chunk) : "memory");
}
INLINE void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }   // those so far are a group
// all but the last LEFT groups of those have been read, or are written
template <int LEFT = 0> INLINE void stores_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(LEFT) : "memory");
}
template <int LEFT = 0> INLINE void stores_done() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(LEFT) : "memory");
}
