// One sweep of the collapsed Gibbs sampler of Griffiths and Steyvers (2004), eq. 5: every token's topic in turn, given
// the topics of all others,
//
//     p(z = k) ∝ (word's tokens of topic k + eta) (document's tokens of topic k + alpha) / (tokens of topic k + v eta),
//
// for all topics at once in vectors of WIDTH numbers. Rows of the tables have room for a multiple of WIDTH topics.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>
#ifdef __AVX__
#include <immintrin.h>
#endif

constexpr int WIDTH = 8;
constexpr int AHEAD = 4;  // entries whose rows are fetched before they are needed

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));

struct Corpus {
  int64_t documents, entries;
  const int64_t* starts;  // of each document's entries
  const int32_t* word;    // of each entry
  const int64_t* counts;  // tokens of each entry
  int32_t words;
};

struct Prior {
  float alpha, eta;
};

struct Chain {
  int32_t *topic, *of_document, *of_word;  // (token), (document, stride), (word, stride)
  std::vector<int32_t> total;              // tokens of each topic
  int topics, stride;
  uint64_t seed;
};

// Steele, Lea and Flood (2014), SplitMix64: numbers do not depend on the ones before, so none waits for another.
struct Random {
  uint64_t state;
  float uniform() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((z ^ (z >> 31)) >> 40) * 0x1p-24f;
  }
};

