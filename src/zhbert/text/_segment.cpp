// The loops over characters that raw text goes through on its way to words: where sentences end,
// where the segmenter's words end, traditional characters replaced, a hash of each document or line.
//
// Each function has a twin in Python with the same results, which the tests compare: in sentences.py,
// segmenters/jieba.py and simplify.py.
// Plain C API within the stable ABI of Python 3.11; text comes in as a buffer of UTF-32 code units.

#include "../array.h"

namespace {

// str.isspace of Python, which the twins in Python use.
inline bool is_blank(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
  if (c < 0x1680) return c == 0x85 || c == 0xa0;
  if (c == 0x3000) return true;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f;
}

enum : uint8_t { kMark = 1, kCloser = 2, kComma = 4 };

struct Classes {
  uint8_t table[0x10000] = {};
  Classes() {
    for (uint32_t c : {0x3002, 0xff61, 0xff01, 0xff1f, 0x2026, 0x22ef, 0x21, 0x3f}) table[c] = kMark;
    for (uint32_t c : {0x201d, 0x2019, 0x300d, 0x300f, 0xff09, 0x29,   0xff3d, 0x5d,
                       0x3011, 0x300b, 0x3009, 0x3015, 0xff5d, 0x7d,   0x3017, 0x3019,
                       0x301b, 0xff63, 0xfe42, 0xfe44, 0xbb,   0x203a})
      table[c] = kCloser;
    for (uint32_t c : {0xff0c, 0x3001, 0xff1b, 0xff1a, 0x2c, 0x3a, 0x3b}) table[c] = kComma;
  }
  uint8_t operator[](uint32_t c) const { return c < 0x10000 ? table[c] : 0; }
};

const Classes classes;

enum : uint8_t { kStartsLine = 1, kStartsDocument = 2, kCut = 4, kGiven = 8 };

// sentence_ends(codes u32, forced i64, blank_lines: bool, longest: int)
//   -> (ends i32, flags u8, lines, blank lines)
PyObject* sentence_ends(PyObject*, PyObject* args) {
  PyObject *codes_object, *forced_object;
  int blank_lines;
  Py_ssize_t longest;
  if (!PyArg_ParseTuple(args, "OOpn", &codes_object, &forced_object, &blank_lines, &longest))
    return nullptr;
  Array<uint32_t> codes_array;
  Array<int64_t> forced_array;
  if (!codes_array.open(codes_object, "codes") || !forced_array.open(forced_object, "forced"))
    return nullptr;
  const uint32_t* codes = codes_array.data();
  const Py_ssize_t size = codes_array.size();
  const int64_t* forced = forced_array.data();
  const Py_ssize_t forced_size = forced_array.size();

  std::vector<int32_t> ends;
  std::vector<uint8_t> flags;
  ends.reserve(static_cast<size_t>(size / 24 + 16));
  flags.reserve(static_cast<size_t>(size / 24 + 16));
  Py_ssize_t next_forced = 0, lines = 0, blanks = 0;
  uint8_t pending = kStartsDocument;

  Py_BEGIN_ALLOW_THREADS;
  auto emit = [&](Py_ssize_t start, Py_ssize_t end) {
    while (end - start > longest) {
      // A blank is the best place to cut, then after a comma, then beside a character that is a
      // piece of its own; inside a long run of letters only if nothing else is there.
      Py_ssize_t at = 0, comma = 0, other = 0;
      for (Py_ssize_t k = start + longest; k > start + longest / 2 && !at; --k) {
        if (is_blank(codes[k - 1])) at = k;
        if (!comma && (classes[codes[k - 1]] & kComma)) comma = k;
        if (!other && (codes[k - 1] >= 0x2e80 || codes[k] >= 0x2e80)) other = k;
      }
      if (!at) at = comma ? comma : other ? other : start + longest;
      ends.push_back(static_cast<int32_t>(at));
      flags.push_back(static_cast<uint8_t>(pending | kCut));
      pending = 0;
      start = at;
    }
    ends.push_back(static_cast<int32_t>(end));
    flags.push_back(pending);
    pending = 0;
  };
  Py_ssize_t a = 0;
  while (a < size) {
    Py_ssize_t b = a;
    while (b < size && codes[b] != '\n') ++b;
    const Py_ssize_t after = b < size ? b + 1 : b;
    ++lines;
    while (next_forced < forced_size && forced[next_forced] <= a) {
      pending |= kStartsDocument | kGiven;
      ++next_forced;
    }
    Py_ssize_t i = a;
    while (i < b && is_blank(codes[i])) ++i;
    if (i == b) {
      ++blanks;
      if (blank_lines) pending |= kStartsDocument;
      if (!ends.empty()) ends.back() = static_cast<int32_t>(after);
      a = after;
      continue;
    }
    pending |= kStartsLine;
    Py_ssize_t start = ends.empty() ? 0 : ends.back();
    bool quoted = false;
    while (i < b) {
      const uint32_t c = codes[i];
      if (c == '"') quoted = !quoted;
      if (!(classes[c] & kMark)) {
        ++i;
        continue;
      }
      Py_ssize_t j = i;
      bool strong = false;
      for (; j < b; ++j) {
        const uint32_t d = codes[j];
        const uint8_t k = classes[d];
        if (k & kMark) {
          strong |= d >= 0x80;
        } else if (d == '"' && quoted) {
          quoted = false;
        } else if (!(k & kCloser)) {
          break;
        }
      }
      // An ASCII ! or ? ends a sentence only where it cannot be part of a URL or of code.
      strong |= j == b || codes[j] >= 0x80 || is_blank(codes[j]) || (i > a && codes[i - 1] >= 0x80);
      if (strong) {
        while (j < b && is_blank(codes[j])) ++j;
        emit(start, j);
        start = j;
      }
      i = j;
    }
    if (start < b) emit(start, b);
    ends.back() = static_cast<int32_t>(after);
    a = after;
  }
  Py_END_ALLOW_THREADS;

  PyObject* first = bytes_of(ends);
  PyObject* second = bytes_of(flags);
  if (!first || !second) {
    Py_XDECREF(first);
    Py_XDECREF(second);
    return nullptr;
  }
  return Py_BuildValue("(NNnn)", first, second, lines, blanks);
}

// append_word_ends(words: list[str], base: int, out: writable i32 buffer, at: int) -> int
// Writes base + the running sum of the words' lengths from out[at] on; returns the next free place.
PyObject* append_word_ends(PyObject*, PyObject* args) {
  PyObject *words, *out_object;
  Py_ssize_t base, at;
  if (!PyArg_ParseTuple(args, "OnOn", &words, &base, &out_object, &at)) return nullptr;
  if (!PyList_Check(words)) {
    PyErr_SetString(PyExc_TypeError, "words: a list was expected");
    return nullptr;
  }
  Array<int32_t> out;
  if (!out.open(out_object, "out", true)) return nullptr;
  const Py_ssize_t count = PyList_Size(words);
  if (at < 0 || at + count > out.size()) {
    PyErr_SetString(PyExc_ValueError, "out: no room for these words");
    return nullptr;
  }
  int32_t* ends = out.data() + at;
  int32_t position = static_cast<int32_t>(base);
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Py_ssize_t length = PyUnicode_GetLength(PyList_GetItem(words, i));
    if (length < 0) return nullptr;
    position += static_cast<int32_t>(length);
    ends[i] = position;
  }
  return PyLong_FromSsize_t(at + count);
}

