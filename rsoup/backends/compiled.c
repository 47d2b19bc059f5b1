/* The passes over elements once more, for machines with a C compiler: the bits of with_numpy.py, in one pass each.

   The file includes itself, once per instruction set: the part for one of them comes first (PASSES is defined
   then), what they share and the Python module after it. Multiplications and additions are rounded one by one
   (-ffp-contract=off) and sums have an order of their own, so that no bit depends on the processor. */

#ifdef PASSES

TARGET static void PASSES(widen)(enum code code, const void *data, size_t at, size_t n, double *restrict out)
{
    switch (code) {
    case F64: { const f64 *p = (const f64 *)data + at; for (size_t i = 0; i < n; i++) out[i] = p[i]; break; }
    case F32: { const f32 *p = (const f32 *)data + at; for (size_t i = 0; i < n; i++) out[i] = p[i]; break; }
    case F16: { const u16 *p = (const u16 *)data + at; for (size_t i = 0; i < n; i++) out[i] = from_f16(p[i]); break; }
    default: { const u16 *p = (const u16 *)data + at; for (size_t i = 0; i < n; i++) out[i] = from_bf16(p[i]); }
    }
}

/* sum = c·x for the first row, sum + c·x for the others. */
#define EACH(x) \
    if (first) \
        for (size_t i = 0; i < n; i++) sum[i] = c * (double)(x); \
    else \
        for (size_t i = 0; i < n; i++) sum[i] = sum[i] + c * (double)(x)

TARGET static void PASSES(add)(enum code code, const void *data, size_t at, size_t n, double c, int first, double *restrict sum)
{
    switch (code) {
    case F64: { const f64 *p = (const f64 *)data + at; EACH(p[i]); break; }
    case F32: { const f32 *p = (const f32 *)data + at; EACH(p[i]); break; }
    case F16: { const u16 *p = (const u16 *)data + at; EACH(from_f16(p[i])); break; }
    default: { const u16 *p = (const u16 *)data + at; EACH(from_bf16(p[i])); }
    }
}

#undef EACH

TARGET static void PASSES(narrow)(enum code code, const double *restrict sum, void *data, size_t at, size_t n)
{
    switch (code) {
    case F64: { f64 *p = (f64 *)data + at; for (size_t i = 0; i < n; i++) p[i] = sum[i]; break; }
    case F32: { f32 *p = (f32 *)data + at; for (size_t i = 0; i < n; i++) p[i] = (float)sum[i]; break; }
    case F16: { u16 *p = (u16 *)data + at; for (size_t i = 0; i < n; i++) p[i] = to_f16((float)sum[i]); break; }
    default: { u16 *p = (u16 *)data + at; for (size_t i = 0; i < n; i++) p[i] = to_bf16((float)sum[i]); }
    }
}

/* The bits of the largest magnitude, which as integers are ordered like the numbers, NaN beyond infinity. */
TARGET static int64_t PASSES(largest)(const double *restrict x, size_t n, int64_t most)
{
    for (size_t i = 0; i < n; i++) {
        int64_t bits = (int64_t)(bits_of_f64(x[i]) & INT64_MAX);
        most = bits > most ? bits : most;
    }
    return most;
}

/* The products of a block, folded in halves until LANES are left, which are added to `lanes`. */
TARGET static void PASSES(dot)(const double *restrict x, const double *restrict y, double *restrict lanes)
{
    for (size_t l = 0; l < LANES; l++) {
#define P(i) (x[(i) * LANES + l] * y[(i) * LANES + l])
#define Q(i) (P(i) + P(i + 8))
        lanes[l] = lanes[l] + (((Q(0) + Q(4)) + (Q(2) + Q(6))) + ((Q(1) + Q(5)) + (Q(3) + Q(7))));
#undef Q
#undef P
    }
}

