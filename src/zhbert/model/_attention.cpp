// Attention over packed rows of any length, for prediction on CPUs with AVX-512. Nothing is padded;
// only one head's keys and values at a time are copied.
//
// native.py decides when it is used; otherwise PyTorch's attention computes the same to rounding
// (tested).
//
// The scores of a few queries fit the cache, so no running maximum is needed: all their scores are
// computed, then the softmax, then the weighted sum of the values. Both products use one tile of
// multiply-adds over 32-bit words. A word is one float, or two bfloat16, which one instruction
// multiplies and adds in pairs.

#include "kernel.h"

#include <cstdlib>

namespace {

class Buffer {
 public:
  Buffer(PyObject* object, Py_ssize_t item, int dimensions, bool writable = false) {
    ok_ = PyObject_GetBuffer(object, &view_, writable ? PyBUF_STRIDED : PyBUF_STRIDED_RO) == 0;
    if (!ok_) return;
    const bool tight = view_.ndim == dimensions && view_.itemsize == item &&
                       (view_.shape[dimensions - 1] <= 1 || view_.strides[dimensions - 1] == item);
    const bool aligned = reinterpret_cast<uintptr_t>(view_.buf) % item == 0;
    if (tight && aligned && (dimensions == 1 || view_.strides[0] % item == 0)) return;
    PyBuffer_Release(&view_);
    ok_ = false;
    PyErr_SetString(PyExc_TypeError, "a buffer of another shape or item size was expected");
  }
  ~Buffer() {
    if (ok_) PyBuffer_Release(&view_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  bool ok() const { return ok_; }
  template <typename T>
  T* data() const {
    return static_cast<T*>(view_.buf);
  }
  int64_t rows() const { return view_.shape[0]; }
  int64_t columns() const { return view_.shape[1]; }
  int64_t stride() const { return view_.strides[0] / view_.itemsize; }  // in items
  // Whether each row begins where a word of two items may.
  bool even() const {
    return reinterpret_cast<uintptr_t>(view_.buf) % 4 == 0 && stride() % 2 == 0;
  }

 private:
  Py_buffer view_{};
  bool ok_ = false;
};

struct Work {
  const void *queries, *keys, *values;  // (Q, heads * size), (T, ...), (T, ...)
  void* out;                            // (Q, heads * size)
  int64_t query_stride, key_stride, value_stride, out_stride;  // in items
  const int64_t *query_cu_seqlens, *cu_seqlens;                // (rows + 1)
  int64_t rows, heads, size;
};

#if HAVE_KERNEL

// One target for both types: the compiler never emits bfloat16's two instructions on its own, so
// the code for floats also runs on processors that lack them.
#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define KERNEL_INLINE KERNEL inline __attribute__((always_inline))

constexpr int kQueries = 6, kVectors = 4;  // 24 of the 32 registers are sums

// 2 ** x for x <= 0, to 1e-7: a polynomial on [-0.5, 0.5], scaled by the whole part. For -infinity
// the polynomial is NaN, which scalef by -infinity makes 0.
KERNEL_INLINE __m512 exp2_of(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.5403530393e-4f);  // ln(2) ** n / n!
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558146e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291076e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504108665e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022650696e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718056e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

struct Float {
  using Item = float;
  static constexpr int64_t kItems = 1;  // in a word

  static KERNEL_INLINE __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static KERNEL_INLINE __m512i words(const float* items, const float*) {
    return _mm512_loadu_si512(items);
  }
  static KERNEL_INLINE void store(float* out, __m512 x) { _mm512_storeu_ps(out, x); }
};

struct BFloat16 {
  using Item = uint16_t;
  static constexpr int64_t kItems = 2;

  static KERNEL_INLINE __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
  // The items of one row and those of the next, in pairs.
  static KERNEL_INLINE __m512i words(const uint16_t* items, const uint16_t* next) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)items));
    if (next == nullptr) return low;
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)next));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
  static KERNEL_INLINE void store(uint16_t* out, __m512 x) {
    _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh(x));
  }
};

