// WordPiece in one pass over a text's code points; wordpiece.py does the same in plain Python.
//
// Normalisation and cutting are one look-up for each character, in a table of actions that is made
// once per vocabulary. For a character that stands alone (Han, punctuation) the table has its
// piece's id; for a character of a word, its symbol in the alphabet of a trie of all other pieces.
// Only combining marks that are kept need more: a text with one of them is first brought into
// canonical order (`Core::reorder`).
//
// Python strings are read as UTF-32, a chunk at a time, so that the chunk stays in the cache; the
// GIL is released while ids are made.

#include <Python.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr uint32_t kCodePoints = 0x110000;
constexpr int kMaxWord = 100;            // characters; a longer word is one [UNK]
constexpr size_t kChunk = size_t{1} << 15;  // characters read before the GIL is released

// The kind of a code point, as normalize.py's rules() gives it.
enum Kind : uint8_t { kWord, kRemoved, kSpace, kAlone, kReorder, kAccent, kMulti, kHangul };

// What a character does: a piece's id (high bit 0), or a tag in the high four bits and a number.
using Action = uint32_t;
enum Tag : uint32_t {
  kTagWord = 8,      // a symbol of the trie
  kTagSkip = 9,      // is dropped and does not end a word
  kTagSpace = 10,    // ends a word
  kTagMulti = 11,    // several characters: an index into expansions
  kTagReorder = 12,  // a mark that is kept: a symbol of the trie, once the text is in order
  kTagTrigger = 13,  // may begin a special token: an index into triggers
};
constexpr Action action(Tag tag, uint32_t number = 0) { return (uint32_t{tag} << 28) | number; }
constexpr uint32_t number_of(Action a) { return a & 0x0fffffffu; }

constexpr uint32_t kHangulFirst = 0xAC00, kHangulCount = 11172;

// Decomposes a Hangul syllable by Unicode's arithmetic; returns the number of its jamo.
uint32_t decompose_hangul(uint32_t code, uint32_t jamo[3]) {
  const uint32_t index = code - kHangulFirst;
  jamo[0] = 0x1100 + index / 588;
  jamo[1] = 0x1161 + index / 28 % 21;
  jamo[2] = 0x11A7 + index % 28;
  return index % 28 ? 3 : 2;
}

// A table from code points (sorted) to strings of code points.
struct Strings {
  std::vector<uint32_t> keys, starts, values;

  // The place of `key`, or -1.
  ptrdiff_t find(uint32_t key) const {
    auto it = std::lower_bound(keys.begin(), keys.end(), key);
    return it != keys.end() && *it == key ? it - keys.begin() : -1;
  }
};

struct Special {
  std::vector<uint32_t> text;
  int32_t id;
};

struct Trigger {
  Action plain;                   // what the character does if no special token begins there
  std::vector<Special> specials;  // the longest first
};

// A double-array trie (https://doi.org/10.1109/32.31365): the child of node n by symbol s
// is node base[n] + s, if the parent of that node is n. It has two roots: one for pieces that begin
// a word, one for ## pieces.
struct Node {
  int32_t base = 0;
  int32_t parent = -1;
  int32_t id = -1;
};
constexpr int32_t kRoot = 0, kContinuationRoot = 1;

class Trie {
 public:
  void build(const std::vector<std::pair<std::vector<uint32_t>, int32_t>> roots[2],
             uint32_t num_symbols) {
    nodes_.assign(2, Node{});
    nodes_[0].parent = nodes_[1].parent = -2;
    first_free_ = 2;
    struct Range {
      const std::pair<std::vector<uint32_t>, int32_t>* begin;
      const std::pair<std::vector<uint32_t>, int32_t>* end;
      size_t depth;
      int32_t node;
    };
    std::vector<Range> queue;
    for (int r = 0; r < 2; ++r) {
      queue.push_back({roots[r].data(), roots[r].data() + roots[r].size(), 0, r});
    }
    // Breadth first, so that the upper levels, which every word visits, lie close together.
    for (size_t done = 0; done < queue.size(); ++done) {
      Range range = queue[done];
      auto it = range.begin;
      if (it != range.end && it->first.size() == range.depth) {
        if (range.depth) nodes_[range.node].id = it->second;
        ++it;
      }
      std::vector<uint32_t> symbols;
      std::vector<Range> children;
      while (it != range.end) {
        auto from = it;
        const uint32_t symbol = it->first[range.depth];
        while (it != range.end && it->first[range.depth] == symbol) ++it;
        symbols.push_back(symbol);
        children.push_back({from, it, range.depth + 1, 0});
      }
      if (symbols.empty()) continue;
      const int32_t base = place(symbols);
      nodes_[range.node].base = base;
      for (size_t c = 0; c < symbols.size(); ++c) {
        const int32_t child = base + static_cast<int32_t>(symbols[c]);
        nodes_[child].parent = range.node;
        children[c].node = child;
        queue.push_back(children[c]);
      }
    }
    // Room for a step by any symbol from any node.
    nodes_.resize(nodes_.size() + num_symbols + 1);
  }

  const Node* nodes() const { return nodes_.data(); }