TARGET static struct mixed PASSES(mix)(const struct row *rows, const double *c, size_t count, size_t n, enum code to, void *out, int measured)
{
    double sum[BLOCK], lost[BLOCK] = {0}, lanes[LANES] = {0};
    struct mixed found = {0, 0};
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t size = n - at < BLOCK ? n - at : BLOCK;
        for (size_t k = 0; k < count; k++) PASSES(add)(rows[k].code, rows[k].data, at, size, c[k], k == 0, sum);
        PASSES(narrow)(to, sum, out, at, size);
        found.largest = PASSES(largest)(sum, size, found.largest);
        if (measured) {
            PASSES(widen)(to, out, at, size, lost);
            for (size_t i = 0; i < size; i++) lost[i] = lost[i] - sum[i];
            if (size < BLOCK) memset(lost + size, 0, (BLOCK - size) * sizeof(double));
            PASSES(dot)(lost, lost, lanes);
        }
    }
    found.error = total(lanes);
    return found;
}

TARGET static int64_t PASSES(magnitude)(const struct row *row, size_t n)
{
    double wide[BLOCK];
    int64_t most = 0;
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t size = n - at < BLOCK ? n - at : BLOCK;
        PASSES(widen)(row->code, row->data, at, size, wide);
        most = PASSES(largest)(wide, size, most);
    }
    return most;
}

/* The inner products of all rows but the last, less the last, and of the last; wide: count × BLOCK, lanes: zeros. */
TARGET static void PASSES(products)(const struct row *rows, size_t count, size_t n, double *wide, double *lanes)
{
    double *last = wide + (count - 1) * BLOCK;
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t size = n - at < BLOCK ? n - at : BLOCK;
        for (size_t k = 0; k < count; k++) PASSES(widen)(rows[k].code, rows[k].data, at, size, wide + k * BLOCK);
        for (size_t k = 0; k + 1 < count; k++) {
            double *row = wide + k * BLOCK;
            for (size_t i = 0; i < size; i++) row[i] = row[i] - last[i];
        }
        if (size < BLOCK)
            for (size_t k = 0; k < count; k++) memset(wide + k * BLOCK + size, 0, (BLOCK - size) * sizeof(double));
        double *sums = lanes;
        for (size_t j = 0; j < count; j++)
            for (size_t k = j; k < count; k++, sums += LANES)
                PASSES(dot)(wide + j * BLOCK, wide + k * BLOCK, sums);
    }
}

/* found: changed and unique for each row but the last, moved, shared, conflicts; RUN elements at a time, whose
   counts a T holds. With a negative reference, numbers have the order of their bits once all but the sign are
   turned over. */
