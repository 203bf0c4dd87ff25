// Rows of a corpus: planning which pieces stand in which row, and masking a row.
//
// Every function has a plain Python twin (masking.py, examples.py) that draws the same random
// numbers in the same order, so results do not depend on whether this module could be compiled.
// Only Python's stable ABI is used. Callers pass contiguous arrays of the stated types.

#include <Python.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

// NumPy's published C interface of a BitGenerator (numpy/random/bitgen.h).
struct BitGenerator {
  void* state;
  uint64_t (*next_uint64)(void*);
  uint32_t (*next_uint32)(void*);
  double (*next_double)(void*);
  uint64_t (*next_raw)(void*);
};

struct Random {
  BitGenerator* generator;
  double uniform() { return generator->next_double(generator->state); }
  int64_t below(int64_t n) { return static_cast<int64_t>(uniform() * static_cast<double>(n)); }
};

// A buffer that is released at the end of the scope.
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

// Positions must lie where they say: a damaged corpus may not lead outside of its arrays.
bool increasing(const Array<int64_t>& values, bool strictly, int64_t limit, const char* name) {
  bool fine = values.size() > 0 && values[0] >= 0;
  for (int64_t i = 1; fine && i < values.size(); ++i)
    fine = strictly ? values[i] > values[i - 1] : values[i] >= values[i - 1];
  if (fine && values[values.size() - 1] <= limit) return true;
  PyErr_Format(PyExc_ValueError, "%s: must increase from 0 or more to %lld at most", name,
               static_cast<long long>(limit));
  return false;
}

bool open_random(PyObject* capsule, Random* random) {
  random->generator = static_cast<BitGenerator*>(PyCapsule_GetPointer(capsule, "BitGenerator"));
  return random->generator != nullptr;
}

PyObject* bytes_of(const std::vector<int64_t>& values) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(values.data()),
                                   static_cast<Py_ssize_t>(values.size() * sizeof(int64_t)));
}

enum Strategy { kChar = 0, kWords = 1, kUnbiased = 2, kNgram = 3 };

struct Word {
  int64_t first;
  int64_t length;
  int64_t part;  // pieces between two marks; a span of words never leaves its part
};

