// Linear maps with weights of 8 bits, for prediction on CPUs with AVX512_VNNI.
//
// Every output's weights have a scale of their own; every row of the input gets its scale and its
// zero point when it is used, so that the other rows of a batch change nothing. Sums are exact, in
// 32 bits; scaling, bias, activation and residual follow while they are in registers.
//
// Weights lie in panels of 64 outputs: (panels, words, 64, 4 items), a word being 4 inputs, which
// one instruction multiplies and adds. native.py makes them.

#include "kernel.h"

namespace {

constexpr int64_t kVectors = 4, kPanel = kLanes * kVectors, kItems = 4;
constexpr int kRows = 6;  // 24 of the 32 registers are sums

struct Work {
  const void* input;         // (rows, inputs)
  const int8_t* weights;     // panels
  const float* scales;       // (outputs)
  const int32_t* sums;       // (outputs): of each output's weights
  const float* bias;         // (outputs)
  const void* added;         // (rows, outputs), or null
  void* out;                 // (rows, outputs)
  int64_t rows, inputs, outputs;
  bool gelu;
};

#if HAVE_KERNEL

// One target for both types: the compiler never emits bfloat16's instruction on its own.
#define KERNEL \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma")))
#define KERNEL_INLINE KERNEL inline __attribute__((always_inline))

struct Float {
  using Item = float;
  static KERNEL_INLINE __m512 load(const float* from) { return _mm512_loadu_ps(from); }
  static KERNEL_INLINE void store(float* to, __m512 x) { _mm512_storeu_ps(to, x); }
};

struct BFloat16 {
  using Item = uint16_t;
  static KERNEL_INLINE __m512 load(const uint16_t* from) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
  }
  static KERNEL_INLINE void store(uint16_t* to, __m512 x) {
    _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x));
  }
};

