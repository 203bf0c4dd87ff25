// Rows of a corpus: planning which pieces stand in which row, and masking a row.
//
// Every function has a twin in Python (masking.py and masking_strategies.py, row_plans.py), which
// explains what it does and draws the same random numbers in the same order: results do not depend
// on whether this module could be compiled. Only Python's stable ABI is used. Callers pass
// contiguous arrays of the stated types.

#include "../array.h"

#include <algorithm>
#include <cmath>
#include <utility>

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

// The strategies of masking_strategies.py; the numbers are those of masking.py.
enum Strategy { kCharacters = 0, kWholeWords = 1, kUnbiased = 2, kNgrams = 3, kMac = 4 };

struct Word {
  int64_t first;
  int64_t length;
  int64_t part;  // special tokens separate the parts; a span of words never leaves its part
};

// The words of a row and which of them are predicted.
struct Words {
  std::vector<Word> words;
  std::vector<uint8_t> chosen;
  int64_t num_pieces = 0;  // of the row, without padding
  int64_t maskable = 0;    // pieces in words
  int64_t count() const { return static_cast<int64_t>(words.size()); }
};

struct SpecialTokens {
  long long cls, sep, pad, mask;
};

Words find_words(const Array<int64_t>& row, const Array<uint8_t>& starts,
                 const SpecialTokens& special, bool single_pieces) {
  Words found;
  found.words.reserve(static_cast<size_t>(row.size()));
  found.num_pieces = row.size();
  int64_t part = 0;
  bool new_part = true;
  for (int64_t i = 0; i < row.size(); ++i) {
    const int64_t piece = row[i];
    if (piece == special.cls || piece == special.sep || piece == special.pad) {
      if (piece == special.pad) --found.num_pieces;
      ++part;
      new_part = true;
      continue;
    }
    ++found.maskable;
    if (new_part || single_pieces || starts[i]) {
      found.words.push_back({i, 1, part});
      new_part = false;
    } else {
      ++found.words.back().length;
    }
  }
  found.chosen.assign(found.words.size(), 0);
  return found;
}

// masking.quota. nearbyint rounds halves to even, as Python's round does.
int64_t quota(int64_t num_pieces, double rate, int64_t max_predictions) {
  const double exact = static_cast<double>(num_pieces) * rate;
  const int64_t limit = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(exact)));
  return std::min(limit, max_predictions);
}

void choose_unbiased(Words& found, int64_t limit, Random& random) {
  const double probability = static_cast<double>(limit) / static_cast<double>(found.maskable);
  for (auto& chosen : found.chosen) chosen = random.uniform() < probability;
}

// Predict a span of one to four words; one that exceeds what is left is shortened by words.
void choose_span(Words& found, int64_t start, int64_t* left, Random& random) {
  const double draw = random.uniform();
  for (int n = 1 + (draw >= 0.4) + (draw >= 0.7) + (draw >= 0.9); n > 0; --n) {
    int64_t end = start;
    int64_t cost = 0;
    while (end < found.count() && end < start + n &&
           found.words[end].part == found.words[start].part) {
      if (!found.chosen[end]) cost += found.words[end].length;
      ++end;
    }
    if (cost > *left) continue;
    for (int64_t word = start; word < end; ++word) found.chosen[word] = 1;
    *left -= cost;
    return;
  }
}

// Words in random order (a shuffle that stops when the limit is reached).
void choose_shuffled(Words& found, int64_t limit, bool spans, Random& random) {
  const int64_t count = found.count();
  std::vector<int64_t> order(found.words.size());
  for (int64_t i = 0; i < count; ++i) order[i] = i;
  int64_t left = limit;
  for (int64_t i = 0; i < count && left > 0; ++i) {
    std::swap(order[i], order[i + random.below(count - i)]);
    const int64_t start = order[i];
    if (found.chosen[start]) continue;
    if (spans) {
      choose_span(found, start, &left, random);
    } else if (found.words[start].length <= left) {
      // A word that exceeds it is skipped, not cut: half a word would leak its other half.
      found.chosen[start] = 1;
      left -= found.words[start].length;
    }
  }
}

// similar_words.SimilarWords: words by number of pieces, then by their ids.
struct SimilarWords {
  Array<int64_t> first_of_length, starts;
  Array<int32_t> pieces, similar;