// Python's round(): halves to even.
int64_t round_half_even(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

PyObject* mask(PyObject*, PyObject* args) {
  PyObject *row_object, *starts_object, *labels_object, *random_ids_object, *capsule;
  int strategy, per_word;
  long long max_predictions, cls_id, sep_id, pad_id, mask_id;
  double rate, mask_share, random_share;
  if (!PyArg_ParseTuple(args, "OOOidLLLLLOddpO", &row_object, &starts_object, &labels_object,
                        &strategy, &rate, &max_predictions, &cls_id, &sep_id, &pad_id, &mask_id,
                        &random_ids_object, &mask_share, &random_share, &per_word, &capsule))
    return nullptr;
  Array<int64_t> row, labels;
  Array<uint8_t> starts;
  Array<int32_t> random_ids;
  Random random;
  if (!row.open(row_object, "row", true) || !starts.open(starts_object, "starts") ||
      !labels.open(labels_object, "labels", true) ||
      !random_ids.open(random_ids_object, "random_ids") || !open_random(capsule, &random))
    return nullptr;
  if (starts.size() != row.size() || labels.size() != row.size() || random_ids.size() == 0) {
    PyErr_SetString(PyExc_ValueError, "mask: arrays of different lengths");
    return nullptr;
  }

  std::vector<Word> words;
  words.reserve(static_cast<size_t>(row.size()));
  int64_t num_pieces = row.size();
  int64_t maskable = 0;
  int64_t part = 0;
  bool after_mark = true;
  for (int64_t i = 0; i < row.size(); ++i) {
    const int64_t piece = row[i];
    if (piece == cls_id || piece == sep_id || piece == pad_id) {
      if (piece == pad_id) --num_pieces;
      ++part;
      after_mark = true;
      continue;
    }
    ++maskable;
    if (after_mark || strategy == kChar || starts[i]) {
      words.push_back({i, 1, part});
      after_mark = false;
    } else {
      ++words.back().length;
    }
  }
  const int64_t count = static_cast<int64_t>(words.size());
  if (count == 0) Py_RETURN_NONE;

  int64_t limit = round_half_even(static_cast<double>(num_pieces) * rate);
  if (limit < 1) limit = 1;
  if (limit > max_predictions) limit = max_predictions;

  std::vector<uint8_t> chosen(words.size(), 0);
  if (strategy == kUnbiased) {
    const double probability = static_cast<double>(limit) / static_cast<double>(maskable);
    for (int64_t i = 0; i < count; ++i) chosen[i] = random.uniform() < probability;
  } else {
    std::vector<int64_t> order(words.size());
    for (int64_t i = 0; i < count; ++i) order[i] = i;
    int64_t covered = 0;
    for (int64_t i = 0; i < count && covered < limit; ++i) {
      const int64_t other = i + random.below(count - i);
      std::swap(order[i], order[other]);
      const int64_t start = order[i];
      if (strategy != kNgram) {
        // A word that overshoots is skipped, not cut: half a word would leak the rest.
        if (covered + words[start].length <= limit) {
          chosen[start] = 1;
          covered += words[start].length;
        }
        continue;
      }
      if (chosen[start]) continue;
      const double draw = random.uniform();
      for (int n = 1 + (draw >= 0.4) + (draw >= 0.7) + (draw >= 0.9); n > 0; --n) {
        int64_t end = start;
        int64_t cost = 0;
        while (end < count && end < start + n && words[end].part == words[start].part) {
          if (!chosen[end]) cost += words[end].length;
          ++end;
        }
        if (covered + cost <= limit) {
          for (int64_t word = start; word < end; ++word) chosen[word] = 1;
          covered += cost;
          break;
        }
      }
    }
  }

  for (int64_t i = 0; i < count; ++i) {
    if (!chosen[i]) continue;
    double draw = per_word ? random.uniform() : 0.0;
    for (int64_t k = words[i].first; k < words[i].first + words[i].length; ++k) {
      labels.data()[k] = row[k];
      if (!per_word) draw = random.uniform();
      if (draw < mask_share) {
        row.data()[k] = mask_id;
      } else if (draw < mask_share + random_share) {
        row.data()[k] = random_ids[random.below(random_ids.size())];
      }
    }
  }
  Py_RETURN_NONE;
}

// Google's sentence pairs over a whole corpus; see examples.plan_pairs for the procedure.
PyObject* plan_pairs(PyObject*, PyObject* args) {
  PyObject *sentences_object, *documents_object, *capsule;
  long long max_pieces;
  double short_probability;
  if (!PyArg_ParseTuple(args, "OOLdO", &sentences_object, &documents_object, &max_pieces,
                        &short_probability, &capsule))
    return nullptr;
  Array<int64_t> sentences, documents;
  Random random;
  if (!sentences.open(sentences_object, "sentences") ||
      !documents.open(documents_object, "documents") || !open_random(capsule, &random) ||
      !increasing(sentences, false, INT64_MAX, "sentences") ||
      !increasing(documents, true, sentences.size() - 1, "documents"))
    return nullptr;
  const int64_t num_documents = documents.size() - 1;
  std::vector<int64_t> rows;
  Py_BEGIN_ALLOW_THREADS;
  for (int64_t document = 0; document < num_documents; ++document) {
    const int64_t first = documents[document];
    const int64_t last = documents[document + 1];
    int64_t target = max_pieces;
    if (random.uniform() < short_probability) target = 2 + random.below(max_pieces - 1);
    int64_t chunk = first;
    for (int64_t i = first; i < last; ++i) {
      if (i != last - 1 && sentences[i + 1] - sentences[chunk] < target) continue;
      const int64_t size = i + 1 - chunk;
      int64_t a_end = chunk + 1;
      if (size >= 2) a_end = chunk + 1 + random.below(size - 1);
      const int64_t a_length = sentences[a_end] - sentences[chunk];
      int64_t b_first = a_end;
      int64_t b_end = i + 1;
      const bool is_random = size == 1 || random.uniform() < 0.5;
      if (is_random) {
        int64_t other = document;
        for (int tries = 0; tries < 10 && other == document; ++tries)
          other = random.below(num_documents);
        if (other == document) other = (document + 1) % num_documents;
        b_first = documents[other] + random.below(documents[other + 1] - documents[other]);
        b_end = b_first + 1;
        while (b_end < documents[other + 1] &&
               sentences[b_end] - sentences[b_first] < target - a_length)
          ++b_end;
        i = a_end - 1;  // the sentences that B would have had are used again
      }
      rows.push_back(sentences[chunk]);
      rows.push_back(a_length);
      rows.push_back(sentences[b_first]);
      rows.push_back(sentences[b_end] - sentences[b_first]);
      rows.push_back(is_random);
      chunk = i + 1;
    }
  }
  Py_END_ALLOW_THREADS;
  return bytes_of(rows);
}

// Google's truncation of a pair, by whole words; see examples.truncate_pair.
PyObject* truncate_pair(PyObject*, PyObject* args) {
  PyObject *a_object, *b_object, *capsule;
  long long max_pieces;
  if (!PyArg_ParseTuple(args, "OOLO", &a_object, &b_object, &max_pieces, &capsule)) return nullptr;
  Array<uint8_t> a, b;
  Random random;
  if (!a.open(a_object, "a") || !b.open(b_object, "b") || !open_random(capsule, &random))
    return nullptr;
  const uint8_t* starts[2] = {a.data(), b.data()};
  int64_t first[2] = {0, 0};
  int64_t end[2] = {a.size(), b.size()};
  while (end[0] - first[0] + end[1] - first[1] > max_pieces) {
    const int longer = end[0] - first[0] > end[1] - first[1] ? 0 : 1;
    int64_t next = first[longer] + 1;
    while (next < end[longer] && !starts[longer][next]) ++next;
    const bool single = next == end[longer];  // one word is left: nothing to do but to cut it
    if (random.uniform() < 0.5) {
      first[longer] = single ? first[longer] + 1 : next;
    } else {
      int64_t last = end[longer] - 1;
      if (!single)
        while (last > first[longer] && !starts[longer][last]) --last;
      end[longer] = last;
    }
  }
  return Py_BuildValue("(LLLL)", first[0], end[0], first[1], end[1]);
}

// Whole sentences packed into rows; see examples.plan_packed for the procedure.
PyObject* plan_packed(PyObject*, PyObject* args) {
  PyObject *sentences_object, *groups_object, *bits_object;
  long long capacity, joint;
  if (!PyArg_ParseTuple(args, "OOOLL", &sentences_object, &groups_object, &bits_object, &capacity,
                        &joint))
    return nullptr;
  Array<int64_t> sentences, groups;
  Array<uint8_t> bits;
  if (!sentences.open(sentences_object, "sentences") || !groups.open(groups_object, "groups") ||
      !bits.open(bits_object, "bits") ||
      !increasing(sentences, false, 8 * bits.size(), "sentences"))
    return nullptr;
  if (capacity < 1) {
    PyErr_SetString(PyExc_ValueError, "capacity: must be 1 at least");
    return nullptr;
  }
  std::vector<int64_t> rows;
  Py_BEGIN_ALLOW_THREADS;
  const int64_t num_sentences = sentences.size() - 1;
  int64_t start = num_sentences > 0 ? sentences[0] : 0;
  int64_t used = 0;
  int64_t group = 0;
  for (int64_t s = 0; s < num_sentences; ++s) {
    int64_t at = sentences[s];
    const int64_t end = sentences[s + 1];
    while (group + 1 < groups.size() && groups[group + 1] <= at) ++group;
    const bool opens_group = group < groups.size() && groups[group] == at && at > start;
    int64_t cost = opens_group ? joint : 0;
    if (at > start && ((opens_group && joint < 0) || used + cost + (end - at) > capacity)) {
      rows.push_back(start);
      rows.push_back(at);
      start = at;
      used = 0;
      cost = 0;
    }
    if (at == start) cost = 0;
    // A sentence longer than a row: cut before the last word that does not fit whole.
    while (end - at > capacity) {
      int64_t cut = at + capacity;
      while (cut > at && !(bits[cut >> 3] >> (cut & 7) & 1)) --cut;
      if (cut == at) cut = at + capacity;  // one word fills the row: no better place
      rows.push_back(at);
      rows.push_back(cut);
      at = start = cut;
    }
    used += cost + (end - at);
  }
  if (num_sentences > 0 && sentences[num_sentences] > start) {
    rows.push_back(start);
    rows.push_back(sentences[num_sentences]);
  }
  Py_END_ALLOW_THREADS;
  return bytes_of(rows);
}

PyMethodDef kMethods[] = {
    {"mask", mask, METH_VARARGS, "Mask one row in place."},
    {"plan_pairs", plan_pairs, METH_VARARGS, "Rows of sentence pairs, as int64 bytes."},
    {"truncate_pair", truncate_pair, METH_VARARGS, "Where a pair begins and ends when cut."},
    {"plan_packed", plan_packed, METH_VARARGS, "Rows of whole sentences, as int64 bytes."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_rows", nullptr, -1, kMethods,
                       nullptr,               nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__rows(void) { return PyModule_Create(&kModule); }