#define COUNTS(T, S, BITS) \
    TARGET static void PASSES(counts_##T)(const struct row *rows, size_t count, size_t n, int64_t *found) \
    { \
        int64_t *changed = found, *unique = found + count - 1, *rest = found + 2 * (count - 1); \
        for (size_t at = 0; at < n; at += RUN) { \
            size_t size = n - at < RUN ? n - at : RUN; \
            const T *base = (const T *)rows[count - 1].data + at; \
            T many[RUN] = {0}, above[RUN] = {0}, below[RUN] = {0}, all = 0; \
            for (size_t k = 0; k + 1 < count; k++) { \
                const T *p = (const T *)rows[k].data + at; \
                T here = 0; \
                for (size_t i = 0; i < size; i++) { \
                    T turned = (T)((T)((S)base[i] >> (BITS - 1)) & (T)((T)-1 >> 1)); \
                    S one = (S)(p[i] ^ turned), zero = (S)(base[i] ^ turned); \
                    T up = one > zero, down = one < zero; \
                    many[i] = (T)(many[i] + up + down); \
                    above[i] |= up; \
                    below[i] |= down; \
                    here = (T)(here + up + down); \
                } \
                changed[k] += here; \
                all |= here; \
            } \
            if (!all) continue; \
            T moved = 0, shared = 0, conflicts = 0; \
            for (size_t i = 0; i < size; i++) { \
                moved = (T)(moved + (many[i] != 0)); \
                shared = (T)(shared + (many[i] == (T)(count - 1))); \
                conflicts = (T)(conflicts + (above[i] & below[i])); \
            } \
            rest[0] += moved; \
            rest[1] += shared; \
            rest[2] += conflicts; \
            for (size_t k = 0; k + 1 < count; k++) { \
                const T *p = (const T *)rows[k].data + at; \
                T here = 0; \
                for (size_t i = 0; i < size; i++) here = (T)(here + ((p[i] != base[i]) & (many[i] == 1))); \
                unique[k] += here; \
            } \
        } \
    }
COUNTS(u8, int8_t, 8)
COUNTS(u16, int16_t, 16)
COUNTS(u32, int32_t, 32)
COUNTS(u64, int64_t, 64)
#undef COUNTS

/* Whole blocks of a chunk's bytes, see fingerprint.h. */
TARGET static void PASSES(blocks)(u64 *lanes, const u8 *p, size_t n)
{
#ifdef VECTOR
    VECTOR sum[STRIPE / sizeof(VECTOR)];
    memcpy(sum, lanes, STRIPE);
    for (size_t b = 0; b < n; b++) {
        for (size_t s = 0; s < BLOCK_BYTES / STRIPE; s++)
            for (size_t v = 0; v < STRIPE / sizeof(VECTOR); v++) {
                VECTOR x, key;
                memcpy(&x, p + b * BLOCK_BYTES + s * STRIPE + v * sizeof(VECTOR), sizeof(VECTOR));
                memcpy(&key, SECRET + 8 * s + v * sizeof(VECTOR), sizeof(VECTOR));
                key ^= x;
                sum[v] += LOW_TIMES_HIGH(key) + SWAPPED(x);
            }
        memcpy(lanes, sum, STRIPE);
        scramble(lanes);
        memcpy(sum, lanes, STRIPE);
    }
#else
    for (size_t b = 0; b < n; b++) {
        for (size_t s = 0; s < BLOCK_BYTES / STRIPE; s++) one_stripe(lanes, p + b * BLOCK_BYTES + s * STRIPE, SECRET + 8 * s);
        scramble(lanes);
    }
#endif
}

static const struct passes PASSES(set) = {
    PASSES(mix), PASSES(magnitude), PASSES(products),
    {PASSES(counts_u8), PASSES(counts_u16), PASSES(counts_u32), PASSES(counts_u64)}, PASSES(blocks),
};

#else

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "stored elements are little-endian"
#endif
#if FLT_EVAL_METHOD != 0 || defined(__FAST_MATH__)
#error "every operation is to be rounded as IEEE 754 says"
#endif

enum { BLOCK = 512, LANES = 32, RUN = 128 };

enum code { F64, F32, F16, BF16 };
static const size_t SIZE[] = {8, 4, 2, 2};

typedef double __attribute__((may_alias)) f64;
typedef float __attribute__((may_alias)) f32;
typedef uint8_t u8;
typedef uint16_t __attribute__((may_alias)) u16;
typedef uint32_t __attribute__((may_alias)) u32;
typedef uint64_t __attribute__((may_alias)) u64;

struct row { enum code code; const void *data; };
struct mixed { int64_t largest; double error; };
struct passes {
    struct mixed (*mix)(const struct row *, const double *, size_t, size_t, enum code, void *, int);
    int64_t (*magnitude)(const struct row *, size_t);
    void (*products)(const struct row *, size_t, size_t, double *, double *);
    void (*counts[4])(const struct row *, size_t, size_t, int64_t *);
    void (*blocks)(u64 *, const u8 *, size_t);
};

#define INLINE static inline __attribute__((always_inline))
#include "fingerprint.h"

INLINE float f32_of(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
INLINE uint32_t bits_of_f32(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }
INLINE uint64_t bits_of_f64(double x) { uint64_t bits; memcpy(&bits, &x, 8); return bits; }

INLINE float from_bf16(uint16_t x) { return f32_of((uint32_t)x << 16); }

INLINE float from_f16(uint16_t x)
{
    uint32_t size = x & 0x7fffu, sign = (uint32_t)(x & 0x8000u) << 16;
    uint32_t normal = (size << 13) + (112u << 23), subnormal = bits_of_f32((float)(int32_t)size * 0x1p-24f);
    uint32_t bits = size < 0x0400 ? subnormal : size < 0x7c00 ? normal : (size << 13) | 0x7f800000u;
    return f32_of(bits | sign);
}

INLINE uint16_t to_bf16(float x)
{
    uint32_t bits = bits_of_f32(x), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000u ? 0x7fc0 : rounded);
}

INLINE uint16_t to_f16(float x)
{
    uint32_t bits = bits_of_f32(x), sign = bits & 0x80000000u, size = bits ^ sign;
    uint32_t subnormal = bits_of_f32(f32_of(size) + 0.5f) - 0x3f000000u; /* the addition rounds to 2^-24 */
    uint32_t normal = (size + 0xc8000fffu + ((size >> 13) & 1)) >> 13;
    uint32_t rounded = size < (113u << 23) ? subnormal : size < (143u << 23) ? normal : 0x7c00;
    return (uint16_t)((size > 0x7f800000u ? 0x7e00 : rounded) | sign >> 16);
}

static double total(double *lanes)
{
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lanes[l] = lanes[l] + lanes[l + half];
    return lanes[0];
}

#define TARGET
#define PASSES(name) name##_plain
#include "compiled.c"
#undef PASSES
#undef TARGET

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
typedef u64 __attribute__((vector_size(32))) u64x4;
typedef u64 __attribute__((vector_size(64))) u64x8;
#define TARGET __attribute__((target("avx2")))
#define PASSES(name) name##_avx2
#define VECTOR u64x4
#define LOW_TIMES_HIGH(x) (u64x4)_mm256_mul_epu32((__m256i)(x), (__m256i)((x) >> 32))
#define SWAPPED(x) (u64x4)_mm256_shuffle_epi32((__m256i)(x), 0x4e)
#include "compiled.c"
#undef SWAPPED
#undef LOW_TIMES_HIGH
#undef VECTOR
#undef PASSES
#undef TARGET
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define PASSES(name) name##_avx512
#define VECTOR u64x8
#define LOW_TIMES_HIGH(x) (u64x8)_mm512_mul_epu32((__m512i)(x), (__m512i)((x) >> 32))
#define SWAPPED(x) (u64x8)_mm512_shuffle_epi32((__m512i)(x), 0x4e)
#include "compiled.c"
#undef SWAPPED
#undef LOW_TIMES_HIGH
#undef VECTOR
#undef PASSES
#undef TARGET
#endif

static const struct passes *passes = &set_plain;

static void choose(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        passes = &set_avx512;
    else if (__builtin_cpu_supports("avx2"))
        passes = &set_avx2;
#endif
}

/* Rows of Python: codes, one byte each, and as many buffers of n elements. */
struct held { struct row *rows; Py_buffer *views; size_t count, n; };

static void let_go(struct held *held)
{
    for (size_t k = 0; k < held->count; k++) PyBuffer_Release(&held->views[k]);
    free(held->rows);
    free(held->views);
}

static int check(const Py_buffer *view, size_t size, size_t n)
{
    if ((size_t)view->len == n * size && (uintptr_t)view->buf % size == 0) return 1;
    PyErr_SetString(PyExc_ValueError, "rows of different lengths, or out of line");
    return 0;
}

/* Holds the buffers of `list`; sizes[k] bytes an element, or `size` each where sizes is NULL. */
static int hold(PyObject *list, const char *codes, size_t size, size_t count, struct held *held)
{
    *held = (struct held){malloc((count + 1) * sizeof(struct row)), malloc((count + 1) * sizeof(Py_buffer)), 0, 0};
    if (!held->rows || !held->views) { PyErr_NoMemory(); let_go(held); return 0; }
    for (size_t k = 0; k < count; k++) {
        if (codes && (unsigned char)codes[k] > BF16) {
            PyErr_SetString(PyExc_ValueError, "a dtype without a pass");
            let_go(held);
            return 0;
        }
        Py_buffer *view = &held->views[k];
        PyObject *data = PyList_GetItem(list, (Py_ssize_t)k); /* looked up anew: an object's code may run between */
        if (!data || PyObject_GetBuffer(data, view, PyBUF_SIMPLE) < 0) { let_go(held); return 0; }
        held->count++;
        size_t own = codes ? SIZE[(int)codes[k]] : size;
        if (k == 0) held->n = (size_t)view->len / own;
        if (!check(view, own, held->n)) { let_go(held); return 0; }
        held->rows[k] = (struct row){codes ? (enum code)codes[k] : F64, view->buf};
    }
    return 1;
}

static int counted(PyObject *list, Py_ssize_t others)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count > 0 && count == others) return 1;
    PyErr_SetString(PyExc_ValueError, "no rows, or not one code each");
    return 0;
}

