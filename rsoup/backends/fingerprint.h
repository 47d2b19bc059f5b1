/* XXH3-128 (seed 0, the default secret) of chunks that are longer than SHORT bytes and come in pieces: the digests
   of the xxhash library, taken of bytes while they are still in the processor's cache. Shorter ones are left to it. */

enum { STRIPE = 64, BLOCK_BYTES = 1024, CHUNK_BYTES = 1 << 20, SHORT = 240, DIGEST = 16 };

/* A chunk up to here: `filled` bytes, a multiple of BLOCK_BYTES, and the last ones of them. All zeros: none yet. */
struct chunk { u64 lanes[8], filled; u8 end[STRIPE]; };

static const u64 BEGIN[8] = {
    0xc2b2ae3d, 0x9e3779b185ebca87, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9,
    0x85ebca77c2b2ae63, 0x85ebca77, 0x27d4eb2f165667c5, 0x9e3779b1,
};

static const u8 SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

INLINE u64 u64_at(const u8 *p) { u64 x; memcpy(&x, p, 8); return x; }

INLINE void one_stripe(u64 *restrict lanes, const u8 *restrict p, const u8 *restrict secret)
{
    u64 x[8], product[8];
    for (size_t l = 0; l < 8; l++) x[l] = u64_at(p + 8 * l);
    for (size_t l = 0; l < 8; l++) {
        u64 key = x[l] ^ u64_at(secret + 8 * l);
        product[l] = (key & 0xffffffff) * (key >> 32);
    }
    for (size_t l = 0; l < 8; l++) lanes[l] += product[l] + x[l ^ 1];
}

INLINE void scramble(u64 *lanes)
{
    for (size_t l = 0; l < 8; l++)
        lanes[l] = (lanes[l] ^ (lanes[l] >> 47) ^ u64_at(SECRET + sizeof SECRET - STRIPE + 8 * l)) * 0x9e3779b1;
}

static u64 folded(u64 x, u64 y)
{
    u64 low = (x & 0xffffffff) * (y & 0xffffffff), high = (x >> 32) * (y >> 32);
    u64 one = (x >> 32) * (y & 0xffffffff), other = (x & 0xffffffff) * (y >> 32);
    u64 middle = (low >> 32) + (one & 0xffffffff) + other;
    return ((middle << 32) | (low & 0xffffffff)) ^ ((one >> 32) + (middle >> 32) + high);
}

static void half(const u64 *lanes, const u8 *secret, u64 sum, u8 *digest)
{
    for (size_t l = 0; l < 8; l += 2)
        sum += folded(lanes[l] ^ u64_at(secret + 8 * l), lanes[l + 1] ^ u64_at(secret + 8 * l + 8));
    sum = (sum ^ (sum >> 37)) * 0x165667919e3779f9;
    sum ^= sum >> 32;
    for (size_t i = 0; i < 8; i++) digest[i] = (u8)(sum >> (56 - 8 * i));
}

/* The digest of a chunk whose last bytes are these, at least one. */
static void finish(struct chunk *chunk, const u8 *p, size_t n, void (*blocks)(u64 *, const u8 *, size_t), u8 *digest)
{
    size_t whole = (n - 1) / BLOCK_BYTES, stripes = (n - 1) % BLOCK_BYTES / STRIPE;
    u64 length = chunk->filled + n;
    u8 last[STRIPE];
    blocks(chunk->lanes, p, whole);
    for (size_t s = 0; s < stripes; s++) one_stripe(chunk->lanes, p + whole * BLOCK_BYTES + s * STRIPE, SECRET + 8 * s);
    if (n < STRIPE) memcpy(last, chunk->end + n, STRIPE - n);
    memcpy(last + (n < STRIPE ? STRIPE - n : 0), n < STRIPE ? p : p + n - STRIPE, n < STRIPE ? n : STRIPE);
    one_stripe(chunk->lanes, last, SECRET + sizeof SECRET - STRIPE - 7);
    half(chunk->lanes, SECRET + sizeof SECRET - STRIPE - 11, ~(length * 0xc2b2ae3d27d4eb4f), digest);
    half(chunk->lanes, SECRET + 11, length * 0x9e3779b185ebca87, digest + 8);
}

/* Take the next bytes, `last` ones of a tensor's or whole blocks; returns where the next digest goes. */
static u8 *fingerprint(struct chunk *chunk, const u8 *p, size_t n, int last, void (*blocks)(u64 *, const u8 *, size_t), u8 *digest)
{
    while (n > 0) {
        size_t room = CHUNK_BYTES - (size_t)chunk->filled, size = n < room ? n : room;
        if (chunk->filled == 0) memcpy(chunk->lanes, BEGIN, sizeof BEGIN);
        if (size == room || (last && size == n)) {
            if (chunk->filled + size > SHORT) {
                finish(chunk, p, size, blocks, digest);
                digest += DIGEST;
            }
            chunk->filled = 0;
        } else {
            blocks(chunk->lanes, p, size / BLOCK_BYTES);
            memcpy(chunk->end, p + size - STRIPE, STRIPE);
            chunk->filled += size;
        }
        p += size;
        n -= size;
    }
    return digest;
}