// out (Q, V * 16) = a (Q, words) times b (words, V * 16); strides in words, out's in floats.
template <class Kind, int Q, int V>
KERNEL void tile(const int32_t* a, int64_t a_stride, const int32_t* b, int64_t b_stride,
                 int64_t words, float* out, int64_t out_stride) {
  __m512 sums[Q][V];
  for (int q = 0; q < Q; ++q)
    for (int v = 0; v < V; ++v) sums[q][v] = _mm512_setzero_ps();
  for (int64_t w = 0; w < words; ++w) {
    __m512i row[V];
    for (int v = 0; v < V; ++v) row[v] = _mm512_loadu_si512(b + w * b_stride + v * kLanes);
    for (int q = 0; q < Q; ++q) {
      const __m512i one = _mm512_set1_epi32(a[q * a_stride + w]);
      for (int v = 0; v < V; ++v) sums[q][v] = Kind::multiply_add(sums[q][v], one, row[v]);
    }
  }
  for (int q = 0; q < Q; ++q)
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(out + q * out_stride + v * kLanes, sums[q][v]);
}

template <class Kind, int Q>
KERNEL void strip(const int32_t* a, int64_t a_stride, const int32_t* b, int64_t b_stride,
                  int64_t words, int64_t vectors, float* out, int64_t out_stride) {
  for (; vectors >= kVectors; vectors -= kVectors) {
    tile<Kind, Q, kVectors>(a, a_stride, b, b_stride, words, out, out_stride);
    b += kVectors * kLanes;
    out += kVectors * kLanes;
  }
  if (vectors == 3) tile<Kind, Q, 3>(a, a_stride, b, b_stride, words, out, out_stride);
  if (vectors == 2) tile<Kind, Q, 2>(a, a_stride, b, b_stride, words, out, out_stride);
  if (vectors == 1) tile<Kind, Q, 1>(a, a_stride, b, b_stride, words, out, out_stride);
}

// The same for up to kQueries rows of a, and any number of vectors.
template <class Kind>
KERNEL void product(int64_t queries, const int32_t* a, int64_t a_stride, const int32_t* b,
                    int64_t b_stride, int64_t words, int64_t vectors, float* out,
                    int64_t out_stride) {
  static_assert(kQueries == 6, "a case for each number of queries");
  switch (queries) {
    case 1: return strip<Kind, 1>(a, a_stride, b, b_stride, words, vectors, out, out_stride);
    case 2: return strip<Kind, 2>(a, a_stride, b, b_stride, words, vectors, out, out_stride);
    case 3: return strip<Kind, 3>(a, a_stride, b, b_stride, words, vectors, out, out_stride);
    case 4: return strip<Kind, 4>(a, a_stride, b, b_stride, words, vectors, out, out_stride);
    case 5: return strip<Kind, 5>(a, a_stride, b, b_stride, words, vectors, out, out_stride);
    default: return strip<Kind, 6>(a, a_stride, b, b_stride, words, vectors, out, out_stride);
  }
}

KERNEL_INLINE __mmask16 lanes_below(int64_t count) {
  return count >= kLanes ? __mmask16(0xffff) : __mmask16((1u << count) - 1);
}

// One thread's memory for one head of one row.
template <class Kind>
struct Scratch {
  std::vector<int32_t> keys;                    // (words of a key, padded keys): transposed
  std::vector<int32_t> values;                  // (words of all keys, size)
  std::vector<float> scores;                    // (kQueries, padded keys)
  std::vector<typename Kind::Item> weights;     // (kQueries, padded keys): exp(score - highest)
  std::vector<float> sums;                      // (kQueries, size)
};