/* The list with one item more, which is let go of; NULL, with an exception, where either is NULL already. */
static PyObject *with_item(PyObject *list, PyObject *item)
{
    if (list && (!item || PyList_Append(list, item) < 0)) Py_CLEAR(list);
    Py_XDECREF(item);
    return list;
}

static double as_double(int64_t bits) { double x; memcpy(&x, &bits, 8); return x; }

PyDoc_STRVAR(mix_doc, "mix(codes, rows, coefficients, code, out, measured): out = Σ cᵢ·xᵢ rounded once; (largest |Σ|, NaN beyond all; Σ of the squared rounding errors).");
static PyObject *mix(PyObject *Py_UNUSED(self), PyObject *args)
{
    const char *codes;
    Py_ssize_t length;
    PyObject *list, *shares;
    int code, measured;
    Py_buffer out;
    struct held held;
    if (!PyArg_ParseTuple(args, "y#O!O!iw*p", &codes, &length, &PyList_Type, &list, &PyList_Type, &shares, &code, &out, &measured))
        return NULL;
    PyObject *result = NULL;
    double *c = NULL;
    if (code < F64 || code > BF16) PyErr_SetString(PyExc_ValueError, "a dtype without a pass");
    else if (counted(list, length) && counted(shares, length) && hold(list, codes, 0, (size_t)length, &held)) {
        c = malloc(held.count * sizeof(double));
        if (!c) PyErr_NoMemory();
        for (size_t k = 0; c && k < held.count && !PyErr_Occurred(); k++) {
            PyObject *share = PyList_GetItem(shares, (Py_ssize_t)k);
            if (share && PyFloat_CheckExact(share)) c[k] = PyFloat_AS_DOUBLE(share);
            else if (share) PyErr_SetString(PyExc_TypeError, "a coefficient is a float");
        }
        if (c && !PyErr_Occurred() && check(&out, SIZE[code], held.n)) {
            struct mixed found;
            Py_BEGIN_ALLOW_THREADS
            found = passes->mix(held.rows, c, held.count, held.n, (enum code)code, out.buf, measured);
            Py_END_ALLOW_THREADS
            result = Py_BuildValue("dd", as_double(found.largest), found.error);
        }
        let_go(&held);
    }
    free(c);
    PyBuffer_Release(&out);
    return result;
}