template <class Vector, class Number>
static inline Vector load(const Number* from) {
  Vector vector;
  memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Vector, class Number>
static inline void store(Number* to, Vector vector) {
  memcpy(to, &vector, sizeof vector);
}

static inline Floats as_floats(Ints x) { return __builtin_convertvector(x, Floats); }

static inline Ints lanes(int from) {
  Ints lane;
  for (int i = 0; i < WIDTH; ++i) lane[i] = from + i;
  return lane;
}

static inline Floats moved_up(Floats x, int by) {
#ifdef __clang__
  Floats out;
  for (int i = 0; i < WIDTH; ++i) out[i] = i < by ? 0 : x[i - by];
  return out;
#else
  return __builtin_shuffle(Floats{}, x, lanes(WIDTH - by));
#endif
}

// The running sum over all of the vectors, in their place; returns the total in every lane.
template <int BLOCKS>
static inline Floats running_sums(Floats (&x)[BLOCKS]) {
  for (int by = 1; by < WIDTH; by *= 2)  // in step, so that no vector waits for another
    for (int b = 0; b < BLOCKS; ++b) x[b] += moved_up(x[b], by);
  Floats total = {};
  for (int b = 0; b < BLOCKS; ++b) {
    const Floats here = Floats{} + x[b][WIDTH - 1];
    x[b] += total;
    total += here;
  }
  return total;
}

static inline int count_true(Ints mask) {
#ifdef __AVX__
  return __builtin_popcount(_mm256_movemask_ps((__m256) mask));
#else
  int found = 0;
  for (int i = 0; i < WIDTH; ++i) found -= mask[i];
  return found;
#endif
}

template <int BLOCKS>
static inline int count_up_to(const Floats (&x)[BLOCKS], float most) {
  int found = 0;
  for (int b = 0; b < BLOCKS; ++b) found += count_true(x[b] <= most);
  return found;
}

static inline void prefetch(const Corpus& corpus, const Chain& chain, int64_t entry) {
  const int64_t next = std::min(entry + AHEAD, corpus.entries - 1);
  __builtin_prefetch(chain.of_word + (int64_t) corpus.word[next] * chain.stride, 1);
}

static void count(const Corpus& corpus, Chain& chain) {
  memset(chain.of_document, 0, corpus.documents * chain.stride * sizeof(int32_t));
  memset(chain.of_word, 0, (int64_t) corpus.words * chain.stride * sizeof(int32_t));
  chain.total.assign(chain.stride, 0);
  const int32_t* topic = chain.topic;
  for (int64_t d = 0; d < corpus.documents; ++d)
    for (int64_t e = corpus.starts[d]; e < corpus.starts[d + 1]; ++e)
      for (const int32_t* end = topic + corpus.counts[e]; topic < end; ++topic) {
        ++chain.of_document[d * chain.stride + *topic];
        ++chain.of_word[(int64_t) corpus.word[e] * chain.stride + *topic];
        ++chain.total[*topic];
      }
}

// Few topics: all of a token's counts stay in registers, BLOCKS vectors of each.
template <int BLOCKS>
static void sweep_few(const Corpus& corpus, Chain& chain, Prior prior) {
  const float of_words = corpus.words * (double) prior.eta;
  Ints lane[BLOCKS], in_topic[BLOCKS], in_document[BLOCKS], in_word[BLOCKS];
  Floats alpha[BLOCKS], sum[BLOCKS];
  for (int b = 0; b < BLOCKS; ++b) {
    lane[b] = lanes(b * WIDTH);
    in_topic[b] = load<Ints>(chain.total.data() + b * WIDTH);
    for (int i = 0; i < WIDTH; ++i) alpha[b][i] = b * WIDTH + i < chain.topics ? prior.alpha : 0;
  }
  Random random{chain.seed};
  int32_t* topic = chain.topic;
  for (int64_t d = 0; d < corpus.documents; ++d) {
    int32_t* document = chain.of_document + d * chain.stride;
    for (int b = 0; b < BLOCKS; ++b) in_document[b] = load<Ints>(document + b * WIDTH);
    for (int64_t e = corpus.starts[d]; e < corpus.starts[d + 1]; ++e) {
      int32_t* word = chain.of_word + (int64_t) corpus.word[e] * chain.stride;
      prefetch(corpus, chain, e);
      for (int b = 0; b < BLOCKS; ++b) in_word[b] = load<Ints>(word + b * WIDTH);
      for (const int32_t* end = topic + corpus.counts[e]; topic < end; ++topic) {
        for (int b = 0; b < BLOCKS; ++b) {
          const Ints out = lane[b] == *topic;  // -1 where true
          in_document[b] += out;
          in_word[b] += out;
          in_topic[b] += out;
          sum[b] = (as_floats(in_word[b]) + prior.eta) * (as_floats(in_document[b]) + alpha[b]) /
                   (as_floats(in_topic[b]) + of_words);
        }
        const float at = random.uniform() * running_sums(sum)[0];
        const int drawn = *topic = std::min(count_up_to(sum, at), chain.topics - 1);
        for (int b = 0; b < BLOCKS; ++b) {
          const Ints in = lane[b] == drawn;
          in_document[b] -= in;
          in_word[b] -= in;
          in_topic[b] -= in;
        }
      }
      for (int b = 0; b < BLOCKS; ++b) store(word + b * WIDTH, in_word[b]);
    }
    for (int b = 0; b < BLOCKS; ++b) store(document + b * WIDTH, in_document[b]);
  }
}

// Many topics: sums run over the blocks of topics in each of their LANES, and independently, so that none waits for
// another. A lane is drawn by its sum, then a block within the lane.
static void sweep_many(const Corpus& corpus, Chain& chain, Prior prior) {
  constexpr int VECTORS = 4, LANES = VECTORS * WIDTH;
  const int padded = (chain.topics + LANES - 1) / LANES * LANES;
  const float of_words = corpus.words * (double) prior.eta;
  std::vector<float> inverse(padded), weight(padded), sums(padded);
  for (int k = 0; k < chain.topics; ++k) inverse[k] = 1 / (chain.total[k] + of_words);
  Random random{chain.seed};
  int32_t* topic = chain.topic;
  for (int64_t d = 0; d < corpus.documents; ++d) {
    int32_t* document = chain.of_document + d * chain.stride;
    for (int k = 0; k < chain.topics; ++k) weight[k] = (document[k] + prior.alpha) * inverse[k];
    for (int64_t e = corpus.starts[d]; e < corpus.starts[d + 1]; ++e) {
      int32_t* word = chain.of_word + (int64_t) corpus.word[e] * chain.stride;
      prefetch(corpus, chain, e);
      const auto move = [&](int k, int by) {
        word[k] += by;
        chain.total[k] += by;
        document[k] += by;
        inverse[k] = 1 / (chain.total[k] + of_words);
        weight[k] = (document[k] + prior.alpha) * inverse[k];
      };
      for (const int32_t* end = topic + corpus.counts[e]; topic < end; ++topic) {
        move(*topic, -1);
        Floats sum[VECTORS] = {};
        for (int block = 0; block < padded; block += LANES)
          for (int b = 0; b < VECTORS; ++b) {
            const int k = block + b * WIDTH;
            sum[b] += (as_floats(load<Ints>(word + k)) + prior.eta) * load<Floats>(&weight[k]);
            store(&sums[k], sum[b]);
          }
        float of_lane[LANES], up_to_lane[LANES];
        for (int b = 0; b < VECTORS; ++b) store(of_lane + b * WIDTH, sum[b]);
        const Floats all = running_sums(sum);
        for (int b = 0; b < VECTORS; ++b) store(up_to_lane + b * WIDTH, sum[b]);
        float at = random.uniform() * all[0];
        const int lane = std::min(count_up_to(sum, at), LANES - 1);
        at -= up_to_lane[lane] - of_lane[lane];
        int block = 0;
        for (int k = lane; k < padded - LANES; k += LANES) block += sums[k] <= at;
        *topic = std::min(block * LANES + lane, chain.topics - 1);
        move(*topic, 1);
      }
    }
  }
}

static void sweep(const Corpus& corpus, Chain chain, Prior prior) {
  count(corpus, chain);
  switch ((chain.topics + WIDTH - 1) / WIDTH) {
    case 1: return sweep_few<1>(corpus, chain, prior);
    case 2: return sweep_few<2>(corpus, chain, prior);
    case 3: return sweep_few<3>(corpus, chain, prior);
    case 4: return sweep_few<4>(corpus, chain, prior);
    case 5: return sweep_few<5>(corpus, chain, prior);
    case 6: return sweep_few<6>(corpus, chain, prior);
    case 7: return sweep_few<7>(corpus, chain, prior);
    case 8: return sweep_few<8>(corpus, chain, prior);
    default: return sweep_many(corpus, chain, prior);
  }
}

// Topics (chain, tokens) are replaced; the tables (chain, documents, stride) and (chain, words, stride) are written.
extern "C" void sweep_chains(const Corpus* corpus, int64_t tokens, int32_t* topic, int32_t* of_document,
                             int32_t* of_word, const uint64_t* seeds, int chains, int topics, int stride,
                             const Prior* prior, int threads) {
  std::atomic<int> next{0};
  const auto work = [&] {
    for (int64_t c; (c = next++) < chains;)
      sweep(*corpus,
            {topic + c * tokens, of_document + c * corpus->documents * stride, of_word + c * corpus->words * stride,
             {}, topics, stride, seeds[c]},
            *prior);
  };
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < std::min(threads, chains); ++i) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads are to be had: those there are do the work
  }
  work();
  for (auto& thread : others) thread.join();
}