 private:
  // The lowest base at which all children (symbols increase, none is 0) fall on free nodes.
  int32_t place(const std::vector<uint32_t>& symbols) {
    const size_t first = symbols.front(), last = symbols.back();
    while (first_free_ < nodes_.size() && nodes_[first_free_].parent != -1) ++first_free_;
    size_t tried = 0;
    for (size_t at = std::max(first_free_, first);; ++at) {
      const size_t base = at - first;
      if (nodes_.size() <= base + last) nodes_.resize(base + last + 1);
      bool free = true;
      for (uint32_t symbol : symbols) {
        if (nodes_[base + symbol].parent != -1) {
          free = false;
          break;
        }
      }
      if (free) return static_cast<int32_t>(base);
      // Where most nodes are taken, the search moves on: a few unused nodes cost less than time.
      if (++tried == 4096) first_free_ = std::max(first_free_, at - 1024);
    }
  }

  std::vector<Node> nodes_;
  size_t first_free_ = 2;
};

class Core {
 public:
  std::vector<Action> table;  // one action per code point
  std::vector<uint8_t> kinds;
  std::vector<std::pair<uint32_t, uint32_t>> expansions;  // where each begins and ends in expanded
  std::vector<Action> expanded;
  std::vector<Trigger> triggers;
  Strings decompositions;                      // canonical, without Hangul
  std::vector<uint32_t> marks, mark_orders;    // sorted marks and their canonical order
  Trie trie;
  int32_t unknown = 0;

