// Attention's backward pass in one warp, for backward.cu.

// log-sum-exp of query 32 i + lane; where there is none so large that its probabilities are 0
INLINE float lse_of(const float* lse, int i, int lane) { return 32 * i + lane < N ? lse[32 * i + lane] : 1e30f; }

// One head: this warp's 16 channels of the chunks q, k, v (at `qkv`) and dO. Makes P again from the log-sum-exp; then
// dV = P' dO, dS = P (dO V' - rowsum(P dO V')), dQ = dS K / 4, dK = dS' Q / 4. Scores are made transposed, keys as
// rows, because then P' and dS' are operands as they lie in registers; for dQ, dS is transposed by blocks. dQ, dK, dV
// replace Q, K, V. Queries from 16 `steps` on have no gradient: their dQ is 0.
INLINE void attention_backward(u32 qkv, u32 dO, const float (&lse)[3], int steps, const Thread& me) {
    const int g = me.g(), t = me.t();
    const u32 q = qkv + me.place(), k = q + CHUNK, v = k + CHUNK, d = dO + me.place(), a = me.place_a();
    u32 kt[GROUPS][2], vt[GROUPS][2];
    UNROLL for (int j = 0; j < PAIRS; j++) {
        load4(qkv + CHUNK + a + j * 2048, kt[2 * j][0], kt[2 * j + 1][0], kt[2 * j][1], kt[2 * j + 1][1]);
        load4(qkv + 2 * CHUNK + a + j * 2048, vt[2 * j][0], vt[2 * j + 1][0], vt[2 * j][1], vt[2 * j + 1][1]);
    }
    if (GROUPS % 2) {
        load2(k + PAIRS * 2048, kt[GROUPS - 1][0], kt[GROUPS - 1][1]);
        load2(v + PAIRS * 2048, vt[GROUPS - 1][0], vt[GROUPS - 1][1]);
    }
    float dk[STEPS][2][4], dv[STEPS][2][4];                    // 16 keys, half of the channels
    UNROLL for (int i = 0; i < STEPS; i++)
        UNROLL for (int h = 0; h < 2; h++)
            UNROLL for (int c = 0; c < 4; c++) dk[i][h][c] = dv[i][h][c] = 0.f;
    // Two groups of queries at a time. In an odd number the last goes with what lies behind the chunk: finite, with P =
    // 0.
    ROLLED for (int step = 0; step < steps; step++) {
        u32 qt[2][2], dt[2][2];
        load4(q + step * 2048, qt[0][0], qt[0][1], qt[1][0], qt[1][1]);
        load4(d + step * 2048, dt[0][0], dt[0][1], dt[1][0], dt[1][1]);
        const float z = step < 2 ? lse[0] : step < 4 ? lse[1] : lse[2];
        float p[2][STEPS][4], s[2][STEPS][4], e[2][2];         // P', dO V', and its rows' sums weighted by P
        UNROLL for (int u = 0; u < 2; u++) {
            const int from = 16 * (step & 1) + 8 * u + 2 * t;
            const float z0 = __shfl_sync(~0u, z, from), z1 = __shfl_sync(~0u, z, from + 1);
            UNROLL for (int i = 0; i < STEPS; i++) {
                const int j = 2 * i, next = j + 1 < GROUPS ? j + 1 : j;
                const u32 both = i < PAIRS ? ~0u : 0u;         // without a second group of keys: zeros
                UNROLL for (int c = 0; c < 4; c++) p[u][i][c] = s[u][i][c] = 0.f;
                mma16(p[u][i], kt[j][0], kt[next][0] & both, kt[j][1], kt[next][1] & both, qt[u][0], qt[u][1]);
                mma16(s[u][i], vt[j][0], vt[next][0] & both, vt[j][1], vt[next][1] & both, dt[u][0], dt[u][1]);
            }
            e[u][0] = e[u][1] = 0;
            UNROLL for (int i = 0; i < STEPS; i++)
                UNROLL for (int c = 0; c < halves(i); c++) {   // c: two keys of eight, two queries
                    const int key = 16 * i + 8 * (c >> 1);
                    p[u][i][c] = exp2_fast(fmaf(p[u][i][c], SCORE, c & 1 ? -z1 : -z0));
                    if (key + 7 >= N && key + g >= N) p[u][i][c] = 0.f;
                    e[u][c & 1] = fmaf(p[u][i][c], s[u][i][c], e[u][c & 1]);
                }
        }
        UNROLL for (int x = 4; x < 32; x *= 2)
            UNROLL for (int u = 0; u < 2; u++)
                UNROLL for (int c = 0; c < 2; c++) e[u][c] += shuffle_xor(e[u][c], x);
        u32 qc[2][2], dc[2][2];                                // halves of the channels, groups
        load4T(dO + a + step * 2048, dc[0][0], dc[0][1], dc[1][0], dc[1][1]);
        load4T(qkv + a + step * 2048, qc[0][0], qc[0][1], qc[1][0], qc[1][1]);
        float dq[2][4] = {};
        UNROLL for (int i = 0; i < STEPS; i++) {
            u32 kc[4], pp[2][2] = {}, ss[2][2] = {};           // of two groups of queries, two of keys
            load_step(k, i, kc);
            UNROLL for (int u = 0; u < 2; u++)
                UNROLL for (int h = 0; h < halves(i) / 2; h++) {
                    const float *x = &p[u][i][2 * h], *y = &s[u][i][2 * h];
                    pp[u][h] = pack2(x[0], x[1]);
                    ss[u][h] = pack2(x[0] * (y[0] - e[u][0]), x[1] * (y[1] - e[u][1]));
                }
            UNROLL for (int h = 0; h < 2; h++) {
                mma16(dv[i][h], pp[0][0], pp[0][1], pp[1][0], pp[1][1], dc[h][0], dc[h][1]);
                mma16(dk[i][h], ss[0][0], ss[0][1], ss[1][0], ss[1][1], qc[h][0], qc[h][1]);
            }
            UNROLL for (int u = 0; u < 2; u++)
                if (i < PAIRS) mma16(dq[u], kc[0], kc[1], kc[2], kc[3], transposed(ss[u][0]), transposed(ss[u][1]));
                else mma8(dq[u], kc[0], kc[1], transposed(ss[u][0]));
        }
        u32 out[4];
        UNROLL for (int c = 0; c < 4; c++) {
            const float* x = &dq[c >> 1][2 * (c & 1)];
            out[c] = pack2(0.25f * x[0], 0.25f * x[1]);
        }
        if (step < PAIRS) store4T(q + step * 2048, out[0], out[1], out[2], out[3]);
        else store2T(q + step * 2048, out[0], out[1]);
    }
    __syncwarp();
    ROLLED for (int step = steps; step < STEPS; step++) {
        const u32 nothing[4] = {0, 0, 0, 0};
        store_step(q, step, nothing);
    }
    UNROLL for (int i = 0; i < STEPS; i++) {
        u32 x[4], y[4];
        UNROLL for (int c = 0; c < 4; c++) {
            const float *a = &dk[i][c & 1][2 * (c >> 1)], *b = &dv[i][c & 1][2 * (c >> 1)];
            x[c] = pack2(0.25f * a[0], 0.25f * a[1]); y[c] = pack2(b[0], b[1]);
        }
        if (i < PAIRS) { store4(k + i * 2048, x[0], x[1], x[2], x[3]); store4(v + i * 2048, y[0], y[1], y[2], y[3]); }
        else { store2(k + i * 2048, x[0], x[1]); store2(v + i * 2048, y[0], y[1]); }
    }
}
