// Arrays of Python in C++, within the stable ABI of Python 3.11.

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <vector>

namespace {

// A contiguous array that a Python object shares, released at the end of the scope.
template <typename T>
class Array {
 public:
  Array() { view_.obj = nullptr; }
  ~Array() {
    if (view_.obj) PyBuffer_Release(&view_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  bool open(PyObject* object, const char* name, bool writable = false) {
    if (PyObject_GetBuffer(object, &view_, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0) {
      view_.obj = nullptr;
      return false;
    }
    if (view_.itemsize != static_cast<Py_ssize_t>(sizeof(T))) {
      PyErr_Format(PyExc_TypeError, "%s: items of %zd bytes, %zu are needed", name, view_.itemsize,
                   sizeof(T));
      return false;
    }
    return true;
  }
  T* data() const { return static_cast<T*>(view_.buf); }
  int64_t size() const { return view_.len / static_cast<int64_t>(sizeof(T)); }
  T operator[](int64_t i) const { return data()[i]; }

 private:
  Py_buffer view_;
};

template <typename T>
PyObject* bytes_of(const std::vector<T>& values) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(values.data()),
                                   static_cast<Py_ssize_t>(values.size() * sizeof(T)));
}

}  // namespace