  void build(const std::vector<std::vector<uint32_t>>& pieces, const Strings& changes,
             std::vector<Special> specials) {
    // Every character in a piece that can stand in a word gets a symbol; all others share symbol 0.
    std::unordered_map<uint32_t, uint32_t> counts;
    std::unordered_map<uint32_t, int32_t> alone;
    std::vector<std::pair<std::vector<uint32_t>, int32_t>> roots[2];
    for (size_t id = 0; id < pieces.size(); ++id) {
      const auto& piece = pieces[id];
      if (piece.size() == 1) alone[piece[0]] = static_cast<int32_t>(id);
      const bool continues = piece.size() > 2 && piece[0] == '#' && piece[1] == '#';
      const auto begin = piece.begin() + (continues ? 2 : 0);
      // No text leads to a piece with a character that never stands in a word.
      const bool reachable = begin != piece.end() && std::all_of(begin, piece.end(), [&](uint32_t c) {
        return kinds[c] == kWord || kinds[c] == kReorder;
      });
      if (!reachable) continue;
      roots[continues].emplace_back(std::vector<uint32_t>(begin, piece.end()),
                                    static_cast<int32_t>(id));
      for (auto it = begin; it != piece.end(); ++it) ++counts[*it];
    }
    // Frequent characters get low numbers: their nodes then lie together.
    std::vector<std::pair<uint32_t, uint32_t>> by_count(counts.begin(), counts.end());
    std::sort(by_count.begin(), by_count.end(), [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    std::unordered_map<uint32_t, uint32_t> symbols;
    for (const auto& [code, count] : by_count) {
      symbols.emplace(code, static_cast<uint32_t>(symbols.size() + 1));
    }
    for (auto& root : roots) {
      for (auto& entry : root) {
        for (uint32_t& c : entry.first) c = symbols[c];
      }
      std::sort(root.begin(), root.end());
    }
    trie.build(roots, static_cast<uint32_t>(symbols.size()));

    const Action defaults[] = {action(kTagWord),  action(kTagSkip), action(kTagSpace),
                               static_cast<Action>(unknown),
                               action(kTagReorder), action(kTagSkip), action(kTagSkip),
                               action(kTagSkip)};
    table.resize(kCodePoints);
    for (uint32_t c = 0; c < kCodePoints; ++c) table[c] = defaults[kinds[c]];
    for (const auto& [code, id] : alone) {
      if (kinds[code] == kAlone) table[code] = static_cast<Action>(id);
    }
    for (const auto& [code, symbol] : symbols) {
      table[code] = action(kinds[code] == kReorder ? kTagReorder : kTagWord, symbol);
    }
    for (size_t k = 0; k < changes.keys.size(); ++k) {
      const uint32_t code = changes.keys[k];
      const uint32_t* target = &changes.values[changes.starts[k]];
      if (kinds[code] == kAlone) {
        auto it = alone.find(*target);
        table[code] = static_cast<Action>(it == alone.end() ? unknown : it->second);
      } else if (kinds[code] == kWord) {
        auto it = symbols.find(*target);
        table[code] = action(kTagWord, it == symbols.end() ? 0 : it->second);
      }
    }
    // Now that all single characters have their actions, those that become several of them.
    for (size_t k = 0; k < changes.keys.size(); ++k) {
      const uint32_t code = changes.keys[k];
      if (kinds[code] != kMulti) continue;
      expand(code, &changes.values[changes.starts[k]], changes.starts[k + 1] - changes.starts[k]);
    }
    for (uint32_t code = kHangulFirst; code < kHangulFirst + kHangulCount; ++code) {
      uint32_t jamo[3];
      if (kinds[code] == kHangul) expand(code, jamo, decompose_hangul(code, jamo));
    }
    for (Special& special : specials) {
      const uint32_t code = special.text[0];
      if (table[code] >> 28 != kTagTrigger) {
        triggers.push_back({table[code], {}});
        table[code] = action(kTagTrigger, static_cast<uint32_t>(triggers.size() - 1));
      }
      triggers[number_of(table[code])].specials.push_back(std::move(special));
    }
    for (Trigger& trigger : triggers) {
      std::sort(trigger.specials.begin(), trigger.specials.end(),
                [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
    }
  }

  // Make `code` act as several characters.
  void expand(uint32_t code, const uint32_t* target, uint32_t count) {
    const auto begin = static_cast<uint32_t>(expanded.size());
    for (uint32_t k = 0; k < count; ++k) expanded.push_back(table[target[k]]);
    table[code] = action(kTagMulti, static_cast<uint32_t>(expansions.size()));
    expansions.emplace_back(begin, begin + count);
  }

  // The longest special token at text[i], or null.
  const Special* match(const Trigger& trigger, const uint32_t* text, size_t n, size_t i) const {
    for (const Special& special : trigger.specials) {
      if (special.text.size() <= n - i &&
          std::equal(special.text.begin(), special.text.end(), text + i)) {
        return &special;
      }
    }
    return nullptr;
  }

  uint32_t order_of(uint32_t code) const {
    auto it = std::lower_bound(marks.begin(), marks.end(), code);
    return it != marks.end() && *it == code ? mark_orders[it - marks.begin()] : 0;
  }

  // Decompose text[0:n] in full, sort marks into canonical order, drop accents. `origins` gets the
  // place of each remaining character in the text, as _strip_accents of normalize.py assigns it.
  void reorder(const uint32_t* text, size_t n, std::vector<uint32_t>& characters,
               std::vector<int32_t>& origins) const {
    struct Part {
      uint32_t order, code;
      bool first;
    };
    std::vector<Part> parts;
    std::vector<int32_t> places;  // of the characters that cleaning keeps
    size_t sorted = 0;
    const auto by_order = [](const Part& a, const Part& b) { return a.order < b.order; };
    const auto add = [&](uint32_t code, bool first) {
      const uint32_t order = order_of(code);
      if (order == 0) {
        std::stable_sort(parts.begin() + sorted, parts.end(), by_order);
        sorted = parts.size() + 1;
      }
      parts.push_back({order, code, first});
    };
    for (size_t i = 0; i < n; ++i) {
      const uint32_t code = text[i];
      if (kinds[code] == kRemoved) continue;
      places.push_back(static_cast<int32_t>(i));
      const ptrdiff_t found = kinds[code] == kSpace || kinds[code] == kAlone
                                  ? -1
                                  : decompositions.find(code);
      if (kinds[code] == kHangul) {
        uint32_t jamo[3];
        const uint32_t count = decompose_hangul(code, jamo);
        for (uint32_t k = 0; k < count; ++k) add(jamo[k], k == 0);
      } else if (found >= 0) {
        for (uint32_t v = decompositions.starts[found]; v < decompositions.starts[found + 1]; ++v) {
          add(decompositions.values[v], v == decompositions.starts[found]);
        }
      } else {
        add(code, true);
      }
    }
    if (sorted < parts.size()) std::stable_sort(parts.begin() + sorted, parts.end(), by_order);
    characters.clear();
    origins.clear();
    ptrdiff_t place = -1;
    for (const Part& part : parts) {
      place += part.first;
      if (kinds[part.code] == kAccent) continue;
      characters.push_back(part.code);
      origins.push_back(places[place]);
    }
  }
};

// Memory that can grow while the GIL is released, and become a buffer of Python.
template <typename T>
class Growing {
 public:
  ~Growing() { std::free(data_); }
  Growing() = default;
  Growing(const Growing&) = delete;
  Growing& operator=(const Growing&) = delete;

  void reserve(size_t capacity) {
    if (capacity <= capacity_) return;
    if (capacity_) capacity = std::max(capacity, capacity_ + capacity_ / 2);
    if (capacity > PTRDIFF_MAX / sizeof(T)) throw std::bad_alloc();
    void* data = std::realloc(data_, std::max<size_t>(1, capacity) * sizeof(T));
    if (!data) throw std::bad_alloc();
    data_ = static_cast<T*>(data);
    capacity_ = capacity;
  }
  T* data() { return data_; }
  T* release() { return std::exchange(data_, nullptr); }

 private:
  T* data_ = nullptr;
  size_t capacity_ = 0;
};

constexpr int kHistogram = 7;

enum Mode { kIds, kOffsets, kWords };

struct Output {
  Growing<int32_t> ids;
  Growing<int32_t> offsets;      // kOffsets: start and end of each piece
  Growing<uint8_t> word_starts;  // kWords
  size_t size = 0;
  int64_t words = 0, widened = 0, unknown = 0;
  int64_t histogram[kHistogram] = {};

  template <Mode mode>
  void reserve(size_t capacity) {
    ids.reserve(capacity);
    if (mode == kOffsets) offsets.reserve(2 * capacity);
    if (mode == kWords) word_starts.reserve(capacity);
  }
};

template <Mode mode>
class Encoder {
 public:
  Encoder(const Core& core, Output& out, bool specials)
      : core_(core), out_(out), specials_(specials) {}

  // Encode one text; `ends` are the increasing ends of its words (kWords only).
  void encode(const uint32_t* text, size_t n, const int32_t* ends, size_t num_ends) {
    end_ = ends;
    last_end_ = ends + num_ends;
    word_pieces_ = 0;
    cut_ = false;
    begin(text, n, nullptr);
    const size_t size = out_.size;
    const size_t unread = run<false>();
    if (unread != kDone) {
      out_.size = size;
      end_ = ends;
      word_pieces_ = 0;
      cut_ = false;
      words_ = widened_ = unknown_ = 0;
      std::memset(histogram_, 0, sizeof histogram_);
      encode_in_order(text, n);
    }
    if (mode == kWords) {
      close_word();
      out_.words += std::exchange(words_, 0);
      out_.widened += std::exchange(widened_, 0);
      out_.unknown += std::exchange(unknown_, 0);
      for (int k = 0; k < kHistogram; ++k) out_.histogram[k] += std::exchange(histogram_[k], 0);
    }
  }

 private:
  static constexpr size_t kDone = SIZE_MAX;

  void begin(const uint32_t* text, size_t n, const int32_t* origins) {
    text_ = text;
    n_ = n;
    origins_ = origins;
    // A character makes at most one piece, except those that become several: see expand().
    room_ = out_.size + n;
    out_.template reserve<mode>(room_);
    ids_ = out_.ids.data();
    if (mode == kOffsets) offsets_ = out_.offsets.data();
    if (mode == kWords) word_starts_ = out_.word_starts.data();
  }

  // Encode a text with marks that are kept: each part between special tokens in canonical order.
  void encode_in_order(const uint32_t* text, size_t n) {
    size_t from = 0;
    for (size_t i = 0; specials_ && i < n;) {
      const Action a = core_.table[text[i]];
      const Special* special =
          a >> 28 == kTagTrigger ? core_.match(core_.triggers[number_of(a)], text, n, i) : nullptr;
      if (!special) {
        ++i;
        continue;
      }
      encode_part(text, from, i);
      begin(text, special->text.size(), nullptr);
      shift_ = 0;
      emit<false>(special->id, i, i + special->text.size());
      from = i += special->text.size();
    }
    encode_part(text, from, n);
  }

  void encode_part(const uint32_t* text, size_t from, size_t to) {
    std::vector<uint32_t> characters;
    std::vector<int32_t> origins;
    core_.reorder(text + from, to - from, characters, origins);
    begin(characters.data(), characters.size(), origins.data());
    shift_ = from;
    run<true>();
    shift_ = 0;
  }

  // Encode text_. in_order: it was brought into canonical order, and origins_ are the places of its
  // characters. Returns kDone, or kReorderNeeded at a mark that is kept.
  template <bool in_order>
  size_t run() {
    const Action* table = core_.table.data();
    const uint32_t* text = text_;
    const size_t n = n_;
    size_t i = 0;
    while (i < n) {
      Action a = table[text[i]];
      if (static_cast<int32_t>(a) >= 0) {
        i = emit_alone<in_order>(i);
        continue;
      }
      if (a >> 28 == kTagTrigger) {
        const Trigger& trigger = core_.triggers[number_of(a)];
        if (!in_order && specials_) {
          if (const Special* special = core_.match(trigger, text, n, i)) {
            emit<false>(special->id, i, i + special->text.size());
            i += special->text.size();
            continue;
          }
        }
        a = trigger.plain;
        if (static_cast<int32_t>(a) >= 0) {
          emit<in_order>(static_cast<int32_t>(a), i, i + 1);
          ++i;
          continue;
        }
      }
      if (a >> 28 == kTagSkip || a >> 28 == kTagSpace) {
        ++i;
        continue;
      }
      i = word<in_order>(i);
      if (i == kReorderNeeded) return i;
    }
    return kDone;
  }

  // Emit the characters from text[i] on that stand alone, at least one; returns where they end.
  // Local variables, since members would be written to memory for every character.
  template <bool in_order>
  size_t emit_alone(size_t i) {
    if (in_order || mode == kWords) {
      emit<in_order>(static_cast<int32_t>(core_.table[text_[i]]), i, i + 1);
      return i + 1;
    }
    const Action* table = core_.table.data();
    const uint32_t* text = text_;
    const size_t n = n_;
    int32_t* id = ids_ + out_.size;
    int32_t* offset = mode == kOffsets ? offsets_ + 2 * out_.size : nullptr;
    Action a = table[text[i]];
    do {
      *id++ = static_cast<int32_t>(a);
      if (mode == kOffsets) {
        *offset++ = static_cast<int32_t>(i);
        *offset++ = static_cast<int32_t>(i + 1);
      }
      if (++i == n) break;
      a = table[text[i]];
    } while (static_cast<int32_t>(a) >= 0);
    out_.size = static_cast<size_t>(id - ids_);
    return i;
  }

  static constexpr size_t kReorderNeeded = SIZE_MAX - 1;

  // Encode the word that begins at text[i]; returns where it ends.
  template <bool in_order>
  size_t word(size_t i) {
    const Action* table = core_.table.data();
    const uint32_t* text = text_;
    const size_t n = n_;
    length_ = 0;
    // A tight loop for plain characters, which most words consist of.
    Action first = table[text[i]];
    if (first >> 28 == kTagWord) {
      size_t length = 0;
      do {
        symbols_[length] = number_of(first);
        positions_[length++] = static_cast<uint32_t>(i++);
        if (i == n || length == kMaxWord) break;
        first = table[text[i]];
      } while (first >> 28 == kTagWord);
      length_ = length;
      last_ = i - 1;
    }
    while (i < n) {
      Action a = table[text[i]];
      if (a >> 28 == kTagTrigger) {
        const Trigger& trigger = core_.triggers[number_of(a)];
        if (!in_order && specials_ && core_.match(trigger, text, n, i)) break;
        a = trigger.plain;
      }
      const uint32_t tag = a >> 28;
      if (tag == kTagWord || (in_order && tag == kTagReorder)) {
        push(number_of(a), i);
      } else if (tag == kTagMulti) {
        expand<in_order>(a, i);
      } else if (tag == kTagReorder) {
        return kReorderNeeded;
      } else if (tag != kTagSkip) {
        break;
      }
      ++i;
    }
    flush<in_order>();
    return i;
  }

  void push(uint32_t symbol, size_t i) {
    if (length_ < kMaxWord) {
      symbols_[length_] = symbol;
      positions_[length_] = static_cast<uint32_t>(i);
    }
    last_ = i;
    ++length_;
  }

  template <bool in_order>
  void expand(Action a, size_t i) {
    const auto [from, to] = core_.expansions[number_of(a)];
    room_ += to - from - 1;
    out_.template reserve<mode>(room_);
    ids_ = out_.ids.data();
    if (mode == kOffsets) offsets_ = out_.offsets.data();
    if (mode == kWords) word_starts_ = out_.word_starts.data();
    for (uint32_t e = from; e < to; ++e) {
      Action part = core_.expanded[e];
      if (part >> 28 == kTagWord || part >> 28 == kTagReorder) {
        push(number_of(part), i);
      } else {
        flush<in_order>();
        if (static_cast<int32_t>(part) >= 0) emit<in_order>(static_cast<int32_t>(part), i, i + 1);
      }
    }
  }

  // Cut the word that was pushed into pieces by greedy longest match, and emit them.
  template <bool in_order>
  void flush() {
    const size_t length = std::exchange(length_, 0);
    if (length == 0) return;
    size_t num_pieces = 0;
    if (length <= kMaxWord) {
      const Node* nodes = core_.trie.nodes();
      int32_t root = kRoot;
      for (size_t start = 0; start < length;) {
        int32_t node = root, best = -1;
        size_t best_end = start;
        for (size_t k = start; k < length; ++k) {
          const int32_t child = nodes[node].base + static_cast<int32_t>(symbols_[k]);
          if (nodes[child].parent != node) break;
          node = child;
          if (nodes[node].id >= 0) {
            best = nodes[node].id;
            best_end = k + 1;
          }
        }
        if (best < 0) {
          num_pieces = 0;
          break;
        }
        piece_ids_[num_pieces] = best;
        piece_ends_[num_pieces++] = static_cast<uint8_t>(best_end);
        start = best_end;
        root = kContinuationRoot;
      }
    }
    if (num_pieces == 0) {
      emit<in_order>(core_.unknown, positions_[0], last_ + 1);
      return;
    }
    size_t start = 0;
    for (size_t p = 0; p < num_pieces; ++p) {
      emit<in_order>(piece_ids_[p], positions_[start], positions_[piece_ends_[p] - 1] + 1);
      start = piece_ends_[p];
    }
  }

  template <bool in_order>
  void emit(int32_t id, size_t start, size_t end) {
    if (in_order) {
      start = shift_ + static_cast<size_t>(origins_[start]);
      end = shift_ + static_cast<size_t>(origins_[end - 1]) + 1;
    }
    ids_[out_.size] = id;
    if (mode == kOffsets) {
      offsets_[2 * out_.size] = static_cast<int32_t>(start);
      offsets_[2 * out_.size + 1] = static_cast<int32_t>(end);
    }
    if (mode == kWords) {
      // *end_ is the first word end after the start of the previous piece.
      const auto here = static_cast<int32_t>(start);
      const bool starts = word_pieces_ == 0 || (end_ < last_end_ && *end_ <= here);
      if (starts) close_word();
      ++word_pieces_;
      while (end_ < last_end_ && *end_ <= here) ++end_;
      cut_ |= end_ < last_end_ && *end_ < static_cast<int32_t>(end);
      unknown_ += id == core_.unknown;
      word_starts_[out_.size] = starts;
    }
    ++out_.size;
  }

  void close_word() {
    if (word_pieces_ == 0) return;
    ++words_;
    ++histogram_[std::min<int64_t>(word_pieces_, kHistogram) - 1];
    widened_ += cut_;
    word_pieces_ = 0;
    cut_ = false;
  }

  const Core& core_;
  Output& out_;
  const bool specials_;
  const uint32_t* text_ = nullptr;
  const int32_t* origins_ = nullptr;
  size_t n_ = 0, room_ = 0, shift_ = 0;
  int32_t* ids_ = nullptr;
  int32_t* offsets_ = nullptr;
  uint8_t* word_starts_ = nullptr;

  // The word that is being read, and its pieces.
  size_t length_ = 0, last_ = 0;
  uint32_t symbols_[kMaxWord];
  uint32_t positions_[kMaxWord];
  int32_t piece_ids_[kMaxWord];
  uint8_t piece_ends_[kMaxWord];

  // kWords: the segmenter's word that is being filled with pieces, and the counts of this text.
  const int32_t* end_ = nullptr;
  const int32_t* last_end_ = nullptr;
  int64_t word_pieces_ = 0;
  bool cut_ = false;
  int64_t words_ = 0, widened_ = 0, unknown_ = 0;
  int64_t histogram_[kHistogram] = {};
};

// ---- Python ----

// A block of memory that supports the buffer protocol, so that numpy need not copy it.
struct Memory {
  PyObject_HEAD
  void* data;
  Py_ssize_t size;  // bytes
};

PyObject* memory_type = nullptr;

int memory_buffer(PyObject* self, Py_buffer* view, int flags) {
  auto* memory = reinterpret_cast<Memory*>(self);
  return PyBuffer_FillInfo(view, self, memory->data, memory->size, 0, flags);
}

void memory_free(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  std::free(reinterpret_cast<Memory*>(self)->data);
  PyObject_Free(self);
  Py_DECREF(type);
}

PyType_Slot memory_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(memory_free)},
    {Py_bf_getbuffer, reinterpret_cast<void*>(memory_buffer)},
    {0, nullptr},
};
PyType_Spec memory_spec = {"zhbert.text._wordpiece.Memory", sizeof(Memory), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, memory_slots};

template <typename T>
PyObject* give(Growing<T>& growing, size_t count) {
  // Return the memory that was reserved and not used.
  const size_t bytes = std::max<size_t>(1, count * sizeof(T));
  void* data = std::realloc(growing.release(), bytes);
  if (!data) return PyErr_NoMemory();
  auto* memory = PyObject_New(Memory, reinterpret_cast<PyTypeObject*>(memory_type));
  if (!memory) {
    std::free(data);
    return nullptr;
  }
  memory->data = data;
  memory->size = static_cast<Py_ssize_t>(count * sizeof(T));
  return reinterpret_cast<PyObject*>(memory);
}

struct Failed {};  // thrown when a Python error is set

class View {
 public:
  explicit View(PyObject* object, Py_ssize_t itemsize = 0) {
    if (PyObject_GetBuffer(object, &view_, PyBUF_ND | PyBUF_C_CONTIGUOUS) < 0) throw Failed();
    if (itemsize && view_.itemsize != itemsize) {
      PyBuffer_Release(&view_);
      PyErr_Format(PyExc_TypeError, "an array of %zd-byte numbers is expected", itemsize);
      throw Failed();
    }
  }
  ~View() { PyBuffer_Release(&view_); }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  template <typename T>
  std::vector<T> copy() const {
    const T* data = static_cast<const T*>(view_.buf);
    return std::vector<T>(data, data + view_.len / static_cast<Py_ssize_t>(sizeof(T)));
  }
  const Py_buffer& get() const { return view_; }

 private:
  Py_buffer view_;
};

size_t length_of(PyObject* text) {
  if (!PyUnicode_Check(text)) {
    PyErr_SetString(PyExc_TypeError, "texts must be strings");
    throw Failed();
  }
  const Py_ssize_t length = PyUnicode_GetLength(text);
  if (length < 0) throw Failed();
  if (length >= INT32_MAX / 4) {
    PyErr_SetString(PyExc_OverflowError, "a text of over 500 million characters; split it");
    throw Failed();
  }
  return static_cast<size_t>(length);
}

std::vector<uint32_t> characters_of(PyObject* text) {
  std::vector<uint32_t> characters(length_of(text));
  if (!characters.empty() &&
      !PyUnicode_AsUCS4(text, reinterpret_cast<Py_UCS4*>(characters.data()),
                        static_cast<Py_ssize_t>(characters.size()), 0)) {
    throw Failed();
  }
  return characters;
}

constexpr const char* kCapsule = "zhbert.text._wordpiece.Core";

void free_core(PyObject* capsule) {
  delete static_cast<Core*>(PyCapsule_GetPointer(capsule, kCapsule));
}

const Core& core_of(PyObject* capsule) {
  auto* core = static_cast<Core*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (!core) throw Failed();
  return *core;
}

// Turn C++ exceptions into Python's.
template <typename Function>
PyObject* guarded(Function&& function) {
  try {
    return function();
  } catch (const Failed&) {
    return nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

Strings read_strings(PyObject* keys, PyObject* starts, PyObject* values) {
  return {View(keys, 4).copy<uint32_t>(), View(starts, 4).copy<uint32_t>(),
          View(values, 4).copy<uint32_t>()};
}

PyObject* build(PyObject*, PyObject* arguments) {
  PyObject *pieces, *specials, *kinds, *changes[3], *decompositions[3], *marks, *orders;
  int unknown;
  if (!PyArg_ParseTuple(arguments, "O!iO!O(OOO)(OOO)(OO)", &PyList_Type, &pieces, &unknown,
                        &PyList_Type, &specials, &kinds, &changes[0], &changes[1], &changes[2],
                        &decompositions[0], &decompositions[1], &decompositions[2], &marks,
                        &orders)) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    auto core = std::make_unique<Core>();
    core->unknown = unknown;
    core->kinds = View(kinds, 1).copy<uint8_t>();
    core->decompositions = read_strings(decompositions[0], decompositions[1], decompositions[2]);
    core->marks = View(marks, 4).copy<uint32_t>();
    core->mark_orders = View(orders, 4).copy<uint32_t>();
    if (core->kinds.size() != kCodePoints || core->marks.size() != core->mark_orders.size()) {
      throw std::runtime_error("tables of the wrong size");
    }
    std::vector<std::vector<uint32_t>> texts;
    for (Py_ssize_t k = 0; k < PyList_Size(pieces); ++k) {
      texts.push_back(characters_of(PyList_GetItem(pieces, k)));
    }
    std::vector<Special> found;
    for (Py_ssize_t k = 0; k < PyList_Size(specials); ++k) {
      PyObject* text;
      int id;
      if (!PyArg_ParseTuple(PyList_GetItem(specials, k), "Ui", &text, &id)) throw Failed();
      found.push_back({characters_of(text), id});
      if (found.back().text.empty()) throw std::runtime_error("an empty special token");
    }
    core->build(texts, read_strings(changes[0], changes[1], changes[2]), std::move(found));
    PyObject* capsule = PyCapsule_New(core.get(), kCapsule, free_core);
    if (capsule) core.release();
    return capsule;
  });
}

// Check a text's word ends and append them to `all`.
void read_ends(PyObject* array, size_t length, std::vector<int32_t>& all) {
  View view(array);
  const size_t from = all.size();
  if (view.get().itemsize == 4) {
    const auto* data = static_cast<const int32_t*>(view.get().buf);
    all.insert(all.end(), data, data + view.get().len / 4);
  } else if (view.get().itemsize == 8) {
    const auto* data = static_cast<const int64_t*>(view.get().buf);
    for (Py_ssize_t k = 0; k < view.get().len / 8; ++k) {
      all.push_back(data[k] < 0 || data[k] > INT32_MAX ? -1 : static_cast<int32_t>(data[k]));
    }
  } else {
    PyErr_SetString(PyExc_TypeError, "word ends must be arrays of int32");
    throw Failed();
  }
  int32_t previous = 0;
  for (size_t k = from; k < all.size(); ++k) {
    if (all[k] < previous) throw std::invalid_argument("word ends must increase");
    previous = all[k];
  }
  if (static_cast<size_t>(previous) != length) {
    throw std::invalid_argument("the last word must end where its text ends");
  }
}

template <Mode mode>
void encode_texts(const Core& core, PyObject* texts, PyObject* word_ends, bool specials,
                  Output& out, Growing<int64_t>& starts) {
  const Py_ssize_t num_texts = PyList_Size(texts);
  size_t total = 0;
  for (Py_ssize_t t = 0; t < num_texts; ++t) total += length_of(PyList_GetItem(texts, t));
  out.reserve<mode>(total);
  starts.reserve(static_cast<size_t>(num_texts) + 1);
  starts.data()[0] = 0;
  Encoder<mode> encoder(core, out, specials);
  Growing<uint32_t> characters;
  std::vector<int32_t> ends;
  std::vector<size_t> lengths, num_ends;
  for (Py_ssize_t t = 0; t < num_texts;) {
    const Py_ssize_t from = t;
    size_t size = 0;
    lengths.clear();
    num_ends.clear();
    ends.clear();
    while (t < num_texts && (t == from || size < kChunk)) {
      PyObject* text = PyList_GetItem(texts, t);
      const size_t length = length_of(text);
      characters.reserve(size + length + 1);
      if (length && !PyUnicode_AsUCS4(text, reinterpret_cast<Py_UCS4*>(characters.data() + size),
                                      static_cast<Py_ssize_t>(length), 0)) {
        throw Failed();
      }
      if (mode == kWords) {
        const size_t before = ends.size();
        read_ends(PyList_GetItem(word_ends, t), length, ends);
        num_ends.push_back(ends.size() - before);
      }
      lengths.push_back(length);
      size += length;
      ++t;
    }
    // No exception may leave this block: the GIL has to be taken again first.
    bool no_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
      const uint32_t* text = characters.data();
      const int32_t* end = ends.data();
      for (size_t k = 0; k < lengths.size(); ++k) {
        const size_t count = mode == kWords ? num_ends[k] : 0;
        encoder.encode(text, lengths[k], end, count);
        text += lengths[k];
        end += count;
        starts.data()[static_cast<size_t>(from) + k + 1] = static_cast<int64_t>(out.size);
      }
    } catch (const std::bad_alloc&) {
      no_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (no_memory) throw std::bad_alloc();
    if (PyErr_CheckSignals() < 0) throw Failed();
  }
}

PyObject* encode(PyObject*, PyObject* arguments) {
  PyObject *capsule, *texts;
  int specials, offsets;
  if (!PyArg_ParseTuple(arguments, "OO!pp", &capsule, &PyList_Type, &texts, &specials, &offsets)) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    const Core& core = core_of(capsule);
    const Py_ssize_t num_texts = PyList_Size(texts);
    Output out;
    Growing<int64_t> starts;
    if (offsets) {
      encode_texts<kOffsets>(core, texts, nullptr, specials, out, starts);
    } else {
      encode_texts<kIds>(core, texts, nullptr, specials, out, starts);
    }
    PyObject* result[3] = {give(out.ids, out.size), give(starts, static_cast<size_t>(num_texts) + 1),
                           offsets ? give(out.offsets, 2 * out.size) : Py_NewRef(Py_None)};
    if (!result[0] || !result[1] || !result[2]) {
      for (PyObject* object : result) Py_XDECREF(object);
      return nullptr;
    }
    return Py_BuildValue("NNN", result[0], result[1], result[2]);
  });
}