// x * Phi(x), the exact GELU, to 2e-4 (a step of the 8 bits is a hundred times that): Phi(x) - 1/2
// is x times a polynomial of x * x, fitted to [-4, 4].
KERNEL_INLINE __m512 gelu_of(__m512 x) {
  const __m512 edge = _mm512_set1_ps(4.0f);
  const __m512 near = _mm512_max_ps(_mm512_min_ps(x, edge), _mm512_set1_ps(-4.0f));
  const __m512 square = _mm512_mul_ps(near, near);
  __m512 p = _mm512_set1_ps(2.278098898e-8f);
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-1.598577321e-6f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(4.795497820e-5f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-8.140097173e-4f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(8.772357372e-3f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-6.457303427e-2f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(3.978832860e-1f));
  return _mm512_mul_ps(x, _mm512_fmadd_ps(p, near, _mm512_set1_ps(0.5f)));
}

// The rows of a block in 8 bits: input = scale * (code - zero).
struct Codes {
  std::vector<uint8_t> items;  // (rows, inputs)
  std::vector<float> scales;
  std::vector<int32_t> zeros;
};

template <class Kind>
KERNEL void quantize(const Work& work, int64_t first, int64_t count, Codes& codes) {
  for (int64_t row = 0; row < count; ++row) {
    const auto* from =
        static_cast<const typename Kind::Item*>(work.input) + (first + row) * work.inputs;
    __m512 least = _mm512_setzero_ps(), most = _mm512_setzero_ps();
    __mmask16 none = 0;
    for (int64_t k = 0; k < work.inputs; k += kLanes) {
      const __m512 x = Kind::load(from + k);
      least = _mm512_min_ps(least, x);
      most = _mm512_max_ps(most, x);
      none |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    }
    const float low = _mm512_reduce_min_ps(least), high = _mm512_reduce_max_ps(most);
    const float range = high - low;
    const float per_unit = range > 0.0f ? 255.0f / range : 0.0f;
    const int32_t zero = int32_t(std::min(255.0f, std::max(0.0f, -low * per_unit + 0.5f)));
    // No code stands for NaN: the whole row of the output is NaN.
    codes.scales[row] = none ? NAN : range / 255.0f;
    codes.zeros[row] = zero;
    uint8_t* to = codes.items.data() + row * work.inputs;
    for (int64_t k = 0; k < work.inputs; k += kLanes) {
      const __m512i whole =
          _mm512_cvtps_epi32(_mm512_mul_ps(Kind::load(from + k), _mm512_set1_ps(per_unit)));
      const __m512i code = _mm512_add_epi32(whole, _mm512_set1_epi32(zero));
      _mm_storeu_si128((__m128i*)(to + k),
                       _mm512_cvtusepi32_epi8(_mm512_max_epi32(code, _mm512_setzero_si512())));
    }
  }
}

// sums (Q, 64) = Q rows of codes, `words` apart, times one panel.
// Without the pragma, GCC unrolls too late and keeps the sums in memory.
template <int Q>
KERNEL void tile(const int32_t* a, const int8_t* b, int64_t words, int32_t* out) {
  __m512i sums[Q][kVectors];
  #pragma GCC unroll 6
  for (int q = 0; q < Q; ++q)
    #pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) sums[q][v] = _mm512_setzero_si512();
  for (int64_t w = 0; w < words; ++w) {
    __m512i weights[kVectors];
    #pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v)
      weights[v] = _mm512_loadu_si512(b + (w * kPanel + v * kLanes) * kItems);
    #pragma GCC unroll 6
    for (int q = 0; q < Q; ++q) {
      const __m512i one = _mm512_set1_epi32(a[q * words + w]);
      #pragma GCC unroll 6
      for (int v = 0; v < kVectors; ++v) sums[q][v] = _mm512_dpbusd_epi32(sums[q][v], one, weights[v]);
    }
  }
  #pragma GCC unroll 6
  for (int q = 0; q < Q; ++q)
    #pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v)
      _mm512_storeu_si512(out + q * kPanel + v * kLanes, sums[q][v]);
}

// What follows the sums of some rows and one panel.
template <class Kind>
KERNEL void finish(const Work& work, const Codes& codes, int64_t first, int64_t row, int64_t count,
                   int64_t panel, const int32_t* sums) {
  using Item = typename Kind::Item;
  const int64_t begin = panel * kPanel, end = std::min(begin + kPanel, work.outputs);
  for (int64_t q = 0; q < count; ++q) {
    const __m512 row_scale = _mm512_set1_ps(codes.scales[row + q]);
    const __m512i zero = _mm512_set1_epi32(codes.zeros[row + q]);
    const int64_t place = (first + row + q) * work.outputs;
    for (int64_t column = begin; column < end; column += kLanes) {
      const __m512i off = _mm512_mullo_epi32(_mm512_loadu_si512(work.sums + column), zero);
      const __m512i sum = _mm512_loadu_si512(sums + q * kPanel + column - begin);
      const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(work.scales + column), row_scale);
      __m512 x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sum, off)), scale,
                                 _mm512_loadu_ps(work.bias + column));
      if (work.gelu) x = gelu_of(x);
      if (work.added != nullptr)
        x = _mm512_add_ps(x, Kind::load(static_cast<const Item*>(work.added) + place + column));
      Kind::store(static_cast<Item*>(work.out) + place + column, x);
    }
  }
}

KERNEL void product(int64_t count, const int32_t* a, const int8_t* b, int64_t words, int32_t* out) {
  static_assert(kRows == 6, "a case for each number of rows");
  switch (count) {
    case 1: return tile<1>(a, b, words, out);
    case 2: return tile<2>(a, b, words, out);
    case 3: return tile<3>(a, b, words, out);
    case 4: return tile<4>(a, b, words, out);
    case 5: return tile<5>(a, b, words, out);
    default: return tile<6>(a, b, words, out);
  }
}

template <class Kind>
KERNEL void block(const Work& work, int64_t first, int64_t count, Codes& codes) {
  codes.items.resize(count * work.inputs);
  codes.scales.resize(count);
  codes.zeros.resize(count);
  quantize<Kind>(work, first, count, codes);
  const int64_t panels = (work.outputs + kPanel - 1) / kPanel;
  const int64_t words = work.inputs / kItems;
  int32_t sums[kRows * kPanel];
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int8_t* weights = work.weights + panel * kPanel * work.inputs;
    for (int64_t row = 0; row < count; row += kRows) {
      const int64_t some = std::min<int64_t>(kRows, count - row);
      // Rows of codes lie at multiples of 16 bytes.
      const auto* a = reinterpret_cast<const int32_t*>(codes.items.data() + row * work.inputs);
      product(some, a, weights, words, sums);
      finish<Kind>(work, codes, first, row, some, panel, sums);
    }
  }
}

// A block's codes leave half of a 1 MB cache to the weights.
constexpr int64_t kBlockBytes = int64_t{1} << 18;
// Starting a thread takes at least as long as this many multiply-adds.
constexpr int64_t kWorthAThread = int64_t{1} << 24;

