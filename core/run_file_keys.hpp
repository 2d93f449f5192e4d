#pragma once

#include <covey/run_config.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace covey {

/// The two ends of a trait that is drawn per device; in a run file a number or [min, max].
struct TraitRange {
  double& min;
  double& max;
};

/// One key of a run file: where it stands, which member it sets and which values it takes. Reading,
/// checking, finding unknown keys and writing all come from this one table.
struct RunKey {
  using Text = std::string& (*)(RunConfig&);
  using Flag = bool& (*)(RunConfig&);
  using Count = std::uint32_t& (*)(RunConfig&);
  using Seed = std::uint64_t& (*)(RunConfig&);
  using Number = double& (*)(RunConfig&);
  using Range = TraitRange (*)(RunConfig&);
  using Layers = std::vector<LayerSpec>& (*)(RunConfig&);
  using Single = float& (*)(RunConfig&);
  /// "auto", a compressor's name, or a list of them by preference.
  using Compressors = std::vector<std::string>& (*)(RunConfig&);
  /// One of `choices`, kept as an enumeration whose values are 1, 2, ... in their order.
  struct Enumerated {
    std::uint8_t (*get)(const RunConfig&);
    void (*set)(RunConfig&, std::uint8_t);
  };

  std::string_view table;
  std::string_view name;
  std::variant<Text, Flag, Count, Seed, Number, Range, Layers, Single, Enumerated, Compressors> member;
  double low = 0;  ///< smallest value; of a text: its smallest length
  double high = std::numeric_limits<double>::max();
  bool low_excluded = false;
  bool high_excluded = false;
  std::vector<std::string_view> choices = {};  ///< of a text (empty: any) or enumeration
  /// Of a rate or size: what is smaller is refused, but for 0 where it says "no limit". 0: no such
  /// bound.
  double smallest_limit = 0;

  std::string path() const { return std::string(table) + "." + std::string(name); }
};

/// Every key, tables together and in the order in which they are written.
std::span<const RunKey> run_keys();
/// What a key needs of other keys to say anything ("client.optimizer = ..."); "" where it does. A
/// run file that gives such a key is refused, and none is written.
std::string_view unmet_need(const RunKey& key, const RunConfig& config);
/// Whether a configuration says of this key what an empty run file does.
bool has_default(const RunKey& key, const RunConfig& config);
const RunKey* find_run_key(std::string_view table, std::string_view name);
/// The keys of one kind of device, bound to RunConfig::fleet.traits: those of [fleet] itself, and
/// of every [[fleet.class]].
std::vector<RunKey> trait_keys(std::string_view table);

/// A sentence about one key, "table.key", and where there is none nothing is wrong.
struct KeyProblem {
  std::string key;
  std::string sentence;
};
/// How a secure sum's coordinates are encoded: as client.compressor says, else [secure-aggregation].
struct SumEncoding {
  std::uint32_t bits = 16;
  bool rotation = false;
  double subsample = 1;
  bool sets_bits = false;      ///< the compressor does: secure-aggregation.bits says nothing
  bool sets_rotation = false;  ///< likewise
};
SumEncoding sum_encoding_of(const RunConfig& config);
/// Of client.compressor: what does not go with client.precision, or with each other.
std::optional<KeyProblem> compressor_problem(const RunConfig& config);
/// Of what secure aggregation and differential privacy ask of each other and of the client's keys.
std::optional<KeyProblem> privacy_problem(const RunConfig& config);
/// Of selection.policy: figures that it has no way to know, or that contradict each other.
std::optional<KeyProblem> selection_problem(const RunConfig& config);

/// Of asynchronous aggregation: what needs a cohort.
std::optional<KeyProblem> asynchronous_problem(const RunConfig& config);

/// The known name nearest to `name` by edit distance; "" if none is near.
std::string nearest_name(std::string_view name, std::span<const std::string> known);

}  // namespace covey