PyObject* give_words(Output& out, Growing<int64_t>& starts, size_t num_texts) {
  PyObject* result[3] = {give(out.ids, out.size), give(out.word_starts, out.size),
                         give(starts, num_texts + 1)};
  if (!result[0] || !result[1] || !result[2]) {
    for (PyObject* object : result) Py_XDECREF(object);
    return nullptr;
  }
  const int64_t* h = out.histogram;
  return Py_BuildValue("NNNLLL(LLLLLLL)", result[0], result[1], result[2],
                       static_cast<long long>(out.words), static_cast<long long>(out.widened),
                       static_cast<long long>(out.unknown), static_cast<long long>(h[0]),
                       static_cast<long long>(h[1]), static_cast<long long>(h[2]),
                       static_cast<long long>(h[3]), static_cast<long long>(h[4]),
                       static_cast<long long>(h[5]), static_cast<long long>(h[6]));
}

PyObject* encode_words(PyObject*, PyObject* arguments) {
  PyObject *capsule, *texts, *word_ends;
  if (!PyArg_ParseTuple(arguments, "OO!O!", &capsule, &PyList_Type, &texts, &PyList_Type,
                        &word_ends)) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    const Core& core = core_of(capsule);
    const Py_ssize_t num_texts = PyList_Size(texts);
    if (PyList_Size(word_ends) != num_texts) {
      PyErr_SetString(PyExc_ValueError, "as many arrays of word ends as texts are expected");
      return nullptr;
    }
    Output out;
    Growing<int64_t> starts;
    try {
      encode_texts<kWords>(core, texts, word_ends, false, out, starts);
    } catch (const std::invalid_argument& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
      return nullptr;
    }
    return give_words(out, starts, static_cast<size_t>(num_texts));
  });
}