// hash_spans(codes u32, starts i32, ends i32, seed u64) -> u64s, one a span, blanks at its ends apart
PyObject* hash_spans(PyObject*, PyObject* args) {
  PyObject *codes_object, *starts_object, *ends_object;
  unsigned long long seed;
  if (!PyArg_ParseTuple(args, "OOOK", &codes_object, &starts_object, &ends_object, &seed))
    return nullptr;
  Array<uint32_t> codes_array;
  Array<int32_t> starts_array, ends_array;
  if (!codes_array.open(codes_object, "codes") || !starts_array.open(starts_object, "starts") ||
      !ends_array.open(ends_object, "ends"))
    return nullptr;
  const uint32_t* codes = codes_array.data();
  const int32_t* starts = starts_array.data();
  const int32_t* ends = ends_array.data();
  const Py_ssize_t spans = starts_array.size();
  if (ends_array.size() != spans) {
    PyErr_SetString(PyExc_ValueError, "starts and ends differ in length");
    return nullptr;
  }
  for (Py_ssize_t s = 0; s < spans; ++s) {
    if (starts[s] < 0 || starts[s] > ends[s] || ends[s] > codes_array.size()) {
      PyErr_SetString(PyExc_ValueError, "a span outside the text");
      return nullptr;
    }
  }
  std::vector<uint64_t> hashes(static_cast<size_t>(spans));
  Py_BEGIN_ALLOW_THREADS;
  for (Py_ssize_t s = 0; s < spans; ++s) {
    int32_t a = starts[s], b = ends[s];
    while (a < b && is_blank(codes[a])) ++a;
    while (a < b && is_blank(codes[b - 1])) --b;
    uint64_t h = seed;
    for (int32_t i = a; i < b; ++i) {
      h = (h ^ codes[i]) * 0x9e3779b97f4a7c15u;
      h ^= h >> 32;
    }
    h ^= static_cast<uint64_t>(b - a);
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    hashes[static_cast<size_t>(s)] = h;
  }
  Py_END_ALLOW_THREADS;
  return bytes_of(hashes);
}

// replace(codes u32, table u32) -> (the codes looked up in the table, where they differ i32), or None
// if they are the same.
PyObject* replace(PyObject*, PyObject* args) {
  PyObject *codes_object, *table_object;
  if (!PyArg_ParseTuple(args, "OO", &codes_object, &table_object)) return nullptr;
  Array<uint32_t> codes_array, table_array;
  if (!codes_array.open(codes_object, "codes") || !table_array.open(table_object, "table"))
    return nullptr;
  const uint32_t* codes = codes_array.data();
  const uint32_t* table = table_array.data();
  const Py_ssize_t size = codes_array.size();
  const auto known = static_cast<uint32_t>(table_array.size());
  std::vector<int32_t> places;
  for (Py_ssize_t i = 0; i < size; ++i) {
    if (codes[i] < known && table[codes[i]] != codes[i]) places.push_back(static_cast<int32_t>(i));
  }
  if (places.empty()) Py_RETURN_NONE;
  PyObject* replaced = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(codes), size * 4);
  if (!replaced) return nullptr;
  auto* out = reinterpret_cast<uint32_t*>(PyBytes_AsString(replaced));
  for (int32_t i : places) out[i] = table[codes[i]];
  PyObject* where = bytes_of(places);
  if (!where) {
    Py_DECREF(replaced);
    return nullptr;
  }
  return Py_BuildValue("(NN)", replaced, where);
}

PyMethodDef methods[] = {
    {"sentence_ends", sentence_ends, METH_VARARGS, "Where the sentences of a text end."},
    {"append_word_ends", append_word_ends, METH_VARARGS, "Running sums of words' lengths."},
    {"replace", replace, METH_VARARGS, "Code points replaced by a table."},
    {"hash_spans", hash_spans, METH_VARARGS, "A 64-bit hash of each span of a text."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_segment", nullptr, -1, methods, nullptr, nullptr,
                      nullptr,               nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__segment() { return PyModule_Create(&module); }