PyDoc_STRVAR(largest_doc, "largest(codes, rows): the largest magnitude in one row, NaN beyond all.");
static PyObject *largest(PyObject *Py_UNUSED(self), PyObject *args)
{
    const char *codes;
    Py_ssize_t length;
    PyObject *list;
    struct held held;
    if (!PyArg_ParseTuple(args, "y#O!", &codes, &length, &PyList_Type, &list)) return NULL;
    if (!counted(list, length) || !hold(list, codes, 0, (size_t)length, &held)) return NULL;
    int64_t most = 0;
    Py_BEGIN_ALLOW_THREADS
    most = passes->magnitude(held.rows, held.n);
    Py_END_ALLOW_THREADS
    let_go(&held);
    return PyFloat_FromDouble(as_double(most));
}

PyDoc_STRVAR(products_doc, "products(codes, rows): the inner products of all rows but the last, less the last, and of the last: the upper triangle, row by row.");
static PyObject *products(PyObject *Py_UNUSED(self), PyObject *args)
{
    const char *codes;
    Py_ssize_t length;
    PyObject *list;
    struct held held;
    if (!PyArg_ParseTuple(args, "y#O!", &codes, &length, &PyList_Type, &list)) return NULL;
    if (!counted(list, length) || !hold(list, codes, 0, (size_t)length, &held)) return NULL;
    size_t pairs = held.count * (held.count + 1) / 2;
    double *wide = malloc(held.count * BLOCK * sizeof(double)), *lanes = calloc(pairs, LANES * sizeof(double));
    PyObject *result = NULL;
    if (!wide || !lanes) PyErr_NoMemory();
    else {
        Py_BEGIN_ALLOW_THREADS
        passes->products(held.rows, held.count, held.n, wide, lanes);
        Py_END_ALLOW_THREADS
        result = PyList_New(0);
        for (size_t i = 0; i < pairs; i++) result = with_item(result, PyFloat_FromDouble(total(lanes + i * LANES)));
    }
    free(wide);
    free(lanes);
    let_go(&held);
    return result;
}