// encode_words of texts that stand in one array one after another, without an object for each.
PyObject* encode_run(PyObject*, PyObject* arguments) {
  PyObject *capsule, *codes_object, *texts_object, *words_object;
  if (!PyArg_ParseTuple(arguments, "OOOO", &capsule, &codes_object, &texts_object, &words_object)) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    const Core& core = core_of(capsule);
    const View codes(codes_object, 4), texts(texts_object, 4), words(words_object, 4);
    const auto* code = static_cast<const uint32_t*>(codes.get().buf);
    const auto* text_end = static_cast<const int32_t*>(texts.get().buf);
    const auto* word_end = static_cast<const int32_t*>(words.get().buf);
    const auto* last_word = word_end + words.get().len / 4;
    const auto num_texts = static_cast<size_t>(texts.get().len / 4);
    const auto size = static_cast<size_t>(codes.get().len / 4);
    int32_t previous = 0;
    for (size_t t = 0; t < num_texts; ++t) {
      if (text_end[t] < previous || static_cast<size_t>(text_end[t]) > size) {
        PyErr_SetString(PyExc_ValueError, "the texts' ends must increase, within the characters");
        return nullptr;
      }
      previous = text_end[t];
    }
    // Beyond it the table of actions ends.
    if (std::any_of(code, code + size, [](uint32_t c) { return c >= kCodePoints; })) {
      PyErr_SetString(PyExc_ValueError, "a number over 0x10FFFF is no code point");
      return nullptr;
    }
    Output out;
    Growing<int64_t> starts;
    out.reserve<kWords>(size);
    starts.reserve(num_texts + 1);
    starts.data()[0] = 0;
    bool no_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
      Encoder<kWords> encoder(core, out, false);
      std::vector<int32_t> ends;
      int32_t begin = 0;
      for (size_t t = 0; t < num_texts; ++t) {
        const int32_t end = text_end[t];
        ends.clear();
        while (word_end < last_word && *word_end <= begin) ++word_end;
        for (; word_end < last_word && *word_end < end; ++word_end) {
          ends.push_back(*word_end - begin);
        }
        ends.push_back(end - begin);
        encoder.encode(code + begin, static_cast<size_t>(end - begin), ends.data(), ends.size());
        starts.data()[t + 1] = static_cast<int64_t>(out.size);
        begin = end;
      }
    } catch (const std::bad_alloc&) {
      no_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (no_memory) throw std::bad_alloc();
    return give_words(out, starts, num_texts);
  });
}