template <class Kind>
KERNEL void attend(const Work& work, int64_t row, int64_t head, Scratch<Kind>& scratch) {
  using Item = typename Kind::Item;
  const int64_t first_query = work.query_cu_seqlens[row], first_key = work.cu_seqlens[row];
  const int64_t queries = work.query_cu_seqlens[row + 1] - first_query;
  const int64_t length = work.cu_seqlens[row + 1] - first_key, size = work.size;
  if (queries == 0) return;
  const int64_t padded = (length + kLanes - 1) / kLanes * kLanes;
  const int64_t words = size / Kind::kItems;
  const int64_t pairs = (length + Kind::kItems - 1) / Kind::kItems;
  const auto at = [&](const void* base, int64_t place, int64_t stride) {
    return static_cast<const Item*>(base) + place * stride + head * size;
  };
  const Item* query = at(work.queries, first_query, work.query_stride);
  const Item* key = at(work.keys, first_key, work.key_stride);
  const Item* value = at(work.values, first_key, work.value_stride);
  Item* out = const_cast<Item*>(at(work.out, first_query, work.out_stride));
  if (length == 0) {  // no keys: zeros
    for (int64_t q = 0; q < queries; ++q) std::fill_n(out + q * work.out_stride, size, Item{});
    return;
  }

  scratch.keys.resize(words * padded);
  scratch.values.resize(pairs * size);
  scratch.scores.resize(kQueries * padded);
  scratch.weights.resize(kQueries * padded);
  scratch.sums.resize(kQueries * size);
  const __m512i places = _mm512_mullo_epi32(
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
      _mm512_set1_epi32(int(work.key_stride / Kind::kItems)));
  for (int64_t k = 0; k < padded; k += kLanes) {
    const auto* from = reinterpret_cast<const int32_t*>(key + k * work.key_stride);
    for (int64_t w = 0; w < words; ++w) {
      const __m512i gathered = _mm512_mask_i32gather_epi32(
          _mm512_setzero_si512(), lanes_below(length - k), places, from + w, 4);
      _mm512_storeu_si512(&scratch.keys[w * padded + k], gathered);
    }
  }
  for (int64_t w = 0; w < pairs; ++w) {
    const Item* from = value + w * Kind::kItems * work.value_stride;
    const bool last = (w + 1) * Kind::kItems > length;  // an odd number of keys
    for (int64_t d = 0; d < size; d += kLanes) {
      const Item* next = last ? nullptr : from + work.value_stride + d;
      _mm512_storeu_si512(&scratch.values[w * size + d], Kind::words(from + d, next));
    }
  }

  // exp(x / sqrt(size)) as a power of two.
  const __m512 scale = _mm512_set1_ps(float(1.4426950408889634 / std::sqrt(double(size))));
  for (int64_t q = 0; q < queries; q += kQueries) {
    const int64_t count = std::min<int64_t>(kQueries, queries - q);
    product<Kind>(count, reinterpret_cast<const int32_t*>(query + q * work.query_stride),
                  work.query_stride / Kind::kItems, scratch.keys.data(), padded, words,
                  padded / kLanes, scratch.scores.data(), padded);
    float shares[kQueries];
    for (int64_t i = 0; i < count; ++i) {
      const float* scores = &scratch.scores[i * padded];
      Item* weights = &scratch.weights[i * padded];
      __m512 most = _mm512_set1_ps(-INFINITY);
      for (int64_t k = 0; k < padded; k += kLanes)
        most = _mm512_mask_max_ps(most, lanes_below(length - k), most, _mm512_loadu_ps(scores + k));
      // Subtracted first: the highest score's own power is 0 however large the scores are.
      const __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
      __m512 total = _mm512_setzero_ps();
      for (int64_t k = 0; k < padded; k += kLanes) {
        const __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + k), highest), scale);
        const __m512 weight = _mm512_maskz_mov_ps(lanes_below(length - k), exp2_of(x));
        total = _mm512_add_ps(total, weight);
        Kind::store(weights + k, weight);
      }
      shares[i] = 1.0f / _mm512_reduce_add_ps(total);
    }
    product<Kind>(count, reinterpret_cast<const int32_t*>(scratch.weights.data()),
                  padded / Kind::kItems, scratch.values.data(), size, pairs, size / kLanes,
                  scratch.sums.data(), size);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < size; d += kLanes)
        Kind::store(out + (q + i) * work.out_stride + d,
                    _mm512_mul_ps(_mm512_loadu_ps(&scratch.sums[i * size + d]),
                                  _mm512_set1_ps(shares[i])));
  }
}

// Starting a thread takes at least as long as this many multiply-adds.
constexpr int64_t kWorthAThread = int64_t{1} << 22;

int64_t multiply_adds(const Work& work) {
  int64_t pairs = 0;  // of a query and a key
  for (int64_t row = 0; row < work.rows; ++row)
    pairs += (work.query_cu_seqlens[row + 1] - work.query_cu_seqlens[row]) *
             (work.cu_seqlens[row + 1] - work.cu_seqlens[row]);
  return 2 * pairs * work.heads * work.size;
}