PyDoc_STRVAR(counts_doc, "counts(size, rows): [changed…, unique…, moved, shared, conflicts] against the last row, by the bits of elements of so many bytes; fewer than 256 rows.");
static PyObject *counts(PyObject *Py_UNUSED(self), PyObject *args)
{
    int size;
    PyObject *list;
    struct held held;
    if (!PyArg_ParseTuple(args, "iO!", &size, &PyList_Type, &list)) return NULL;
    if (size != 1 && size != 2 && size != 4 && size != 8) {
        PyErr_SetString(PyExc_ValueError, "elements of 1, 2, 4 or 8 bytes");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count < 2 || count > 255) {
        PyErr_SetString(PyExc_ValueError, "2 to 255 rows");
        return NULL;
    }
    if (!hold(list, NULL, (size_t)size, (size_t)count, &held)) return NULL;
    size_t figures = 2 * (size_t)count + 1;
    int64_t *found = calloc(figures, sizeof(int64_t));
    PyObject *result = NULL;
    if (!found) PyErr_NoMemory();
    else {
        Py_BEGIN_ALLOW_THREADS
        passes->counts[size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3](held.rows, held.count, held.n, found);
        Py_END_ALLOW_THREADS
        result = PyList_New(0);
        for (size_t i = 0; i < figures; i++) result = with_item(result, PyLong_FromLongLong(found[i]));
    }
    free(found);
    let_go(&held);
    return result;
}

/* Rows that are being read: from which byte of which file, how much, and what is known of their chunk so far. */
struct reading { int fd; off_t at; Py_buffer row; struct chunk chunk; u8 *digests; size_t made; };

enum { PIECE = 1 << 17 }; /* bytes that stay in the processor's cache until they are digested */

/* Fills the row, and digests it; 0, or what went wrong, -1 for the end of the file. */
static int fill(struct reading *reading, int digested, int last)
{
    u8 *to = reading->row.buf, *digest = reading->digests;
    size_t size = (size_t)reading->row.len;
    for (size_t done = 0; done < size;) {
        size_t end = digested && size - done > PIECE ? done + PIECE : size, begin = done;
        while (done < end) {
            ssize_t got = pread(reading->fd, to + done, end - done, reading->at + (off_t)done);
            if (got > 0) done += (size_t)got;
            else if (got == 0) return -1;
            else if (errno != EINTR) return errno;
        }
        if (digested) digest = fingerprint(&reading->chunk, to + begin, end - begin, last && end == size, passes->blocks, digest);
    }
    reading->made = (size_t)(digest - reading->digests);
    return 0;
}

/* Looks at what is to be read; 0, with an exception, where it is no list of (fd, begin) and as many rows. */
static int prepare(struct reading *readings, PyObject *places, PyObject *rows, size_t count, long long start, long long elements, int last, const struct chunk *chunks, size_t *held)
{
    for (size_t k = 0; k < count; k++) {
        struct reading *reading = &readings[k];
        long long begin;
        PyObject *place = PyTuple_GetItem(places, (Py_ssize_t)k), *row;
        if (!place || !PyArg_ParseTuple(place, "iL", &reading->fd, &begin)) return 0;
        row = PyList_GetItem(rows, (Py_ssize_t)k); /* after what may run an object's code */
        if (!row || PyObject_GetBuffer(row, &reading->row, PyBUF_WRITABLE) < 0) return 0;
        *held = k + 1;
        long long size = reading->row.len;
        if (size % elements != 0 || begin < 0 || (chunks && !last && size % BLOCK_BYTES != 0)) {
            PyErr_SetString(PyExc_ValueError, "rows of no whole elements, or of no whole blocks");
            return 0;
        }
        reading->at = (off_t)(begin + start * (size / elements));
        if (chunks) {
            memcpy(&reading->chunk, chunks + k, sizeof(struct chunk));
            if (reading->chunk.filled % BLOCK_BYTES != 0 || reading->chunk.filled >= CHUNK_BYTES) {
                PyErr_SetString(PyExc_ValueError, "no chunk is filled like this");
                return 0;
            }
            reading->digests = malloc(((size_t)size / CHUNK_BYTES + 2) * DIGEST);
            if (!reading->digests) { PyErr_NoMemory(); return 0; }
        }
    }
    return 1;
}