  bool open(PyObject* arrays) {
    return PyTuple_Check(arrays) && PyTuple_Size(arrays) == 4 &&
           first_of_length.open(PyTuple_GetItem(arrays, 0), "first_of_length") &&
           pieces.open(PyTuple_GetItem(arrays, 1), "pieces") &&
           starts.open(PyTuple_GetItem(arrays, 2), "starts") &&
           similar.open(PyTuple_GetItem(arrays, 3), "similar");
  }

  int64_t first(int64_t length) const {
    return first_of_length[std::min(length, first_of_length.size() - 1)];
  }

  // The pieces of a word of this many.
  const int32_t* word(int64_t number, int64_t length) const {
    int64_t before = 0;
    for (int64_t n = 1; n < length; ++n) before += n * (first(n + 1) - first(n));
    return pieces.data() + before + (number - first(length)) * length;
  }

  // One of the words similar to this one, or else any word of its length; null: there are none.
  const int32_t* draw_similar(const int64_t* own, int64_t length, Random& random) const {
    int64_t low = first(length), high = first(length + 1);
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const int32_t* other = word(middle, length);
      if (std::lexicographical_compare(other, other + length, own, own + length))
        low = middle + 1;
      else
        high = middle;
    }
    const bool known = low < first(length + 1) && std::equal(own, own + length, word(low, length));
    const int64_t count = known ? starts[low + 1] - starts[low] : 0;
    if (count == 0) return draw_any(length, random);
    return word(similar[starts[low] + random.below(count)], length);
  }

  const int32_t* draw_any(int64_t length, Random& random) const {
    const int64_t count = first(length + 1) - first(length);
    return count == 0 ? nullptr : word(first(length) + random.below(count), length);
  }
};

// What stands in the place of the chosen pieces, and how often (masking.MaskingSettings).
struct Replacement {
  double mask_share, random_share;
  int per_word;
  int64_t mask_id;
  Array<int32_t> random_ids;

  int64_t random_piece(Random& random) const { return random_ids[random.below(random_ids.size())]; }

  // masking.Masker._replace
  void pieces(const Word& word, int64_t* row, Random& random) const {
    double draw = per_word ? random.uniform() : 0.0;
    for (int64_t k = word.first; k < word.first + word.length; ++k) {
      if (!per_word) draw = random.uniform();
      if (draw < mask_share) {
        row[k] = mask_id;
      } else if (draw < mask_share + random_share) {
        row[k] = random_piece(random);
      }
    }
  }

  // masking.Masker._replace_words
  void whole(const Word& word, int64_t* row, const SimilarWords& words, Random& random) const {
    int64_t* own = row + word.first;
    const double draw = random.uniform();
    if (draw >= mask_share + random_share) return;
    const int32_t* other = draw < mask_share ? words.draw_similar(own, word.length, random)
                                             : words.draw_any(word.length, random);
    for (int64_t k = 0; k < word.length; ++k) own[k] = other ? other[k] : random_piece(random);
  }
};

// masking.Masker.mask
PyObject* mask(PyObject*, PyObject* args) {
  PyObject *row_object, *starts_object, *labels_object, *random_ids_object, *similar, *capsule;
  int strategy;
  long long max_predictions;
  SpecialTokens special;
  double rate;
  Replacement replacement;
  if (!PyArg_ParseTuple(args, "OOOidLLLLLOddpOO", &row_object, &starts_object, &labels_object,
                        &strategy, &rate, &max_predictions, &special.cls, &special.sep,
                        &special.pad, &special.mask, &random_ids_object, &replacement.mask_share,
                        &replacement.random_share, &replacement.per_word, &similar, &capsule))
    return nullptr;
  replacement.mask_id = special.mask;
  Array<int64_t> row, labels;
  Array<uint8_t> starts;
  SimilarWords similar_words;
  Random random;
  if (!row.open(row_object, "row", true) || !starts.open(starts_object, "starts") ||
      !labels.open(labels_object, "labels", true) ||
      !replacement.random_ids.open(random_ids_object, "random_ids") ||
      !open_random(capsule, &random) || (strategy == kMac && !similar_words.open(similar)))
    return nullptr;
  if (starts.size() != row.size() || labels.size() != row.size() ||
      replacement.random_ids.size() == 0) {
    PyErr_SetString(PyExc_ValueError, "mask: arrays of different lengths");
    return nullptr;
  }
  Words found = find_words(row, starts, special, strategy == kCharacters);
  if (found.words.empty()) Py_RETURN_NONE;
  const int64_t limit = quota(found.num_pieces, rate, max_predictions);
  if (strategy == kUnbiased) {
    choose_unbiased(found, limit, random);
  } else {
    choose_shuffled(found, limit, strategy == kNgrams || strategy == kMac, random);
  }
  for (int64_t i = 0; i < found.count(); ++i) {
    if (!found.chosen[i]) continue;
    const Word& word = found.words[i];
    std::copy_n(row.data() + word.first, word.length, labels.data() + word.first);
    if (strategy == kMac) {
      replacement.whole(word, row.data(), similar_words, random);
    } else {
      replacement.pieces(word, row.data(), random);
    }
  }
  Py_RETURN_NONE;
}