// Returns false when out of memory.
template <class Kind>
bool run(const Work& work, int64_t threads) {
  const int64_t units = work.rows * work.heads;
  threads = std::min({threads, units, 1 + multiply_adds(work) / kWorthAThread});
  return in_threads<Scratch<Kind>>(threads, units, [&work](int64_t i, Scratch<Kind>& scratch) {
    attend<Kind>(work, i / work.heads, i % work.heads, scratch);
  });
}

#endif

bool has_kernel(int64_t bits) { return has_avx512() && (bits != 16 || CPU_HAS("avx512bf16")); }

bool increasing(const int64_t* cu_seqlens, int64_t rows, int64_t total) {
  if (cu_seqlens[0] != 0 || cu_seqlens[rows] != total) return false;
  for (int64_t row = 0; row < rows; ++row)
    if (cu_seqlens[row] > cu_seqlens[row + 1]) return false;
  return true;
}

// attention(queries, keys, values, query_cu_seqlens, cu_seqlens, heads, out, bits, threads)
//   queries, out (Q, heads * size); keys, values (T, heads * size): float32 (32 bits) or, as
//   integers of their bits, bfloat16 (16); query_cu_seqlens, cu_seqlens (rows + 1) int64
PyObject* attention(PyObject*, PyObject* args) {
  PyObject *queries_object, *keys_object, *values_object;
  PyObject *query_cu_seqlens_object, *cu_seqlens_object, *out_object;
  long long heads, bits, threads;
  if (!PyArg_ParseTuple(args, "OOOOOLOLL", &queries_object, &keys_object, &values_object,
                        &query_cu_seqlens_object, &cu_seqlens_object, &heads, &out_object, &bits,
                        &threads))
    return nullptr;
  const Py_ssize_t item = bits == 16 ? 2 : 4;
  Buffer queries(queries_object, item, 2);
  if (!queries.ok()) return nullptr;
  Buffer keys(keys_object, item, 2);
  if (!keys.ok()) return nullptr;
  Buffer values(values_object, item, 2);
  if (!values.ok()) return nullptr;
  Buffer query_cu_seqlens(query_cu_seqlens_object, 8, 1);
  if (!query_cu_seqlens.ok()) return nullptr;
  Buffer cu_seqlens(cu_seqlens_object, 8, 1);
  if (!cu_seqlens.ok()) return nullptr;
  Buffer out(out_object, item, 2, true);
  if (!out.ok()) return nullptr;
  const int64_t rows = cu_seqlens.rows() - 1, width = queries.columns();
  if (rows < 0 || query_cu_seqlens.rows() != rows + 1 || heads < 1 || heads > width / 16 ||
      width % (heads * 16) != 0 || keys.columns() != width || values.columns() != width ||
      out.columns() != width || out.rows() != queries.rows() || values.rows() != keys.rows() ||
      !increasing(query_cu_seqlens.data<const int64_t>(), rows, queries.rows()) ||
      !increasing(cu_seqlens.data<const int64_t>(), rows, keys.rows())) {
    PyErr_SetString(PyExc_ValueError, "queries, keys, values and cu_seqlens do not fit together");
    return nullptr;
  }
  if (item == 2 && !(queries.even() && keys.even())) {
    PyErr_SetString(PyExc_ValueError, "rows of bfloat16 must lie at multiples of two");
    return nullptr;
  }
  // 16 keys lie within a gather's reach, which is 32 bits.
  if (std::abs(keys.stride()) >= int64_t{1} << 27) {
    PyErr_SetString(PyExc_ValueError, "keys lie too far apart");
    return nullptr;
  }
  if (!has_kernel(bits)) {
    PyErr_SetString(PyExc_RuntimeError, "this processor lacks the instructions");
    return nullptr;
  }
#if HAVE_KERNEL
  Work work{queries.data<void>(), keys.data<void>(), values.data<void>(), out.data<void>(),
            queries.stride(),     keys.stride(),     values.stride(),     out.stride(),
            query_cu_seqlens.data<const int64_t>(), cu_seqlens.data<const int64_t>(), rows, heads,
            width / heads};
  bool enough;
  Py_BEGIN_ALLOW_THREADS
  enough = bits == 16 ? run<BFloat16>(work, threads) : run<Float>(work, threads);
  Py_END_ALLOW_THREADS
  if (!enough) return PyErr_NoMemory();
#endif
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"attention", attention, METH_VARARGS, nullptr},
    {"supported", supported, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_attention", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__attention() { return PyModule_Create(&definition); }