// Returns false when out of memory.
template <class Kind>
bool run(const Work& work, int64_t threads) {
  if (work.rows == 0) return true;
  threads = std::max<int64_t>(1, threads);
  threads = std::min(threads, 1 + work.rows * work.inputs * work.outputs / kWorthAThread);
  int64_t rows = std::max<int64_t>(kRows, kBlockBytes / work.inputs / kRows * kRows);
  const int64_t share_rows = (work.rows + threads - 1) / threads;
  rows = std::min(rows, (share_rows + kRows - 1) / kRows * kRows);
  const int64_t blocks = (work.rows + rows - 1) / rows;
  return in_threads<Codes>(threads, blocks, [&work, rows](int64_t i, Codes& codes) {
    block<Kind>(work, i * rows, std::min(rows, work.rows - i * rows), codes);
  });
}

#endif

bool has_kernel(int64_t bits) {
  return has_avx512() && CPU_HAS("avx512vnni") && (bits != 16 || CPU_HAS("avx512bf16"));
}

// The bytes of an object, or none of None; released at the end.
class Bytes {
 public:
  Bytes(PyObject* object, bool writable = false) {
    if (object == Py_None) return;
    held_ = PyObject_GetBuffer(object, &view_, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) == 0;
  }
  ~Bytes() {
    if (held_) PyBuffer_Release(&view_);
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  bool holds(int64_t bytes) const { return held_ && view_.len == bytes; }
  bool empty() const { return !held_; }
  template <typename T>
  T* data() const {
    return held_ ? static_cast<T*>(view_.buf) : nullptr;
  }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

// linear(input, weights, scales, sums, bias, added, out, rows, inputs, outputs, gelu, bits, threads)
//   input (rows, inputs), added (rows, outputs) or None, out (rows, outputs): float32 (32 bits) or
//   bfloat16 (16); weights: panels of int8; scales, bias (outputs) float32; sums (outputs) int32.
//   All lie in one piece. inputs and outputs are multiples of 16.
PyObject* linear(PyObject*, PyObject* args) {
  PyObject *input_object, *weights_object, *scales_object, *sums_object, *bias_object;
  PyObject *added_object, *out_object;
  long long rows, inputs, outputs, bits, threads;
  int gelu;
  if (!PyArg_ParseTuple(args, "OOOOOOOLLLpLL", &input_object, &weights_object, &scales_object,
                        &sums_object, &bias_object, &added_object, &out_object, &rows, &inputs,
                        &outputs, &gelu, &bits, &threads))
    return nullptr;
  const Bytes input(input_object), weights(weights_object), scales(scales_object);
  const Bytes sums(sums_object), bias(bias_object), added(added_object), out(out_object, true);
  if (PyErr_Occurred()) return nullptr;
  // Sums of so many products of 8 bits stay below 2 ** 31.
  constexpr int64_t kMost = int64_t{1} << 16, kMostRows = int64_t{1} << 24;
  const int64_t item = bits == 16 ? 2 : 4, panels = (outputs + kPanel - 1) / kPanel;
  if (rows < 0 || rows > kMostRows || inputs < 1 || inputs > kMost || inputs % kLanes != 0 ||
      outputs < 1 || outputs > kMost || outputs % kLanes != 0 ||
      !input.holds(rows * inputs * item) || !weights.holds(panels * kPanel * inputs) ||
      !scales.holds(outputs * 4) || !sums.holds(outputs * 4) || !bias.holds(outputs * 4) ||
      !out.holds(rows * outputs * item) ||
      !(added.empty() || added.holds(rows * outputs * item))) {
    PyErr_SetString(PyExc_ValueError, "the sizes of the buffers do not fit together");
    return nullptr;
  }
  if (!has_kernel(bits)) {
    PyErr_SetString(PyExc_RuntimeError, "this processor lacks the instructions");
    return nullptr;
  }
#if HAVE_KERNEL
  const Work work{input.data<void>(),  weights.data<int8_t>(), scales.data<float>(),
                  sums.data<int32_t>(), bias.data<float>(),    added.data<void>(),
                  out.data<void>(),     rows,                  inputs,
                  outputs,              gelu != 0};
  bool enough;
  Py_BEGIN_ALLOW_THREADS
  enough = bits == 16 ? run<BFloat16>(work, threads) : run<Float>(work, threads);
  Py_END_ALLOW_THREADS
  if (!enough) return PyErr_NoMemory();
#endif
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"linear", linear, METH_VARARGS, nullptr},
    {"supported", supported, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_int8", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__int8() { return PyModule_Create(&definition); }
