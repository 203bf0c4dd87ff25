// Rows of a corpus: planning which pieces stand in which row, building and masking them.
//
// Every function has a twin in Python (masking.py and masking_strategies.py, row_plans.py,
// examples.py, loader.py), which explains what it does and draws the same random numbers in the
// same order: results do not depend on whether this module could be compiled. Only Python's stable
// ABI is used. Callers pass contiguous arrays of the stated types.

#include "../array.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
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

// random_streams.generator: NumPy's Philox4x64-10 with this key, from its first number on.
// https://doi.org/10.1145/2063384.2063405
class Philox {
 public:
  Philox(uint64_t first_key, uint64_t second_key) : key_{first_key, second_key} {}
  BitGenerator interface() { return {this, nullptr, nullptr, next_double, nullptr}; }

 private:
  static double next_double(void* state) {
    return static_cast<double>(static_cast<Philox*>(state)->next() >> 11) * 0x1p-53;
  }

  uint64_t next() {
    if (used_ == 4) make_four();
    return numbers_[used_++];
  }

  void make_four() {
    uint64_t x[4] = {++counter_, 0, 0, 0};
    uint64_t key[2] = {key_[0], key_[1]};
    for (int round = 0; round < 10; ++round) {
      const Wide first = static_cast<Wide>(x[0]) * 0xD2E7470EE14C6C93u;
      const Wide second = static_cast<Wide>(x[2]) * 0xCA5A826395121157u;
      x[0] = static_cast<uint64_t>(second >> 64) ^ x[1] ^ key[0];
      x[2] = static_cast<uint64_t>(first >> 64) ^ x[3] ^ key[1];
      x[1] = static_cast<uint64_t>(second);
      x[3] = static_cast<uint64_t>(first);
      key[0] += 0x9E3779B97F4A7C15u;
      key[1] += 0xBB67AE8584CAA73Bu;
    }
    std::copy_n(x, 4, numbers_);
    used_ = 0;
  }

  __extension__ typedef unsigned __int128 Wide;
  uint64_t key_[2];
  uint64_t counter_ = 0;
  uint64_t numbers_[4] = {};
  int used_ = 4;
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

struct SpecialTokens {
  long long cls, sep, pad, mask;
};

// The words of a row and which of them are predicted.
struct Words {
  std::vector<Word> words;
  std::vector<uint8_t> chosen;
  std::vector<int64_t> order;
  int64_t num_pieces = 0;  // of the row, without padding
  int64_t maskable = 0;    // pieces in words
  int64_t count() const { return static_cast<int64_t>(words.size()); }