PyDoc_STRVAR(gather_doc, "gather(places, start, elements, rows, chunks, last): fill the rows with elements from `start` on of tensors that begin at places = ((fd, byte), …); the digests of the chunks that are complete (`last`: that end here), row by row. chunks: a struct chunk each, zeros at first, changed only if all is read; None: no digests. OSError, EOFError.");
static PyObject *gather(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *places, *rows, *chunks;
    long long start, elements;
    int last;
    if (!PyArg_ParseTuple(args, "O!LLO!Op", &PyTuple_Type, &places, &start, &elements, &PyList_Type, &rows, &chunks, &last)) return NULL;
    size_t count = (size_t)PyList_GET_SIZE(rows), held = 0;
    if (start < 0 || elements < 1 || PyTuple_GET_SIZE(places) != (Py_ssize_t)count) {
        PyErr_SetString(PyExc_ValueError, "no elements, or not one place for each row");
        return NULL;
    }
    Py_buffer view = {0};
    if (chunks != Py_None && PyObject_GetBuffer(chunks, &view, PyBUF_WRITABLE) < 0) return NULL;
    struct reading *readings = calloc(count + 1, sizeof(struct reading));
    PyObject *result = NULL;
    if (!readings) PyErr_NoMemory();
    else if (view.buf && (size_t)view.len != count * sizeof(struct chunk)) PyErr_SetString(PyExc_ValueError, "not one chunk for each row");
    else if (prepare(readings, places, rows, count, start, elements, last, view.buf, &held)) {
        int wrong = 0;
        Py_BEGIN_ALLOW_THREADS
        for (size_t k = 0; k < count && !wrong; k++) wrong = fill(&readings[k], view.buf != NULL, last);
        Py_END_ALLOW_THREADS
        if (wrong > 0) { errno = wrong; PyErr_SetFromErrno(PyExc_OSError); }
        else if (wrong) PyErr_SetString(PyExc_EOFError, "a file ends too early");
        else {
            result = PyList_New(0);
            for (size_t k = 0; k < count && view.buf; k++) {
                memcpy((struct chunk *)view.buf + k, &readings[k].chunk, sizeof(struct chunk));
                result = with_item(result, PyBytes_FromStringAndSize((char *)readings[k].digests, (Py_ssize_t)readings[k].made));
            }
        }
    }
    for (size_t k = 0; readings && k < count; k++) {
        if (k < held) PyBuffer_Release(&readings[k].row);
        free(readings[k].digests);
    }
    free(readings);
    if (view.buf) PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(use_doc, "use(name): 'plain', 'avx2' or 'avx512' from now on; False where this processor or compiler has it not. For tests.");
static PyObject *use(PyObject *Py_UNUSED(self), PyObject *args)
{
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name)) return NULL;
    choose();
    const struct passes *best = passes, *wanted = NULL;
    if (!strcmp(name, "plain")) wanted = &set_plain;
#if defined(__x86_64__) && defined(__GNUC__)
    if (!strcmp(name, "avx2") && best != &set_plain) wanted = &set_avx2;
    if (!strcmp(name, "avx512") && best == &set_avx512) wanted = &set_avx512;
#endif
    if (wanted) passes = wanted;
    return PyBool_FromLong(wanted != NULL);
}

static PyMethodDef methods[] = {
    {"mix", mix, METH_VARARGS, mix_doc},
    {"largest", largest, METH_VARARGS, largest_doc},
    {"products", products, METH_VARARGS, products_doc},
    {"counts", counts, METH_VARARGS, counts_doc},
    {"gather", gather, METH_VARARGS, gather_doc},
    {"use", use, METH_VARARGS, use_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "compiled", "The passes of with_numpy, compiled.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_compiled(void)
{
    choose();
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddIntConstant(made, "VERSION", 2) < 0) Py_CLEAR(made);
    return made;
}

#endif