// The sentences of a corpus, and where its documents begin among them.
struct Sentences {
  const Array<int64_t>& starts;
  const Array<int64_t>& documents;
  Random& random;

  int64_t pieces(int64_t first, int64_t end) const { return starts[end] - starts[first]; }

  // The end of the sentences from `first` on that reach the target length together.
  int64_t collect(int64_t first, int64_t last, int64_t target) const {
    int64_t end = first + 1;
    while (end < last && pieces(first, end) < target) ++end;
    return end;
  }

  // Another document (the same one, if there is no other).
  int64_t another(int64_t document) const {
    const int64_t count = documents.size() - 1;
    for (int tries = 0; tries < 10; ++tries) {
      const int64_t other = random.below(count);
      if (other != document) return other;
    }
    return (document + 1) % count;
  }
};

// row_plans.plan_pairs
PyObject* plan_pairs(PyObject*, PyObject* args) {
  PyObject *sentences_object, *documents_object, *capsule;
  long long max_pieces;
  double short_probability;
  if (!PyArg_ParseTuple(args, "OOLdO", &sentences_object, &documents_object, &max_pieces,
                        &short_probability, &capsule))
    return nullptr;
  Array<int64_t> starts, documents;
  Random random;
  if (!starts.open(sentences_object, "sentences") ||
      !documents.open(documents_object, "documents") || !open_random(capsule, &random) ||
      !increasing(starts, false, INT64_MAX, "sentences") ||
      !increasing(documents, true, starts.size() - 1, "documents"))
    return nullptr;
  const Sentences sentences{starts, documents, random};
  std::vector<int64_t> rows;
  Py_BEGIN_ALLOW_THREADS;
  for (int64_t document = 0; document < documents.size() - 1; ++document) {
    int64_t target = max_pieces;
    if (random.uniform() < short_probability) target = 2 + random.below(max_pieces - 1);
    int64_t first = documents[document];
    while (first < documents[document + 1]) {
      const int64_t end = sentences.collect(first, documents[document + 1], target);
      const int64_t size = end - first;
      const int64_t a_end = first + 1 + (size >= 2 ? random.below(size - 1) : 0);
      const int64_t a_length = sentences.pieces(first, a_end);
      const bool is_random = size == 1 || random.uniform() < 0.5;
      int64_t b_first = a_end;
      int64_t b_end = end;
      if (is_random) {
        const int64_t other = sentences.another(document);
        const int64_t b_last = documents[other + 1];
        b_first = documents[other] + random.below(b_last - documents[other]);
        b_end = sentences.collect(b_first, b_last, target - a_length);
      }
      rows.insert(rows.end(), {starts[first], a_length, starts[b_first],
                               sentences.pieces(b_first, b_end), is_random});
      first = is_random ? a_end : end;  // the sentences that B displaces are used again
    }
  }
  Py_END_ALLOW_THREADS;
  return bytes_of(rows);
}

// row_plans.truncate_pair
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

// row_plans.plan_packed
PyObject* plan_packed(PyObject*, PyObject* args) {
  PyObject *sentences_object, *groups_object, *bits_object;
  long long capacity, extra_separators;
  if (!PyArg_ParseTuple(args, "OOOLL", &sentences_object, &groups_object, &bits_object, &capacity,
                        &extra_separators))
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
    const bool new_group = group < groups.size() && groups[group] == at && at > start;
    int64_t cost = new_group ? extra_separators : 0;
    if (at > start && (cost < 0 || used + cost + (end - at) > capacity)) {
      rows.push_back(start);
      rows.push_back(at);
      start = at;
      used = 0;
      cost = 0;
    }
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
