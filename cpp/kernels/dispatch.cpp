// Which kernel table serves this machine.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/table.hpp"

namespace rnnbptt::kernels {

#if defined(__x86_64__)

namespace v2 {
extern const Table isa_table;
}
namespace v3 {
extern const Table isa_table;
}
namespace v4 {
extern const Table isa_table;
}

namespace {

// __builtin_cpu_supports asks the processor and, for the wide registers, whether the operating system saves
// them.
bool supports_v2() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"); }
bool supports_v3() {
  return supports_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool supports_v4() {
  return supports_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

struct Candidate {
  const Table* table;
  bool supported;
};

struct Candidates {
  Candidate entries[3];
  const char* names[4] = {};

  Candidates() {
    __builtin_cpu_init();
    entries[0] = {&v2::isa_table, supports_v2()};
    entries[1] = {&v3::isa_table, supports_v3()};
    entries[2] = {&v4::isa_table, supports_v4()};
    int n = 0;
    for (const Candidate& candidate : entries)
      if (candidate.supported) names[n++] = candidate.table->isa;
  }
};

#else

namespace baseline {
extern const Table isa_table;
}

namespace {

struct Candidate {
  const Table* table;
  bool supported;
};

struct Candidates {
  Candidate entries[1] = {{&baseline::isa_table, true}};
  const char* names[2] = {baseline::isa_table.isa, nullptr};
};

#endif

const Candidates& candidates() {
  static const Candidates instance;
  return instance;
}

const Table& choose() {
  const char* forced = std::getenv("RNNBPTT_ISA");
  const Table* best = nullptr;
  for (const Candidate& candidate : candidates().entries) {
    if (forced != nullptr && *forced != '\0') {
      if (std::strcmp(forced, candidate.table->isa) != 0) continue;
      if (!candidate.supported)
        throw std::runtime_error(std::string("RNNBPTT_ISA=") + forced + ": this machine does not support it");
      return *candidate.table;
    }
    if (candidate.supported) best = candidate.table;
  }
  if (forced != nullptr && *forced != '\0')
    throw std::runtime_error(std::string("RNNBPTT_ISA=") + forced +
                             " is not an instruction set of this build");
  if (best == nullptr) throw std::runtime_error("this processor lacks SSE4.2, which rnnbptt needs");
  return *best;
}

}  // namespace

const Table& table() {
  static const Table& instance = choose();
  return instance;
}

const char* const* supported_isas() { return candidates().names; }

}  // namespace rnnbptt::kernels
