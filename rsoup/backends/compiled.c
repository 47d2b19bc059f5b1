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

/* The elements less those of `last`. */
TARGET static void PASSES(less)(enum code code, const void *data, size_t at, size_t n, const double *restrict last, double *restrict out)
{
    switch (code) {
    case F64: { const f64 *p = (const f64 *)data + at; for (size_t i = 0; i < n; i++) out[i] = p[i] - last[i]; break; }
    case F32: { const f32 *p = (const f32 *)data + at; for (size_t i = 0; i < n; i++) out[i] = p[i] - last[i]; break; }
    case F16: { const u16 *p = (const u16 *)data + at; for (size_t i = 0; i < n; i++) out[i] = from_f16(p[i]) - last[i]; break; }
    default: { const u16 *p = (const u16 *)data + at; for (size_t i = 0; i < n; i++) out[i] = from_bf16(p[i]) - last[i]; }
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
    _Alignas(LINE) double sum[BLOCK], lost[BLOCK] = {0}, lanes[LANES] = {0};
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
    _Alignas(LINE) double wide[BLOCK];
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
        PASSES(widen)(rows[count - 1].code, rows[count - 1].data, at, size, last);
        for (size_t k = 0; k + 1 < count; k++) PASSES(less)(rows[k].code, rows[k].data, at, size, last, wide + k * BLOCK);
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

enum { BLOCK = 512, LANES = 32, RUN = 128, LINE = 64 }; /* LINE: bytes of a line of the cache, which vectors should not straddle */

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

/* Holds the buffers of `list`: elements of the dtypes `codes`, or of `size` bytes where that is NULL, or, to be
   written, of sizes[k] bytes. */
static int hold(PyObject *list, const char *codes, size_t size, const char *sizes, size_t count, struct held *held)
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
        if (!data || PyObject_GetBuffer(data, view, sizes ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) { let_go(held); return 0; }
        held->count++;
        size_t own = codes ? SIZE[(int)codes[k]] : sizes && sizes[k] > 0 ? (size_t)sizes[k] : size;
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

/* The floats of a list, for free(); NULL, with an exception. */
static double *floats(PyObject *list, size_t count)
{
    double *found = malloc((count + 1) * sizeof(double));
    if (!found) PyErr_NoMemory();
    for (size_t k = 0; found && k < count; k++) {
        PyObject *item = PyList_GetItem(list, (Py_ssize_t)k);
        if (item && PyFloat_CheckExact(item)) { found[k] = PyFloat_AS_DOUBLE(item); continue; }
        if (item) PyErr_SetString(PyExc_TypeError, "a coefficient is a float");
        free(found);
        return NULL;
    }
    return found;
}

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
    else if (counted(list, length) && counted(shares, length) && hold(list, codes, 0, NULL, (size_t)length, &held)) {
        c = floats(shares, held.count);
        if (c && check(&out, SIZE[code], held.n)) {
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
    if (!counted(list, length) || !hold(list, codes, 0, NULL, (size_t)length, &held)) return NULL;
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
    if (!counted(list, length) || !hold(list, codes, 0, NULL, (size_t)length, &held)) return NULL;
    size_t pairs = held.count * (held.count + 1) / 2;
    void *space = calloc(held.count * BLOCK + pairs * LANES + LINE, sizeof(double));
    double *wide = (double *)((uintptr_t)space + LINE - (uintptr_t)space % LINE), *lanes = wide + held.count * BLOCK;
    PyObject *result = NULL;
    if (!space) PyErr_NoMemory();
    else {
        Py_BEGIN_ALLOW_THREADS
        passes->products(held.rows, held.count, held.n, wide, lanes);
        Py_END_ALLOW_THREADS
        result = PyList_New(0);
        for (size_t i = 0; i < pairs; i++) result = with_item(result, PyFloat_FromDouble(total(lanes + i * LANES)));
    }
    free(space);
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
    if (!hold(list, NULL, (size_t)size, NULL, (size_t)count, &held)) return NULL;
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

/* A tensor that is being read from a file: where its elements are, what is known of its chunk, its digests so far. */
struct reading { int fd; off_t begin; size_t size; struct chunk chunk; u8 *digests, *next; };
struct readings { struct reading *each; size_t count; long long start, elements; int last; Py_buffer chunks, stop; };

/* Bytes that stay in the processor's first caches until they are digested, and until they are mixed; bytes between rows
   that would otherwise lie a power of two apart and fight for the same lines. */
enum { PIECE = 1 << 17, CACHED = 1 << 20, APART = 192 };

enum { ENDS = -1, STOPPED = -2 };

/* Fills a row with n elements from element `at` of what is to be read, and digests them; 0, or what went wrong: an
   errno, ENDS where the file does, STOPPED. A disk may be slow: whether to stop is looked at before every read. */
static int fill(const struct readings *all, struct reading *reading, long long at, size_t n, u8 *to)
{
    size_t size = n * reading->size;
    off_t begin = reading->begin + (off_t)((size_t)(all->start + at) * reading->size);
    int last = all->last && at + (long long)n == all->elements;
    for (size_t done = 0; done < size;) {
        size_t from = done, end = all->chunks.buf && size - done > PIECE ? done + PIECE : size;
        while (done < end) {
            if (*(const volatile u8 *)all->stop.buf) return STOPPED;
            ssize_t got = pread(reading->fd, to + done, end - done < PIECE ? end - done : PIECE, begin + (off_t)done);
            if (got > 0) done += (size_t)got;
            else if (got == 0) return ENDS;
            else if (errno != EINTR) return errno;
        }
        if (all->chunks.buf) reading->next = fingerprint(&reading->chunk, to + from, end - from, last && end == size, passes->blocks, reading->next);
    }
    return 0;
}

static void end_readings(struct readings *all)
{
    for (size_t k = 0; all->each && k < all->count; k++) free(all->each[k].digests);
    free(all->each);
    if (all->chunks.buf) PyBuffer_Release(&all->chunks);
    PyBuffer_Release(&all->stop);
}

/* Readings of places = ((fd, byte), …), whose elements have SIZE[codes[k]] bytes, or sizes[k]; 0, with an exception. */
static int begin_readings(struct readings *all, PyObject *places, PyObject *chunks, const char *sizes, size_t count)
{
    all->count = count;
    all->each = calloc(count + 1, sizeof(struct reading));
    if (!all->each) { PyErr_NoMemory(); return 0; }
    if (all->stop.len < 1 || all->start < 0 || all->elements < 1 || count < 1 || PyTuple_GET_SIZE(places) != (Py_ssize_t)count) {
        PyErr_SetString(PyExc_ValueError, "nothing to read, or not one place for each row");
        return 0;
    }
    if (chunks != Py_None && PyObject_GetBuffer(chunks, &all->chunks, PyBUF_WRITABLE) < 0) return 0;
    if (all->chunks.buf && (size_t)all->chunks.len != count * sizeof(struct chunk)) {
        PyErr_SetString(PyExc_ValueError, "not one chunk for each row");
        return 0;
    }
    for (size_t k = 0; k < count; k++) {
        struct reading *reading = &all->each[k];
        PyObject *place = PyTuple_GET_ITEM(places, (Py_ssize_t)k);
        long long begin;
        if (!PyTuple_Check(place) || !PyArg_ParseTuple(place, "iL", &reading->fd, &begin)) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a place is (fd, byte)");
            return 0;
        }
        reading->begin = (off_t)begin;
        reading->size = (size_t)sizes[k];
        size_t bytes = (size_t)all->elements * reading->size;
        if (!all->chunks.buf) continue;
        memcpy(&reading->chunk, (struct chunk *)all->chunks.buf + k, sizeof(struct chunk));
        if (reading->chunk.filled % BLOCK_BYTES != 0 || reading->chunk.filled >= CHUNK_BYTES || (!all->last && bytes % BLOCK_BYTES != 0)) {
            PyErr_SetString(PyExc_ValueError, "a chunk is digested in whole blocks");
            return 0;
        }
        reading->next = reading->digests = malloc((bytes / CHUNK_BYTES + 2) * DIGEST);
        if (!reading->digests) { PyErr_NoMemory(); return 0; }
    }
    return 1;
}

/* The digests of what was read, and `chunks` as they are now; an exception where reading went wrong. */
static PyObject *digests_of(struct readings *all, int wrong)
{
    if (wrong > 0) { errno = wrong; return PyErr_SetFromErrno(PyExc_OSError); }
    if (wrong) { PyErr_SetString(wrong == STOPPED ? PyExc_InterruptedError : PyExc_EOFError, "what was read is incomplete"); return NULL; }
    PyObject *result = PyList_New(0);
    for (size_t k = 0; k < all->count && all->chunks.buf; k++) {
        struct reading *reading = &all->each[k];
        memcpy((struct chunk *)all->chunks.buf + k, &reading->chunk, sizeof(struct chunk));
        result = with_item(result, PyBytes_FromStringAndSize((char *)reading->digests, reading->next - reading->digests));
    }
    return result;
}

PyDoc_STRVAR(gather_doc, "gather(stop, places, start, elements, chunks, last, sizes, rows): see Gather in passes.py.");
static PyObject *gather(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *places, *chunks, *list, *result = NULL;
    const char *sizes;
    Py_ssize_t length;
    struct readings all = {0};
    struct held held;
    if (!PyArg_ParseTuple(args, "y*O!LLOpy#O!", &all.stop, &PyTuple_Type, &places, &all.start, &all.elements, &chunks, &all.last, &sizes, &length, &PyList_Type, &list)) return NULL;
    if (counted(list, length) && hold(list, NULL, 1, sizes, (size_t)length, &held)) {
        if (begin_readings(&all, places, chunks, sizes, (size_t)length)) {
            int wrong = (long long)held.n != all.elements;
            if (wrong) PyErr_SetString(PyExc_ValueError, "rows of another length");
            else {
                Py_BEGIN_ALLOW_THREADS
                for (size_t k = 0; k < all.count && !wrong; k++) wrong = fill(&all, &all.each[k], 0, held.n, held.views[k].buf);
                Py_END_ALLOW_THREADS
                result = digests_of(&all, wrong);
            }
        }
        let_go(&held);
    }
    end_readings(&all);
    return result;
}

/* Reads pieces of every row into `space` and mixes them, while they are in the processor's cache. */
static int stir(struct readings *all, const char *codes, const double *c, u8 *space, size_t piece, enum code to, u8 *out, int64_t *most)
{
    struct row *rows = malloc(all->count * sizeof(struct row));
    int wrong = rows ? 0 : ENOMEM;
    for (long long at = 0; at < all->elements && !wrong; at += (long long)piece) {
        size_t n = (size_t)(all->elements - at) < piece ? (size_t)(all->elements - at) : piece;
        u8 *row = space;
        for (size_t k = 0; k < all->count && !wrong; k++) {
            rows[k] = (struct row){(enum code)codes[k], row};
            wrong = fill(all, &all->each[k], at, n, row);
            row += piece * all->each[k].size + APART;
        }
        if (wrong) break;
        int64_t found = passes->mix(rows, c, all->count, n, to, out + (size_t)at * SIZE[to], 0).largest;
        *most = found > *most ? found : *most;
    }
    free(rows);
    return wrong;
}

PyDoc_STRVAR(gather_mix_doc, "gather_mix(stop, places, start, elements, chunks, last, codes, coefficients, space, code, out): see GatherMix in passes.py.");
static PyObject *gather_mix(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *places, *chunks, *shares, *result = NULL;
    const char *codes;
    Py_ssize_t length;
    int code;
    struct readings all = {0};
    Py_buffer space, out;
    if (!PyArg_ParseTuple(args, "y*O!LLOpy#O!w*iw*", &all.stop, &PyTuple_Type, &places, &all.start, &all.elements, &chunks, &all.last, &codes, &length, &PyList_Type, &shares, &space, &code, &out)) return NULL;
    char *sizes = malloc((size_t)length + 1);
    double *c = NULL;
    int known = code >= F64 && code <= BF16;
    for (Py_ssize_t k = 0; sizes && k < length; k++) {
        known = known && (unsigned char)codes[k] <= BF16;
        sizes[k] = (char)(known ? SIZE[(int)codes[k]] : 1);
    }
    if (!sizes) PyErr_NoMemory();
    else if (!known) PyErr_SetString(PyExc_ValueError, "a dtype without a pass");
    else if (counted(shares, length) && (c = floats(shares, (size_t)length)) && begin_readings(&all, places, chunks, sizes, (size_t)length) && check(&out, SIZE[code], (size_t)all.elements)) {
        size_t total = 0, piece = PIECE / 2;
        for (size_t k = 0; k < all.count; k++) total += all.each[k].size;
        while (piece > BLOCK && piece * total > CACHED) piece /= 2;
        if ((size_t)space.len < piece * total + all.count * APART || (uintptr_t)space.buf % 8 != 0)
            PyErr_SetString(PyExc_ValueError, "no space for pieces of these rows");
        else {
            int wrong;
            int64_t most = 0;
            Py_BEGIN_ALLOW_THREADS
            wrong = stir(&all, codes, c, space.buf, piece, (enum code)code, out.buf, &most);
            Py_END_ALLOW_THREADS
            PyObject *digests = digests_of(&all, wrong);
            if (digests) result = Py_BuildValue("Nd", digests, as_double(most));
        }
    }
    end_readings(&all);
    free(sizes);
    free(c);
    PyBuffer_Release(&space);
    PyBuffer_Release(&out);
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
    {"gather_mix", gather_mix, METH_VARARGS, gather_mix_doc},
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