// [array[starts[0]:starts[1]], ...], in half the time of a loop in Python.
PyObject* slices(PyObject*, PyObject* arguments) {
  PyObject *array, *starts;
  if (!PyArg_ParseTuple(arguments, "OO", &array, &starts)) return nullptr;
  return guarded([&]() -> PyObject* {
    View view(starts);
    const auto* place = static_cast<const int64_t*>(view.get().buf);
    const Py_ssize_t count = view.get().len / 8 - 1;
    PyObject* list = PyList_New(std::max<Py_ssize_t>(0, count));
    if (!list) return nullptr;
    for (Py_ssize_t t = 0; t < count; ++t) {
      PyObject* slice = PySequence_GetSlice(array, static_cast<Py_ssize_t>(place[t]),
                                            static_cast<Py_ssize_t>(place[t + 1]));
      if (!slice || PyList_SetItem(list, t, slice) < 0) {
        Py_DECREF(list);
        return nullptr;
      }
    }
    return list;
  });
}

PyMethodDef methods[] = {
    {"build", build, METH_VARARGS, "The tables of one vocabulary."},
    {"encode", encode, METH_VARARGS, "Texts to ids, starts of texts, and offsets or None."},
    {"encode_words", encode_words, METH_VARARGS,
     "Texts and word ends to ids, word starts, starts of texts, and counts."},
    {"encode_run", encode_run, METH_VARARGS,
     "encode_words over texts that stand one after another in one array of characters."},
    {"slices", slices, METH_VARARGS, "An array cut at the given places."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "zhbert.text._wordpiece", "Word pieces, natively.", -1, methods,
    nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__wordpiece() {
  PyObject* module = PyModule_Create(&module_definition);
  if (!module) return nullptr;
  memory_type = PyType_FromSpec(&memory_spec);
  if (!memory_type) {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
