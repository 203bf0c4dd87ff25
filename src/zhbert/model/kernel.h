// What _attention.cpp and _int8.cpp share: whether their kernels can be compiled and run, and the
// threads that run them. Plain C API within the stable ABI of Python 3.11.

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 10)
#define HAVE_KERNEL 1
#define CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#include <immintrin.h>
#else
#define HAVE_KERNEL 0
#define CPU_HAS(feature) false
#endif

namespace {

constexpr int64_t kLanes = 16;

bool has_avx512() {
  return CPU_HAS("avx512f") && CPU_HAS("avx512bw") && CPU_HAS("avx512vl") && CPU_HAS("avx512dq") &&
         CPU_HAS("fma");
}

// Whether this processor runs the module's kernel for float32 (32 bits) or bfloat16 (16).
bool has_kernel(int64_t bits);

// supported() -> (float32, bfloat16): what the module can do on this processor
PyObject* supported(PyObject*, PyObject*) {
  return Py_BuildValue("(NN)", PyBool_FromLong(has_kernel(32)), PyBool_FromLong(has_kernel(16)));
}

// Calls unit(i, scratch) for each i below `units`; every thread has a scratch of its own.
// Returns false when out of memory.
template <class Scratch, class Unit>
bool in_threads(int64_t threads, int64_t units, const Unit& unit) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> enough{true};
  const auto share = [&unit, &next, &enough, units] {
    try {
      Scratch scratch;
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < units;)
        unit(i, scratch);
    } catch (const std::exception&) {
      enough = false;
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(share);
  } catch (const std::exception&) {
    // The system has no more threads: the running ones do all the work.
  }
  share();
  for (std::thread& other : others) other.join();
  return enough;
}

}  // namespace