  void find(const int64_t* row, const uint8_t* starts, int64_t length, const SpecialTokens& special,
            bool single_pieces) {
    words.clear();
    num_pieces = length;
    maskable = 0;
    int64_t part = 0;
    bool new_part = true;
    for (int64_t i = 0; i < length; ++i) {
      const int64_t piece = row[i];
      if (piece == special.cls || piece == special.sep || piece == special.pad) {
        if (piece == special.pad) --num_pieces;
        ++part;
        new_part = true;
        continue;
      }
      ++maskable;
      if (new_part || single_pieces || starts[i]) {
        words.push_back({i, 1, part});
        new_part = false;
      } else {
        ++words.back().length;
      }
    }
    chosen.assign(words.size(), 0);
  }
};

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
  std::vector<int64_t>& order = found.order;
  order.resize(found.words.size());
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
    PyObject *firsts, *words, *begins, *others;
    if (!PyArg_ParseTuple(arrays, "OOOO", &firsts, &words, &begins, &others) ||
        !first_of_length.open(firsts, "first_of_length") || !pieces.open(words, "pieces") ||
        !starts.open(begins, "starts") || !similar.open(others, "similar") ||
        !increasing(first_of_length, false, starts.size() - 1, "first_of_length"))
      return false;
    int64_t total = 0;
    for (int64_t n = 1; n + 1 < first_of_length.size(); ++n) total += n * (first(n + 1) - first(n));
    if (total == pieces.size()) return true;
    PyErr_SetString(PyExc_ValueError, "similar words: not as many pieces as the words have");
    return false;
  }

  int64_t first(int64_t length) const {
    return first_of_length[std::min(length, first_of_length.size() - 1)];
  }

  // The words of this many pieces, one after the other.
  const int32_t* words(int64_t length) const {
    int64_t before = 0;
    for (int64_t n = 1; n < length; ++n) before += n * (first(n + 1) - first(n));
    return pieces.data() + before;
  }

  // One of the words similar to this one, or else any word of its length; null: there are none.
  const int32_t* draw_similar(const int64_t* own, int64_t length, Random& random) const {
    const int64_t begin = first(length), end = first(length + 1);
    const int32_t* all = words(length);
    int64_t low = begin, high = end;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const int32_t* other = all + (middle - begin) * length;
      if (std::lexicographical_compare(other, other + length, own, own + length))
        low = middle + 1;
      else
        high = middle;
    }
    const bool known = low < end && std::equal(own, own + length, all + (low - begin) * length);
    const int64_t count = known ? starts[low + 1] - starts[low] : 0;
    if (count <= 0) return draw_any(length, random);
    const int64_t place = starts[low] + random.below(count);
    if (place < 0 || place >= similar.size()) return nullptr;
    const int64_t number = similar[place];
    return number >= begin && number < end ? all + (number - begin) * length : nullptr;
  }

  const int32_t* draw_any(int64_t length, Random& random) const {
    const int64_t count = first(length + 1) - first(length);
    return count == 0 ? nullptr : words(length) + random.below(count) * length;
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

// The predicted pieces of some rows: their positions and what stood there.
struct Predictions {
  std::vector<int64_t> positions, labels;
};

// A recipe's table of masking, as masking.Masker passes it.
struct MaskingSettings {
  long long max_predictions;
  SpecialTokens special;
  Replacement replacement;
  SimilarWords similar_words;

  bool open(PyObject* settings, bool needs_similar_words) {
    PyObject *random_ids, *similar;
    if (!PyArg_ParseTuple(settings, "LLLLLOddpO", &max_predictions, &special.cls, &special.sep,
                          &special.pad, &special.mask, &random_ids, &replacement.mask_share,
                          &replacement.random_share, &replacement.per_word, &similar) ||
        !replacement.random_ids.open(random_ids, "random_ids") ||
        (needs_similar_words && !similar_words.open(similar)))
      return false;
    replacement.mask_id = special.mask;
    if (replacement.random_ids.size() > 0) return true;
    PyErr_SetString(PyExc_ValueError, "random_ids: there are none");
    return false;
  }

  // masking.Masker.mask. `base` is added to the positions.
  void mask(int64_t* row, const uint8_t* starts, int64_t length, int strategy, double rate,
            Random& random, int64_t base, Words& found, Predictions& predictions) const {
    found.find(row, starts, length, special, strategy == kCharacters);
    if (found.words.empty()) return;
    const int64_t limit = quota(found.num_pieces, rate, max_predictions);
    if (strategy == kUnbiased) {
      choose_unbiased(found, limit, random);
    } else {
      choose_shuffled(found, limit, strategy == kNgrams || strategy == kMac, random);
    }
    for (int64_t i = 0; i < found.count(); ++i) {
      if (!found.chosen[i]) continue;
      const Word& word = found.words[i];
      for (int64_t k = word.first; k < word.first + word.length; ++k) {
        predictions.positions.push_back(base + k);
        predictions.labels.push_back(row[k]);
      }
      if (strategy == kMac) {
        replacement.whole(word, row, similar_words, random);
      } else {
        replacement.pieces(word, row, random);
      }
    }
  }
};

// masking.Masker.mask
PyObject* mask(PyObject*, PyObject* args) {
  PyObject *row_object, *starts_object, *labels_object, *settings_object, *capsule;
  int strategy;
  double rate;
  if (!PyArg_ParseTuple(args, "OOOidOO", &row_object, &starts_object, &labels_object, &strategy,
                        &rate, &settings_object, &capsule))
    return nullptr;
  Array<int64_t> row, labels;
  Array<uint8_t> starts;
  MaskingSettings settings;
  Random random;
  if (!row.open(row_object, "row", true) || !starts.open(starts_object, "starts") ||
      !labels.open(labels_object, "labels", true) ||
      !settings.open(settings_object, strategy == kMac) || !open_random(capsule, &random))
    return nullptr;
  if (starts.size() != row.size() || labels.size() != row.size()) {
    PyErr_SetString(PyExc_ValueError, "mask: arrays of different lengths");
    return nullptr;
  }
  Words found;
  Predictions predictions;
  settings.mask(row.data(), starts.data(), row.size(), strategy, rate, random, 0, found,
                predictions);
  for (size_t i = 0; i < predictions.positions.size(); ++i)
    labels.data()[predictions.positions[i]] = predictions.labels[i];
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

// Two segments of a pair: where each begins and ends in its flags of word starts.
struct Pair {
  const uint8_t* starts[2];
  int64_t first[2];
  int64_t end[2];

  int64_t length() const { return end[0] - first[0] + end[1] - first[1]; }

  // row_plans.truncate_pair
  void truncate(int64_t max_pieces, Random& random) {
    while (length() > max_pieces) {
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
  }
};

// row_plans.truncate_pair
PyObject* truncate_pair(PyObject*, PyObject* args) {
  PyObject *a_object, *b_object, *capsule;
  long long max_pieces;
  if (!PyArg_ParseTuple(args, "OOLO", &a_object, &b_object, &max_pieces, &capsule)) return nullptr;
  Array<uint8_t> a, b;
  Random random;
  if (!a.open(a_object, "a") || !b.open(b_object, "b") || !open_random(capsule, &random))
    return nullptr;
  if (max_pieces < 0) {
    PyErr_SetString(PyExc_ValueError, "max_pieces: must be 0 at least");
    return nullptr;
  }
  Pair pair{{a.data(), b.data()}, {0, 0}, {a.size(), b.size()}};
  pair.truncate(max_pieces, random);
  return Py_BuildValue("(LLLL)", pair.first[0], pair.end[0], pair.first[1], pair.end[1]);
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

// What rows need of one shard; positions count from its first piece.
class Shard {
 public:
  int64_t base = 0;  // the position of its first piece among those of all shards

  bool open(PyObject* arrays) {
    long long first;
    PyObject *pieces, *bits, *documents;
    if (!PyArg_ParseTuple(arrays, "LOOO", &first, &pieces, &bits, &documents)) return false;
    base = first;
    wide_ = !narrow_pieces_.open(pieces, "pieces");
    if (wide_) {
      PyErr_Clear();
      if (!wide_pieces_.open(pieces, "pieces")) return false;
    }
    return bits_.open(bits, "bits") && documents_.open(documents, "documents");
  }

  int64_t size() const {
    return std::min(wide_ ? wide_pieces_.size() : narrow_pieces_.size(), 8 * bits_.size());
  }

  void copy(int64_t first, int64_t end, int64_t* pieces, uint8_t* starts) const {
    if (wide_)
      std::copy(wide_pieces_.data() + first, wide_pieces_.data() + end, pieces);
    else
      std::copy(narrow_pieces_.data() + first, narrow_pieces_.data() + end, pieces);
    copy_starts(first, end, starts);
  }

  void copy_starts(int64_t first, int64_t end, uint8_t* starts) const {
    const uint8_t* bits = bits_.data();
    for (int64_t i = first; i < end; ++i) *starts++ = bits[i >> 3] >> (i & 7) & 1;
  }

  // Find the documents that begin after `first` and before `end`; false: they do not increase.
  bool documents_within(int64_t first, int64_t end, const int64_t** begin,
                        const int64_t** stop) const {
    const int64_t* last = documents_.data() + documents_.size();
    *begin = std::upper_bound<const int64_t*>(documents_.data(), last, first);
    *stop = std::lower_bound(*begin, last, end);
    for (const int64_t* document = *begin; document < *stop; ++document) {
      if (*document <= first || *document >= end) return false;
      first = *document;
    }
    return true;
  }

 private:
  bool wide_ = false;
  Array<uint16_t> narrow_pieces_;
  Array<uint32_t> wide_pieces_;
  Array<uint8_t> bits_;
  Array<int64_t> documents_;
};

// One row of a batch, before it is masked.
struct Row {
  Philox random{0, 0};
  const Shard* shards[2];
  int64_t first[2];
  int64_t end[2];
  const int64_t* documents = nullptr;  // those that begin inside of A
  const int64_t* documents_end = nullptr;
  int64_t length = 0;
  int64_t dropped = 0;
};

// Call work(thread, first row, end) in threads; false: one of them failed.
template <typename Work>
bool in_threads(int64_t count, int threads, const Work& work) {
  std::vector<uint8_t> fine(static_cast<size_t>(threads), 0);
  const auto share = [&](int thread) {
    try {
      fine[thread] = work(thread, count * thread / threads, count * (thread + 1) / threads);
    } catch (const std::exception&) {  // there is no memory
    }
  };
  std::vector<std::thread> others;
  int started = 1;
  try {
    others.reserve(static_cast<size_t>(threads));
    for (; started < threads; ++started) others.emplace_back(share, started);
  } catch (const std::exception&) {  // the system gives no more: this one does their work
  }
  share(0);
  for (int thread = started; thread < threads; ++thread) share(thread);
  for (auto& other : others) other.join();
  return std::all_of(fine.begin(), fine.end(), [](uint8_t one) { return one != 0; });
}

// loader.PretrainingLoader._batch: rows are independent, so that threads share them out.
class Batch {
 public:
  std::vector<std::unique_ptr<Shard>> shards;
  Array<int64_t> plan;
  Array<uint64_t> keys;
  uint64_t first_key;
  long long max_pieces;  // of A and B together; negative: rows are no pairs
  int strategy;
  double char_share, rate;
  MaskingSettings settings;
  std::vector<Row> rows;
  std::vector<int64_t> begins;  // of the rows in the batch, and the end
  int64_t *input_ids, *token_type_ids, *position_ids;

  bool measure_all(int threads) {
    rows.resize(static_cast<size_t>(keys.size()));
    begins.assign(static_cast<size_t>(keys.size()) + 1, 0);
    const bool fine = in_threads(keys.size(), threads, [&](int, int64_t first, int64_t end) {
      std::vector<uint8_t> flags;
      for (int64_t i = first; i < end; ++i)
        if (!measure(i, flags)) return false;
      return true;
    });
    for (size_t i = 0; i < rows.size(); ++i) begins[i + 1] = begins[i] + rows[i].length;
    return fine;
  }

  bool fill_all(int threads, std::vector<Predictions>& predictions) {
    return in_threads(keys.size(), threads, [&](int thread, int64_t first, int64_t end) {
      std::vector<uint8_t> starts;
      Words words;
      for (int64_t i = first; i < end; ++i) fill(i, starts, words, predictions[thread]);
      return true;
    });
  }

 private:
  bool pairs() const { return max_pieces >= 0; }

  // Determine which pieces are in a row; false: the plan leads out of the shards.
  bool measure(int64_t number, std::vector<uint8_t>& flags) {
    Row& row = rows[number];
    const int64_t* planned = plan.data() + 5 * number;
    row.random = Philox(first_key, keys[number]);
    for (int part = 0; part < (pairs() ? 2 : 1); ++part)
      if (!place(planned[2 * part], planned[2 * part + 1], part, row)) return false;
    if (!pairs()) {
      const bool fine = row.shards[0]->documents_within(row.first[0], row.end[0], &row.documents,
                                                        &row.documents_end);
      row.length = row.end[0] - row.first[0] + (row.documents_end - row.documents) + 2;
      return fine;
    }
    const int64_t whole = planned[1] + planned[3];
    if (whole > max_pieces) truncate(row, flags);
    const int64_t kept = row.end[0] - row.first[0] + row.end[1] - row.first[1];
    row.dropped = whole - kept;
    row.length = kept + 3;
    return true;
  }

  // Build and mask a row.
  void fill(int64_t number, std::vector<uint8_t>& starts, Words& words, Predictions& predictions) {
    Row& row = rows[number];
    const int64_t base = begins[number];
    int64_t* ids = input_ids + base;
    starts.assign(static_cast<size_t>(row.length), 1);
    int64_t at = 0;
    ids[at++] = settings.special.cls;
    int64_t first = row.first[0];
    for (const int64_t* document = row.documents; document < row.documents_end; ++document) {
      at = append(row, 0, first, *document, at, ids, starts);
      first = *document;
    }
    at = append(row, 0, first, row.end[0], at, ids, starts);
    const int64_t first_length = at;
    if (pairs()) append(row, 1, row.first[1], row.end[1], at, ids, starts);
    for (int64_t i = 0; i < row.length; ++i) {
      token_type_ids[base + i] = i >= first_length;
      position_ids[base + i] = i;
    }
    BitGenerator generator = row.random.interface();
    Random random{&generator};
    const bool characters = char_share > 0 && random.uniform() < char_share;
    settings.mask(ids, starts.data(), row.length, characters ? int{kCharacters} : strategy, rate,
                  random, base, words, predictions);
  }

  bool place(int64_t start, int64_t length, int part, Row& row) const {
    auto after = std::upper_bound(
        shards.begin(), shards.end(), start,
        [](int64_t position, const std::unique_ptr<Shard>& shard) { return position < shard->base; });
    if (after == shards.begin() || length < 0) return false;
    row.shards[part] = (after - 1)->get();
    row.first[part] = start - row.shards[part]->base;
    if (row.first[part] > row.shards[part]->size() ||
        length > row.shards[part]->size() - row.first[part])
      return false;
    row.end[part] = row.first[part] + length;
    return true;
  }

  void truncate(Row& row, std::vector<uint8_t>& flags) const {
    const int64_t a_length = row.end[0] - row.first[0];
    const int64_t b_length = row.end[1] - row.first[1];
    flags.resize(static_cast<size_t>(a_length + b_length));
    uint8_t* starts[2] = {flags.data(), flags.data() + a_length};
    for (int part = 0; part < 2; ++part)
      row.shards[part]->copy_starts(row.first[part], row.end[part], starts[part]);
    Pair pair{{starts[0], starts[1]}, {0, 0}, {a_length, b_length}};
    BitGenerator generator = row.random.interface();
    Random random{&generator};
    pair.truncate(max_pieces, random);
    for (int part = 0; part < 2; ++part) {
      row.end[part] = row.first[part] + pair.end[part];
      row.first[part] += pair.first[part];
    }
  }

  // Write pieces and a [SEP]; return the position after it.
  int64_t append(const Row& row, int part, int64_t first, int64_t end, int64_t at, int64_t* ids,
                 std::vector<uint8_t>& starts) const {
    row.shards[part]->copy(first, end, ids + at, starts.data() + at);
    at += end - first;
    ids[at] = settings.special.sep;
    return at + 1;
  }
};

// An array of Python's, to be filled.
template <typename T>
class NewArray {
 public:
  explicit NewArray(int64_t size)
      : object_(PyByteArray_FromStringAndSize(nullptr, size * static_cast<int64_t>(sizeof(T)))) {}
  ~NewArray() { Py_XDECREF(object_); }
  NewArray(const NewArray&) = delete;
  NewArray& operator=(const NewArray&) = delete;
  T* data() const { return reinterpret_cast<T*>(PyByteArray_AsString(object_)); }
  PyObject* object() const { return object_; }

 private:
  PyObject* object_;
};

bool open_batch(PyObject* args, Batch* batch, int* threads) {
  PyObject *shards, *plan, *keys, *settings;
  unsigned long long first_key;
  if (!PyArg_ParseTuple(args, "O!OKOLiddOi", &PyTuple_Type, &shards, &plan, &first_key, &keys,
                        &batch->max_pieces, &batch->strategy, &batch->char_share, &batch->rate,
                        &settings, threads))
    return false;
  batch->first_key = first_key;
  if (!batch->plan.open(plan, "plan") || !batch->keys.open(keys, "keys") ||
      !batch->settings.open(settings, batch->strategy == kMac))
    return false;
  for (Py_ssize_t i = 0; i < PyTuple_Size(shards); ++i) {
    batch->shards.push_back(std::make_unique<Shard>());
    if (!batch->shards.back()->open(PyTuple_GetItem(shards, i))) return false;
  }
  if (batch->plan.size() == 5 * batch->keys.size() && *threads >= 1) return true;
  PyErr_SetString(PyExc_ValueError, "make_batch: as many keys as rows, and 1 thread at least");
  return false;
}

// loader.PretrainingLoader._batch
PyObject* make_batch(PyObject*, PyObject* args) {
  Batch batch;
  int threads;
  if (!open_batch(args, &batch, &threads)) return nullptr;
  const int64_t count = batch.keys.size();
  bool fine = false;
  Py_BEGIN_ALLOW_THREADS;
  fine = batch.measure_all(threads);
  Py_END_ALLOW_THREADS;
  if (!fine || batch.begins.back() > INT32_MAX) {
    PyErr_SetString(PyExc_ValueError, "plan: rows that are not within the shards");
    return nullptr;
  }
  const int64_t total = batch.begins.back();
  NewArray<int64_t> input_ids(total), token_type_ids(total), position_ids(total), followed(count);
  NewArray<int32_t> begins(count + 1);
  if (PyErr_Occurred()) return nullptr;
  batch.input_ids = input_ids.data();
  batch.token_type_ids = token_type_ids.data();
  batch.position_ids = position_ids.data();
  std::vector<Predictions> predictions(static_cast<size_t>(threads));
  Py_BEGIN_ALLOW_THREADS;
  fine = batch.fill_all(threads, predictions);
  Py_END_ALLOW_THREADS;
  if (!fine) return PyErr_NoMemory();
  std::copy(batch.begins.begin(), batch.begins.end(), begins.data());
  int64_t longest = 0, dropped = 0, predicted = 0;
  for (int64_t i = 0; i < count; ++i) {
    longest = std::max(longest, batch.rows[i].length);
    dropped += batch.rows[i].dropped;
    followed.data()[i] = batch.plan[5 * i + 4];
  }
  for (const auto& part : predictions) predicted += static_cast<int64_t>(part.labels.size());
  NewArray<int64_t> positions(predicted), labels(predicted);
  if (PyErr_Occurred()) return nullptr;
  int64_t done = 0;
  for (const auto& part : predictions) {
    std::copy(part.positions.begin(), part.positions.end(), positions.data() + done);
    std::copy(part.labels.begin(), part.labels.end(), labels.data() + done);
    done += static_cast<int64_t>(part.labels.size());
  }
  return Py_BuildValue("(OOOOOOOLL)", input_ids.object(), token_type_ids.object(),
                       position_ids.object(), begins.object(), positions.object(), labels.object(),
                       followed.object(), static_cast<long long>(longest),
                       static_cast<long long>(dropped));
}

PyMethodDef kMethods[] = {
    {"mask", mask, METH_VARARGS, "Mask one row in place."},
    {"make_batch", make_batch, METH_VARARGS, "Build and mask rows, as one batch's arrays."},
    {"plan_pairs", plan_pairs, METH_VARARGS, "Rows of sentence pairs, as int64 bytes."},
    {"truncate_pair", truncate_pair, METH_VARARGS, "Where a pair begins and ends when cut."},
    {"plan_packed", plan_packed, METH_VARARGS, "Rows of whole sentences, as int64 bytes."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_rows", nullptr, -1, kMethods,
                       nullptr,               nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__rows(void) { return PyModule_Create(&kModule); }
